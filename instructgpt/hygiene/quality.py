"""Rows whose response a judge or a reward model finds good enough."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from transformers import PreTrainedTokenizerBase

# Rewards are found by their names once they are imported.
import instructgpt.rewards.learned
import instructgpt.rewards.mixture
import instructgpt.rewards.rules  # noqa: F401
from instructgpt.hygiene.base import RowRule, Verdict
from instructgpt.hygiene.clean_row import CleanRow
from instructgpt.models.choice import choose_template
from instructgpt.models.template import Template
from instructgpt.models.tokenizer import load_tokenizer
from instructgpt.rewards.base import RewardFunction
from instructgpt.types import Prompt, Sample, UserError, require


@dataclass(frozen=True)
class Quality(RowRule):
    """Keep rows whose response scores enough (AlpaGasus, 2307.08701, kept 4.5 and more of 5).

    Scored is the response, of a comparison the best; the score is kept in the metadata. A row
    without a score is kept and counted. Each process loads the reward: ``--num_proc 1`` loads one.

    Args:
        reward: what scores: a reward model, a function, or a class of your own, such as a judge.
        least: rows that score less are dropped; null: all are only scored.
        step: how wide the steps are in which the report counts scores.
        tokenizer: folder or hub id with the tokens that the reward reads; default: of the reward
            model, if it is one.
    """

    name: ClassVar[str] = "quality"
    title: ClassVar[str] = "quality"

    reward: RewardFunction | None = None
    least: float | None = None
    step: float = 0.5
    tokenizer: str | None = None

    def check_options(self, kind: str) -> None:
        """Refuse numbers that are none, and rows without responses."""
        least = self.least
        require(0 < self.step < math.inf, f"{self.name}.step", "> 0", self.step)
        require(least is None or math.isfinite(least), f"{self.name}.least", "finite", least)
        if self.reward is None and (least is not None or self.tokenizer is not None):
            raise UserError(f"--{self.name}.reward must say what scores, got none")
        if self.reward is not None and not self.is_on(kind):
            raise UserError(f"--{self.name}.reward is for rows with responses, got {kind}")

    def is_on(self, kind: str) -> bool:
        """Whether there are responses and something that scores them."""
        return self.reward is not None and kind in ("demonstrations", "comparisons")

    def options(self) -> dict[str, Any]:
        """Its options, the reward by its class and its arguments."""
        plain = asdict(Quality(None, self.least, self.step, self.tokenizer))
        return {**plain, "reward": None if self.reward is None else _described(self.reward)}

    def made_from(self) -> list[str]:
        """Folders of the reward and of the tokenizer."""
        folders = [] if self.reward is None else list(_sources(self.reward))
        return [*folders, *([self.tokenizer] if self.tokenizer else [])]

    def check(self, row: CleanRow) -> Verdict:
        """Score its response."""
        return self.check_all([row])[0]

    def check_all(self, rows: Sequence[CleanRow]) -> list[Verdict]:
        """Score their responses at once."""
        if self.reward is None or not rows:
            return [Verdict(row) for row in rows]
        ready = _ready(self, self.reward)
        # A last bit may depend on which rows are scored together; four digits do not.
        scores = [round(one, 4) for one in ready.score([_best(row) for row in rows])]
        return [self._verdict(row, score) for row, score in zip(rows, scores, strict=True)]

    def _verdict(self, row: CleanRow, score: float) -> Verdict:
        if math.isnan(score):
            return Verdict(row, ("no score",))
        low = math.floor(score / self.step) * self.step
        reason = f"{low:g} to {low + self.step:g}"
        if self.least is not None and score < self.least:
            return Verdict(None, (reason,))
        return Verdict(row._replace(meta={**row.meta, f"{self.name}_score": score}), (reason,))


class Safety(Quality):
    """The same for safety: keep rows whose response a safety model or judge finds harmless.

    Args:
        reward: what scores.
        least: rows that score less are dropped; null: all are only scored.
        step: how wide the steps are in which the report counts scores.
        tokenizer: folder or hub id with the tokens that the reward reads; default: of the reward
            model, if it is one.
    """

    name: ClassVar[str] = "safety"
    title: ClassVar[str] = "safety"


class _Ready:
    """A reward that is prepared, with the tokens that it reads."""

    def __init__(self, reward: RewardFunction, tokenizer: str | None) -> None:
        self.reward = reward
        self.tokens: tuple[PreTrainedTokenizerBase, Template] | None = None
        source = tokenizer or next(_sources(reward), None)
        if source is not None:
            loaded = load_tokenizer(source)
            self.tokens = loaded, choose_template(None, source, loaded).template
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            reward.prepare(*self.tokens, device)

    def score(self, samples: Sequence[tuple[Prompt, str]]) -> list[float]:
        """The scores, NaN where the reward abstains."""
        scores: list[float] = self.reward.score([self._sample(*one) for one in samples]).tolist()
        return scores

    def _sample(self, prompt: Prompt, response: str) -> Sample:
        if self.tokens is None:
            return Sample(prompt, response, [], [], True)
        tokenizer, template = self.tokens
        asked = template.encode_prompt(tokenizer, prompt)
        return Sample(prompt, response, asked, template.encode_response(tokenizer, response), True)


_known: dict[str, _Ready] = {}


def _ready(rule: Quality, reward: RewardFunction) -> _Ready:
    """The reward, loaded once in each process; the rule's own stays as it was given."""
    key = f"{rule.name} {rule.options()}"
    if key not in _known:
        _known[key] = _Ready(copy.deepcopy(reward), rule.tokenizer)
    return _known[key]


def _best(row: CleanRow) -> tuple[Prompt, str]:
    best = min(range(len(row.responses)), key=row.ranking.__getitem__) if row.ranking else 0
    return Prompt(row.prompt, row.messages, row.id, row.meta), row.responses[best]


def _sources(reward: RewardFunction) -> Iterator[str]:
    """Where the weights of a reward come from, and those of its parts."""
    if isinstance(source := getattr(reward, "init_from", None), str):
        yield source
    for part in getattr(reward, "rewards", []):
        yield from _sources(part)


def _described(value: Any) -> Any:
    """A reward, or one of its arguments, in plain values."""
    if isinstance(value, list | tuple):
        return [_described(one) for one in value]
    if isinstance(value, str | int | float | bool | None):
        return value
    own = vars(value) if isinstance(value, RewardFunction) else {}
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    described = {key: _described(one) for key, one in own.items() if not key.startswith("_")}
    return {"class": name, **described} if own else name
