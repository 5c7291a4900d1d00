"""MinHash: how much the words of texts overlap, from a few numbers of each (Broder 1997)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from instructgpt.hygiene.words import Flat

HASHES = 128
"""Numbers kept of a text; an estimated similarity s is off by sqrt(s (1 - s) / 128)."""

MISSED = 0.01
"""Share of pairs as similar as asked for that are never compared."""

_BLOCK = 32_768
_PAIRS = 65_536
_ROUNDS = 64


def signatures(sets: Flat) -> np.ndarray:
    """The smallest of each of 128 hashes over the members of each set, [sets, 128] uint32.

    The share of equal numbers of two sets estimates their Jaccard similarity, members in common
    over members of either.

    Args:
        sets: members as 64-bit hashes; at least one each.
    """
    rng = np.random.Generator(np.random.PCG64(0))
    factors = rng.integers(0, 2**63, HASHES, np.uint64) * np.uint64(2) + np.uint64(1)
    terms = rng.integers(0, 2**63, HASHES, np.uint64)
    result = np.empty((len(sets.counts), HASHES), np.uint32)
    for first, last in _blocks(sets):
        begin = sets.starts[first]
        values = sets.values[begin : sets.starts[last - 1] + sets.counts[last - 1]]
        starts = sets.starts[first:last] - begin
        for number in range(HASHES):
            hashed = values * factors[number]
            hashed += terms[number]
            hashed >>= np.uint64(32)
            result[first:last, number] = np.minimum.reduceat(hashed, starts)
    return result


def _blocks(sets: Flat) -> Iterator[tuple[int, int]]:
    """Sets that together fit into the cache of a processor."""
    first, total = 0, 0
    for place, count in enumerate(sets.counts.tolist()):
        if total and total + count > _BLOCK:
            yield first, place
            first, total = place, 0
        total += count
    if total:
        yield first, len(sets.counts)


def band_rows(similarity: float) -> int:
    """How many numbers have to agree at once for a pair to be compared.

    As many as leave no more than ``MISSED`` of the pairs of this similarity without any of their
    128 / rows bands equal.

    Args:
        similarity: in (0, 1].

    Examples:
        >>> [band_rows(similarity) for similarity in (0.5, 0.7, 0.8, 0.9)]
        [3, 4, 6, 10]
    """
    rows = 1
    while rows < 16 and (1 - similarity ** (rows + 1)) ** (HASHES // (rows + 1)) <= MISSED:
        rows += 1
    return rows


def clusters(signed: np.ndarray, similarity: float) -> np.ndarray:
    """For each text the first text of its cluster, itself where that is the first.

    A cluster is what chains of similar pairs connect.

    Args:
        signed: signatures [N, 128]; may lie on disk.
        similarity: estimated, from which two texts belong together.
    """
    parent = np.arange(len(signed))
    rows = band_rows(similarity)
    for begin in range(0, HASHES - rows + 1 if len(signed) else 0, rows):
        keys = _band_keys(signed, begin, rows)
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        begins = np.concatenate([[True], ordered[1:] != ordered[:-1]])
        _join(parent, signed, order, np.cumsum(begins), similarity)
    return parent


def _band_keys(signed: np.ndarray, begin: int, rows: int) -> np.ndarray:
    keys = np.empty(len(signed), np.uint64)
    for start in range(0, len(signed), _PAIRS):
        part = np.asarray(signed[start : start + _PAIRS, begin : begin + rows], np.uint64)
        mixed = np.zeros(len(part), np.uint64)
        for column in part.T:
            mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
        keys[start : start + _PAIRS] = mixed
    return keys


def _join(
    parent: np.ndarray, signed: np.ndarray, members: np.ndarray, groups: np.ndarray, least: float
) -> None:
    """Join the similar ones of each group: all are compared with its first, then what is left.

    Args:
        parent: of each text, in place; leads to the first of its cluster.
        signed: signatures.
        members: texts, group by group, in order.
        groups: numbers of the groups of the members.
        least: similarity.
    """
    for _ in range(_ROUNDS):
        starts = np.flatnonzero(np.concatenate([[True], groups[1:] != groups[:-1]]))
        sizes = np.diff([*starts, len(members)])
        firsts = np.repeat(members[starts], sizes)
        apart = parent[firsts] != parent[members]
        firsts, members, groups = firsts[apart], members[apart], groups[apart]
        if not len(members):
            return
        alike = np.concatenate([
            (signed[firsts[at : at + _PAIRS]] == signed[members[at : at + _PAIRS]]).mean(1) >= least
            for at in range(0, len(members), _PAIRS)
        ])  # fmt: skip
        for first, other in zip(firsts[alike].tolist(), members[alike].tolist(), strict=True):
            roots = sorted((_root(parent, first), _root(parent, other)))
            parent[roots[1]] = roots[0]
        while (parent != parent[parent]).any():
            parent[:] = parent[parent]
        members, groups = members[~alike], groups[~alike]
        if not len(members):
            return


def _root(parent: np.ndarray, text: int) -> int:
    while parent[text] != text:
        text = int(parent[text])
    return text
