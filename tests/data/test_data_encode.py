"""Rows of tokens: what is cut, what is trained, and what the summary says about it."""

import copy

import pytest
from refusals import parse_comparison, parse_demonstration

from instructgpt.data.encode import Encoder
from instructgpt.data.files import Item
from instructgpt.data.rows import comparison_row, demonstration_row
from instructgpt.data.summary import Summary, show
from instructgpt.models.template import get_template
from instructgpt.models.words import encode_texts
from instructgpt.types import UserError
from tests.chats import chat, with_chat


@pytest.fixture(params=["tiny_tokenizer", "eos_padded_tokenizer"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


def encoder(tokenizer, prompt=100, response=100, drop=False):
    return Encoder(tokenizer, get_template("plain"), prompt, response, drop, Summary())


def encoded(encoder, row):
    """The row as a stage gets it, None where it is dropped."""
    (found,) = encoder.encode([row])
    if found is None:
        return None
    if row.ranking:
        own = (row.ranking, row.labeler, row.source, row.prompt.id)
        return comparison_row(found.prompt, found.responses, *own)
    return demonstration_row(found.prompt, found.responses[0], row.prompt.id)


def prompt_of(encoder, row):
    (found,) = encoder.encode([row._replace(responses=[])])
    return found and found.prompt


def demonstration(prompt="say hello ", response="world"):
    return parse_demonstration(
        Item("a.jsonl:1", "a.jsonl", {"prompt": prompt, "response": response})
    ).row


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_response_and_eos_are_trained(tokenizer):
    row = encoded(encoder(tokenizer), demonstration())
    prompt, response = ids(tokenizer, "say hello "), ids(tokenizer, "world")
    assert row.tokens.tolist() == [*prompt, *response, tokenizer.eos_token_id]
    assert row.trained == len(prompt)
    assert show(row, tokenizer) == "say hello ⟦world<|endoftext|>⟧"


def test_eos_inside_the_text_is_text_like_any_other(tokenizer):
    row = encoded(encoder(tokenizer), demonstration("a<|endoftext|>b", "c<|endoftext|>d"))
    assert row.tokens.tolist().count(tokenizer.eos_token_id) == 1
    assert show(row, tokenizer) == "a<|endoftext|>b⟦c<|endoftext|>d<|endoftext|>⟧"


def test_documents_hold_no_special_tokens(tokenizer):
    (tokens,) = encode_texts(tokenizer, ["a<|endoftext|>b"])
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
        encoded(Encoder(tokenizer, chat, 9, 9, False, summary), row.row)
    assert str(caught.value) == f"a.jsonl:1: {message}"
    skipping = Encoder(tokenizer, chat, 9, 9, False, summary, "skip")
    assert encoded(skipping, row.row) is None
    assert summary.losses() == f"1 bad ({message}) (a.jsonl:1)"


def test_long_prompt_loses_its_beginning(tokenizer):
    one = encoder(tokenizer, prompt=3)
    row = encoded(one, demonstration("abcdefgh"))
    assert row.tokens[:3].tolist() == ids(tokenizer, "abcdefgh")[-3:]
    assert row.trained == 3
    assert "cut 1: prompts on the left, to 3 tokens (first: a.jsonl:1)" in one.summary.lines()


def test_long_prompt_is_dropped_on_request(tokenizer):
    one = encoder(tokenizer, prompt=3, drop=True)
    assert encoded(one, demonstration("abcdefgh")) is None
    assert "dropped 1: prompt longer than 3 tokens (first: a.jsonl:1)" in one.summary.lines()
    assert encoded(one, demonstration("abc")) is not None


def test_cut_response_has_no_eos_and_is_counted(tokenizer):
    text = "abcdefgh"
    tokens = ids(tokenizer, text)
    for limit in (3, len(tokens)):  # at len(tokens) only EOS does not fit
        one = encoder(tokenizer, response=limit)
        row = encoded(one, demonstration("x", text))
        assert row.tokens[1:].tolist() == tokens[:limit]
        line = f"cut 1: responses to {limit} tokens, without EOS (first: a.jsonl:1)"
        assert line in one.summary.lines()
    one = encoder(tokenizer, response=len(tokens) + 1)
    assert encoded(one, demonstration("x", text)).tokens[-1] == tokenizer.eos_token_id
    assert not one.summary.cut


def test_comparison(tokenizer):
    value = {"prompt": "x", "responses": ["a", "bcd"], "ranking": [2, 1], "labeler": "me"}
    parsed = parse_comparison(Item("a.jsonl:1", "a.jsonl", value)).row
    row = encoded(encoder(tokenizer, response=3), parsed)
    eos = tokenizer.eos_token_id
    assert row.prompt.tolist() == ids(tokenizer, "x")
    assert row.responses[0].tolist() == [*ids(tokenizer, "a"), eos]
    assert row.responses[1].tolist() == ids(tokenizer, "bcd")
    assert (row.ranking, row.labeler) == ((2, 1), "me")
    assert show(row, tokenizer) == "x\nrank 2: a<|endoftext|>\nrank 1: bcd"


def test_places_are_named_once_though_several_texts_are_cut(tokenizer):
    one = encoder(tokenizer, response=1)
    value = {"prompt": "x", "responses": ["ab", "cd"], "ranking": [2, 1]}
    encoded(one, parse_comparison(Item("a.jsonl:1", "a.jsonl", value)).row)
    (noted,) = one.summary.cut.values()
    assert (noted.count, noted.first) == (2, ["a.jsonl:1"])


def test_cuts_of_many_warn_with_the_limits_that_would_not(tokenizer):
    # a letter and EOS at least are 2 tokens; 20 responses of 2 to 21 digits and EOS
    one = encoder(tokenizer, response=11)
    for count in range(2, 22):
        encoded(one, demonstration("x", "1" * count))
    (line,) = [line for line in one.summary.lines() if line.startswith("warning")]
    # longer than 11 are those of 11 to 21 digits; the 19th of 20 has 20 digits
    assert line == (
        "warning: doctor: responses_cut: 11 of 20 responses (55 %) lose their end and EOS: "
        "nobody learns from them where a response ends; "
        "--data.max_response_tokens 22 would keep all, 21 95 % of them"
    )
    assert one.summary.lines()[-1] == line  # after the example, where it is seen
    one = encoder(tokenizer, prompt=3)
    for text in ["1234", *["12"] * 19]:  # 1 of 20 is not more than 5 %
        prompt_of(one, demonstration(text))
    assert not [line for line in one.summary.lines() if line.startswith("warning")]
    prompt_of(one, demonstration("123456"))
    assert one.summary.lines()[-1] == (
        "warning: doctor: prompts_cut: 2 of 21 prompts (10 %) lose their beginning: "
        "what was asked there is not seen; "
        "--data.max_prompt_tokens 6 would keep all, 4 95 % of them"
    )


def test_dropped_prompts_warn_too(tokenizer):
    one = encoder(tokenizer, prompt=3, drop=True)
    for text in ("1234", "12", "1"):
        prompt_of(one, demonstration(text))
    assert one.summary.lines()[-1] == (
        "warning: doctor: prompts_cut: 1 of 3 prompts (33 %) are left out: "
        "nothing is learned from them; --data.max_prompt_tokens 4 would keep all"
    )


def test_long_chats_lose_turns_and_never_their_frame(tokenizer):
    chatty = with_chat(tokenizer)
    turns = [("system", "s"), ("user", "123456"), ("assistant", "b"), ("user", "12")]
    row = demonstration()._replace(prompt=chat(*turns))
    summary = Summary()
    one = Encoder(chatty, get_template("chat"), 500, 9, False, summary)
    whole, rest = prompt_of(one, row), row._replace(prompt=chat(turns[0], turns[-1]))
    cut = prompt_of(Encoder(chatty, get_template("chat"), len(whole) - 1, 9, False, summary), row)
    assert cut == prompt_of(one, rest)
    assert list(summary.cut) == [f"prompts on the left, to {len(whole) - 1} tokens"]
    least = Encoder(chatty, get_template("chat"), 9, 9, False, summary, "skip")
    assert prompt_of(least, row) is None
    assert "must leave room for words of the prompt within 9 tokens" in summary.losses()


@pytest.mark.parametrize("template", ["{{ 1 / 0 }}", "{% include 'x' %}"])
def test_a_broken_chat_template_is_one_line(tokenizer, template):
    broken = Encoder(with_chat(tokenizer, template), get_template("chat"), 9, 9, False, Summary())
    with pytest.raises(UserError, match=r"^a.jsonl:1: template: the chat template fails with .*$"):
        encoded(broken, demonstration())
