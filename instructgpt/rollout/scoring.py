"""What the training forward pass says about a rollout: log-probabilities, entropy, values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from instructgpt.functional.logprobs import entropy, sequence_kl, token_logprobs
from instructgpt.models.forward import run
from instructgpt.models.heads import ScalarModel, ValueHead
from instructgpt.rollout.metrics import Stopwatch
from instructgpt.types import Progress, Rollout, ScoredRollout


class RolloutLogprobs(NamedTuple):
    """Of the tokens of a response, under a policy."""

    logprobs: Tensor  # [N, R]
    entropy: Tensor | None  # [N, R], without gradient
    hidden: Tensor | None  # [N, R + 1, d] the state before each response token and after the last


def response_logprobs(
    policy: nn.Module,
    rollout: Rollout,
    temperature: float,
    adapter: bool = True,
    hidden: bool = False,
    with_entropy: bool = False,
) -> RolloutLogprobs:
    """Log-probabilities of the response tokens, of ``logits / temperature``.

    Args:
        policy: a causal language model.
        rollout: prompts and responses.
        temperature: that the responses were sampled with.
        adapter: False switches adapters off, which gives the reference of an adapted policy.
        hidden: also return the hidden states that a value head reads.
        with_entropy: also return the entropy, which costs a softmax over the vocabulary.
    """
    length = rollout.response_mask.shape[1]
    # The hidden state after the last column bootstraps truncated responses: one position more.
    output = run(
        policy, rollout.tokens, rollout.mask, keep=length + 1, hidden=hidden, adapter=adapter
    )
    logits = output.logits[:, :-1].float()
    if temperature != 1:
        logits = logits / temperature
    spread = entropy(logits.detach()) if with_entropy else None
    return RolloutLogprobs(token_logprobs(logits, rollout.responses), spread, output.hidden)


class Networks(NamedTuple):
    """What is asked about the rows of a rollout, when it is scored and in every update."""

    policy: nn.Module
    reference: nn.Module | None  # the policy itself: without its adapter; None: is not asked
    value: ScalarModel | ValueHead | None  # a head reads the policy's states; None: is not asked

    @property
    def trained(self) -> list[nn.Module]:
        """The policy, and the value model if there is one."""
        return [network for network in (self.policy, self.value) if network is not None]

    @property
    def readers(self) -> list[nn.Module]:
        """Those that read whole rows, of which a context must be long enough."""
        if isinstance(self.value, ScalarModel):
            return [self.policy, self.value.trunk]
        return [self.policy]

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Within the context they are in evaluation mode."""
        modes = [network.training for network in self.trained]
        for network in self.trained:
            network.eval()
        yield
        for network, mode in zip(self.trained, modes, strict=True):
            network.train(mode)

    def logprobs(
        self, rollout: Rollout, temperature: float, with_entropy: bool = False
    ) -> RolloutLogprobs:
        """What the policy says, with the states that a value head reads."""
        shared = isinstance(self.value, ValueHead)
        return response_logprobs(
            self.policy, rollout, temperature, hidden=shared, with_entropy=with_entropy
        )

    def reference_logprobs(self, rollout: Rollout, temperature: float) -> Tensor:
        """Log-probabilities under the reference, [N, R]."""
        assert self.reference is not None
        adapted = self.reference is not self.policy
        return response_logprobs(self.reference, rollout, temperature, adapter=adapted).logprobs

    def sequence_kl(self, rollout: Rollout, temperature: float) -> Tensor | None:
        """KL to the reference of sampled responses, [N] nats; None without one, or if greedy."""
        if self.reference is None or temperature == 0:
            return None
        policy = self.logprobs(rollout, temperature).logprobs
        reference = self.reference_logprobs(rollout, temperature)
        return sequence_kl(policy, reference, rollout.response_mask)

    def values(self, rollout: Rollout, hidden: Tensor | None) -> Tensor | None:
        """Values before each response token and after the last column, [N, R + 1]."""
        if self.value is None:
            return None
        if isinstance(self.value, ValueHead):
            shared: Tensor = self.value(hidden)
            return shared
        return response_values(self.value, rollout)


