"""Sampling: equal to ``generate``, independent of the batch, the right distribution."""

import pytest
import torch

from instructgpt.functional.bits import unpack_bits
from instructgpt.models import flat
from instructgpt.models.load import Network, load_policy
from instructgpt.models.template import get_template
from instructgpt.models.trained import Prefix, attach
from instructgpt.rollout.drawing import Sampling, draw
from instructgpt.rollout.rows import flatten
from instructgpt.rollout.sampler import Texts, sample, to_samples
from instructgpt.rollout.scoring import response_logprobs
from instructgpt.types import Prompt, PromptBatch, UserError

WORDS = ["Say", "hello to the world", "One two three four five six", "The quick"]


def prompts_of(tokenizer, texts=WORDS):
    template = get_template("plain")
    prompts = [Prompt(t, [{"role": "user", "content": t}], str(i), {}) for i, t in enumerate(texts)]
    ids = [template.encode_prompt(tokenizer, p) for p in prompts]
    width = max(map(len, ids))
    # A pad id that is a real token everywhere: masks must come from lengths.
    tokens = torch.tensor([[5] * (width - len(row)) + row for row in ids])
    mask = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in ids])
    return PromptBatch(tokens, mask, torch.arange(len(ids)), prompts)


@pytest.fixture
def policy(tiny_architecture, tiny_tokenizer):
    torch.manual_seed(1)
    return load_policy(None, tiny_architecture, Network(), tiny_tokenizer).eval()


def test_greedy_equals_transformers_generate(policy, tiny_tokenizer):
    batch = prompts_of(tiny_tokenizer)
    rollout = sample(policy, batch, 12, [0], Sampling(temperature=0), seed=0)
    expected = policy.generate(
        input_ids=batch.tokens,
        attention_mask=batch.mask.long(),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=0,
        pad_token_id=1,
    )[:, batch.tokens.shape[1] :]
    for row in range(len(batch.prompts)):
        n = int(rollout.response_mask[row].sum())
        assert rollout.responses[row, :n].tolist() == expected[row, :n].tolist()
        ended = rollout.responses[row, n - 1] == 0
        assert bool(ended) == bool(rollout.finished[row])
        assert ended or n == 12


def test_stops_at_the_stop_token_and_masks_what_follows(policy, tiny_tokenizer):
    batch = prompts_of(tiny_tokenizer)
    free = sample(policy, batch, 12, [], Sampling(), seed=4)
    assert free.response_mask.all()
    assert not free.finished.any()
    stop = int(free.responses[0, 3])
    stopped = sample(policy, batch, 12, [stop], Sampling(), seed=4)
    for row in range(len(batch.prompts)):
        places = (free.responses[row] == stop).nonzero().flatten().tolist()
        n = places[0] + 1 if places else 12  # the stop token belongs to the response
        assert int(stopped.response_mask[row].sum()) == n
        assert stopped.responses[row, :n].tolist() == free.responses[row, :n].tolist()
        assert bool(stopped.finished[row]) == bool(places)


def test_a_response_does_not_depend_on_its_batch(policy, tiny_tokenizer):
    batch = prompts_of(tiny_tokenizer)
    together = sample(policy, batch, 8, [0], Sampling(), seed=2, phase=3)
    small = sample(policy, batch, 8, [0], Sampling(batch_size=1), seed=2, phase=3)
    n = small.responses.shape[1]
    assert torch.equal(together.response_mask[:, :n], small.response_mask)
    mask = small.response_mask
    assert torch.equal(together.responses[:, :n][mask], small.responses[mask])
    other = sample(policy, batch, 8, [0], Sampling(), seed=2, phase=4)
    assert other.responses.tolist() != together.responses.tolist()


