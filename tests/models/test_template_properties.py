"""Odd texts through every template: they come back, and are never control tokens."""

import pytest
from chats import CHATML, GEMMA, LLAMA, SPECIAL, VICUNA, started, with_chat
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from instructgpt.data.turns import ASSISTANT, HUMAN, transcript_turns
from instructgpt.models.chat import RefusedPromptError
from instructgpt.models.template import MARK, get_template
from instructgpt.models.transcript import transcript
from instructgpt.types import Prompt

CHATS = {"chatml": CHATML, "llama": LLAMA, "gemma": GEMMA, "vicuna": VICUNA}
PATTERNS = ["plain", "instruction", "alpaca", "hh", "Q: {prompt} A:", "<|im_start|>{prompt}"]
NAMES = [*PATTERNS, *CHATS]

PIECES = [*SPECIAL, "<|endoftext|>", "<|pad|>", "<|im_", "start|>", MARK.format(0), MARK[0]]
PIECES += [MARK[-1], "### Response:\n", "{prompt}", "{chat_template}", "{{ eos_token }}", "{% raw"]
PIECES += [HUMAN, ASSISTANT, "System:", " USER: ", "<<SYS>>", "\n\n", " ", "\t", "\u2028", "é🐖"]
odd = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), min_size=1, max_size=5).map("".join)
ROLES = [("user",), ("system", "user"), ("user", "assistant", "user")]
ROLES += [("system", "user", "assistant", "user"), ("user", "assistant", "tool"), ("user", "user")]


@st.composite
def prompts(draw):
    """Turns of odd texts that say something."""
    said = [(role, draw(odd.filter(str.strip))) for role in draw(st.sampled_from(ROLES))]
    return [{"role": role, "content": text} for role, text in said]


def prompt_of(turns):
    single = len(turns) == 1
    return Prompt(turns[0]["content"] if single else transcript(turns), turns, "0", {})


@pytest.fixture(scope="module", params=NAMES)
def written(request, tiny_tokenizer):
    """A template with a tokenizer that has its special tokens, and one that puts BOS in front."""
    chat = with_chat(tiny_tokenizer, CHATS.get(request.param, CHATML))
    name = "chat" if request.param in CHATS else request.param
    return get_template(name), chat, started(chat)


def encode(template, tokenizer, turns, limit=10**6):
    """The ids of a prompt, shortened if it must be; None where it is refused in one line."""
    prompt = prompt_of(turns)
    try:
        ids = template.encode_prompt(tokenizer, prompt)
        return template.shorten_prompt(tokenizer, prompt, ids, limit)
    except RefusedPromptError as error:
        if "\n" in str(error):
            raise
        return None


def control(tokenizer, ids):
    special = set(tokenizer.all_special_ids)
    return [i for i in ids if i in special]


@settings(max_examples=20)
@given(turns=prompts())
def test_prompts_hold_what_is_said_and_no_control_tokens_of_it(written, turns):
    template, tokenizer, with_bos = written
    harmless = [{**turn, "content": "word"} for turn in turns]
    ids = encode(template, tokenizer, turns)
    if ids is None:
        return
    text, at = tokenizer.decode(ids), 0
    for turn in turns:
        words = turn["content"].strip()
        assert text.find(words, at) >= 0, (words, text)
        at = text.find(words, at) + len(words)
    assert control(tokenizer, ids) == control(
        tokenizer, template.encode_prompt(tokenizer, prompt_of(harmless))
    )
    bos = with_bos.bos_token_id
    begun = template.encode_prompt(with_bos, prompt_of(turns))
    assert [i for i in begun if i != bos] == [i for i in ids if i != bos]
    assert begun[0] == bos


@settings(max_examples=20)
@given(text=odd, end=st.booleans())
def test_responses_come_back_and_end_once(written, text, end):
    template, tokenizer, _ = written
    ids = template.encode_response(tokenizer, text, end)
    stop = template.end_id(tokenizer)
    assert control(tokenizer, ids) == [stop] * end
    names = tuple(map(str, tokenizer.convert_ids_to_tokens(template.stop_ids(tokenizer))))
    said = text
    while said.rstrip().endswith(names):
        name = max((one for one in names if said.rstrip().endswith(one)), key=len)
        said = said.rstrip().removesuffix(name)
    if template.name == "hh":  # one space belongs to the template
        said = said.removeprefix(" ")
    assert template.decode_response(tokenizer, ids) == said


@settings(max_examples=20)
@given(turns=prompts(), limit=st.integers(1, 40))
def test_prompts_that_are_shortened_fit_and_keep_their_frame(written, turns, limit):
    template, tokenizer, _ = written
    whole, ids = (encode(template, tokenizer, turns, most) for most in (10**6, limit))
    if ids is None or whole is None:
        return
    assert 0 < len(ids) <= limit or ids == whole
    assert len(control(tokenizer, ids)) <= len(control(tokenizer, whole))
    assert tokenizer.decode(ids)[-1] == tokenizer.decode(whole)[-1]


@settings(max_examples=60)
@given(turns=prompts())
def test_transcripts_are_parsed_to_the_turns_they_were_written_from(turns):
    marks = ("Human:", "Assistant:", "System:", "Tool:")
    assume(not any(mark in turn["content"] for mark in marks for turn in turns))
    assume(turns[-1]["role"] == "user")
    said = [{**turn, "content": turn["content"].strip()} for turn in turns]
    assert transcript_turns(transcript(turns)) == [*said, {"role": "assistant", "content": ""}]
