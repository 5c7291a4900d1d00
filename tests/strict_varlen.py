"""Stands in for torch's attention over segments, which is for CUDA only: naive, with its rules."""

from itertools import pairwise

import torch


def naive(query, keys, values, scale, window):
    """Attention of a segment, one query at a time."""
    groups, output = query.shape[1] // keys.shape[1], torch.empty_like(query)
    keys, values = (x.repeat_interleave(groups, 1) for x in (keys, values))
    left, right = window
    for place in range(len(query)):
        last = len(keys) - len(query) + place  # counted from the last key
        first = 0 if left < 0 else max(0, last - left)
        stop = len(keys) if right < 0 else last + right + 1
        scores = torch.einsum("hd,khd->hk", query[place], keys[first:stop])
        scores = scores * (query.shape[2] ** -0.5 if scale is None else scale)
        output[place] = torch.einsum("hk,khd->hd", scores.softmax(-1), values[first:stop])
    return output


class OlderVarlen:
    """As torch 2.11 documents it, without pages and grouped heads."""

    def __init__(self):
        self.calls, self.read = 0, 0

    def __call__(
        self,
        query,
        key,
        value,
        cu_seq_q,
        cu_seq_k,
        max_q,
        max_k,
        *,
        return_aux=None,
        scale=None,
        window_size=(-1, -1),
    ):
        assert return_aux is None
        assert query.shape[1:] == key.shape[1:] == value.shape[1:]
        assert len(key) == len(value)
        assert all(x.is_contiguous() for x in (query, key, value, cu_seq_q, cu_seq_k))
        assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
        assert cu_seq_q.shape == cu_seq_k.shape
        (asked, first), (there, start) = (
            (one.diff().tolist(), one.tolist()) for one in (cu_seq_q, cu_seq_k)
        )
        assert first[0] == start[0] == 0
        assert first[-1] == len(query)
        assert start[-1] == len(key)
        assert min(asked) >= 0
        assert max(asked) <= max_q
        assert min(there) >= 0
        assert max(there) <= max_k
        self.calls += 1
        output = torch.empty_like(query)
        for row, many in enumerate(asked):
            place, own = (slice(one[row], one[row + 1]) for one in (first, start))
            self.read += there[row] * (many > 0)
            output[place] = naive(query[place], key[own], value[own], scale, window_size)
        return output


class StrictVarlen:
    """As torch 2.12 documents it for pages, and as FlashAttention 2 checks it.

    Args:
        multiple: that the size of a page must be of.
        half: whether numbers must be in half precision, as the kernel wants them.
    """

    def __init__(self, multiple=256, half=True):
        self.multiple, self.half, self.calls, self.read = multiple, half, 0, 0

    def __call__(
        self,
        query,
        key,
        value,
        cu_seq_q,
        cu_seq_k,
        max_q,
        max_k,
        *,
        return_aux=None,
        scale=None,
        window_size=(-1, -1),
        enable_gqa=False,
        seqused_k=None,
        block_table=None,
        num_splits=None,
    ):
        self.check_numbers(query, key, value, enable_gqa)
        count = len(cu_seq_q) - 1
        self.check_indices(count, cu_seq_q, cu_seq_k, seqused_k, block_table)
        assert return_aux is None
        assert num_splits == 1  # else a row depends on those beside it
        assert type(max_q) is int
        assert type(max_k) is int
        assert scale is None or scale > 0
        ends, used = cu_seq_q.tolist(), seqused_k.tolist()
        assert ends[0] == 0
        assert ends[-1] == len(query)
        assert all(0 <= b - a <= max_q for a, b in pairwise(ends))
        assert max(used) <= max_k <= block_table.shape[1] * key.shape[1]
        assert block_table.min() >= 0
        assert block_table.max() < len(key)
        self.calls += 1
        self.read += sum(used)
        output = torch.empty_like(query)
        for row in range(count):
            pages, place = block_table[row].long(), slice(ends[row], ends[row + 1])
            keys, values = (x[pages].flatten(0, 1)[: used[row]] for x in (key, value))
            output[place] = naive(query[place], keys, values, scale, window_size)
        return output

    def check_numbers(self, query, key, value, enable_gqa):
        assert not torch.is_grad_enabled()  # inference only
        assert query.ndim == 3
        assert key.ndim == value.ndim == 4  # pages, tokens, heads, size
        assert key.shape == value.shape
        assert key.shape[1] % self.multiple == 0
        assert len({x.dtype for x in (query, key, value)}) == 1
        assert not self.half or query.dtype in {torch.bfloat16, torch.float16}
        assert all(x.is_contiguous() for x in (query, key, value))
        assert query.shape[2] == key.shape[3]
        assert query.shape[2] % 8 == 0
        assert query.shape[2] <= 256
        heads, groups = query.shape[1], key.shape[2]
        assert heads % groups == 0 if enable_gqa else heads == groups

    def check_indices(self, count, cu_seq_q, cu_seq_k, seqused_k, block_table):
        assert count > 0
        for one in (cu_seq_q, cu_seq_k, seqused_k, block_table):
            assert one.dtype == torch.int32
        for one in (cu_seq_q, cu_seq_k):  # the kernel wants both, whatever the table says
            assert one.shape == (count + 1,)
            assert one.is_contiguous()
            assert (one.diff() >= 0).all()
        assert seqused_k.shape == (count,)
        assert seqused_k.is_contiguous()
        assert block_table.ndim == 2
        assert len(block_table) == count
        assert block_table.stride(-1) == 1