@pytest.mark.parametrize(
    ("name", "adapter"), [("gpt2", None), ("llama", Prefix(tokens=3)), ("lfm2", None)]
)
def test_waiting_prompts_take_the_place_of_what_ends(
    make_architecture, tiny_tokenizer, name, adapter
):
    """Nothing changes, in slots and in padded batches, where half-empty ones are cut down."""
    torch.manual_seed(1)
    policy = load_policy(None, make_architecture(name), Network(), tiny_tokenizer)
    policy = (policy if adapter is None else attach(policy, adapter)).eval()
    batch = prompts_of(tiny_tokenizer, [*WORDS, *reversed(WORDS)])
    stops = list(range(0, len(tiny_tokenizer), 4))  # a quarter of all tokens
    alone = sample(policy, batch, 12, stops, Sampling(batch_size=1), seed=2)
    for size in (3, 8):
        together = sample(policy, batch, 12, stops, Sampling(batch_size=size), seed=2)
        assert torch.equal(together.response_mask, alone.response_mask)
        assert torch.equal(together.finished, alone.finished)
        assert torch.equal(together.tokens, alone.tokens)
        torch.testing.assert_close(together.logprobs, alone.logprobs, atol=1e-5, rtol=0)


def test_logprobs_are_those_of_the_sampling_distribution(policy, tiny_tokenizer):
    """With left padding as one unpadded row at a time, divided by the temperature."""
    batch = prompts_of(tiny_tokenizer)
    rollout = sample(policy, batch, 6, [0], Sampling(temperature=0.7), seed=2)
    got = response_logprobs(policy, flatten(rollout), 0.7)
    mask = rollout.response_mask
    torch.testing.assert_close(rollout.logprobs[mask], got.logprobs[mask], atol=2e-6, rtol=0)
    assert not rollout.logprobs[~mask].any()
    for row in range(len(batch.prompts)):
        tokens = rollout.tokens[row][rollout.mask[row]]
        with torch.no_grad():
            logits = policy(input_ids=tokens[None]).logits[0, :-1] / 0.7
        n = int(rollout.response_mask[row].sum())
        expected = logits.log_softmax(-1).gather(1, tokens[1:, None])[-n:, 0]
        torch.testing.assert_close(got.logprobs[row, :n], expected, atol=2e-5, rtol=1e-5)


def test_inverse_cdf_draws_the_softmax():
    logits = torch.tensor([[0.0, 1.0, -torch.inf, 2.0]])
    grid = (torch.arange(100_000) + 0.5) / 100_000
    drawn, *_ = draw(logits.expand(100_000, -1), grid, Sampling(temperature=2.0))
    shares = drawn.bincount(minlength=4) / 100_000
    # by hand: exp(0), exp(0.5), 0, exp(1) over their sum 5.367
    expected = torch.tensor([0.18632, 0.30720, 0.0, 0.50648])
    torch.testing.assert_close(shares, expected, atol=1e-4, rtol=0)


def test_an_impossible_token_is_never_drawn():
    logits = torch.full((3, 5), -torch.inf)
    logits[:, 2] = 0.0
    noise = torch.tensor([0.0, 0.5, 1.0])  # 1.0 stands for the worst rounding
    assert draw(logits, noise, Sampling())[0].tolist() == [2, 2, 2]


def test_top_k_and_top_p_by_hand():
    # probabilities 0.5, 0.3, 0.15, 0.05
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    grid = (torch.arange(1000) + 0.5) / 1000

    def support(sampling):
        return set(draw(logits.expand(1000, -1), grid, sampling)[0].tolist())

    assert support(Sampling(top_k=2)) == {0, 1}
    assert support(Sampling(top_p=0.5)) == {0}
    assert support(Sampling(top_p=0.51)) == {0, 1}
    assert support(Sampling(top_p=0.81)) == {0, 1, 2}
    assert support(Sampling(top_p=1.0)) == {0, 1, 2, 3}
    assert support(Sampling(temperature=0)) == {0}


def test_samples_as_text(policy, tiny_tokenizer):
    batch = prompts_of(tiny_tokenizer)
    rollout = sample(policy, batch, 6, [0], Sampling(), seed=2)
    samples = to_samples(rollout, batch.prompts, tiny_tokenizer, get_template("plain"))
    for row, text in enumerate(WORDS):
        assert samples[row].prompt_tokens == tiny_tokenizer(text)["input_ids"]
        n = int(rollout.response_mask[row].sum())
        assert samples[row].response_tokens == rollout.responses[row, :n].tolist()
        assert "<|endoftext|>" not in samples[row].response


