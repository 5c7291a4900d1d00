"""What the training forward pass says about a rollout: log-probabilities, entropy, values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from instructgpt.functional.layout import pieces
from instructgpt.functional.logprobs import sequence_kl
from instructgpt.models.flat import hidden_states, predict
from instructgpt.models.heads import ScalarModel, ValueHead
from instructgpt.rollout.metrics import Stopwatch
from instructgpt.rollout.rows import ResponseRows, flatten
from instructgpt.types import Progress, Rollout, ScoredRollout


class Said(NamedTuple):
    """About the responses of a rollout."""

    logprobs: Tensor  # [N, R] of logits / temperature
    entropy: Tensor | None  # [N, R], without gradient
    hidden: Tensor  # [T, d] the states of all tokens, which a value head reads


def response_logprobs(
    policy: nn.Module,
    responses: ResponseRows,
    temperature: float,
    adapter: bool = True,
    entropy: bool = False,
) -> Said:
    """Log-probabilities of the response tokens, of ``logits / temperature``.

    Args:
        policy: a causal language model.
        responses: with their prompts.
        temperature: that they were sampled with.
        adapter: False switches adapters off, which gives the reference of an adapted policy.
        entropy: also return the entropy.
    """
    said = predict(
        policy,
        responses.rows,
        responses.places,
        temperature=temperature,
        entropy=entropy,
        adapter=adapter,
        support=responses.support,
    )
    spread = None if said.entropy is None else responses.of_tokens(said.entropy)
    return Said(responses.of_tokens(said.logprobs), spread, said.hidden)


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

    def reference_logprobs(self, responses: ResponseRows, temperature: float) -> Tensor:
        """Log-probabilities under the reference, [N, R]."""
        assert self.reference is not None
        adapted = self.reference is not self.policy
        return response_logprobs(self.reference, responses, temperature, adapter=adapted).logprobs

    @torch.no_grad()
    def sequence_kl(
        self,
        rollout: Rollout,
        temperature: float,
        max_tokens: int | None,
        as_many: Callable[[list[range]], Iterable[range]] = iter,
    ) -> Tensor | None:
        """KL to the reference of sampled responses, [N] nats; None without one, or if greedy.

        Args:
            rollout: of this rank.
            temperature: that it was sampled with.
            max_tokens: of a forward pass.
            as_many: puts before the pieces of rows others that are computed for other ranks alone.
        """
        if self.reference is None or temperature == 0:
            return None
        parts, cut = [], pieces(rollout.mask.sum(1), max_tokens)
        for some in as_many(cut):
            responses = flatten(select(rollout, torch.tensor(some)))
            policy = response_logprobs(self.policy, responses, temperature).logprobs
            reference = self.reference_logprobs(responses, temperature)
            parts.append(sequence_kl(policy, reference, responses.mask))
        return torch.cat(parts[-len(cut) :])

    def values(self, responses: ResponseRows, hidden: Tensor | None) -> Tensor | None:
        """Values before each response token and after the last, [N, R + 1].

        Args:
            responses: with their prompts.
            hidden: states of the policy, which a head on its trunk reads.
        """
        if self.value is None:
            return None
        reads = hidden if isinstance(self.value, ValueHead) else responses.rows
        return responses.of_states(self.value(reads))


def score(
    networks: Networks,
    rollout: Rollout,
    parts: Sequence[Tensor],
    temperature: float,
    recorded: bool,
    watch: Stopwatch,
    progress: Progress,
    more: int = 0,
) -> dict[str, Tensor]:
    """What the networks say about rows of a rollout, by the name of the field it is for.

    The first ratio of the updates is exactly 1 because they compute the very same micro-batches.

    Args:
        networks: what is asked.
        rollout: of all ranks.
        parts: micro-batches of row numbers.
        temperature: that the responses were sampled with.
        recorded: take the log-probabilities that sampling recorded, and not ask the policy; then
            the entropy is estimated by minus them.
        watch: gets the seconds of the parts.
        progress: told how far they are.
        more: times that each network is asked once more, for other ranks.

    Returns:
        A row for each row of ``parts``, in their order.
    """
    device = rollout.tokens.device

    def of_policy(rows: Rollout) -> dict[str, Tensor]:
        responses = flatten(rows)
        if not recorded:
            policy = response_logprobs(networks.policy, responses, temperature, entropy=True)
            logprobs, entropy, hidden = policy
            assert entropy is not None
        else:
            logprobs = rows.logprobs.masked_fill(~rows.response_mask, 0.0)
            entropy, hidden = -logprobs, None
            if isinstance(networks.value, ValueHead):
                hidden = hidden_states(networks.policy, responses.rows)
        values = networks.values(responses, hidden)
        own = {} if values is None else {"values": values}
        return {"logprobs": logprobs, "entropy": entropy, **own}

    def of_reference(rows: Rollout) -> dict[str, Tensor]:
        return {"reference_logprobs": networks.reference_logprobs(flatten(rows), temperature)}

    with watch.part("policy_and_value", device):
        columns = _one_by_one(of_policy, rollout, parts, "score", progress, more)
    if networks.reference is not None:
        with watch.part("reference", device):
            columns |= _one_by_one(of_reference, rollout, parts, "reference", progress, more)
    return columns


def select(rollout: Rollout, rows: Tensor) -> Rollout:
    """The given rows of a rollout."""
    return Rollout(*(field[rows] for field in rollout))


@torch.no_grad()
def _one_by_one(
    function: Callable[[Rollout], dict[str, Tensor]],
    rollout: Rollout,
    parts: Sequence[Tensor],
    name: str,
    progress: Progress,
    more: int,
) -> dict[str, Tensor]:
    """Apply a function to micro-batches of rows and join its outputs."""
    for _ in range(more):
        function(select(rollout, parts[-1]))
    outputs, done, most = [], 0, sum(map(len, parts))
    for rows in parts:
        outputs.append(function(select(rollout, rows)))
        done += len(rows)
        progress(name, done, most)
    return {key: torch.cat([output[key] for output in outputs]) for key in outputs[0]}


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


def without_abstained(rollout: Rollout, scores: Tensor) -> tuple[Rollout, Tensor]:
    """Rows without a score lose their response: what has no token enters no sum and no mean.

    Args:
        rollout: rows.
        scores: [N], NaN where the reward function abstained; 0 there afterwards.
    """
    abstained = scores.isnan()
    kept = rollout.response_mask & ~abstained[:, None]
    return rollout._replace(response_mask=kept), scores.masked_fill(abstained, 0.0)
