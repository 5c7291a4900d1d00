"""What a labeler answered about a task, as tools for labeling export it, as a public row."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from instructgpt.data.columns import ASKING, TURNS, Columns
from instructgpt.data.conversation import Wanted
from instructgpt.data.errors import bad
from instructgpt.data.row_format import KnownFormat, Made, Without

PROMPTS = ("prompt", "instruction", "question", "query", *TURNS)
"""What the field of the prompt is called."""

TIES = {"tie", "equal", "both", "same", "draw", "neither"}
_RESPONSE = re.compile(
    r"respon|answer|complet|output|reply|candidate|option|text|summary|generat|^left$|^right$|^.$"
)
"""What the names of fields that hold responses have in them."""

SIDES = ("left", "right")


class LabelingTool(KnownFormat):
    """A format in which one item has the answers of several labelers."""

    def rows(self, row: Columns, wanted: Wanted) -> Made | Without:
        """Those that can be used; one for the prompt, which is the same for all labelers."""
        made = self.convert(row)
        if not isinstance(made, list):  # one row of a public format
            return made
        if wanted == "prompt":
            return made[:1] or Without("without an answer")
        compared = wanted in ("comparison", "candidates", "responses")
        fit = [row for row in made if not compared or "responses" in row]
        reason = "without a comparison" if compared and made else "without an answer"
        return fit or Without(reason)


class Pick(str):
    """An answer that was picked from a list: it may name a response, and is none itself."""


def shown(where: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the prompt, which is the first, and of the responses.

    Args:
        where: file and line.
        fields: of a task.
    """
    key = next((key for key in PROMPTS if fields.get(key)), None)
    if key is None:
        raise bad(
            where, "data", f"must have a field of the prompt ({', '.join(PROMPTS)})", sorted(fields)
        )
    responses = {name: one for name, one in fields.items() if _texts({name: one}) and name != key}
    return {key: fields[key], **responses}


def labeled_row(
    where: str, fields: Mapping[str, Any], answers: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The row that one labeler's answers make of a task; None where they judge and write nothing.

    Args:
        where: file and line.
        fields: of the task: a prompt, and responses called by their fields; others go with the
            row, and are treated as any column.
        answers: question -> the choice of a response, a ranking of them, a rating of one, a text.
    """
    (key, prompt), *responses = shown(where, fields).items()
    rest = {name: value for name, value in fields.items() if name not in (key, *dict(responses))}
    asked = {**rest, "messages" if isinstance(prompt, list) else "prompt": prompt}
    texts = _texts(dict(responses))
    others: dict[str, Any] = {}
    ratings: dict[str, float] = {}
    found: dict[str, Any] = {}
    for question, answer in answers.items():
        ranks = _ranks(list(texts), answer)
        rated = _rated(list(texts), question, answer)
        if ranks and not found:
            found = {"responses": [texts[name] for name in ranks], "ranking": list(ranks.values())}
        elif rated:
            ratings[rated] = answer
        elif _is_text(answer) and not texts and not found:
            found = {"response": answer}
        else:
            others[question] = answer
    if not found and len(texts) > 1 and ratings.keys() == texts.keys():
        found = {
            "responses": list(texts.values()),
            "ratings": [ratings[name] for name in texts],
        }
    elif ratings:
        others["ratings_of"] = ratings
    if not found:
        return None
    return {**asked, **found, **({"answers": others} if others else {})}


def _texts(fields: Mapping[str, Any]) -> dict[str, str]:
    """Responses by their names: texts, or lists of items with an id."""
    texts: dict[str, str] = {}
    for name, value in fields.items():
        if name.strip().lower() in ASKING:  # "context" has a text in its name
            continue
        if isinstance(value, str) and _RESPONSE.search(name.lower()):
            texts[name] = value
        elif isinstance(value, list):
            for item in value:
                said = item.get("body") or item.get("text") if isinstance(item, dict) else None
                if isinstance(said, str) and isinstance(item.get("id"), str):
                    texts[item["id"]] = said
    return texts


def _ranks(names: list[str], answer: Any) -> dict[str, int]:
    """Name of a response -> rank, where an answer says which is better; else nothing."""
    by_word = {_word(name): name for name in names}
    if isinstance(answer, str) and len(names) > 1:
        word = _word(answer)
        side = by_word.get(word)
        if side is None and word in SIDES and len(names) == 2:
            side = names[SIDES.index(word)]
        if side:
            return {name: 1 if name == side else 2 for name in names}
        return dict.fromkeys(names, 1) if word in TIES else {}
    if not isinstance(answer, list) or len(answer) < 2:
        return {}
    ranks = {}
    for place, one in enumerate(answer, 1):
        said = one.get("value") if isinstance(one, dict) else one
        rank = one.get("rank", place) if isinstance(one, dict) else place
        name = by_word.get(_word(said)) if isinstance(said, str) else None
        if name is None or not isinstance(rank, int):
            return {}
        ranks[name] = rank
    return ranks


def _is_text(answer: Any) -> bool:
    """Whether an answer can be a response that was written."""
    written = isinstance(answer, str) and not isinstance(answer, Pick)
    return written and bool(answer.strip()) and answer not in SIDES


def _rated(names: list[str], question: str, answer: Any) -> str:
    """The response that a number rates, whose name is in that of the question."""
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        return ""
    word = _word(question)
    return next((name for name in sorted(names, key=len, reverse=True) if _word(name) in word), "")


def _word(text: str) -> str:
    """A name without what tools write differently: response-1, response_1."""
    return re.sub(r"[^a-z0-9]", "", text.lower())