def test_sampling_ends_early(policy, tiny_tokenizer):
    everything = list(range(len(tiny_tokenizer)))
    rollout = sample(policy, prompts_of(tiny_tokenizer), 50, everything, Sampling(), seed=0)
    assert rollout.responses.shape == (len(WORDS), 1)
    assert rollout.response_mask.all()
    assert rollout.finished.all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature must be >= 0, got -1.0"),
        ({"temperature": float("nan")}, "temperature must be >= 0, got nan"),
        ({"top_p": 0.0}, "top_p must be in (0, 1], got 0.0"),
        ({"top_k": -1}, "top_k must be >= 0, got -1"),
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
    ],
)
def test_values_without_meaning_are_refused(options, message):
    with pytest.raises(UserError) as error:
        Sampling(**options)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "cut", [{"top_k": 3}, {"top_p": 0.5}, {"top_k": 5, "top_p": 0.7, "min_response_tokens": 4}]
)
@pytest.mark.parametrize("head", ["tiles", "whole"])
def test_support_of_the_sampler(policy, tiny_tokenizer, monkeypatch, cut, head):
    """Recorded and trained log-probabilities are of the ids that each token was drawn from."""
    if head == "whole":  # an architecture whose head is not known
        monkeypatch.setattr(flat, "output_head", lambda model: None)
    batch, sampling = prompts_of(tiny_tokenizer), Sampling(temperature=0.7, own_support=True, **cut)
    rollout = sample(policy, batch, 6, [0], sampling, seed=2)
    said = response_logprobs(policy, flatten(rollout), 0.7, entropy=True)
    real = rollout.response_mask
    torch.testing.assert_close(rollout.logprobs[real], said.logprobs[real], atol=2e-6, rtol=0)
    for row in range(len(batch.prompts)):
        tokens, n = rollout.tokens[row][rollout.mask[row]], int(real[row].sum())
        with torch.no_grad():
            logits = policy(input_ids=tokens[None]).logits[0, -n - 1 : -1] / 0.7
        inside = unpack_bits(rollout.support[row, :n], slice(logits.shape[-1]))
        if "top_k" in cut:
            assert (inside.sum(-1) <= cut["top_k"]).all()
        if "min_response_tokens" in cut:
            assert not inside[:4, 0].any()
        logits = logits.masked_fill(~inside, -torch.inf).log_softmax(-1)
        expected = logits.gather(1, tokens[-n:, None]).squeeze(1)
        torch.testing.assert_close(said.logprobs[row, :n], expected, atol=1e-5, rtol=1e-5)
        spread = -(logits.exp() * logits.masked_fill(~inside, 0.0)).sum(-1)
        torch.testing.assert_close(said.entropy[row, :n], spread, atol=1e-5, rtol=1e-5)


def test_no_support_is_kept_where_none_is_asked_for(policy, tiny_tokenizer):
    rollout = sample(policy, prompts_of(tiny_tokenizer), 6, [0], Sampling(top_k=3), seed=2)
    assert rollout.support.shape == (*rollout.response_mask.shape, 0)
    with pytest.raises(UserError, match="own_support must be false where engine is vllm"):
        Sampling(own_support=True, engine="vllm")


def test_a_text_ends_nothing_among_the_least_tokens(policy, tiny_tokenizer):
    """Neither the row nor what is read of it; behind them it ends both."""
    batch, texts = prompts_of(tiny_tokenizer), Texts(tiny_tokenizer, get_template("plain"), 12)
    free = texts.respond(policy, batch, Sampling(min_response_tokens=4), 4, 0, None)
    going = [row for row, ended in enumerate(free.finished.tolist()) if not ended]
    for places in (range(1, 4), range(4, 9)):
        row, place, word = next(
            (row, place, word)
            for row in going
            for place in places
            if (word := tiny_tokenizer.decode(free.responses[row, place])).isalnum()
            if tiny_tokenizer.decode(free.responses[row]).count(word) == 1
        )
        sampling = Sampling(stop=word, min_response_tokens=4)
        rollout = texts.respond(policy, batch, sampling, 4, 0, None)
        assert int(rollout.response_mask[row].sum()) == (12 if place < 4 else place + 1)
        said = texts.samples(rollout, batch.prompts, sampling)[row]
        kept = free.responses[row, : 12 if place < 4 else place]
        assert said.response == tiny_tokenizer.decode(kept)
        assert said.finished == (place >= 4)
