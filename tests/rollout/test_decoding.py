"""Decoding in slots: the tokens of ``generate`` of transformers, whatever waits and leaves."""

from types import SimpleNamespace

import pytest
import torch
from small_decoders import ALIKE, PADDED, PROMPTS, build, respond
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from instructgpt.models.forward import KNOWN_IDS
from instructgpt.models.pages import Pages
from instructgpt.models.slots import Fit
from instructgpt.rollout import decoding, engine
from instructgpt.rollout.drawing import Drawing, Ends, Request, Sampling, StopText
from instructgpt.rollout.engine import fits_slots
from instructgpt.rollout.padded import decode_padded


def assert_greedy(model, responses):
    """They are what ``generate`` of transformers says of each prompt alone."""
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    for prompt, said in zip(PROMPTS, responses, strict=True):
        row = torch.tensor([prompt])
        expected = model.generate(row, attention_mask=torch.ones_like(row), **options)
        assert said.tokens == expected[0, len(prompt) :].tolist()


@pytest.mark.parametrize("name", ALIKE)
def test_greedy_tokens_are_those_of_generate(name, recwarn):
    model = build(name)
    assert fits_slots(model)
    assert not [w for w in recwarn if "padded" in str(w.message)]
    assert_greedy(model, respond(model, Sampling(temperature=0.0, batch_size=2)))


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "mistral", "shift_gpt"])
def test_slots_and_padded_batches_sample_the_same(name):
    """Rows that leave after 1 to 8 tokens, with the log-probabilities of the policy."""
    model, ends = build(name), Ends(8, range(20))
    sampling = Sampling(temperature=0.8, batch_size=3)
    slots = respond(model, sampling, ends=ends)
    requests = [Request(prompt, number, "") for number, prompt in enumerate(PROMPTS)]
    drawing = Drawing(requests, 3, ends, sampling, (5, 0), torch.device("cpu"))
    padded = sorted(one for some in decode_padded(model, drawing, 3) for one in some)
    assert len({len(one.tokens) for one in slots}) > 1
    for one, other in zip(slots, padded, strict=True):
        assert (one.tokens, one.finished) == (other.tokens, other.finished)
        assert one.logprobs == pytest.approx(other.logprobs, abs=2e-5)


@pytest.mark.parametrize("size", [1, 2, 5, 24])
def test_many_responses_to_a_prompt_share_its_pass(size, monkeypatch):
    model = build("llama")
    monkeypatch.setitem(decoding.PACES, "cpu", decoding.PACES["cpu"]._replace(entering=16))
    prompts = [prompt for prompt in PROMPTS for _ in range(4)]
    alone = respond(model, Sampling(batch_size=1), prompts, Ends(8, range(20)))
    assert respond(model, Sampling(batch_size=size), prompts, Ends(8, range(20))) == [
        one._replace(logprobs=pytest.approx(one.logprobs, abs=1e-5)) for one in alone
    ]
    seen = []
    model.get_input_embeddings().register_forward_hook(lambda _, x, __: seen.append(x[0].numel()))
    respond(model, Sampling(batch_size=24), prompts, Ends(1, ()))
    alone_tokens = sum(len(prompt) - 1 for prompt in PROMPTS)
    assert sum(seen) <= alone_tokens + 2 * len(prompts)


@pytest.mark.parametrize("name", PADDED)
def test_what_cannot_be_in_slots_is_padded_and_said(name):
    model = build(name)
    with pytest.warns(UserWarning, match=f"^{name} is decoded in padded batches") as told:
        responses = respond(model, Sampling(temperature=0.0, batch_size=4))
    assert len([one for one in told if "padded" in str(one.message)]) == 1
    assert_greedy(model, responses)


@pytest.mark.parametrize("places", [True, False])
def test_rounding_of_half_precision_is_no_fault_but_wrong_places_are(places, recwarn):
    """As far as pretrained networks go: single tokens by some tenths of nats."""
    model = build("llama").bfloat16()
    model.lm_head.weight.data.mul_(4)
    model.lm_head.register_forward_hook(lambda _, __, said: said + 0.3 * torch.randn_like(said))
    if not places:
        whole = model.forward
        model.forward = lambda *args, position_ids=None, **rest: whole(*args, **rest)
    assert bool(fits_slots(model)) is places
    assert ["padded" in str(one.message) for one in recwarn] == ([] if places else [True])


