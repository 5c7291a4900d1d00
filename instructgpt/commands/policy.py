"""A policy with what it needs to read and write text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # imported when needed: `generate --help` should not wait for them
    import torch
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from instructgpt.data.formats import Row
    from instructgpt.data.rows import PromptRow
    from instructgpt.models.template import Template
    from instructgpt.rollout.answer import Wish


class Policy(NamedTuple):
    """A policy with what it needs to read and write text."""

    network: nn.Module
    tokenizer: PreTrainedTokenizerBase
    template: Template
    context: int | None  # tokens of prompt and response together
    choice: str  # of the template, in a line

    def encode(self, given: list[Row], wish: Wish) -> tuple[Wish, list[PromptRow]]:
        """What is asked for with the limit that there is room for, and the prompts as tokens."""
        from instructgpt.data import questions

        _, tokenizer, template, context, _ = self
        asked = wish.max_response_tokens
        limit = questions.response_limit(given, tokenizer, template, context, asked)
        rows = questions.encode(given, tokenizer, template, context, limit)
        return wish._replace(max_response_tokens=limit), rows


def load(source: str, template: str, network: Any, device: str) -> Policy:
    """Load a policy for sampling.

    Args:
        source: folder or hub id.
        template: name of the template, or nothing for that of the model.
        network: number format.
        device: where to, or "auto".
    """
    from instructgpt.models.choice import choose_template
    from instructgpt.models.forward import virtual_tokens
    from instructgpt.models.load import context_length, load_policy
    from instructgpt.models.tokenizer import load_tokenizer

    place = device_of(device)
    tokenizer = load_tokenizer(source, network.trust_remote_code)
    chosen = choose_template(template, source, tokenizer, "--template")
    model = load_policy(source, None, network, tokenizer)
    context = context_length(model.config)
    room = None if context is None else context - virtual_tokens(model)
    policy: nn.Module = model
    return Policy(policy.to(place).eval(), tokenizer, chosen.template, room, str(chosen))


def device_of(name: str) -> torch.device:
    """The device of a name; one that is not there is a UserError.

    Args:
        name: of a device, or "auto".
    """
    import torch

    from instructgpt.types import UserError

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name != "cpu" and not getattr(torch, name).is_available():
        raise UserError(f"--device must be there, got {name}: this machine has none")
    return torch.device(name)
