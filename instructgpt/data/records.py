"""From items to stored records: a function of the items, so that any process can do it."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from transformers import PreTrainedTokenizerBase

from instructgpt.data.arrow_arrays import lists, numbers, texts
from instructgpt.data.conversation import Wanted
from instructgpt.data.digest import code_digest, digest_of
from instructgpt.data.encode import Encoded, Encoder
from instructgpt.data.errors import SKIP
from instructgpt.data.formats import Document, Row
from instructgpt.data.opening import Item
from instructgpt.data.order import text_hash
from instructgpt.data.reading import RECOGNISE, Reading
from instructgpt.data.row_format import RowFormat
from instructgpt.data.sections import sections
from instructgpt.data.sources import OnError, checked
from instructgpt.data.store import schema_of, token_type
from instructgpt.data.summary import Summary
from instructgpt.models.template import Template
from instructgpt.models.tokenizer import id_count, tokenizer_fingerprint
from instructgpt.models.words import encode_texts
from instructgpt.types import Prompt, UserError

if TYPE_CHECKING:  # takes a while to load
    import pyarrow


T = TypeVar("T", Row, Document)

Keep = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Says of rows, by the columns ``party`` and ``key``, which of them are kept."""


class Part(NamedTuple):
    """Records of some items."""

    message: bytes  # a record batch as it stands in an Arrow stream
    rows: int
    summary: dict[str, Any]  # in types of JSON


@dataclass(frozen=True)
class Recipe:
    """All that records depend on but the items themselves.

    Args:
        wanted: what rows are read for.
        on_error: "stop" at the first bad row, or "skip" and count it.
        reading: format and columns, where the user says them.
        tokenizer: of prompts, responses and text; None keeps text as its bytes.
        template: of prompts; None for text.
        max_prompt_tokens: limit of prompts.
        max_response_tokens: limit of responses.
        drop_long_prompts: drop instead of cutting.
    """

    wanted: Wanted
    on_error: OnError
    reading: Reading = RECOGNISE
    tokenizer: PreTrainedTokenizerBase | None = None
    template: Template | None = None
    max_prompt_tokens: int = 0
    max_response_tokens: int = 0
    drop_long_prompts: bool = False

    def facts(self) -> dict[str, Any] | None:
        """What names the records, in types of JSON; None where nobody can tell."""
        facts: dict[str, Any] = {
            "wanted": self.wanted,
            "on_error": self.on_error,
            "code": code_digest(),
        }
        form = self.reading.format
        facts["columns"] = dict(self.reading.columns or {})
        if isinstance(form, RowFormat):
            try:
                code = inspect.getsource(inspect.getmodule(form) or type(form))
                options = json.dumps(vars(form), sort_keys=True)
            except (OSError, TypeError, ValueError):  # typed in, or with objects inside
                return None
            name = f"{type(form).__module__}.{type(form).__qualname__}"
            facts["format"] = [name, options, digest_of(code)]
        elif form is not None:
            facts["format"] = str(form)
        if self.tokenizer is not None:
            facts["tokenizer"] = tokenizer_fingerprint(self.tokenizer)
        if self.template is not None and self.tokenizer is not None:
            template = self.template
            facts["template"] = [template.name, template.fingerprint(self.tokenizer)]
            facts["limits"] = [self.max_prompt_tokens, self.drop_long_prompts]
            if self.wanted != "prompt":
                facts["limits"].append(self.max_response_tokens)
        return facts

    @cached_property
    def token(self) -> type[np.unsignedinteger[Any]]:
        """What a token is stored as."""
        return np.uint8 if self.tokenizer is None else token_type(id_count(self.tokenizer))

    @property
    def schema(self) -> pyarrow.Schema:
        """Columns of the records."""
        return schema_of(self.wanted == "text", np.dtype(self.token))

    def record(self, items: Sequence[Item], keep: Keep | None = None) -> Part:
        """Check, normalise and tokenise items.

        Args:
            items: as read, in the order of their files.
            keep: chooses the rows; others are counted, and not tokenised.

        Raises:
            UserError: the first bad row, unless such rows are skipped.
        """
        import pyarrow as pa

        summary, rows, problem = Summary(), list[Any](), None
        try:
            for row in checked(items, self.wanted, self.on_error, summary, self.reading):
                rows.append(row)
        except UserError as error:
            problem = UserError(f"{error}{SKIP}")
        make = self._texts if self.wanted == "text" else self._rows
        columns = make(rows, summary, keep)
        if problem is not None:  # rows before it were all right
            raise problem
        arrays = [columns[name] for name in self.schema.names]
        batch = pa.RecordBatch.from_arrays(arrays, schema=self.schema)
        return Part(batch.serialize().to_pybytes(), batch.num_rows, summary.to_json())

    def _texts(
        self, documents: list[Document], summary: Summary, keep: Keep | None
    ) -> dict[str, Any]:
        """Columns of text: a row for each section of a document."""
        cut = [sections(document) for document in documents]
        pieces = [section for own in cut for section in own]
        ends = [place == len(own) for own in cut for place in range(1, len(own) + 1)]
        keys = [text_hash(piece.text) for piece in pieces]
        if keep is not None:  # a document ends where a part of it is left out
            names = np.array(keys, np.uint64)
            kept = keep(names, names)
            ends = (np.array(ends, bool) | ~np.append(kept[1:], False))[kept].tolist()
            pieces = _chosen(pieces, kept, summary)
            keys = names[kept].tolist()
        written = [piece.text for piece in pieces]
        if self.tokenizer is None:
            tokens = [np.frombuffer(text.encode(), np.uint8) for text in written]
        else:
            encoded = encode_texts(self.tokenizer, written)
            tokens = [np.asarray(ids, self.token) for ids in encoded]
        total = 0
        for ids, end in zip(tokens, ends, strict=True):
            total += len(ids)
            if end:
                summary.measure("document tokens", total)
                total = 0
        return {
            "where": texts([piece.where for piece in pieces]),
            "key": numbers(np.array(keys, np.uint64)),
            "party": numbers(np.array(keys, np.uint64)),
            "content": numbers(np.array([*map(_content, tokens)], np.uint64)),
            "tokens": self._lists(tokens),
            "ends": numbers(np.array(ends, bool)),
        }

    def _rows(self, rows: list[Row], summary: Summary, keep: Keep | None) -> dict[str, Any]:
        """Columns of prompts with their responses."""
        if self.tokenizer is None or self.template is None:
            raise ValueError("prompts need a tokenizer and a template")
        encoder = Encoder(
            self.tokenizer,
            self.template,
            self.max_prompt_tokens,
            self.max_response_tokens,
            self.drop_long_prompts,
            summary,
            self.on_error,
        )
        if keep is not None:
            rows = _chosen(rows, keep(*_names(rows)), summary)
        kept = [one for one in encoder.encode(rows) if one is not None]
        prompts = [_prompt_json(one) for one in kept]
        parties, keys = _names([one.row for one in kept])
        asked = [np.asarray(one.prompt, self.token) for one in kept]
        said = [[np.asarray(ids, self.token) for ids in one.responses] for one in kept]
        contents = [
            _content(ids, *answers, also=[one.row.ranking, self._written(one.row.prompt)])
            for ids, answers, one in zip(asked, said, kept, strict=True)
        ]
        words = {
            "where": [one.row.where for one in kept],
            "id": [one.row.prompt.id for one in kept],
            "labeler": [one.row.labeler for one in kept],
            "source": [one.row.source for one in kept],
            "prompt": prompts,
        }
        names = {"key": keys, "party": parties, "content": np.array(contents, np.uint64)}
        flat = self._lists([ids for answers in said for ids in answers])
        ranks = np.array([rank for one in kept for rank in one.row.ranking], np.int64)
        return {
            **{name: texts(values) for name, values in words.items()},
            **{name: numbers(values) for name, values in names.items()},
            "prompt_tokens": self._lists(asked),
            "responses": lists([*map(len, said)], flat),
            "ranking": lists([len(one.row.ranking) for one in kept], numbers(ranks)),
        }

    def _written(self, prompt: Prompt) -> Any:
        """What a stage that is given prompts sees of one."""
        return [prompt.text, prompt.messages, prompt.meta] if self.wanted == "prompt" else None

    def _lists(self, arrays: Sequence[np.ndarray]) -> pyarrow.Array:
        members = np.concatenate([np.zeros(0, self.token), *arrays])
        return lists([*map(len, arrays)], numbers(members))


