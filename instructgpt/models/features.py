"""What a reward head reads of a frozen trunk: some layers, at the last token or on average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from instructgpt.functional.layout import Layout
from instructgpt.models.flat import layer_states
from instructgpt.models.flat_proof import evaluating
from instructgpt.models.forward import base_network
from instructgpt.models.layers import layers_of
from instructgpt.types import FlatRows, UserError, require

Tokens = Literal["last", "mean"]


@dataclass(frozen=True)
class Features:
    """States of layers at the last token of a response, their mean over its tokens, or both.

    Args:
        layers: their numbers: 0 is what the first layer reads, i what follows the i-th, -1 what the
            network's own head reads.
        tokens: last, mean.
    """

    layers: tuple[int, ...]
    tokens: tuple[Tokens, ...]

    @classmethod
    def of(cls, layers: list[int], tokens: list[Tokens], trunk: nn.Module, name: str) -> Features:
        """Features of a network, whose layers are counted from the front.

        Args:
            layers: possibly counted from the end.
            tokens: last, mean.
            trunk: the network.
            name: of the option, for the message.
        """
        network = base_network(trunk)
        most = len(layers_of(network, name))
        for layer in layers:
            range_ = f"between {-most - 1} and {most} for '{network.config.model_type}'"
            require(-most - 1 <= layer <= most, name, range_, layer)
        return cls(tuple(layer % (most + 1) for layer in layers), tuple(tokens))

    def is_plain(self, trunk: nn.Module) -> bool:
        """Whether they are what the head of a sequence classifier reads."""
        most = len(layers_of(base_network(trunk), ""))
        return self.layers == (most,) and self.tokens == ("last",)

    @torch.no_grad()
    def read(self, trunk: nn.Module, rows: FlatRows) -> Tensor:
        """The features of each segment, [S, F] float32; those of a prompt are of no use.

        Args:
            trunk: the network; without dropout, in its own number format everywhere.
            rows: each prompt before its responses, or documents, which are responses as wholes.
        """
        with evaluating(trunk), torch.autocast(rows.tokens.device.type, enabled=False):
            states = layer_states(trunk, rows, self.layers)
        found = []
        for kind in self.tokens:
            for one in states:
                last = one[rows.layout.last].float()
                found.append(last if kind == "last" else _means(one, rows.layout, last))
        return torch.cat(found, dim=1)

    def width(self, trunk: nn.Module) -> int:
        """F."""
        device = next(trunk.parameters()).device
        tokens = torch.zeros(2, dtype=torch.int64, device=device)
        return self.read(trunk, FlatRows(tokens, Layout.of([2]).to(device))).shape[1]

    def check(self, trunk: nn.Module, heads: nn.Module, place: str) -> None:
        """Refuse heads that do not read these features, or features that a network has not.

        Args:
            trunk: the network.
            heads: with weights [H, F].
            place: where both were said, for the message.
        """
        self.of(list(self.layers), list(self.tokens), trunk, f"{place}: features.layers")
        given, width = next(heads.parameters()).shape[1], self.width(trunk)
        require(given == width, f"{place}: heads", f"on {width} features", given)


def _means(states: Tensor, layout: Layout, last: Tensor) -> Tensor:
    """The mean over the tokens of each segment, [S, d]; of an empty one the state before it."""
    counts = layout.lengths.to(states.device)[:, None]
    sums = torch.zeros_like(last).index_add_(0, layout.segments, states.float())
    return torch.where(counts > 0, sums / counts.clamp_min(1), last)


def check_tokens(tokens: list[Tokens], name: str) -> None:
    """Refuse what names no tokens, or the same twice.

    Args:
        tokens: as asked for.
        name: of the option.
    """
    known = set(get_args(Tokens))
    if not tokens or len(set(tokens)) < len(tokens) or not set(tokens) <= known:
        raise UserError(f"{name} must be some of {', '.join(sorted(known))}, once, got {tokens}")
