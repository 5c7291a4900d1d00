"""Rows of a rollout end to end, as networks read them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from instructgpt.functional.layout import Layout
from instructgpt.types import FlatRows, Rollout


class ResponseRows(NamedTuple):
    """Rows of a rollout without padding, and where their responses are."""

    rows: FlatRows
    places: Tensor  # [M] of the response tokens, row after row
    states: Tensor  # [N, R + 1] places of what comes before each response token and after the last
    mask: Tensor  # [N, R] bool: real response tokens, M of them
    support: Tensor | None  # [M, V / 8] what each was drawn from, where that is recorded

    def of_tokens(self, values: Tensor) -> Tensor:
        """What was said about the response tokens, [M] to [N, R]; 0 after the response."""
        return values.new_zeros(self.mask.shape).masked_scatter(self.mask, values)

    def of_states(self, values: Tensor) -> Tensor:
        """What was said about all tokens, [T] to [N, R + 1]; 0 after the response."""
        real = torch.nn.functional.pad(self.mask, (1, 0), value=True)
        return values[self.states].masked_fill(~real, 0.0)


def flatten(rollout: Rollout) -> ResponseRows:
    """Lay rows of a rollout end to end; neighbours with the same prompt share it.

    Args:
        rollout: some rows.
    """
    device, width = rollout.tokens.device, rollout.prompt_mask.shape[1]
    tokens, prompt, response = (
        x.cpu() for x in (rollout.tokens, rollout.prompt_mask, rollout.response_mask)
    )
    begins = torch.ones(len(tokens), dtype=torch.bool)  # those whose prompt is not the one before
    same = (tokens[1:, :width] == tokens[:-1, :width]) | ~prompt[1:]
    begins[1:] = ~(same & (prompt[1:] == prompt[:-1])).all(1)
    kept = torch.cat([prompt & begins[:, None], response], dim=1)
    places = kept.flatten().cumsum(0).view_as(kept) - 1
    first = begins.nonzero().squeeze(1)[begins.cumsum(0) - 1]
    ends, answers = places[first, width - 1], places[:, width:]
    states = torch.cat([ends[:, None], answers.masked_fill(~response, 0)], dim=1)
    layout = _layout(begins.tolist(), prompt.sum(1).tolist(), response.sum(1).tolist())
    rows = FlatRows(tokens[kept].to(device), layout.to(device))
    mask = rollout.response_mask
    support = rollout.support[mask] if rollout.support.shape[-1] else None
    return ResponseRows(rows, answers[response].to(device), states.to(device), mask, support)


def _layout(begins: list[bool], prompts: list[int], responses: list[int]) -> Layout:
    """One segment where a prompt has one response; else the prompt, then its responses."""
    lengths: list[int] = []
    parents: list[int] = []
    parent = -1
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        if begins[row] and (row + 1 == len(begins) or begins[row + 1]):
            lengths.append(prompt + response)
            parents.append(-1)
            continue
        if begins[row]:
            parent = len(lengths)
            lengths.append(prompt)
            parents.append(-1)
        lengths.append(response)
        parents.append(parent)
    return Layout(torch.tensor(lengths), torch.tensor(parents))
