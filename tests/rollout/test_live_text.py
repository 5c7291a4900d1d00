"""Responses as text while they are drawn: pieces that are not taken back, in order."""

import pytest
import torch

from instructgpt.models.template import get_template
from instructgpt.rollout.drawing import Response, Sampling
from instructgpt.rollout.live_text import LiveText
from instructgpt.rollout.sampler import Texts


def heard(tokenizer, sampling, responses, order):
    """Pieces that are written when tokens come in an order of response numbers."""
    pieces, left = [], {number: list(tokens) for number, tokens in enumerate(responses)}
    live = LiveText(Texts(tokenizer, get_template("plain"), 99), sampling, pieces.append)
    for number in order:
        pieces.append("|")
        live.told(torch.tensor([number, 7]), torch.tensor([left[number].pop(0), -1]))
        if not left[number]:
            live.end(Response(number, responses[number], [], True))
    return "".join(pieces)


def test_each_token_is_written_as_it_comes(tiny_tokenizer):
    tokens = tiny_tokenizer("one two é three")["input_ids"]
    parts = heard(tiny_tokenizer, Sampling(), [tokens], [0] * len(tokens)).split("|")[1:]
    assert "".join(parts) == "one two é three"
    certain = [tiny_tokenizer.decode(tokens[: n + 1]).rstrip("\ufffd") for n in range(len(tokens))]
    assert ["".join(parts[: n + 1]) for n in range(len(tokens))] == certain
    assert any(not part for part in parts)  # the half of a character


@pytest.mark.parametrize("stop", ["ee", "e t", "\nQ: "])
def test_what_may_be_the_beginning_of_its_end_waits(tiny_tokenizer, stop):
    text = "one e e tee\nQ and\nQ: more"
    tokens = tiny_tokenizer(text)["input_ids"]
    whole = text.partition(stop)[0]
    said = heard(tiny_tokenizer, Sampling(stop=stop), [tokens], [0] * len(tokens))
    assert said.replace("|", "") == whole
    assert said.index("o") < said.rindex("|")


def test_responses_follow_each_other(tiny_tokenizer):
    texts = ["first one", "second", "third of all"]
    rows = [tiny_tokenizer(text)["input_ids"] for text in texts]
    counts = [len(row) for row in rows]
    orders = [
        [n for n, count in enumerate(counts) for _ in range(count)],
        [2 - n for n, count in enumerate(reversed(counts)) for _ in range(count)],
        sorted(range(sum(counts)), key=lambda i: i % 3),
    ]
    orders[2] = [n for i in range(max(counts)) for n in (1, 2, 0) if i < counts[n]]
    for order in orders:
        said = heard(tiny_tokenizer, Sampling(), rows, order).replace("|", "")
        assert said == "\n---\n".join(texts)
