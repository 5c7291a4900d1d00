"""Log-likelihoods of choices against a loop with plain transformers, token by token."""

import copy

import pytest
import torch
from public_rows import ROWS
from tiny_models import policy_of

from instructgpt.evaluation.likelihood import Choices, Coder, likelihoods, scored
from instructgpt.evaluation.public_sets import SETS
from instructgpt.types import UserError

PROBLEMS = {
    name: [one.problem("x", row) for row in ROWS[name]]
    for name, one in SETS.items()
    if name in ROWS
}

ARCHITECTURES = {
    "gpt2": {
        "model_type": "gpt2",
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 1024,
        "initializer_range": 0.2,
    },
    "llama": {
        "model_type": "llama",
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 32,
        "initializer_range": 0.2,
        "tie_word_embeddings": True,
    },
}


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def model(request, tiny_tokenizer):
    return policy_of(ARCHITECTURES[request.param], tiny_tokenizer)


def naive(model, tokenizer, context, choice):
    """The sum over tokens of a choice, each from a forward pass over all before it."""
    if context:
        spaces = len(context) - len(context.rstrip())
        context, choice = context.rstrip(), context[len(context) - spaces :] + choice
        before = tokenizer.encode(context)
        after = tokenizer.encode(context + choice)[len(before) :]
    else:
        before, after = [tokenizer.eos_token_id], tokenizer.encode(choice)
    total = 0.0
    for token in after:
        with torch.no_grad():
            logits = model(torch.tensor([before]), use_cache=False).logits[0, -1]
        total += logits.float().log_softmax(-1)[token].item()
        before = [*before, token]
    return total


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_set_is_as_a_naive_loop_finds_it(name, model, tiny_tokenizer):
    """The same log-probabilities, and the same measures of every problem."""
    asks, coder = SETS[name], Coder(tiny_tokenizer, None)
    for problem in PROBLEMS[name]:
        choices = [asks.delimiter + choice for choice in problem.choices]
        [found] = scored(model, [coder.asked("x", problem.context, choices)], 1024)
        plain = [naive(model, tiny_tokenizer, problem.context, choice) for choice in choices]
        assert found[0] == pytest.approx(plain, abs=2e-4)
        assert asks.measures(problem, found[0]) == pytest.approx(
            asks.measures(problem, plain), abs=2e-4
        )


def test_the_size_of_a_forward_pass_changes_nothing(model, tiny_tokenizer):
    coder = Coder(tiny_tokenizer, None)
    problems = [
        coder.asked("x", one.context, [f" {choice}" for choice in one.choices])
        for name in ("rte", "hellaswag", "winogender")
        for one in PROBLEMS[name]
    ]
    alone = [one for part in scored(model, problems, 1) for one in part]
    for size in (150, 1024, None):
        together = [one for part in scored(model, problems, size) for one in part]
        assert len(together) == len(alone) == 12
        for one, other in zip(together, alone, strict=True):
            assert one == pytest.approx(other, abs=2e-4)


def test_what_is_known_is_not_asked_again(model, tiny_tokenizer):
    """The rest comes out to the last digit, wherever it begins."""
    coder = Coder(tiny_tokenizer, None)
    problems = [coder.asked("x", one.context, [" a", " b c"]) for one in PROBLEMS["rte"]]
    whole = [one for part in scored(model, problems, 200) for one in part]
    for start in range(4):
        assert [one for part in scored(model, problems, 200, start) for one in part] == whole[
            start:
        ]


def test_a_context_ends_before_its_whitespace(tiny_tokenizer):
    coder = Coder(tiny_tokenizer, None)
    before, after = coder.pair("say hello \n", "to the world")
    assert before == tiny_tokenizer.encode("say hello")
    assert before + after == tiny_tokenizer.encode("say hello \nto the world")


def test_a_text_begins_as_its_tokenizer_says(tiny_tokenizer):
    """BOS stands before an empty context; a text that begins with it gets no other."""
    tokenizer = copy.deepcopy(tiny_tokenizer)
    assert Coder(tokenizer, None).pair("", "the dog")[0] == [0]  # EOS
    tokenizer.bos_token = tokenizer.pad_token  # its id is 1
    coder, plain = Coder(tokenizer, None), tiny_tokenizer.encode("the dog")
    assert coder.pair("", "the dog") == ([1], plain)
    assert coder.pair("", f"{tokenizer.bos_token}the dog") == ([1], plain)


def test_a_long_context_loses_its_beginning(tiny_tokenizer):
    """A choice has as much of it as its model has room for, which does not read the last token.

    As in lm-eval, whose rule is written down here: of context and choice the last room + 1 tokens.
    """
    context, choices = "one two three four five six seven", [" eight", " eight nine ten"]
    [(before, after, _)] = Coder(tiny_tokenizer, None).asked("x", context, choices)
    room = len(before) + len(after[0])
    assert len(after[1]) > len(after[0]) + 1  # so the longer choice does not fit
    model = policy_of(ARCHITECTURES["gpt2"] | {"n_positions": room}, tiny_tokenizer)
    cut = Coder(tiny_tokenizer, room).asked("x", context, choices)
    assert [(one.tokens, one.whole) for one in cut] == [(room, True), (room + 1, False)]
    for one, choice in zip(cut, after, strict=True):
        kept = (before + choice)[-(room + 1) :]
        assert one.context + one.choices[0] == kept
        with torch.no_grad():
            every = model(torch.tensor([kept[:-1]])).logits[0].log_softmax(-1)[-len(choice) :]
        [[found]] = likelihoods(model, [one])
        expected = sum(row[token].item() for row, token in zip(every, choice, strict=True))
        assert found.logprob == pytest.approx(expected, abs=2e-4)
        assert found.greedy == (every.argmax(-1).tolist() == choice)
    assert Coder(tiny_tokenizer, len(after[1])).asked("x", context, choices)
    with pytest.raises(UserError, match="x: the choice ' eight nine ten' must have tokens"):
        Coder(tiny_tokenizer, len(after[1]) - 1).asked("x", context, choices)


def test_what_would_be_said_is_known(model):
    """The likeliest tokens, one after the other, are greedy; with another one they are not."""
    tokens = [5, 6, 7]
    for _ in range(4):
        with torch.no_grad():
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    said = tokens[3:]
    other = [*said[:-1], (said[-1] + 1) % 290]
    [found] = likelihoods(model, [Choices([5, 6, 7], [said, other])])
    assert [one.greedy for one in found] == [True, False]


def test_ids_without_a_token_count(tiny_tokenizer):
    """As in lm-eval, and not as in what samples: a row of the embedding that no text can name."""
    model = policy_of(ARCHITECTURES["llama"] | {"vocab_size": 300}, tiny_tokenizer)
    with torch.no_grad():
        model.lm_head.weight[295] *= 30
        logits = model(torch.tensor([[5, 6]])).logits[0, -1]
    [[found]] = likelihoods(model, [Choices([5, 6], [[7]])])
    assert found.logprob == pytest.approx(logits.log_softmax(-1)[7].item(), abs=2e-4)
