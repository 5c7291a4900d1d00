"""Questions with an answer, or with two of which one is better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instructgpt.data.checks import first_of, read_json
from instructgpt.data.columns import HEADS, Columns, is_empty
from instructgpt.data.errors import bad
from instructgpt.data.numbers import number_of
from instructgpt.data.row_format import KnownFormat, Made, PairFormat

SEVERAL = "with several answers, of which the first is taken"
CHOICES = ("choices", "options")


class QuestionAnswer(KnownFormat):
    """Rows ``{"question", "answer"}``; ``answers`` or ``response`` will do; maybe ``context``.

    Answers are kept as metadata, too, so that reward functions of prompts know them.
    """

    name, title = "question_answer", "question and answer"
    needs = ("question",)

    def recognises(self, row: Mapping[str, Any]) -> str:
        """By an answer, and no other prompt."""
        key = _answer(row)
        return f"question, {key}" if key and _is_prompt(row) else ""

    def convert(self, row: Columns) -> Made:
        """A demonstration."""
        for name in CHOICES:
            if row.first(name):
                rule = "changes what is asked, which rows of this format (question and answer)"
                raise bad(row.where, name, f"{rule} cannot use: remove the column", row.row[name])
        prompt = row.text("question", "prompt")
        if row.first("context"):
            prompt = f"{prompt}\n\n{row.text('context', 'prompt')}"
        key = _answer(row) or "answer"
        answers = row.take(key, "response")
        if isinstance(answers, dict):
            answers = answers.get("text")
        if key == "answers" and isinstance(answers, list) and answers:
            row.notes += [SEVERAL] if len(set(map(str, answers))) > 1 else []
            answers = answers[0]
        kept = {} if key == "response" else {key: row.row.get(key)}
        return {"prompt": prompt, "response": answers, **kept}


def _answer(row: Mapping[str, Any]) -> str:
    """The column of the answer, if there is one."""
    return next((k for k in ("answer", "answers", "response") if not is_empty(row.get(k))), "")


def _is_prompt(row: Mapping[str, Any]) -> bool:
    """Whether the question is the prompt: there is no other."""
    return isinstance(row["question"], str) and all(is_empty(row.get(key)) for key in HEADS)


class QuestionPairs(KnownFormat):
    """Rows ``{"question", "chosen", "rejected"}``, as in orca pairs, maybe with ``system``."""

    name, title = "question_pairs", "question pairs"
    needs = ("question", "chosen", "rejected")

    def recognises(self, row: Mapping[str, Any]) -> str:
        """By having no other prompt."""
        return ", ".join(self.needs) if _is_prompt(row) else ""

    def convert(self, row: Columns) -> Made:
        """A pair."""
        return {
            "prompt": row.text("question", "prompt"),
            "chosen": row.take("chosen", "response"),
            "rejected": row.take("rejected", "response"),
        }


class StackExchange(KnownFormat):
    """Rows ``{"question", "answers": [{"text", "pm_score"}]}``."""

    name, title = "stack_exchange", "Stack Exchange"
    needs = ("question", "answers")

    def recognises(self, row: Mapping[str, Any]) -> str:
        """By answers with a score."""
        first = first_of(row["answers"])
        scored = "text" in first and "pm_score" in first
        return "question, answers[].text, answers[].pm_score" if scored else ""

    def convert(self, row: Columns) -> Made:
        """A comparison; a demonstration where there is one answer."""
        prompt, answers = row.text("question", "prompt"), row.objects("answers", "responses")
        texts = [one.text("text", "response") for one in answers]
        ratings = [number_of(one, "pm_score", "ranking") for one in answers]
        if len(texts) == 1:
            return {"prompt": prompt, "response": texts[0]}
        return {"prompt": prompt, "responses": texts, "ratings": ratings}


class StackExchangePaired(PairFormat):
    """Rows ``{"question", "response_j", "response_k"}``, of which j is better."""

    name, title = "stack_exchange_paired", "Stack Exchange, paired"
    needs = ("question", "response_j", "response_k")

    def judged(self, row: Columns) -> dict[str, Any]:
        """By the order."""
        return {"ranking": [1, 2]}


class WebGPT(PairFormat):
    """Rows ``{"question": {"full_text"}, "answer_0", "answer_1", "score_0", "score_1"}``.

    Quotes are kept as metadata.
    """

    name, title = "webgpt", "WebGPT comparisons"
    needs = ("question", "answer_0", "answer_1", "score_0", "score_1")

    def asked(self, row: Columns) -> dict[str, Any]:
        """The question, or its text where it says more."""
        if not isinstance(read_json(row.row["question"]), dict):
            return super().asked(row)
        return {"prompt": row.object("question", "prompt").text("full_text", "prompt")}

    def judged(self, row: Columns) -> dict[str, Any]:
        """By the scores, a tie where they are equal."""
        return {"ratings": [number_of(row, f"score_{i}", "ranking") for i in (0, 1)]}
