"""Sets of ids as bits: an eighth of a byte an id."""

from __future__ import annotations

import torch
from torch import Tensor


def pack_bits(members: Tensor) -> Tensor:
    """Which ids are in some sets, [..., V] bool to [..., V / 8] uint8, rounded up.

    Args:
        members: True where an id is in the set.

    Examples:
        >>> pack_bits(torch.tensor([True, False, True] + 6 * [False]))
        tensor([5, 0], dtype=torch.uint8)
    """
    padded = torch.nn.functional.pad(members, (0, -members.shape[-1] % 8))
    powers = 2 ** torch.arange(8, device=members.device)
    sums: Tensor = (padded.unflatten(-1, (-1, 8)) * powers).sum(-1)
    return sums.to(torch.uint8)


def unpack_bits(sets: Tensor, ids: slice) -> Tensor:
    """Which of a range of ids are in some sets, [..., V / 8] to [..., n] bool.

    Args:
        sets: as packed.
        ids: from ``start`` or 0 up to ``stop``.

    Examples:
        >>> unpack_bits(torch.tensor([5, 0], dtype=torch.uint8), slice(1, 4))
        tensor([False,  True, False])
    """
    start = ids.start or 0
    first = start // 8
    some = sets[..., first : -(-ids.stop // 8)]
    bits = (some.unsqueeze(-1) >> torch.arange(8, device=sets.device).to(torch.uint8)) & 1
    return bits.flatten(-2).bool()[..., start - 8 * first : ids.stop - 8 * first]
