"""How a network makes logits from hidden states, so that they can be made tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from instructgpt.functional.bits import unpack_bits
from instructgpt.functional.logprobs import Readings, read_logits
from instructgpt.functional.tiles import tiled_logprobs
from instructgpt.models.flat_proof import evaluating
from instructgpt.models.forward import base_network, known_ids, network_inputs
from instructgpt.models.peft_private import without_adapters

SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap", "softcap")
"""What configurations call the bound that logits are bent under."""
SCALES = ("logits_scaling", "logit_scale", "lm_head_multiplier", "output_multiplier")
"""What configurations call the number that logits are multiplied with, or divided by."""
FORM = "head_form"
"""Attribute of a network: what was proved about its head."""
MOST_LOGITS = 2**24
"""Of a tile of all ids: 64 MiB in float32."""


@dataclass(frozen=True)
class Form:
    """What a network does to what its head puts out: ``scale * softcap * tanh(x / softcap)``."""

    softcap: float | None
    scale: float

    def of(self, raw: Tensor) -> Tensor:
        """The logits."""
        if self.softcap is not None:
            raw = self.softcap * torch.tanh(raw / self.softcap)
        return raw if self.scale == 1 else raw * self.scale


@dataclass(frozen=True)
class Head:
    """What turns the hidden states of a network into predictions; see :func:`output_head`."""

    model: nn.Module
    form: Form

    @property
    def layer(self) -> Any:
        """What puts numbers out for all ids."""
        return base_network(self.model).get_output_embeddings()

    @property
    def tiled(self) -> bool:
        """Whether it is asked for some ids at a time; else for all ids of a few positions."""
        return type(self.layer) is nn.Linear

    def read(
        self,
        hidden: Tensor,
        targets: Tensor,
        *,
        temperature: float = 1.0,
        entropy: bool = False,
        adapter: bool = True,
        every_id: bool = False,
        support: Tensor | None = None,
    ) -> Readings:
        """How likely tokens are; no logits of all of them are ever in memory.

        Args:
            hidden: [M, d] what the head reads.
            targets: [M] int64, the token that follows each.
            temperature: the logits are divided by it.
            entropy: whether to compute the entropy.
            adapter: False runs the model as if it had no adapter.
            every_id: whether ids without a token keep their logits, as for ``forward.run``.
            support: sets of ids outside which none is possible, as for ``tiled_logprobs``.
        """
        network, head = base_network(self.model), self.layer
        count, holes = (head.weight.shape[0], []) if every_id else known_ids(network)
        impossible = torch.tensor(holes, device=hidden.device) if holes else None
        if self.tiled:
            return tiled_logprobs(
                hidden,
                head.weight,
                targets,
                bias=head.bias,
                softcap=self.form.softcap,
                scale=self.form.scale / temperature,
                impossible=impossible,
                count=count,
                support=support,
                entropy=entropy,
            )

        # Anything else, such as one with an adapter.
        def of_tile(states: Tensor, tokens: Tensor, sets: Tensor | None) -> Readings:
            with nullcontext() if adapter else without_adapters(self.model):
                logits = self.form.of(head(states)[:, :count].float()) / temperature
            if impossible is not None:
                logits = logits.index_fill(-1, impossible, -torch.inf)
            if sets is not None:
                logits = logits.masked_fill(~unpack_bits(sets, slice(count)), -torch.inf)
            return read_logits(logits, tokens, entropy)

        return _tile_by_tile(of_tile, hidden, targets, support, head.weight.shape[0])


def _tile_by_tile(
    of_tile: Callable[[Tensor, Tensor, Tensor | None], Readings],
    hidden: Tensor,
    targets: Tensor,
    support: Tensor | None,
    ids: int,
) -> Readings:
    """Join what is read at a few positions at a time, and read again in the backward pass."""
    size = max(1, MOST_LOGITS // ids)
    states, tokens = hidden.split(size), targets.split(size)
    sets = [None] * len(states) if support is None else support.split(size)
    tiles = [
        checkpoint(of_tile, *tile, use_reentrant=False)
        for tile in zip(states, tokens, sets, strict=True)
    ]
    logprobs, correct, entropies = zip(*tiles, strict=True)
    spread = None if entropies[0] is None else torch.cat(entropies)
    return Readings(torch.cat(logprobs), torch.cat(correct), spread)


def output_head(model: nn.Module) -> Head | None:
    """How a network makes logits, as its configuration says and as it does: checked once.

    Args:
        model: a causal language model, possibly with an adapter.

    Returns:
        None where its logits are no such function of what its head puts out.
    """
    network = base_network(model)
    if not hasattr(network, FORM):
        setattr(network, FORM, _proved(network))
    form: Form | None = getattr(network, FORM)
    return None if form is None else Head(model, form)


@contextmanager
def states_only(network: PreTrainedModel) -> Iterator[list[Tensor]]:
    """Within the context a call notes what the head reads, and makes logits of one position only.

    Args:
        network: a causal language model for which there is an :func:`output_head`.
    """
    seen: list[Tensor] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        seen.append(inputs[0])
        return inputs[0][:1, :1]

    head: Any = network.get_output_embeddings()
    hook = head.register_forward_pre_hook(note)
    try:
        yield seen
    finally:
        hook.remove()


@torch.no_grad()
def _proved(network: PreTrainedModel) -> Form | None:
    """The form that gives the network's own logits: its head is made to put out known numbers."""
    head: Any = network.get_output_embeddings()
    if not isinstance(head, nn.Module) or not hasattr(head, "weight"):
        return None
    weight: Any = head.weight
    if weight.is_meta:  # of a plan: nothing can be computed
        return Form(None, 1.0)
    device, dtype = weight.device, network.dtype
    tokens = torch.zeros(1, 3, dtype=torch.long, device=device)
    draw = torch.randn(1, 3, weight.shape[0], generator=torch.Generator().manual_seed(0))
    # Small numbers show the scale, large ones the bound.
    known = (draw * torch.tensor([1.0, 10.0, 60.0])[:, None]).to(device, dtype)
    shapes = []

    def replace(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        shapes.append(output.shape)
        return known

    hook = head.register_forward_hook(replace)
    try:
        with evaluating(network), torch.autocast(device.type, enabled=False):
            _, inputs = network_inputs(network, tokens, torch.ones_like(tokens, dtype=torch.bool))
            logits: Tensor = network(**inputs, use_cache=False, return_dict=True).logits
    finally:
        hook.remove()
    if shapes != [known.shape] or logits.shape != known.shape:
        return None
    tolerance = max(1e-5, 4 * torch.finfo(logits.dtype).eps)
    for form in _forms(network):
        expected = form.of(known.float())
        if torch.allclose(logits.float(), expected, rtol=tolerance, atol=tolerance):
            return form
    return None


def _forms(network: PreTrainedModel) -> Iterator[Form]:
    """Those that the configuration speaks of, and plain logits."""
    config = network.config.get_text_config()
    softcaps = [getattr(config, name, None) or None for name in SOFTCAPS]
    factors = [getattr(config, name, None) or 1.0 for name in SCALES]
    scales = [1.0, *factors, *(1 / factor for factor in factors)]
    for softcap, scale in product(dict.fromkeys([None, *softcaps]), dict.fromkeys(scales)):
        yield Form(softcap, scale)
        if softcap is not None:  # scaled before it is bent
            yield Form(softcap / scale, scale)
