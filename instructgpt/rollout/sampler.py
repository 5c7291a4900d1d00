"""Sampling responses from a policy with a KV cache."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from instructgpt.functional.lengths import in_order, length_groups
from instructgpt.functional.logprobs import token_logprobs
from instructgpt.models.forward import base_network, can_drop_rows, run
from instructgpt.models.template import Template
from instructgpt.seeds import uniforms
from instructgpt.types import (
    Progress,
    Prompt,
    PromptBatch,
    Rollout,
    RunFailedError,
    Sample,
    require,
)


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn.

    Args:
        temperature: divides the logits; 0 takes the most likely token (paper: 1 for rollouts).
        top_p: sample from the smallest set of tokens with at least this probability; 1 = all.
        top_k: sample from this many most likely tokens; 0 = all.
        batch_size: prompts decoded at once on each process; bounds the memory of the KV cache.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    batch_size: int = 64

    def __post_init__(self) -> None:
        """Refuse values without a meaning."""
        require(self.temperature >= 0, "temperature", ">= 0", self.temperature)
        require(0 < self.top_p <= 1, "top_p", "in (0, 1]", self.top_p)
        require(self.top_k >= 0, "top_k", ">= 0", self.top_k)
        require(self.batch_size >= 1, "batch_size", ">= 1", self.batch_size)

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature == 0


def choose(logits: Tensor, noise: Tensor, sampling: Sampling) -> Tensor:
    """One token a row by inverse CDF, [N, V] and uniforms [N] to [N].

    >>> logits = torch.tensor([[0.0, 0.0]]).repeat(2, 1)
    >>> choose(logits, torch.tensor([0.49, 0.51]), Sampling()).tolist()
    [0, 1]
    """
    if sampling.greedy:
        return logits.argmax(-1)
    logits = logits.float() / sampling.temperature
    if sampling.top_k and sampling.top_k < logits.shape[-1]:
        kth = logits.topk(sampling.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    probabilities = logits.softmax(-1)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        outside = (
            ordered.cumsum(-1) - ordered >= sampling.top_p
        )  # the mass before the token suffices
        probabilities = probabilities.scatter(1, order, ordered.masked_fill(outside, 0.0))
    cdf = probabilities.cumsum(-1)
    token = torch.searchsorted(cdf, noise[:, None] * cdf[:, -1:], right=True)
    token = token.clamp_max(logits.shape[-1] - 1)
    # Rounding at the end of the CDF must never pick a token that cannot be sampled.
    impossible = probabilities.gather(1, token) == 0
    return torch.where(impossible, probabilities.argmax(-1, keepdim=True), token).squeeze(1)


@torch.no_grad()
def decode(
    model: nn.Module,
    tokens: Tensor,
    mask: Tensor,
    noise: Tensor,
    stop_ids: Sequence[int],
    sampling: Sampling,
    stepped: Callable[[int], None] = lambda t: None,
    ids: Sequence[str] = (),
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Respond to left-padded prompts until every row has stopped or the limit is reached.

    Args:
        model: a causal language model.
        tokens: prompts, [N, P].
        mask: real tokens of the prompts, [N, P].
        noise: uniforms, [N, R]; R is the limit.
        stop_ids: tokens that end a response; they belong to it.
        sampling: how to draw.
        stepped: told the number of each step that is done.
        ids: of the prompts, for messages.

    Returns:
        Responses [N, R'] with R' <= R, their mask [N, R'], whether they stopped by themselves [N],
        and the log-probabilities of their tokens [N, R'].

    Raises:
        RunFailedError: a probability is not a number.
    """
    stop = torch.tensor(list(stop_ids), device=tokens.device)
    responses = tokens.new_full(noise.shape, int(stop[0]) if len(stop) else 0)
    masks = torch.zeros_like(responses, dtype=torch.bool)
    finished, broken = torch.zeros_like(masks[:, 0]), torch.zeros_like(masks[:, 0])
    logprobs = torch.zeros_like(responses, dtype=torch.float32)
    rows = torch.arange(len(tokens), device=tokens.device)  # those that are still computed
    cache, new = None, tokens
    for t in range(noise.shape[1]):
        output = run(model, new, mask, cache=cache, use_cache=True, keep=1)
        broken[rows] |= ~output.logits[:, -1].amax(-1).isfinite()
        if t == 0 and output.cache is None:
            _warn_of_no_cache(model)
        token = choose(output.logits[:, -1], noise[rows, t], sampling)
        alive = ~finished[rows]
        responses[rows[alive], t], masks[rows[alive], t] = token[alive], True
        logprobs[rows[alive], t] = _logprobs(output.logits[alive, -1], token[alive], sampling)
        finished[rows] |= torch.isin(token, stop)
        stepped(t)
        if bool(finished.all()):
            break
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        cache = output.cache
        new = token[:, None] if cache is not None else torch.cat([new, token[:, None]], dim=1)
        # Finished rows go on computing what nobody reads, until they are the half of all.
        alive = ~finished[rows]
        if 2 * int(alive.sum()) <= len(rows) and (cache is None or can_drop_rows(cache)):
            if cache is not None:
                cache.batch_select_indices(alive.nonzero().squeeze(1))
            mask, new, rows = mask[alive], new[alive], rows[alive]
    _refuse_broken(broken, ids)
    return responses[:, : t + 1], masks[:, : t + 1], finished, logprobs[:, : t + 1]


