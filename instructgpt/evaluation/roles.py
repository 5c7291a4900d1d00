"""Which model plays which part in the paper's claims."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, fields
from typing import Literal

from instructgpt.types import UserError

Claims = Literal["off", "shown", "judged"]


@dataclass(frozen=True)
class Roles:
    """Which model has which role in the claims; a claim about a role that none has is not measured.

    Args:
        base: the pretrained model (in the paper GPT-3).
        few_shot: the same with examples in front of the prompt.
        sft: has imitated demonstrations; the baseline of the win rates.
        rl: optimised against the reward model (PPO).
        rl_ptx: the same, mixed with pretraining (PPO-ptx).
        big: a much larger pretrained model.
        arms: further models that started from ``sft``, such as those of other algorithms; each has
            claims of its own.
    """

    base: str | None = None
    few_shot: str | None = None
    sft: str | None = None
    rl: str | None = None
    rl_ptx: str | None = None
    big: str | None = None
    arms: list[str] = field(default_factory=list)

    def check(self, models: Collection[str], claims: Claims) -> None:
        """Refuse roles of models that did not answer, two roles for one, and claims without roles.

        Args:
            models: that answered.
            claims: whether they are asked for.
        """
        if claims != "off" and self == Roles():
            raise UserError(f"--claims {claims} needs --roles, such as --roles.sft of the baseline")
        named: dict[str, str] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            for model in value if isinstance(value, list) else [value]:
                if model is None:
                    continue
                option = f"--roles.{one.name}"
                if model not in models:
                    names = ", ".join(models)
                    raise UserError(f"{option} must be one of the models ({names}), got {model}")
                if model in named:
                    raise UserError(f"{option}: {model} has a role already: {named[model]}")
                named[model] = option
