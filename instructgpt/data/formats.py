"""Rows of the formats people have, mapped to ours and checked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from os.path import basename
from typing import Any, NamedTuple

from instructgpt.data.checks import MissingColumnError, missing, name_of, object_of, text_of
from instructgpt.data.columns import UNUSED, Columns
from instructgpt.data.conversation import BEST, TIED, Conversation, Wanted, read_conversation
from instructgpt.data.files import stem_of
from instructgpt.data.opening import Item
from instructgpt.data.reading import RECOGNISE, Reading, Renamed
from instructgpt.data.recognise import nearest, recognise
from instructgpt.data.row_format import KnownFormat, RowFormat, Without, convert
from instructgpt.types import Prompt, UserError


class Told(NamedTuple):
    """What the summary says of a row."""

    columns: dict[str, str]  # what each column is used as
    notes: Sequence[str] = ()  # what happened to it, to be counted
    left_out: str = ""  # why it is not used, if so


NOTHING = Told({})


class Row(NamedTuple):
    """A prompt with its responses: none for prompts, one for demonstrations, K for comparisons."""

    where: str
    prompt: Prompt
    responses: list[str]
    ranking: list[int]  # one for each response; empty unless a comparison
    user: str
    labeler: str
    source: str
    told: Told = NOTHING

    @property
    def key(self) -> str:
        """The prompt's name for splits: its words, whatever the white space."""
        turns = self.prompt.messages
        return "\n".join(f"{turn['role']}: {' '.join(turn['content'].split())}" for turn in turns)


class Document(NamedTuple):
    """A piece of plain text."""

    where: str
    text: str
    told: Told = NOTHING

    @property
    def key(self) -> str:
        """The text's name for splits."""
        return self.text


class Parsed(NamedTuple):
    """A checked row and the name of the format it had."""

    row: Any
    format: str


ASKED = tuple(f"used as {use}" for use in ("prompt", "conversation", "labeler", "source", "user"))
"""How begins what known formats use of a row for a prompt."""

NO_PROMPT = Prompt("", [], "", {})
"""Of rows that are left out."""

UNDESIRED = "marked as undesired, so nothing to imitate"


def parse_item(item: Item, wanted: Wanted, reading: Reading = RECOGNISE) -> list[Parsed]:
    """Check what was read, in whichever format it is; most formats make one row of it.

    Args:
        item: as read, of plain values.
        wanted: what the rows are for. ``text``: pieces of text; ``prompt``: prompts, whatever else
            there is; ``demonstration``: one response each, the best of a comparison;
            ``comparison``: ranked responses; ``candidates``: these, or one response that was judged
            alone, as in KTO; ``responses``: a comparison whose ranking may be missing, for a reward
            model is going to score it.
        reading: the format and the columns, where the user says them.
    """
    read = object_of(item)
    renamed = reading.rename(item.where, read)
    row = renamed.row
    form, reason = reading.form, "--data.format"
    if form is None and wanted != "text" and (found := recognise(row)):
        form, reason = found
    try:
        if isinstance(form, RowFormat):
            parsed = _convert(item, row, form, reason, wanted)
        else:
            parsed = [_parse(item, row, wanted, form)]
    except MissingColumnError as error:
        shown = form.shown if isinstance(form, RowFormat) else form
        made = f" for a row of {shown}" if shown else nearest(row)
        raise missing(item.where, read, error.key, error.why, made + reading.told) from error
    except UserError as error:
        if not reading.told:
            raise
        raise UserError(f"{error}{reading.told}") from error
    return [_named(one, renamed) for one in parsed] if renamed.names else parsed


