"""Rows in the languages that are wanted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from instructgpt.hygiene.base import RowRule, Verdict
from instructgpt.hygiene.clean_row import CleanRow
from instructgpt.types import UserError, require

NO_LANGUAGE = "zxx"
"""What the classifier calls code, formulas and the like."""

LOOKED_AT = 1000
"""Characters of a text that are enough to know its language."""


@dataclass(frozen=True)
class LanguageFilter(RowRule):
    """Keep rows in some languages, or in none, by what the person wrote (of text: by the text).

    The classifier is py3langid, the descendant of the langid.py by which the paper (appendix A.4)
    found 96 % of its prompts to be English; its model is in the package.

    Args:
        keep: languages in two letters, such as [en, de]; default: all, the rule is off.
        sure: how probable another language must be for a row to be dropped.
        shortest: texts with fewer letters are kept, their language cannot be known.
    """

    name: ClassVar[str] = "language"
    title: ClassVar[str] = "language"

    keep: list[str] | str | None = None
    sure: float = 0.5
    shortest: int = 20

    def check_options(self, kind: str) -> None:
        """Refuse languages that the classifier does not know."""
        require(0 <= self.sure <= 1, f"{self.name}.sure", "from 0 to 1", self.sure)
        require(self.shortest >= 0, f"{self.name}.shortest", ">= 0", self.shortest)
        if self.is_on(kind):
            known = _classifier().labels
            for one in self._kept():
                rule = f"languages that are known ({' '.join(sorted(known))})"
                require(one in known, f"{self.name}.keep", rule, one)

    def is_on(self, kind: str) -> bool:
        """Whether there are languages to keep."""
        return bool(self.keep)

    def check(self, row: CleanRow) -> Verdict:
        """Drop it if it is surely in another language."""
        text = row.asked[:LOOKED_AT]
        if sum(map(str.isalpha, text)) < self.shortest:
            return Verdict(row)
        language, probability = _classifier().classify(text)
        if language in (*self._kept(), NO_LANGUAGE) or probability < self.sure:
            return Verdict(row)
        return Verdict(None, (language,))

    def _kept(self) -> list[str]:
        return [self.keep] if isinstance(self.keep, str) else self.keep or []


@lru_cache(maxsize=1)
def _classifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise UserError(
            "--language.keep needs py3langid: pip install 'instructgpt[data]'"
        ) from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
