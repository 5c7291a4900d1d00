"""Log-likelihoods of choices against a loop with plain transformers, token by token."""

import copy

import numpy as np
import pytest
import torch
from public_rows import ROWS
from tiny_models import policy_of

from instructgpt.evaluation.likelihood import Coder, choice_logprobs, scored
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


def test_a_long_context_loses_its_beginning(model, tiny_tokenizer):
    """Each choice has as much of it as it has room for."""
    context, choices = "one two three four five six seven", [" eight", " eight nine ten"]
    whole = Coder(tiny_tokenizer, None).asked("x", context, choices)
    [(before, after)] = whole
    room = len(before) + len(after[0])  # the longer choice does not fit
    cut = Coder(tiny_tokenizer, room).asked("x", context, choices)
    assert [one.tokens for one in cut] == [room, room]
    assert cut[0] == (before, [after[0]])
    assert cut[1] == (before[len(after[1]) - len(after[0]) :], [after[1]])
    [first], [second] = choice_logprobs(model, cut)
    assert first == pytest.approx(choice_logprobs(model, whole)[0][0], abs=2e-4)
    assert not np.isclose(second, choice_logprobs(model, whole)[0][1], atol=2e-4)
    with pytest.raises(UserError, match="x: the choice ' eight nine ten' must have tokens"):
        Coder(tiny_tokenizer, len(after[1])).asked("x", context, choices)
