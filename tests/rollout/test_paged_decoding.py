"""Decoding where torch attends over segments: what slots say, read no further than a row goes."""

import warnings

import pytest
import torch
from small_decoders import KINDS, PROMPTS, build, respond
from strict_varlen import OlderVarlen, StrictVarlen

from instructgpt.models import pages
from instructgpt.models.pages import Pages
from instructgpt.models.slots import Slots
from instructgpt.models.stretches import Stretches
from instructgpt.rollout import decoding, engine
from instructgpt.rollout.drawing import Ends, Sampling
from instructgpt.rollout.engine import fits_slots

KERNEL = "torch.nn.attention.varlen.varlen_attn"

pytestmark = pytest.mark.filterwarnings("error:.* is decoded")
"""What is wrong in pages would be right in slots, which take their place by themselves."""


class Poisoned(Pages):
    """Says what a row never wrote, and how many pages were taken at most."""

    made = ()

    def __init__(self, count, length, device, size):
        super().__init__(count, length, device, size)
        self.size, self.least, self.shares = size, size, 0
        Poisoned.made += (self,)

    def memory(self, module, name, like):
        new = (module, name) not in self._memory
        memory = super().memory(module, name, like)
        return memory.fill_(torch.nan) if new else memory

    def enter(self, slot, tokens, most, alike=None):
        super().enter(slot, tokens, most, alike)
        self.least = min(self.least, self.free)
        self.shares += alike is not None and tokens >= pages.PAGE


@pytest.fixture
def paged(monkeypatch):
    """Pages of 4 tokens on the CPU, in float32 so that all is as exact as in slots."""
    kernel = StrictVarlen(4, half=False)
    monkeypatch.setattr(pages, "PAGE", 4)
    monkeypatch.setattr(KERNEL, kernel)
    monkeypatch.setattr(engine, "_kinds", lambda _: [Poisoned, Slots])
    monkeypatch.setattr(Poisoned, "made", ())
    return kernel


@pytest.fixture
def stretched(monkeypatch):
    """Stretches of slots, for heads that are not grouped."""
    monkeypatch.setattr(KERNEL, kernel := OlderVarlen())
    monkeypatch.setattr(engine, "_kinds", lambda _: [Stretches, Slots])
    for name in ("llama", "mistral"):
        monkeypatch.setitem(KINDS, name, KINDS[name] | {"num_key_value_heads": 4})
    return kernel


@pytest.fixture(params=["paged", "stretched"])
def ragged(request):
    return request.getfixturevalue(request.param)


def in_slots(name, *args):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_kinds", lambda _: [Slots])
        return respond(build(name), *args)


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
        assert one._replace(logprobs=[]) == other._replace(logprobs=[])


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral"])
def test_greedy_tokens_are_those_of_generate(name, ragged, recwarn):
    """With grouped heads, windows and rows that cross pages."""
    model = build(name)
    assert fits_slots(model).slots is not Slots
    said = respond(model, Sampling(temperature=0.0, batch_size=3))
    assert not [w for w in recwarn if "decoded" in str(w.message)]
    assert ragged.calls
    for prompt, one in zip(PROMPTS, said, strict=True):
        options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
        expected = model.generate(torch.tensor([prompt]), pad_token_id=0, **options)
        assert one.tokens == expected[0, len(prompt) :].tolist()


@pytest.mark.parametrize("name", ["gemma2", "shift_gpt"])
def test_what_pages_cannot_do_is_done_in_slots_and_said(name, paged):
    """Capped scores, and more than keys and values."""
    model = build(name)
    with pytest.warns(UserWarning, match=f"^{name} is decoded with each row as wide") as told:
        said = respond(model, Sampling(0.8), PROMPTS, Ends(8, range(20)))
    assert len(told) == 1
    same(said, in_slots(name, Sampling(0.8), PROMPTS, Ends(8, range(20))))


