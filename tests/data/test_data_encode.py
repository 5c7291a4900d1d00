"""Rows of tokens: what is cut, what is trained, and what the summary says about it."""

import copy

import pytest
from refusals import parse_comparison, parse_demonstration

from instructgpt.data.blocks import encode_documents
from instructgpt.data.encode import Encoder
from instructgpt.data.files import Item
from instructgpt.data.formats import Document
from instructgpt.data.summary import Summary, show
from instructgpt.models.template import get_template
from instructgpt.types import UserError
from tests.chats import chat, with_chat


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


def test_places_are_named_once_though_several_texts_are_cut(tokenizer):
    one = encoder(tokenizer, response=1)
    value = {"prompt": "x", "responses": ["ab", "cd"], "ranking": [2, 1]}
    one.comparison(parse_comparison(Item("a.jsonl:1", "a.jsonl", value)).row)
    (noted,) = one.summary.cut.values()
    assert (noted.count, noted.first) == (2, ["a.jsonl:1"])


def test_cuts_of_many_warn_with_the_limits_that_would_not(tokenizer):
    # a letter and EOS at least are 2 tokens; 20 responses of 2 to 21 digits and EOS
    one = encoder(tokenizer, prompt=3, response=11)
    for count in range(2, 22):
        one.responses(demonstration("x", "1" * count))
    for text in ["1234", *["12"] * 19]:  # 1 of 20 is not more than 5 %
        one.prompt(demonstration(text))
    (line,) = [line for line in one.summary.lines() if line.startswith("warning")]
    # longer than 11 are those of 11 to 21 digits; the 19th of 20 has 20 digits
    assert line == (
        "warning: 11 of 20 responses (55 %) lose their end and EOS: "
        "--data.max_response_tokens 22 would keep all, 21 95 % of them"
    )
    assert one.summary.lines()[-1] == line  # after the example, where it is seen
    one.prompt(demonstration("123456"))
    assert one.summary.lines()[-1] == (
        "warning: 2 of 21 prompts (10 %) lose their beginning: "
        "--data.max_prompt_tokens 6 would keep all, 4 95 % of them"
    )


def test_dropped_prompts_warn_too(tokenizer):
    one = encoder(tokenizer, prompt=3, drop=True)
    for text in ("1234", "12", "1"):
        one.prompt(demonstration(text))
    assert one.summary.lines()[-1] == (
        "warning: 1 of 3 prompts (33 %) are left out: --data.max_prompt_tokens 4 would keep all"
    )


def test_long_chats_lose_turns_and_never_their_frame(tokenizer):
    chatty = with_chat(tokenizer)
    turns = [("system", "s"), ("user", "123456"), ("assistant", "b"), ("user", "12")]
    row = demonstration()._replace(prompt=chat(*turns))
    summary = Summary()
    one = Encoder(chatty, get_template("chat"), 500, 9, False, summary)
    whole, rest = one.prompt(row), row._replace(prompt=chat(turns[0], turns[-1]))
    cut = Encoder(chatty, get_template("chat"), len(whole) - 1, 9, False, summary).prompt(row)
    assert cut == one.prompt(rest)
    assert list(summary.cut) == [f"prompts on the left, to {len(whole) - 1} tokens"]
    least = Encoder(chatty, get_template("chat"), 9, 9, False, summary, "skip")
    assert least.prompt(row) is None
    assert "must leave room for words of the prompt within 9 tokens" in summary.losses()


@pytest.mark.parametrize("template", ["{{ 1 / 0 }}", "{% include 'x' %}"])
def test_a_broken_chat_template_is_one_line(tokenizer, template):
    broken = Encoder(with_chat(tokenizer, template), get_template("chat"), 9, 9, False, Summary())
    with pytest.raises(UserError, match=r"^a.jsonl:1: template: the chat template fails with .*$"):
        broken.demonstration(demonstration())
