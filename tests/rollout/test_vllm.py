"""Rollouts by vLLM, of which a stand-in knows the interface: its builds are too large for tests."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from instructgpt.rollout.drawing import Ends, Request, Sampling, StopText
from instructgpt.rollout.engine import OwnEngine, engine_of
from instructgpt.types import UserError

PROMPTS = [[3, 4, 5], [7], [9, 8, 7, 6, 5]]
ENGINE = Sampling(engine="vllm")


class Params(SimpleNamespace):
    """What a request asks for."""


class LLM:
    """Answers like vLLM, by transformers, from the folder and from weights that it is given."""

    def __init__(self, model, **options):
        self.network = AutoModelForCausalLM.from_pretrained(model).eval()
        self.options, self.pushed, self._kept = options, 0, {}
        torch.manual_seed(0)

    def collective_rpc(self, method, kwargs):
        """It is given weights of a checkpoint, which each layer packs as its device likes."""
        assert method == "reload_weights"
        self.pushed += 1
        self.network.load_state_dict(dict(kwargs["weights_iterator"]), strict=False)

    def generate(self, prompts, params, use_tqdm):
        return [self._one(p["prompt_token_ids"], q) for p, q in zip(prompts, params, strict=True)]

    def reset_prefix_cache(self):
        self._kept.clear()

    def _one(self, prompt, params):
        """Prompts that it has seen are not computed anew, even by other weights."""
        key = (*prompt, params.max_tokens, *params.stop_token_ids)
        if key not in self._kept:
            self._kept[key] = self._computed(prompt, params)
        return self._kept[key]

    def _computed(self, prompt, params):
        assert params.temperature == 0
        tokens, logprobs = [], []
        while len(tokens) < params.max_tokens and not set(tokens[-1:]) & set(params.stop_token_ids):
            with torch.no_grad():
                said = self.network(torch.tensor([prompt + tokens])).logits[0, -1].log_softmax(-1)
            tokens.append(int(said.argmax()))
            logprobs.append({tokens[-1]: SimpleNamespace(logprob=float(said.max()))})
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=tokens, logprobs=logprobs)])


@pytest.fixture
def vllm(monkeypatch):
    made = []

    def llm(**options):
        made.append(LLM(**options))
        return made[-1]

    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = llm, Params
    monkeypatch.setitem(sys.modules, "vllm", module)
    return made


def build():
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    model = AutoModelForCausalLM.from_config(LlamaConfig(**sizes, num_attention_heads=2)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.3)
    return model


def respond(engine, model, sampling, ends=Ends(6, ())):  # noqa: B008
    requests = [Request(prompt, number, "") for number, prompt in enumerate(PROMPTS)]
    found = engine.respond(model, requests, ends, sampling, (1, 2))
    return sorted(one for some in found for one in some)


def test_the_weights_of_the_moment_answer(vllm):
    model, greedy = build(), Sampling(temperature=0.0, engine="vllm")
    before = respond(engine_of(greedy), model, greedy)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.3)
    after = respond(engine_of(greedy), model, greedy)
    assert len(vllm) == 1
    assert vllm[0].pushed == 1
    own = respond(OwnEngine(), model, greedy)
    assert [one.tokens for one in before] != [one.tokens for one in after]
    for one, other in zip(after, own, strict=True):
        assert one.tokens == other.tokens
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_what_ends_a_response(vllm, tiny_tokenizer):
    model, greedy = build(), Sampling(temperature=0.0, engine="vllm")
    free = respond(engine_of(greedy), model, greedy)[0]
    stop = free.tokens[2]
    said = respond(engine_of(greedy), model, greedy, Ends(6, [stop]))[0]
    assert (said.tokens, said.finished) == (free.tokens[: free.tokens.index(stop) + 1], True)
    text = StopText(tiny_tokenizer.decode([stop]), tiny_tokenizer)
    ended = respond(engine_of(greedy), model, greedy, Ends(6, [], text))
    own = respond(OwnEngine(), model, greedy, Ends(6, [], text))
    assert [(one.tokens, one.finished) for one in ended] == [(o.tokens, o.finished) for o in own]
    assert ended[0].finished
    assert not free.finished


def test_which_probabilities_are_recorded_is_asked_anew(vllm, monkeypatch):
    monkeypatch.setattr(LLM, "_one", lambda *given: self_said(given[2]))
    model, warm = build(), Sampling(temperature=0.5, engine="vllm")
    for sampling in (ENGINE, ENGINE, warm, ENGINE):
        respond(engine_of(sampling), model, sampling)
    modes = [one.options["logprobs_mode"] for one in vllm]
    assert modes == ["raw_logprobs", "processed_logprobs", "raw_logprobs"]


def test_its_start_leaves_the_noise_of_the_run_alone(vllm):
    model, greedy = build(), Sampling(temperature=0.0, engine="vllm")
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    respond(engine_of(greedy), model, greedy)
    assert torch.equal(torch.rand(2), expected)


def test_every_sample_has_its_own_seed(vllm, monkeypatch):
    seeds = []
    monkeypatch.setattr(
        LLM, "_one", lambda *given: seeds.append(given[2].seed) or self_said(given[2])
    )
    respond(engine_of(ENGINE), build(), ENGINE)
    assert len(set(seeds)) == len(PROMPTS)


def self_said(params):
    assert params.logprobs == 0
    at = {1: SimpleNamespace(logprob=-1.0)}
    return SimpleNamespace(outputs=[SimpleNamespace(token_ids=[1], logprobs=[at])])


def test_a_head_that_would_stay_as_it_was_is_refused(vllm):
    """On a CPU vLLM packs a tied head once, and new weights of the embedding do not reach it."""
    model = build()
    model.set_output_embeddings(torch.nn.Linear(16, 64, bias=False))
    model.get_output_embeddings().weight = model.get_input_embeddings().weight
    with pytest.raises(UserError, match=r'^sampling.engine must be "own" on a CPU where head'):
        respond(engine_of(ENGINE), model, ENGINE)
    assert vllm == []


def test_one_line_says_that_it_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"^vllm must be installed for sampling.engine vllm"):
        respond(engine_of(ENGINE), build(), ENGINE)


def test_probabilities_that_cannot_be_had_are_refused(vllm):
    sampling = Sampling(temperature=0.5, top_p=0.9, engine="vllm")
    with pytest.raises(UserError, match=r"^sampling.temperature must be 0 or 1 with top_p"):
        respond(engine_of(sampling), build(), sampling)