@pytest.mark.parametrize("room", [None, 9, 0])
def test_where_pages_are_few_prompts_wait(room, paged, monkeypatch):
    """Room for all, for some, and for no more than the longest row."""
    prompts, ends, size = 3 * PROMPTS, Ends(8, range(20)), 5
    expected = in_slots("llama", Sampling(batch_size=size), prompts, ends)
    model = build("llama")
    token_bytes = fits_slots(model).token_bytes
    assert token_bytes == 2 * 2 * 16 * 4  # layers, keys and values, their width, bytes
    if room is not None:
        free = (room + 1.5) * 4 * token_bytes / pages.ROOM
        monkeypatch.setattr(pages, "free_bytes", lambda _: free)
    same(respond(model, Sampling(batch_size=size), prompts, ends), expected)
    memory = Poisoned.made[-1]
    longest = -(-(11 + 8 - 1) // 4)
    if room is not None:
        assert memory.size == max(room, longest)
        assert memory.least < longest
    assert memory.free == memory.size


def test_responses_to_a_prompt_share_its_full_pages(paged):
    """Whether they enter with it, or while others of it are being answered."""
    prompts, ends = [prompt for prompt in PROMPTS for _ in range(4)], Ends(8, range(20))
    for size in (3, 24):
        expected = in_slots("llama", Sampling(batch_size=size), prompts, ends)
        same(respond(build("llama"), Sampling(batch_size=size), prompts, ends), expected)
        memory = Poisoned.made[-1]
        assert memory.shares == 3 * 3  # of the prompts of 11, 9 and 6 tokens, after the first one
        assert memory.free == memory.size
    alone = sum(-(-(len(prompt) + 7) // 4) for prompt in prompts)
    assert memory.size - memory.least == alone - 3 * (2 + 2 + 1)


def test_a_row_is_read_as_far_as_it_goes(ragged):
    fits_slots(model := build("llama"))
    ragged.read = 0
    said = respond(model, Sampling())
    rows = [range(len(p), len(p) + len(o.tokens)) for p, o in zip(PROMPTS, said, strict=True)]
    assert ragged.read == 2 * sum(map(sum, rows))  # layers


class Recorded:
    """In the place of CUDA graphs: what a graph records must be there, and the same, each time."""

    def __init__(self, name):
        self.seen, self.sent = {}, 0

    def run(self, kind, step, live, ranges):
        memory = step.__self__._slots
        table = [memory.table] if isinstance(memory, Pages) else []
        stored = (*live, *table, *memory._memory.values())
        where = [(one.data_ptr(), one.shape) for one in stored], ranges
        assert memory.token_bytes  # made before
        assert self.seen.setdefault(kind, where) == where
        self.sent += 1
        step(live, ranges)
        assert [(one.data_ptr(), one.shape) for one in stored] == where[0]
        assert len(memory._memory) == 2 * 2


@pytest.mark.parametrize("prompts", [3 * PROMPTS, 9 * [[5]]], ids=["many", "nothing to enter"])
def test_one_graph_serves_a_number_of_rows_whatever_their_lengths(prompts, ragged, monkeypatch):
    made, ends = [], Ends(24, range(5))
    sampling = Sampling(0.7, batch_size=9, repetition_penalty=1.5)
    expected = in_slots("mistral", sampling, prompts, ends)
    monkeypatch.setattr(decoding, "Graphs", lambda name: made.append(Recorded(name)) or made[-1])
    monkeypatch.setattr(decoding, "FEWEST", 2)
    monkeypatch.setitem(decoding.PACES, "cpu", decoding.PACES["cuda"])
    same(respond(build("mistral"), sampling, prompts, ends), expected)
    rows = {rows for rows, _ in made[-1].seen}
    assert rows <= {9, 5, 3, 2}
    assert len(made[-1].seen) == len(rows)  # no other for other lengths
    assert made[-1].sent > 3 * len(made[-1].seen)


@pytest.mark.parametrize("auto", [False, True])
def test_pages_hold_half_precision(auto, monkeypatch):
    """With torch's own size of a page, and all its rules."""
    monkeypatch.setattr(engine, "SEGMENTS", {"cpu"})
    monkeypatch.setattr(KERNEL, kernel := StrictVarlen())
    model = build("llama") if auto else build("llama").bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=auto):
        assert fits_slots(model).slots is Pages
        assert fits_slots(model).token_bytes == 2 * 2 * 16 * 2
        said = respond(model, Sampling(batch_size=2))
    assert kernel.calls
    assert fits_slots(model).slots is (Slots if auto else Pages)  # tried for other numbers, too
    for prompt, one in zip(PROMPTS, said, strict=True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=auto):
            logits = model(torch.tensor([prompt + one.tokens])).logits[0, len(prompt) - 1 : -1]
        expected = logits.float().log_softmax(-1)[range(8), one.tokens].tolist()
        assert one.logprobs == pytest.approx(expected, abs=0.1)


def refusing(*_, block_table, seqused_k, num_splits, enable_gqa, window_size, **__):
    raise RuntimeError("head_size must be a multiple of 8")


@pytest.mark.parametrize(
    ("name", "kernel", "slots", "fault"),
    [
        ("gpt2", OlderVarlen(), Stretches, ""),
        ("llama", OlderVarlen(), Slots, "UnsuitedError: its heads are grouped"),
        ("llama", refusing, Slots, "RuntimeError: head_size"),
        ("llama", lambda: None, Slots, ""),  # not the function that it was
    ],
)
def test_rows_have_what_torch_takes(name, kernel, slots, fault, monkeypatch):
    monkeypatch.setattr(engine, "SEGMENTS", {"cpu"})
    monkeypatch.setattr(KERNEL, kernel)
    model = build(name).bfloat16()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert fits_slots(model).slots is slots
        respond(model, Sampling())
    told = [str(one.message) for one in caught if "decoded" in str(one.message)]
    line = f"{name} is decoded with each row as wide as the longest: {fault}"
    assert [one[: len(line)] for one in told] == ([line] if fault else [])


def test_slots_are_refilled_where_torch_has_no_pages(stretched):
    sampling, prompts, ends = Sampling(batch_size=5), 3 * PROMPTS, Ends(8, range(20))
    expected = in_slots("llama", sampling, prompts, ends)
    same(respond(build("llama"), sampling, prompts, ends), expected)
    assert stretched.calls