def _logprobs(logits: Tensor, tokens: Tensor, sampling: Sampling) -> Tensor:
    return token_logprobs(logits.float() / (sampling.temperature or 1.0), tokens)


def _warn_of_no_cache(model: nn.Module) -> None:
    kind = base_network(model).config.model_type
    warnings.warn(f"{kind} keeps no cache: a token takes as long as a row", stacklevel=3)


def _refuse_broken(broken: Tensor, ids: Sequence[str]) -> None:
    if bool(broken.any()):
        row = int(broken.nonzero()[0])
        about = f" (sample {ids[row]})" if ids else ""
        raise RunFailedError(f"the logits of the policy are not finite{about}")


def sample(
    model: nn.Module,
    batch: PromptBatch,
    max_response_tokens: int,
    stop_ids: Sequence[int],
    sampling: Sampling,
    seed: int,
    phase: int = 0,
    progress: Progress | None = None,
) -> Rollout:
    """Respond to prompts; a response is a function of (policy, prompt, seed, phase, sample id).

    Prompts are decoded in groups of similar length, so that little is spent on padding.

    Args:
        model: a causal language model, in evaluation mode.
        batch: left-padded prompts.
        max_response_tokens: limit of a response, EOS included.
        stop_ids: tokens that end a response.
        sampling: how to draw, and how many at once.
        seed: of the run.
        phase: number of the rollout phase.
        progress: told how many steps of decoding are done, of the most there can be.
    """
    noise = uniforms(seed, phase, batch.sample_ids, max_response_tokens).to(batch.tokens.device)
    rows: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    groups = length_groups(batch.mask.sum(1), sampling.batch_size)
    for number, group in enumerate(groups):
        width = int(batch.mask[group].sum(1).max())
        tokens, mask = batch.tokens[group, -width:], batch.mask[group, -width:]
        before, most = number * max_response_tokens, len(groups) * max_response_tokens

        def stepped(t: int, before: int = before, most: int = most) -> None:
            if progress:
                progress("sample", before + t + 1, most)

        ids = [batch.prompts[i].id for i in group.tolist()]
        rows.append(decode(model, tokens, mask, noise[group], stop_ids, sampling, stepped, ids))
    if progress:
        progress("sample", most, most)
    length = max(r[0].shape[1] for r in rows)
    pad = [length - r[0].shape[1] for r in rows]
    padded = [
        [nn.functional.pad(row[field], (0, p)) for field in (0, 1, 3)]
        for row, p in zip(rows, pad, strict=True)
    ]
    responses, masks, logprobs = (in_order([row[i] for row in padded], groups) for i in range(3))
    finished = in_order([row[2] for row in rows], groups)
    tokens = torch.cat([batch.tokens, responses], dim=1)
    return Rollout(tokens, batch.mask, masks, finished, logprobs)


def to_samples(
    rollout: Rollout,
    prompts: Sequence[Prompt],
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
) -> list[Sample]:
    """A rollout as text and token lists, one sample a row, for reward functions and for people."""
    rollout = Rollout(*(field.cpu() for field in rollout))
    prompt_rows = rollout.tokens[:, : rollout.prompt_mask.shape[1]]
    lengths = rollout.response_mask.sum(1).tolist()
    finished = rollout.finished.tolist()
    samples = []
    for i, prompt in enumerate(prompts):
        response = rollout.responses[i, : lengths[i]].tolist()
        samples.append(
            Sample(
                prompt=prompt,
                response=template.decode_response(tokenizer, response),
                prompt_tokens=prompt_rows[i][rollout.prompt_mask[i]].tolist(),
                response_tokens=response,
                finished=finished[i],
            )
        )
    return samples


class Texts(NamedTuple):
    """How prompts and responses are written, and how long a response may be."""

    tokenizer: PreTrainedTokenizerBase
    template: Template
    max_response_tokens: int

    def respond(
        self,
        policy: nn.Module,
        prompts: PromptBatch,
        sampling: Sampling,
        seed: int,
        phase: int,
        progress: Progress | None,
    ) -> Rollout:
        """Respond to prompts; arguments as for ``sample``."""
        stops, limit = self.template.stop_ids(self.tokenizer), self.max_response_tokens
        return sample(policy, prompts, limit, stops, sampling, seed, phase, progress)

    def samples(self, rollout: Rollout, prompts: Sequence[Prompt]) -> list[Sample]:
        """A rollout as reward functions see it."""
        return to_samples(rollout, prompts, self.tokenizer, self.template)
