"""Personal data: found, masked, and never shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, ClassVar, Literal, get_args

from instructgpt.hygiene import patterns
from instructgpt.hygiene.base import RowRule, Verdict
from instructgpt.hygiene.clean_row import CleanRow
from instructgpt.hygiene.patterns import Span
from instructgpt.types import UserError, require

Kind = Literal[
    "key", "credentials", "email", "iban", "card", "ssn", "ip", "phone", "name", "address"
]
ALL: tuple[Kind, ...] = get_args(Kind)
"""Every kind; of two that overlap the first is taken."""

PATTERNS: tuple[Kind, ...] = ALL[:8]
"""Kinds that are found by patterns and rules; the others need a model of the language."""

_OF_PATTERN: dict[str, Callable[[str], Iterator[Span]]] = {
    "key": patterns.keys,
    "credentials": patterns.credentials,
    "email": patterns.emails,
    "iban": patterns.ibans,
    "card": patterns.cards,
    "ssn": patterns.ssns,
    "ip": patterns.addresses,
}
_OF_DIGITS = {"iban", "card", "ssn", "ip", "phone"}
_DIGIT = re.compile(r"\d")
_ENTITIES = {"name": "PERSON", "address": "LOCATION"}
AROUND = 40
"""Characters on each side of what was found that the report shows."""


@dataclass(frozen=True)
class PersonalData(RowRule):
    """E-mail, telephones, cards, accounts, keys and the like: drop the row, mask them, or tell.

    Looked at are prompt, turns and responses (or the text) and all metadata. A row is dropped for
    what stands in its texts; in metadata it is masked. A user, labeler or id that is personal data
    becomes a name that says nothing, the same for the same person.

    Args:
        action: drop rows of the training split (the paper, section 3.2, filters them), mask, as
            ``[EMAIL]``, or only report.
        kinds: what to look for: key (of an API), credentials (in an address of the net), email,
            iban, card, ssn, ip (public addresses only), phone; with the extra ``names`` also name
            and address.
        splits: ``train`` as in the paper: rows of other splits are only reported; ``all``.
        regions: countries whose national telephone numbers are known, in two letters;
            international numbers are found of all.
        language_model: of spaCy, for name and address; it must be installed.
    """

    name: ClassVar[str] = "personal"
    title: ClassVar[str] = "personal data"

    action: Literal["drop", "mask", "report"] = "drop"
    kinds: tuple[Kind, ...] = PATTERNS
    splits: Literal["train", "all"] = "train"
    regions: tuple[str, ...] = ("US", "GB", "DE", "FR", "IN")
    language_model: str = "en_core_web_lg"

    def check_options(self, kind: str) -> None:
        """Refuse regions that do not exist, and kinds for which something is not installed."""
        if "phone" in self.kinds:
            known = _phonenumbers().SUPPORTED_REGIONS
            for region in self.regions:
                require(region in known, "personal.regions", "countries, such as US", region)
        if set(self.kinds) & set(_ENTITIES):
            _analyzer(self.language_model)

    def is_on(self, kind: str) -> bool:
        """Whether there is something to look for."""
        return bool(self.kinds)

    def check(self, row: CleanRow) -> Verdict:
        """Drop a row, mask what was found in it, or tell."""
        hits: dict[str, str] = {}  # kind -> the words around the first
        masked = row.map_texts(lambda text: self._masked(text, hits))
        turns = [{**turn, **self._rest(turn, hits)} for turn in masked.messages]
        masked = masked._replace(messages=turns)
        in_texts = bool(hits)
        names = {key: _pseudonym(getattr(row, key), self._masked) for key in _NAMES}
        meta = {key: self._deep(value, hits) for key, value in row.meta.items()}
        source = self._masked(row.source, hits)
        user, labeler, own = names["user"], names["labeler"], names["id"]
        masked = masked._replace(user=user, labeler=labeler, id=own, source=source, meta=meta)
        if masked == row:
            return Verdict(row)
        renamed = any(names[key] != getattr(row, key) for key in _NAMES)
        reasons = (
            *(kind for kind in ALL if kind in hits),
            *(["name of a person"] if renamed else []),
        )
        example = next(iter(hits.values()), "")
        if self.action == "report":
            return Verdict(row, reasons, example)
        if self.splits == "train" and row.split not in ("", "train"):
            return Verdict(row, tuple(f"{one}, kept in {row.split}" for one in reasons), example)
        if self.action == "drop" and in_texts:
            return Verdict(None, reasons, example)
        return Verdict(masked, reasons, example)

    def mask(self, text: str) -> str:
        """A text without personal data; masking it again changes nothing.

        Args:
            text: any.

        Examples:
            >>> PersonalData().mask("Write to jo@mail.de or pay to DE89370400440532013000.")
            'Write to [EMAIL] or pay to [IBAN].'
        """
        return self._masked(text, {})

    def find(self, text: str) -> list[tuple[Kind, int, int]]:
        """What is found in a text: kind, start and end, in order; nothing overlaps."""
        taken: list[tuple[int, int, Kind]] = []
        digits = _DIGIT.search(text) is not None
        for kind in ALL:
            if kind not in self.kinds or (kind in _OF_DIGITS and not digits):
                continue
            for start, end in self._spans(kind, text):
                if all(end <= first or start >= last for first, last, _ in taken):
                    taken.append((start, end, kind))
        return [(kind, start, end) for start, end, kind in sorted(taken)]

    def _spans(self, kind: Kind, text: str) -> Iterator[Span]:
        if kind == "phone":
            from instructgpt.hygiene.phones import phones

            return phones(text, self.regions)
        if kind in _ENTITIES:
            found = _analyzer(self.language_model).analyze(
                text=text, language="en", entities=[_ENTITIES[kind]]
            )
            return iter([(one.start, one.end) for one in found])
        return _OF_PATTERN[kind](text)

    def _masked(self, text: str, hits: dict[str, str]) -> str:
        # What stands beside a mask may only now be something by itself: until nothing is found.
        while found := self.find(text):
            parts, last = [], 0
            for kind, start, end in found:
                parts += [text[last:start], f"[{kind.upper()}]"]
                last = end
            shown = "".join([*parts, text[last:]])
            for kind, _, _ in found:
                at = shown.find(f"[{kind.upper()}]")
                hits.setdefault(kind, "")
                hits[kind] = hits[kind] or shown[max(0, at - AROUND) : at + AROUND]
            text = shown
        return text

    def _rest(self, turn: dict[str, Any], hits: dict[str, str]) -> dict[str, Any]:
        """What a turn holds besides its role and its text, masked."""
        return {
            key: self._deep(value, hits)
            for key, value in turn.items()
            if key not in ("role", "content")
        }

    def _deep(self, value: Any, hits: dict[str, str]) -> Any:
        if isinstance(value, str):
            return self._masked(value, hits)
        if isinstance(value, dict):
            return {key: self._deep(one, hits) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self._deep(one, hits) for one in value]
        if isinstance(value, int) and abs(value) >= 10**6:  # a number of a card is one, too
            shown = self._masked(str(value), hits)
            return value if shown == str(value) else shown
        return value


_NAMES = ("user", "labeler", "id")


def _pseudonym(name: str, masked: Callable[[str, dict[str, str]], str]) -> str:
    """The name, unless it is personal data: then one that says nothing, always the same."""
    if masked(name, {}) == name:
        return name
    return f"person-{blake2b(name.encode(), digest_size=6).hexdigest()}"


def _phonenumbers() -> Any:
    try:
        import phonenumbers
    except ImportError:
        raise UserError(
            "--personal.kinds: phone needs phonenumbers: pip install 'instructgpt[data]'"
        ) from None
    return phonenumbers


@lru_cache(maxsize=1)
def _analyzer(model: str) -> Any:
    """Presidio with a model that is installed: it would download one that is not."""
    try:
        import spacy.util
        from presidio_analyzer import AnalyzerEngine
        from presidio_analyzer.nlp_engine import NlpEngineProvider
    except ImportError:
        raise UserError(
            "--personal.kinds: name and address need presidio: pip install 'instructgpt[names]'"
        ) from None
    if not spacy.util.is_package(model):
        raise UserError(
            f"--personal.language_model must be installed, got {model}: "
            f"python -m spacy download {model}"
        )
    engine = {"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": model}]}
    return AnalyzerEngine(nlp_engine=NlpEngineProvider(nlp_configuration=engine).create_engine())
