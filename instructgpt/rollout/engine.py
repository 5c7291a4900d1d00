"""Who answers requests: our own decoding loop, or another program that is given the weights."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Hashable, Iterator, Sequence
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import PreTrainedModel

from instructgpt.models.forward import base_network, device_of, run, virtual_tokens
from instructgpt.models.pages import Pages
from instructgpt.models.slot_attention import unsuited
from instructgpt.models.slots import Fit, Slots
from instructgpt.models.stretches import Stretches
from instructgpt.models.varlen import varlen_takes
from instructgpt.rollout.decoding import SlotDecoder
from instructgpt.rollout.drawing import Drawing, Ends, Request, Response, Sampling, Told
from instructgpt.rollout.padded import decode_padded


class RolloutEngine(Protocol):
    """Answers requests with the policy of the moment."""

    def respond(
        self,
        model: nn.Module,
        requests: Sequence[Request],
        ends: Ends,
        sampling: Sampling,
        names: tuple[int, int],
        told: Told | None = None,
    ) -> Iterator[list[Response]]:
        """The responses, as they end.

        Args:
            model: the policy, in evaluation mode; its weights may differ from call to call.
            requests: at least one.
            ends: what ends a response.
            sampling: how to draw.
            names: of the noise: seed of the run and number of the phase.
            told: of every token, as it is drawn.
        """


class OwnEngine:
    """Decodes with the network itself: in slots, or padded where its attention does not allow it.

    A response is a function of (policy, prompt, seed, phase, sample id), up to rounding.
    """

    def respond(
        self,
        model: nn.Module,
        requests: Sequence[Request],
        ends: Ends,
        sampling: Sampling,
        names: tuple[int, int],
        told: Told | None = None,
    ) -> Iterator[list[Response]]:
        """The responses, as they end; arguments as for ``RolloutEngine``."""
        device = device_of(base_network(model))
        seats = min(sampling.batch_size, len(requests))
        drawing = Drawing(requests, seats, ends, sampling, names, device, told)
        if fit := fits_slots(model):
            return SlotDecoder(model, drawing, seats, fit).run()
        return decode_padded(model, drawing, seats)


def engine_of(sampling: Sampling) -> RolloutEngine:
    """The engine that was asked for.

    Args:
        sampling: how responses are drawn.
    """
    if sampling.engine == "vllm":
        from instructgpt.rollout.vllm import VLLMEngine

        return VLLMEngine()
    return OwnEngine()


_FITS: WeakKeyDictionary[nn.Module, dict[Hashable, Fit | None]] = WeakKeyDictionary()
"""Networks for which it was tried whether slots say what the network says, by numbers."""


def fits_slots(model: nn.Module) -> Fit | None:
    """How a network can be decoded in slots, None if it cannot; one line says why, once.

    It is tried: a few rows in slots must be as likely as one after the other without a cache.

    Args:
        model: a causal language model.
    """
    if virtual_tokens(model):
        return None  # a prefix of keys stands before the prompt
    network = base_network(model)
    device = device_of(network).type
    known = _FITS.setdefault(network, {})
    numbers = (device, network.dtype, torch.is_autocast_enabled(device))
    if numbers not in known:
        known[numbers] = _proved(model)
    return known[numbers]


SEGMENTS = {"cuda"}
"""Kinds of devices on which torch attends over segments, in half precision."""


def _kinds(model: nn.Module) -> list[type[Slots]]:
    """What rows could be remembered in, the best first."""
    network = base_network(model)
    if _is_half(network) and device_of(network).type in SEGMENTS:
        if varlen_takes("block_table", "seqused_k", "num_splits", "enable_gqa"):  # torch 2.12
            return [Pages, Slots]
        if varlen_takes("window_size"):
            return [Stretches, Slots]
    return [Slots]


def _is_half(network: PreTrainedModel) -> bool:
    return network.dtype.itemsize < 4 or torch.is_autocast_enabled(device_of(network).type)


def _proved(model: nn.Module) -> Fit | None:
    """The first way that is right."""
    network = base_network(model)
    kind, reason = network.config.model_type, unsuited(network)
    for slots in [] if reason else _kinds(model):
        fit, reason = _tried(model, slots)
        if not reason:
            return fit
        if slots is not Slots:
            line = f"{kind} is decoded with each row as wide as the longest: {reason}"
            warnings.warn(line, stacklevel=2)
    line = f"{kind} is decoded in padded batches, which takes longer: {reason}"
    warnings.warn(line, stacklevel=2)
    return None


PROOF_TOKENS = 4
"""Tokens drawn for each row of the proof."""
EXACT = 1e-4
"""Nats (root mean square over the proof) in float32, where 1e-5 is seen."""
ROUNDED = 0.1
"""The same in half precision, or this share of what another prompt changes, if that is more.

Rounding alone moves single tokens of a pretrained network by 0.4 nats, and half of them by 0.03.
"""


def _tried(model: nn.Module, slots: type[Slots]) -> tuple[Fit, str]:
    """What was found, and what goes wrong; nothing if slots say what the network says of rows."""
    network = base_network(model)
    device = device_of(network)
    fit = Fit(slots)
    known = run(model, *_row([1], device)).logits.shape[-1]
    prompts = [[(7919 * i + 31 * row) % known for i in range(row)] for row in (1, 9, 4, 9, 2)]
    requests = [Request(prompt, number, "") for number, prompt in enumerate(prompts)]
    drawing = Drawing(requests, 2, Ends(PROOF_TOKENS, ()), Sampling(), (0, 0), device)
    decoder = SlotDecoder(model, drawing, 2, fit)
    try:
        responses = [one for some in decoder.run() for one in some]
    except Exception as error:  # whatever an architecture does with what it does not know
        logging.getLogger(__name__).debug("slots", exc_info=True)
        return fit, " ".join(f"{type(error).__name__}: {error}".split())[:200]
    if missing := decoder.missing_windows():
        return fit, f"its attention does not say that it sees {missing} tokens"
    differences, changes = [], []
    for number, tokens, logprobs, *_ in responses:
        expected = _logprobs(model, prompts[number], tokens)
        differences.append(torch.tensor(logprobs) - expected)
        changes.append(_logprobs(model, prompts[number - 1], tokens) - expected)
    worst, change = (float(torch.cat(one).square().mean().sqrt()) for one in (differences, changes))
    limit = ROUNDED * max(1.0, change) if _is_half(network) else EXACT
    fault = (
        "" if worst <= limit else f"log-probabilities differ by {worst:.2g}, more than {limit:.2g}"
    )
    return Fit(slots, decoder.token_bytes), fault


@torch.no_grad()
def _logprobs(model: nn.Module, prompt: list[int], tokens: list[int]) -> torch.Tensor:
    """Log-probabilities of the tokens of a proof after a prompt."""
    row = prompt + tokens
    logits = run(model, *_row(row, device_of(base_network(model)))).logits[0, len(prompt) - 1 : -1]
    return logits.float().log_softmax(-1)[range(len(tokens)), tokens].cpu()


def _row(tokens: list[int], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    row = torch.tensor([tokens], device=device)
    return row, torch.ones_like(row, dtype=torch.bool)