def test_a_network_is_proved_once(monkeypatch):
    model, tried = build("gpt2"), []
    monkeypatch.setattr(
        engine, "_tried", lambda model, slots: tried.append(model) or (Fit(slots), "")
    )
    respond(model, Sampling())
    respond(model, Sampling())
    assert tried == [model]


def test_least_length_and_penalty_are_those_of_generate():
    model = build("llama")
    free = respond(model, Sampling(temperature=0.0))[1].tokens
    stop = free[1]
    sampling = Sampling(temperature=0.0, min_response_tokens=4, repetition_penalty=1.7)
    for prompt, said in zip(PROMPTS, respond(model, sampling, ends=Ends(8, [stop])), strict=True):
        expected = model.generate(
            torch.tensor([prompt]),
            max_new_tokens=8,
            min_new_tokens=4,
            repetition_penalty=1.7,
            do_sample=False,
            eos_token_id=stop,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        assert said.tokens == expected
        assert said.finished == (expected[-1] == stop)


def test_log_probabilities_are_of_the_policy_whatever_bends_the_logits():
    model = build("llama")
    sampling = Sampling(0.7, top_k=5, top_p=0.9, min_response_tokens=3, repetition_penalty=2.0)
    for prompt, said in zip(PROMPTS, respond(model, sampling, ends=Ends(8, [3])), strict=True):
        row = torch.tensor([prompt + said.tokens])
        with torch.no_grad():
            logprobs = (model(row).logits[0, len(prompt) - 1 : -1] / 0.7).log_softmax(-1)
        expected = logprobs[range(len(said.tokens)), said.tokens].tolist()
        assert said.logprobs == pytest.approx(expected, abs=2e-5)


def test_tokens_are_told_as_they_come():
    heard = {number: [] for number in range(len(PROMPTS))}

    def told(numbers, tokens):
        for number, token in zip(numbers.tolist(), tokens.tolist(), strict=True):
            heard[number].append(token)

    said = respond(build("gpt2"), Sampling(batch_size=2), ends=Ends(8, range(20)), told=told)
    assert heard == {one.number: one.tokens for one in said}


def test_bfloat16_decodes_in_slots():
    model = build("llama").to(torch.bfloat16)
    said = respond(model, Sampling(batch_size=2))
    assert fits_slots(model)
    for prompt, one in zip(PROMPTS, said, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + one.tokens])).logits[0, len(prompt) - 1 : -1]
        expected = logits.float().log_softmax(-1)[range(8), one.tokens].tolist()
        assert one.logprobs == pytest.approx(expected, abs=0.1)


