"""What ends a response, and what is refused."""

import pytest

from instructgpt.rollout.drawing import Sampling, StopText
from instructgpt.types import UserError


def test_a_text_of_several_tokens_ends_a_response(tiny_tokenizer):
    """At the token that completes it, wherever tokens are cut."""
    tokens = tiny_tokenizer("The answer is 4.\nQuestion: what is é?")["input_ids"]
    for stop in ("\nQ", "on: w", "é", "4", "is é?"):
        text = StopText(stop, tiny_tokenizer)
        ends = [text.completes(tokens[: n + 1]) for n in range(len(tokens))]
        decoded = [tiny_tokenizer.decode(tokens[: n + 1]) for n in range(len(tokens))]
        assert ends.index(True) == [stop in one for one in decoded].index(True)
    assert not StopText("never", tiny_tokenizer).completes(tokens)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_response_tokens": -1}, "min_response_tokens must be >= 0, got -1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be > 0 and finite, got 0.0"),
    ],
)
def test_values_without_meaning_are_refused(options, message):
    with pytest.raises(UserError) as error:
        Sampling(**options)
    assert str(error.value) == message
