"""The policy that training starts from, which it is compared with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from instructgpt.models.forward import exact_tables
from instructgpt.models.load import Network
from instructgpt.modules.candidates import response_logprobs
from instructgpt.modules.networks import load_reference
from instructgpt.types import FlatRows


class Reference:
    """A frozen copy of a policy, or the policy with its adapter off; Lightning does not see it.

    It is in no checkpoint, optimizer or wrapper; it comes back from its artefact.
    """

    def __init__(self) -> None:
        """Hold no copy: the policy with its adapter off."""
        self.copy: nn.Module | None = None

    def load(self, init_from: str, network: Network, tokenizer: Any, policy: nn.Module) -> None:
        """Load a copy, unless it is there.

        Args:
            init_from: what the policy starts from.
            network: number format and kernels.
            tokenizer: of the policy.
            policy: in training. In another format than its, their difference would not start at 0.
        """
        if self.copy is None:
            self.copy = load_reference(init_from, network, tokenizer, policy)
        like = next(policy.parameters())
        with exact_tables(self.copy):
            self.copy.to(like.device, like.dtype)

    @torch.no_grad()
    def logprobs(self, policy: nn.Module, rows: FlatRows) -> Tensor:
        """Log-probabilities of the tokens of the responses, [M].

        Args:
            policy: in training; asked without its adapter and its dropout where there is no copy.
            rows: each prompt once, before its responses.
        """
        if self.copy is not None:
            return response_logprobs(self.copy, rows)
        was = policy.training
        try:
            return response_logprobs(policy.eval(), rows, adapter=False)
        finally:
            policy.train(was)
