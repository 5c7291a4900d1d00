"""What only a GPU shows: CUDA's kernels say what the others do. Skipped where there is none."""

import warnings

import pytest
import torch
from flat_families import FAMILIES, flat_rows
from small_decoders import KINDS, PROMPTS, build, respond
from small_ppo import Watch, in_pieces, make
from strict_varlen import StrictVarlen
from torch.nn.attention.varlen import varlen_attn
from torch.testing import assert_close

from instructgpt.functional.layout import Layout
from instructgpt.models.flat import hidden_states, predict
from instructgpt.models.flat_proof import PROOFS
from instructgpt.models.forward import run
from instructgpt.models.load import Network, load_policy
from instructgpt.models.pages import PAGE, Pages
from instructgpt.models.stretches import Stretches
from instructgpt.models.trained import LoRA
from instructgpt.models.varlen import varlen_takes
from instructgpt.modules.networks import Value
from instructgpt.rollout import decoding
from instructgpt.rollout.drawing import Ends, Sampling
from instructgpt.rollout.engine import fits_slots
from instructgpt.types import FlatRows

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SIZES = {"n_embd", "hidden_size", "head_dim", "intermediate_size", "ffn_dim"}
SEGMENTS = ("gpt2", "gpt_neox", "opt", "phi", "llama", "mistral", "qwen2", "qwen3", "granite")
"""Without what torch's attention over segments does not have: soft caps, sinks, chunks."""


def on_device(rows):
    layout = Layout(rows.layout.lengths, rows.layout.parents).to("cuda")
    return FlatRows(rows.tokens.cuda(), layout)


def wide(name, tokenizer, network):
    """Heads of 16 numbers, as the kernels need a multiple of 8."""
    torch.manual_seed(0)
    sizes = {key: 4 * value if key in SIZES else value for key, value in FAMILIES[name].items()}
    return load_policy(None, {"model_type": name, **sizes}, network, tokenizer).eval().cuda()


