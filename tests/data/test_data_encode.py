"""Rows of tokens: what is cut, what is trained, and what the summary says about it."""

import copy

import pytest

from instructgpt.data.blocks import encode_documents
from instructgpt.data.encode import Encoder
from instructgpt.data.files import Item
from instructgpt.data.formats import Document, parse_comparison, parse_demonstration
from instructgpt.data.summary import Summary, quantiles, show
from instructgpt.models.template import get_template
from instructgpt.types import UserError


@pytest.fixture(params=["tiny_tokenizer", "eos_padded_tokenizer"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


def encoder(tokenizer, prompt=100, response=100, drop=False):
    return Encoder(tokenizer, get_template("plain"), prompt, response, drop, Summary())


def demonstration(prompt="say hello ", response="world"):
    return parse_demonstration(
        Item("a.jsonl:1", "a.jsonl", {"prompt": prompt, "response": response})
    ).row


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_response_and_eos_are_trained(tokenizer):
    row = encoder(tokenizer).demonstration(demonstration())
    prompt, response = ids(tokenizer, "say hello "), ids(tokenizer, "world")
    assert row.tokens.tolist() == [*prompt, *response, tokenizer.eos_token_id]
    assert row.spans == ((0, len(prompt), len(prompt) + len(response) + 1),)
    assert show(row, tokenizer) == "say hello ⟦world<|endoftext|>⟧"


def test_eos_inside_the_text_is_text_like_any_other(tokenizer):
    row = encoder(tokenizer).demonstration(demonstration("a<|endoftext|>b", "c<|endoftext|>d"))
    assert row.tokens.tolist().count(tokenizer.eos_token_id) == 1
    assert show(row, tokenizer) == "a<|endoftext|>b⟦c<|endoftext|>d<|endoftext|>⟧"


def test_documents_hold_no_special_tokens(tokenizer):
    (tokens,) = encode_documents([Document("a:1", "a<|endoftext|>b")], tokenizer, Summary())
    assert tokenizer.eos_token_id not in tokens
    assert tokenizer.decode(tokens) == "a<|endoftext|>b"


def test_prompts_the_chat_template_refuses_are_bad_rows(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}"
        "{{ raise_exception('System role\nnot supported') }}{% endif %}"
        "{{ m['content'] }}{% endfor %}"
    )
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    row = parse_demonstration(Item("a.jsonl:1", "a.jsonl", {"messages": turns, "response": "r"}))
    chat, summary = get_template("chat"), Summary()
    message = "template: the chat template refuses the prompt: System role not supported"
    with pytest.raises(UserError) as caught:
        Encoder(tokenizer, chat, 9, 9, False, summary).demonstration(row.row)
    assert str(caught.value) == f"a.jsonl:1: {message}"
    skipping = Encoder(tokenizer, chat, 9, 9, False, summary, "skip")
    assert skipping.demonstration(row.row) is None
    assert summary.losses() == f"1 bad ({message}) (a.jsonl:1)"


def test_long_prompt_loses_its_beginning(tokenizer):
    one = encoder(tokenizer, prompt=3)
    row = one.demonstration(demonstration("abcdefgh"))
    assert row.tokens[:3].tolist() == ids(tokenizer, "abcdefgh")[-3:]
    assert row.spans[0].trained == 3
    assert "cut 1: prompts on the left, to 3 tokens (first: a.jsonl:1)" in one.summary.lines()


def test_long_prompt_is_dropped_on_request(tokenizer):
    one = encoder(tokenizer, prompt=3, drop=True)
    assert one.demonstration(demonstration("abcdefgh")) is None
    assert "dropped 1: prompt longer than 3 tokens (first: a.jsonl:1)" in one.summary.lines()
    assert one.demonstration(demonstration("abc")) is not None


def test_cut_response_has_no_eos_and_is_counted(tokenizer):
    text = "abcdefgh"
    tokens = ids(tokenizer, text)
    for limit in (3, len(tokens)):  # at len(tokens) only EOS does not fit
        one = encoder(tokenizer, response=limit)
        row = one.demonstration(demonstration("x", text))
        assert row.tokens[1:].tolist() == tokens[:limit]
        line = f"cut 1: responses to {limit} tokens, without EOS (first: a.jsonl:1)"
        assert line in one.summary.lines()
    one = encoder(tokenizer, response=len(tokens) + 1)
    assert one.demonstration(demonstration("x", text)).tokens[-1] == tokenizer.eos_token_id
    assert not one.summary.cut


def test_comparison(tokenizer):
    value = {"prompt": "x", "responses": ["a", "bcd"], "ranking": [2, 1], "labeler": "me"}
    parsed = parse_comparison(Item("a.jsonl:1", "a.jsonl", value)).row
    row = encoder(tokenizer, response=3).comparison(parsed)
    eos = tokenizer.eos_token_id
    assert row.sequences[0].tolist() == [*ids(tokenizer, "x"), *ids(tokenizer, "a"), eos]
    assert row.sequences[1].tolist() == [*ids(tokenizer, "x"), *ids(tokenizer, "bcd")]
    assert (row.response_lengths, row.ranking, row.labeler) == ((2, 3), (2, 1), "me")
    assert show(row, tokenizer) == "x\nrank 2: a<|endoftext|>\nrank 1: bcd"


def test_quantiles_are_nearest_rank():
    # 10 values: 5% -> 1st, 25% -> 3rd, 50% -> 5th, 75% -> 8th, 95% -> 10th
    assert quantiles(range(10, 110, 10)) == ("5% 10 · 25% 30 · 50% 50 · 75% 80 · 95% 100 · max 100")
    assert quantiles([7]) == "5% 7 · 25% 7 · 50% 7 · 75% 7 · 95% 7 · max 7"
