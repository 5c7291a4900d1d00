"""How far sampled answers are from another policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from instructgpt.commands.policy import Policy
from instructgpt.functional.layout import Layout, pieces
from instructgpt.models.flat import predict
from instructgpt.models.forward import virtual_tokens
from instructgpt.models.load import Network, context_length, load_policy
from instructgpt.models.tokenizer import load_tokenizer, tokenizer_fingerprint
from instructgpt.rollout.answer import Spoken
from instructgpt.types import FlatRows, UserError


class KLReference(NamedTuple):
    """A policy that is asked how likely it would have said something."""

    network: nn.Module
    max_tokens: int | None  # of a forward pass

    @classmethod
    def load(cls, source: str, held: Network, policy: Policy) -> KLReference:
        """Load it beside the policy that answers.

        Args:
            source: folder or hub id.
            held: how it is held.
            policy: whose tokens it reads, on whose device.

        Raises:
            UserError: it reads other tokens, or less of them.
        """
        try:
            tokenizer = load_tokenizer(source, held.trust_remote_code)
            own, theirs = tokenizer_fingerprint(policy.tokenizer), tokenizer_fingerprint(tokenizer)
            if theirs != own:
                raise UserError(
                    f"must have the tokenizer of --model ({own}), got another ({theirs})"
                )
            network = load_policy(source, None, held, tokenizer)
            room = context_length(network.config)
            reads = None if room is None else room - virtual_tokens(network)
            if reads is not None and (policy.context is None or reads < policy.context):
                rule = f"must read as much as --model ({policy.context} tokens)"
                raise UserError(f"{rule}, got {reads} tokens")
        except UserError as error:
            raise UserError(f"--reference {source}: {error}") from error
        ready: nn.Module = network
        device = next(policy.network.parameters()).device
        return cls(ready.to(device).eval(), held.max_tokens)

    @torch.no_grad()
    def kl(self, prompt: list[int], said: Sequence[Spoken]) -> list[float]:
        """Estimates of the KL from here by one sample each, in nats: log p(answer) - log q(answer).

        They are without bias where answers are plain samples; one of them can be below 0.

        Args:
            prompt: its tokens.
            said: answers to it.
        """
        lengths = [len(one.tokens) for one in said]
        room = None if self.max_tokens is None else self.max_tokens - len(prompt)
        found: list[float] = []
        for piece in pieces(lengths, room):
            some = said[piece.start : piece.stop]
            layout = Layout.shared([len(prompt)], [[len(one.tokens) for one in some]])
            tokens = prompt + [token for one in some for token in one.tokens]
            device = next(self.network.parameters()).device
            rows = FlatRows(torch.tensor(tokens, device=device), layout.to(device))
            places = torch.arange(len(prompt), len(tokens), device=device)
            logprobs = predict(self.network, rows, places).logprobs.cpu().double()
            parts = logprobs.split([len(one.tokens) for one in some])
            found += [one.logprob - float(q.sum()) for one, q in zip(some, parts, strict=True)]
        return found
