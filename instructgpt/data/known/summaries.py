"""Summaries of posts: the comparisons of summarize-from-feedback, and TL;DR."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instructgpt.data.checks import read_json
from instructgpt.data.columns import Columns
from instructgpt.data.numbers import whole_of
from instructgpt.data.row_format import KnownFormat, Made

SUMMARY = "TL;DR:"


class SummarizeFromFeedback(KnownFormat):
    """Rows ``{"info": {"post", …}, "summaries": [{"text"}, {"text"}], "choice": 0 or 1}``."""

    name, title = "summarize_from_feedback", "summarize-from-feedback"
    needs = ("info", "summaries", "choice")

    def convert(self, row: Columns) -> Made:
        """A comparison of two summaries, by the worker."""
        summaries = row.objects("summaries", "responses")
        best = whole_of(row, "choice", "ranking", 0, len(summaries) - 1)
        return {
            **asked(row),
            "responses": [one.text("text", "response") for one in summaries],
            "ranking": [1 if place == best else 2 for place in range(len(summaries))],
        }


class SummaryAxes(KnownFormat):
    """Rows ``{"info": {"post", …}, "summary": {"text", "axes"}}``: only the prompt serves.

    The summary is of any quality, and rated alone, so it is nothing to imitate or to compare.
    """

    name, title = "summarize_from_feedback_axes", "summarize-from-feedback, axes"
    needs = ("info", "summary")

    def recognises(self, row: Mapping[str, Any]) -> str:
        """By a summary with axes."""
        summary, info = (read_json(row[key]) for key in ("summary", "info"))
        rated = isinstance(summary, dict) and "axes" in summary and isinstance(info, dict)
        return "info, summary.axes" if rated else ""

    def convert(self, row: Columns) -> Made:
        """A prompt."""
        return asked(row)


def asked(row: Columns) -> dict[str, Any]:
    """The prompt of a post or an article, as the paper writes it (2009.01325), and who judged."""
    info = row.object("info", "prompt")
    parts = []
    if "subreddit" in info:
        parts.append(f"SUBREDDIT: r/{info.text('subreddit', 'prompt')}")
    if "title" in info:
        parts.append(f"TITLE: {info.text('title', 'prompt')}")
    article = info.first("article") and not info.first("post")
    post = info.text("article" if article else "post", "prompt")
    parts += [post if article else f"POST: {post}", SUMMARY]
    labeler = {"labeler": row.take("worker", "labeler")} if "worker" in row else {}
    return {"prompt": "\n\n".join(parts), **labeler}


class TLDR(KnownFormat):
    """Rows ``{"prompt", "label"}`` in which the label is the summary."""

    name, title = "tldr", "TL;DR"
    needs = ("prompt", "label")

    def recognises(self, row: Mapping[str, Any]) -> str:
        """By a prompt that ends with "TL;DR:"."""
        prompt, label = row["prompt"], row["label"]
        texts = isinstance(prompt, str) and isinstance(label, str)
        ends = texts and prompt.rstrip().endswith(SUMMARY)
        return f'prompt that ends with "{SUMMARY}", label' if ends else ""

    def convert(self, row: Columns) -> Made:
        """A demonstration."""
        return {"prompt": row.text("prompt", "prompt"), "response": row.text("label", "response")}
