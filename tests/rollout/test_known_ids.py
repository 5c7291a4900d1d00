"""Ids without a token, beyond the tokenizer or in its gaps, are never drawn."""

import warnings

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from instructgpt.functional.losses import cross_entropy_loss
from instructgpt.models.artefact import save_policy
from instructgpt.models.forward import run
from instructgpt.models.load import Network, load_policy
from instructgpt.models.template import get_template
from instructgpt.rollout.drawing import Sampling
from instructgpt.rollout.rows import flatten
from instructgpt.rollout.sampler import sample
from instructgpt.rollout.scoring import response_logprobs
from instructgpt.types import Prompt, PromptBatch

KNOWN, GAP = 290, 7


class Gapped:
    """The tokenizer, but for one token."""

    def __init__(self, tokenizer):
        self.__dict__.update(tokenizer.__dict__)
        self.tokenizer = tokenizer

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def get_vocab(self):
        return {t: i for t, i in self.tokenizer.get_vocab().items() if i != GAP}


@pytest.fixture(params=[False, True])
def gap(request):
    return request.param


@pytest.fixture
def policy(make_architecture, tiny_tokenizer, gap):
    """A policy that would answer with unknown ids only: their logits are 50 higher."""
    torch.manual_seed(0)
    tokenizer = Gapped(tiny_tokenizer) if gap else tiny_tokenizer
    architecture = make_architecture("llama") | {"vocab_size": 320}
    model = load_policy(None, architecture, Network(), tokenizer).eval()
    model.lm_head = nn.Linear(16, 320)
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.5)
        model.lm_head.bias.zero_()
        model.lm_head.bias[KNOWN:] = 50.0
        model.lm_head.bias[GAP] = 50.0 if gap else 0.0
    return model


def batch_of(count):
    tokens = torch.randint(10, KNOWN, (count, 5), generator=torch.Generator().manual_seed(2))
    prompt = Prompt("x", [], "", {})
    return PromptBatch(tokens, tokens.bool(), torch.arange(count), [prompt] * count)


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(0.0), Sampling(top_k=4), Sampling(top_p=0.5), Sampling(2.0)]
)
def test_never_drawn(policy, gap, sampling):
    rollout = sample(policy, batch_of(16), 12, [0], sampling, seed=3)
    drawn = rollout.responses[rollout.response_mask]
    assert len(set(drawn.tolist())) > 5
    assert drawn.max() < KNOWN
    assert GAP not in drawn if gap else True


def test_scores_of_samples_are_of_the_distribution_that_was_sampled(policy, gap):
    """Softmax over the known ids alone, as a naive oracle computes it."""
    rollout = sample(policy, batch_of(4), 6, [0], Sampling(), seed=3)
    said = response_logprobs(policy, flatten(rollout), 1.0, entropy=True)
    known = [i for i in range(KNOWN) if not (gap and i == GAP)]
    logits = policy(rollout.tokens).logits[:, 4:-1, known]
    expected = logits.log_softmax(-1)
    index = torch.tensor([[known.index(t) for t in row] for row in rollout.responses.tolist()])
    expected_entropy = -(expected.exp() * expected).sum(-1)
    expected = expected.gather(-1, index[..., None]).squeeze(-1)
    real = rollout.response_mask
    torch.testing.assert_close(said.logprobs[real], expected[real], rtol=0, atol=1e-5)
    torch.testing.assert_close(said.entropy[real], expected_entropy[real], rtol=0, atol=1e-5)
    said.logprobs[real].sum().backward()
    assert all(p.grad.isfinite().all() for p in policy.parameters() if p.grad is not None)
    assert policy.lm_head.bias.grad[KNOWN:].abs().sum() == 0


def test_imitation_learns_that_they_are_improbable(policy):
    """The loss is that of transformers, over all ids: other programs read the exported weights."""
    tokens = batch_of(3).tokens
    mask = torch.ones_like(tokens).bool()
    logits = run(policy, tokens, mask, every_id=True).logits
    assert logits.shape[-1] == 320
    total, count = cross_entropy_loss(logits[:, :-1], tokens[:, 1:], mask[:, 1:])
    torch.testing.assert_close(total / count, policy(tokens, labels=tokens).loss)


def test_transformers_does_not_draw_them_from_the_export(
    make_architecture, tiny_tokenizer, tmp_path
):
    architecture = make_architecture("gpt2") | {"vocab_size": 320}
    model = load_policy(None, architecture, Network(), tiny_tokenizer).eval()
    own = {"template": get_template("plain"), "parent": None, "config": {}, "metrics": {}}
    save_policy(model, tiny_tokenizer, tmp_path / "a", stage="sft", **own)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "a").eval()
    assert theirs.generation_config.suppress_tokens == list(range(KNOWN, 320))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drawn = theirs.generate(batch_of(32).tokens, do_sample=True, max_new_tokens=20)
    assert drawn.max() < KNOWN