def score(
    networks: Networks,
    rollout: Rollout,
    temperature: float,
    size: int,
    watch: Stopwatch,
    progress: Progress,
) -> ScoredRollout:
    """What the networks say about a rollout; its scores are still to come.

    Args:
        networks: what is asked.
        rollout: rows of this rank.
        temperature: that the responses were sampled with.
        size: rows of a micro-batch, as in the updates.
        watch: gets the seconds of the parts.
        progress: told how far they are.
    """
    device = rollout.tokens.device

    def of_policy(rows: Rollout) -> tuple[Tensor, ...]:
        policy = networks.logprobs(rows, temperature, with_entropy=True)
        assert policy.entropy is not None
        values = networks.values(rows, policy.hidden)
        return (policy.logprobs, policy.entropy, *(() if values is None else (values,)))

    def of_reference(rows: Rollout) -> tuple[Tensor, ...]:
        return (networks.reference_logprobs(rows, temperature),)

    with watch.part("policy_and_value", device):
        logprobs, entropy, *values = in_microbatches(of_policy, rollout, size, "score", progress)
    reference = None
    if networks.reference is not None:
        with watch.part("reference", device):
            (reference,) = in_microbatches(of_reference, rollout, size, "reference", progress)
    unscored = torch.zeros(len(rollout.tokens), device=device)
    return ScoredRollout(
        rollout, unscored, logprobs, reference, values[0] if values else None, entropy
    )


def response_values(value: ScalarModel, rollout: Rollout) -> Tensor:
    """Values before each response token and after the last column, [N, R + 1]."""
    values: Tensor = value.padded(rollout.tokens, rollout.mask)
    return values[:, rollout.prompt_mask.shape[1] - 1 :]


def select(rollout: Rollout, rows: Tensor) -> Rollout:
    """The given rows of a rollout."""
    return Rollout(*(field[rows] for field in rollout))


@torch.no_grad()
def in_microbatches(
    function: Callable[[Rollout], tuple[Tensor, ...]],
    rollout: Rollout,
    size: int,
    part: str,
    progress: Progress,
) -> tuple[Tensor, ...]:
    """Apply a function to micro-batches of rows and join its outputs.

    The same micro-batch size as in the update keeps the matrix products the same, so that the first
    probability ratio is 1 and not almost 1.
    """
    outputs = []
    rows = torch.arange(len(rollout.tokens), device=rollout.tokens.device)
    for group in rows.split(size):
        outputs.append(function(select(rollout, group)))
        progress(part, int(group[-1]) + 1, len(rows))
    return tuple(torch.cat(columns) for columns in zip(*outputs, strict=True))


def not_finite_rows(scored: ScoredRollout) -> tuple[str, list[int]] | None:
    """What the networks said about some rows that is not finite, and the rows; None: all is."""
    fields = {
        "a log-probability of the policy": scored.logprobs,
        "a log-probability of the reference": scored.reference_logprobs,
        "a value": None if scored.values is None else scored.values[:, :-1],
    }
    for name, field in fields.items():
        if field is None:
            continue
        bad = (scored.rollout.response_mask & ~field.isfinite()).any(1)
        if bool(bad.any()):
            return name, bad.nonzero().squeeze(1).tolist()
    return None


def without_abstained(scored: ScoredRollout) -> ScoredRollout:
    """Rows without a score lose their response: what has no token enters no sum and no mean."""
    abstained, rollout = scored.scores.isnan(), scored.rollout
    kept = rollout.response_mask & ~abstained[:, None]
    return scored._replace(
        rollout=rollout._replace(response_mask=kept),
        scores=scored.scores.masked_fill(abstained, 0.0),
    )