@pytest.mark.parametrize("name", SEGMENTS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_flat_rows_are_read_as_each_row_alone(name, dtype, tiny_tokenizer):
    model, rows = wide(name, tiny_tokenizer, Network(dtype)), on_device(flat_rows())
    places = (rows.layout.previous >= 0).nonzero().squeeze(1)
    found = predict(model, rows, places)
    kernel = "varlen" if dtype == "bfloat16" else "grouped"
    assert set(getattr(model, PROOFS).values()) == {kernel}
    found.logprobs.sum().backward()
    gradients = [p.grad.float().clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    alone = {}
    for row in rows.layout.row_places.split(rows.layout.row_lengths.tolist()):
        tokens = rows.tokens[row.cuda()][None]
        logits = run(model, tokens, torch.ones_like(tokens).bool()).logits[0, :-1].float()
        said = logits.log_softmax(-1).gather(1, tokens[0, 1:, None]).squeeze(1)
        alone |= zip(row[1:].tolist(), said, strict=True)
    expected = torch.stack([alone[place] for place in places.tolist()])
    expected.sum().backward()
    near = {"atol": 2e-2, "rtol": 2e-2} if dtype == "bfloat16" else {"atol": 1e-5, "rtol": 1e-4}
    assert_close(found.logprobs, expected, **near)
    naive = [p.grad.float() for p in model.parameters() if p.grad is not None]
    for one, other in zip(gradients, naive, strict=True):
        assert (one - other).norm() <= (0.05 if dtype == "bfloat16" else 1e-4) * other.norm() + 1e-4


@pytest.mark.parametrize("name", ["gemma2", "gpt_oss", "llama4_text"])
def test_what_segments_cannot_do_is_grouped_or_padded(name, tiny_tokenizer):
    model, rows = wide(name, tiny_tokenizer, Network("bfloat16")), on_device(flat_rows())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = hidden_states(model, rows).float()
    for row in rows.layout.row_places.split(rows.layout.row_lengths.tolist()):
        tokens = rows.tokens[row.cuda()][None]
        output = run(model, tokens, torch.ones_like(tokens).bool(), hidden=True).hidden[0].float()
        assert (found[row.cuda()] - output).norm() <= 0.03 * output.norm()


@pytest.mark.parametrize("name", [*KINDS, "shift_gpt"])
def test_greedy_tokens_in_graphs_are_those_of_generate(name, recwarn):
    model = build(name).cuda()
    assert fits_slots(model)
    said = respond(model, Sampling(temperature=0.0, batch_size=2), ends=Ends(20, ()))
    told = [str(w.message) for w in recwarn if "decoded" in str(w.message)]
    if name == "mixtral":  # how many tokens an expert gets, the host has to know
        assert len(told) == 1
        assert told[0].startswith("mixtral is decoded without CUDA graphs")
    else:
        assert not told
    for prompt, one in zip(PROMPTS, said, strict=True):
        options = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": None}
        tokens = torch.tensor([prompt], device="cuda")
        expected = model.generate(tokens, pad_token_id=0, **options)
        assert one.tokens == expected[0, len(prompt) :].tolist()


@pytest.mark.parametrize("batch_size", [3, 24])
def test_graphs_change_no_response(batch_size, monkeypatch):
    model, ends = build("llama").cuda(), Ends(40, range(2))
    sampling = Sampling(0.8, top_k=20, batch_size=batch_size, repetition_penalty=1.3)
    graphed = respond(model, sampling, 8 * PROMPTS, ends)
    monkeypatch.setitem(decoding.PACES, "cuda", decoding.PACES["cuda"]._replace(graphs=False))
    for one, other in zip(graphed, respond(model, sampling, 8 * PROMPTS, ends), strict=True):
        assert one._replace(logprobs=[]) == other._replace(logprobs=[])
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_no_token_waits_for_the_device():
    model = build("llama").cuda()
    respond(model, Sampling(), ends=Ends(2, ()))
    waits = []
    for limit in (16, 48):
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                respond(model, Sampling(), ends=Ends(limit, ()))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        waits.append(len([w for w in caught if "synchroniz" in str(w.message)]))
    assert waits[1] - waits[0] <= 4  # one for each look at what has ended


PAGES = varlen_takes("block_table")


@pytest.mark.skipif(not PAGES, reason="needs torch 2.12")
@pytest.mark.parametrize("heads", [4, 2])
@pytest.mark.parametrize("window", [None, 100])
def test_torch_attends_to_pages_as_it_documents(heads, window):
    """And alike to the last bit whatever rows are beside one."""
    noise = torch.Generator("cuda").manual_seed(0)
    used = torch.tensor([1, 255, 256, 257, 600, 1], dtype=torch.int32, device="cuda")
    ends = torch.arange(len(used) + 1, dtype=torch.int32, device="cuda")
    query, *stored = (
        torch.randn(shape, generator=noise, device="cuda", dtype=torch.bfloat16)
        for shape in ((len(used), 4, 64), *[(20, PAGE, heads, 64)] * 2)
    )
    table = torch.randperm(20, generator=noise, device="cuda")[:18].view(6, 3).int()
    options = {
        "scale": 0.1,
        "window_size": (-1, -1) if window is None else (window - 1, 0),
        "enable_gqa": heads < 4,
        "num_splits": 1,
    }

    @torch.no_grad()
    def attend(kernel, rows):
        own, places = ends[: rows + 1], (1, 3 * PAGE)
        more = options | {"seqused_k": used[:rows], "block_table": table[:rows]}
        return kernel(query[:rows], *stored, own, own * 3 * PAGE, *places, **more)

    assert_close(attend(varlen_attn, 6), attend(StrictVarlen(), 6), atol=2e-2, rtol=2e-2)
    assert torch.equal(attend(varlen_attn, 6)[:2], attend(varlen_attn, 2))


@pytest.mark.parametrize("precision", ["bfloat16", "mixed"])
@pytest.mark.parametrize("name", ["llama", "mistral", "gpt_neox"] if PAGES else ["gpt_neox"])
def test_rows_that_are_read_as_far_as_they_go_are_as_likely_as_alone(name, precision, recwarn):
    """Rows that begin in the first page or behind it and cross to the next, in graphs."""
    mixed = precision == "mixed"
    model = build(name).cuda() if mixed else build(name).cuda().bfloat16()
    prompts = [[(7 * i + n) % 60 + 2 for i in range(n)] for n in (PAGE - 9, 2 * PAGE + 5, 3, 40)]
    with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
        assert fits_slots(model).slots is (Pages if PAGES else Stretches)
        said = respond(model, Sampling(batch_size=3), prompts, Ends(20, ()))
        for prompt, one in zip(prompts, said, strict=True):
            with torch.no_grad():
                row = torch.tensor([prompt + one.tokens], device="cuda")
                logits = model(row).logits[0, len(prompt) - 1 : -1]
            expected = logits.float().log_softmax(-1)[range(20), one.tokens].tolist()
            assert one.logprobs == pytest.approx(expected, abs=0.1)
    assert not [w for w in recwarn if "decoded" in str(w.message)]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "16-mixed"])
@pytest.mark.parametrize("value", ["separate", "shared"])
def test_first_ratio_is_exactly_one(fit, prompt_data, policy_artefact, value, precision):
    watch = Watch()
    module = in_pieces(policy_artefact, value)
    how = {"precision": precision, "accelerator": "gpu"}
    fit(module, prompt_data(), max_epochs=3, callbacks=[watch], **how)
    for phase in watch.phases:
        assert phase["ppo/first_ratio_error"] == 0
        assert phase["ppo/sampler_kl"] < (1e-8 if precision == "32-true" else 1e-2)


def test_adapters_learn(fit, prompt_data, policy_artefact):
    watch = Watch()
    module = make(policy_artefact, trained=LoRA(rank=2), value=Value("separate", lr=0.1))
    fit(module, prompt_data(), max_epochs=2, callbacks=[watch], accelerator="gpu")
    assert [phase["ppo/first_ratio_error"] for phase in watch.phases] == [0, 0]