class Watched(TorchDispatchMode):
    """Counts what a host would wait for a device in, and notes all operations with their shapes."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.waits, self.done = 0, [[]]
        for name in ("tolist", "item", "__bool__", "__int__", "__float__", "__index__", "cpu"):
            monkeypatch.setattr(torch.Tensor, name, self.counting(getattr(torch.Tensor, name)))
        monkeypatch.setattr(torch, "tensor", self.counting(torch.tensor))  # a copy to the device

    def counting(self, real):
        def counted(*args, **options):
            self.waits += 1
            return real(*args, **options)

        return counted

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name, given = function.name(), [x for x in tree_leaves(args) if isinstance(x, torch.Tensor)]
        self.waits += name.startswith(("aten::nonzero", "aten::masked_select", "aten::equal"))
        indices = tree_leaves(args[1]) if name in {"aten::index.Tensor", "aten::index_put_"} else []
        self.waits += any(x is not None and x.dtype == torch.bool for x in indices)
        self.done[-1].append((name, [tuple(x.shape) for x in given]))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("name", "paged"),
    [("llama", False), ("mistral", False), ("shift_gpt", False), ("llama", True)],
)
def test_nothing_waits_for_a_device_between_two_looks(name, paged, monkeypatch):
    """All of these steps do the same with the same shapes, too, as a graph of kernels needs it."""
    model, text = build(name), SimpleNamespace(end=lambda *_: None)
    if paged:
        monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", lambda q, *_, **__: q.clone())
        monkeypatch.setattr(engine, "fits_slots", lambda _: Fit(Pages))
        monkeypatch.setattr("instructgpt.models.pages.PAGE", 4)
    setattr(model, KNOWN_IDS, (62, [0, 7]))
    monkeypatch.setitem(decoding.PACES, "cpu", decoding.ELSEWHERE)
    sampling = Sampling(0.7, 0.9, 9, min_response_tokens=50, repetition_penalty=1.5)
    prompts, waits = [PROMPTS[1], PROMPTS[1], PROMPTS[5]], []
    respond(model, sampling, prompts, Ends(1, ()))
    for limit in (9, 17, 33):
        with monkeypatch.context() as patch, Watched(patch) as seen:
            told = lambda *_: seen.done.append([])  # noqa: E731
            respond(model, sampling, prompts, Ends(limit, [3], text), told)
        waits.append(seen.waits)
        assert seen.done[3] == seen.done[4] == seen.done[5] == seen.done[6]
    assert waits[1] - waits[0] == 4  # what has ended, and the text so far
    assert waits[2] - waits[1] == 2 * 4


@pytest.mark.parametrize("name", ["llama", "bloom"])
def test_looking_seldom_changes_no_response(name, monkeypatch, tiny_tokenizer):
    """Rows that end between two looks end where they do when each token is looked at."""
    model, answers = build(name), []
    stop = tiny_tokenizer.decode([33])
    sampling = Sampling(batch_size=3, min_response_tokens=2, stop=stop)
    ends = Ends(24, range(5), StopText(stop, tiny_tokenizer))
    for pace in (decoding.PACES["cpu"], decoding.ELSEWHERE):
        monkeypatch.setitem(decoding.PACES, "cpu", pace)
        answers.append(respond(model, sampling, 3 * PROMPTS, ends))
    for one, other in zip(*answers, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
        assert one._replace(logprobs=[]) == other._replace(logprobs=[])
    lasts = [one.tokens[-1] for one in answers[0] if one.finished]
    assert any(last < 5 for last in lasts)
    assert any(last >= 5 for last in lasts)


class Recorded:
    """In the place of CUDA graphs: what a graph records must be the same whenever it is sent."""

    def __init__(self, name):
        self.seen, self.sent = {}, 0

    def run(self, kind, step, live, ranges):
        where = [tensor.data_ptr() for tensor in live], [len(tensor) for tensor in live], ranges
        assert self.seen.setdefault(kind, where) == where
        self.sent += 1
        step(live, ranges)


@pytest.mark.parametrize("name", ["llama", "mistral", "shift_gpt"])
def test_rows_that_nobody_reads_change_no_response(name, monkeypatch):
    """A graph has one of a few numbers of rows, and widths; told are only real tokens."""
    model, ends, made = build(name), Ends(24, range(5)), []
    sampling = Sampling(0.7, batch_size=9, repetition_penalty=1.5)
    plain = respond(model, sampling, 3 * PROMPTS, ends)
    heard = {number: [] for number in range(len(plain))}

    def told(numbers, tokens):
        for number, token in zip(numbers.tolist(), tokens.tolist(), strict=True):
            heard[number] += [token] * (token >= 0)

    monkeypatch.setattr(decoding, "Graphs", lambda name: made.append(Recorded(name)) or made[-1])
    monkeypatch.setattr(decoding, "FEWEST", 2)
    pace = decoding.PACES["cuda"]._replace(widths=8)
    monkeypatch.setitem(decoding.PACES, "cpu", pace)
    graphed = respond(model, sampling, 3 * PROMPTS, ends, told)
    for one, other in zip(plain, graphed, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
        assert one._replace(logprobs=[]) == other._replace(logprobs=[])
    assert heard == {one.number: one.tokens for one in plain}
    assert made[0].sent > 2 * len(made[0].seen) > 8