def _convert(
    item: Item, row: dict[str, Any], form: RowFormat, reason: str, wanted: Wanted
) -> list[Parsed]:
    """Rows that a format makes of one, checked."""
    columns = Columns(item.where, row)
    if isinstance(form, KnownFormat):
        for key in form.needs:
            if key not in row:
                raise missing(item.where, row, key)
    made = convert(form, columns, wanted)
    if isinstance(made, Without):
        told = Told(dict.fromkeys(row, UNUSED) | columns.uses, columns.notes, made.reason)
        return [Parsed(Row(item.where, NO_PROMPT, [], [], "", "", "", told), form.shown)]
    parsed = []
    for one in made:
        try:
            checked = _parse(item, one, wanted, None)
        except UserError as error:
            if isinstance(form, KnownFormat) and isinstance(error, MissingColumnError):
                raise  # the keys are not those of the file
            raise UserError(f"{error} (in the row that {form.shown} returned)") from error
        told = checked.row.told
        own, notes = columns.uses, columns.notes
        if wanted == "prompt" and isinstance(form, KnownFormat):
            own, notes = _of_prompt(own, told.columns), []
        others = {key: told.columns.get(key, UNUSED) for key in row if key not in own}
        told = told._replace(columns=own | others, notes=[*notes, *told.notes])
        name = f"{type(form).__name__}, {checked.format}"
        if isinstance(form, KnownFormat):
            name = f"{form.title} ({reason})"
        parsed.append(Parsed(checked.row._replace(told=told), name))
    return parsed


def _of_prompt(uses: dict[str, str], told: dict[str, str]) -> dict[str, str]:
    """What columns are used as where a prompt is wanted: nothing that is about responses.

    Args:
        uses: of the columns, by the format.
        told: of the columns that its row has kept.
    """
    return {
        key: use.replace(" and responses", "") if use.startswith(ASKED) else told.get(key, UNUSED)
        for key, use in uses.items()
    }


def _named(parsed: Parsed, renamed: Renamed) -> Parsed:
    """A row whose columns are told by their names in the file."""
    told = parsed.row.told
    told = told._replace(columns=renamed.told(told.columns))
    return parsed._replace(row=parsed.row._replace(told=told))


def _parse(item: Item, row: dict[str, Any], wanted: Wanted, asked: str | None) -> Parsed:
    """Check a row of a public format, of the one asked for if any is."""
    parsed, name = _document(item, row) if wanted == "text" else _conversation(item, row, wanted)
    if asked not in (None, name):
        rule = f"must be a row of the format {asked} (--data.format)"
        raise UserError(f"{item.where}: {rule}, got one of {name}, with the keys {sorted(row)}")
    return parsed


def _document(item: Item, row: dict[str, Any]) -> tuple[Parsed, str]:
    text = text_of(item.where, row, "text")
    columns = dict.fromkeys(row, UNUSED) | {"text": "used as text"}
    return Parsed(Document(item.where, text, Told(columns)), "text"), "text"


def _conversation(item: Item, row: dict[str, Any], wanted: Wanted) -> tuple[Parsed, str]:
    columns = Columns(item.where, row)
    found = read_conversation(columns, wanted)
    responses, ranking = found.responses, found.ranking
    if wanted == "prompt":
        responses, ranking = [], []
    elif wanted == "demonstration" and len(responses) > 1:
        columns.notes.append(BEST if len(set(ranking)) > 1 else TIED)
        responses, ranking = [responses[ranking.index(min(ranking))]], []
    asked = [found.text, *(turn["content"] for turn in found.turns)]
    meta = columns.finish(found.format, asked, found.responses, found.judged)
    kept = found.desired or wanted == "candidates"
    told = Told(columns.uses, columns.notes, "" if kept else UNDESIRED)
    checked = _row(item, row, found, meta)._replace(responses=responses, ranking=ranking, told=told)
    return Parsed(checked, found.format), found.name


def _row(item: Item, row: dict[str, Any], found: Conversation, meta: dict[str, Any]) -> Row:
    user, labeler, source = (name_of(row.get(key)) for key in ("user", "labeler", "source"))
    name = name_of(row.get("id")) or basename(item.where)
    prompt = Prompt(found.text, found.turns, name, meta)
    return Row(item.where, prompt, [], [], user, labeler, source or _stem(item.origin))


@lru_cache(256)
def _stem(origin: str) -> str:
    return stem_of(basename(origin))