def _chosen(rows: Sequence[T], kept: np.ndarray, summary: Summary) -> list[T]:
    """The rows that are kept; the others are counted."""
    for row, one in zip(rows, kept, strict=True):
        if not one:
            summary.drop("held out for validation", row.where)
    return [row for row, one in zip(rows, kept, strict=True) if one]


def _names(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """What splits go by, the user, else the prompt; and the prompt."""
    keys = [row.key for row in rows]
    parties = [
        f"user {row.user}" if row.user else f"prompt {key}"
        for row, key in zip(rows, keys, strict=True)
    ]
    return (
        np.array([*map(text_hash, parties)], np.uint64),
        np.array([*map(text_hash, keys)], np.uint64),
    )


def read_prompt(text: str, name: str) -> Prompt:
    """A prompt as it was before it was stored.

    Args:
        text: of the column ``prompt``.
        name: its id.
    """
    found = json.loads(text)
    turns = found.get("messages") or [{"role": "user", "content": found["text"]}]
    return Prompt(found["text"], turns, name, found["meta"])


def _prompt_json(one: Encoded) -> str:
    prompt = one.row.prompt
    single = prompt.messages == [{"role": "user", "content": prompt.text}]
    turns = {} if single else {"messages": prompt.messages}
    try:
        return json.dumps({"text": prompt.text, **turns, "meta": prompt.meta})
    except (TypeError, ValueError) as error:  # of a format of the user's
        raise UserError(f"{one.row.where}: metadata must be what JSON can hold: {error}") from None


def _content(*tokens: np.ndarray, also: Any = None) -> int:
    """Name what a stage sees of a row: its tokens, and what there is beside them."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(json.dumps([[len(ids) for ids in tokens], also], sort_keys=True).encode())
    for ids in tokens:
        digest.update(ids.astype(np.uint32).tobytes())
    return int.from_bytes(digest.digest(), "big")
