"""Prompts that are too long lose their oldest turns, then words, but never their frame."""

import random

import pytest

from instructgpt.models.chat import RefusedPromptError
from instructgpt.models.template import get_template
from instructgpt.types import Prompt
from tests.chats import CHATML, GEMMA, LLAMA, VICUNA, chat, started, with_chat

TEMPLATES = {"chatml": CHATML, "llama": LLAMA, "gemma": GEMMA, "vicuna": VICUNA}
TEXTS = ["hh", "plain", "instruction", "Q: {prompt} A:"]
WORDS = ["hello", "the world", "says", "fox", "Zürich", "🙂🙂", "one two", "<|im_end|>", "a\nb"]


def shortened(tokenizer, template, prompt, limit):
    tokens = template.encode_prompt(tokenizer, prompt)
    return template.shorten_prompt(tokenizer, prompt, tokens, limit)


def random_chat(rng):
    def words(most):
        return " ".join(rng.choices(WORDS, k=rng.randint(1, most)))

    turns = [("system", words(4))] if rng.random() < 0.5 else []
    for _ in range(rng.randint(0, 3)):
        turns += [("user", words(12)), ("assistant", words(12))]
    return [*turns, ("user", words(20))]


def ends(tokenizer, words):
    """What is left of words without their first tokens, the longest first."""
    read = tokenizer(words, split_special_tokens=True, return_offsets_mapping=True)
    return [words[start:] for start, end in read["offset_mapping"] if end > start]


def best(tokenizer, encode, turns, limit):
    """The oracle: tries everything, the best first; turns and ids of what fits."""
    first = int(turns[0][0] == "system")
    for start in range(first, len(turns), 2):
        ids = encode(kept := turns[:first] + turns[start:])
        if len(ids) <= limit:
            return kept, ids
    system, (role, words) = turns[:first], turns[-1]
    for rest in ends(tokenizer, words):
        ids = encode(kept := [*system, (role, rest)])
        if len(ids) <= limit and rest.strip():
            return kept, ids
    for rest in [*ends(tokenizer, system[0][1]), ""] if system else ():
        ids = encode(kept := [("system", rest), (role, words)])
        if len(ids) <= limit:
            return kept, ids
    return None, None


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("name", [*TEMPLATES, *TEXTS])
def test_cuts_are_those_of_an_oracle(tiny_tokenizer, name, bos):
    rng = random.Random(f"{name} {bos}")
    tokenizer = with_chat(tiny_tokenizer, TEMPLATES.get(name))
    tokenizer = started(tokenizer) if bos else tokenizer
    template = get_template("chat" if name in TEMPLATES else name)
    whole, cut = 0, 0
    for _ in range(25):
        turns = random_chat(rng)
        prompt = chat(*turns)
        if len(turns) == 1 and name not in TEMPLATES:
            continue  # a text, not a chat

        def encode(kept, text=prompt.text):
            # the text of the whole chat: what is left of it stays a chat
            return template.encode_prompt(tokenizer, chat(*kept)._replace(text=f"{text} of many"))

        full = len(encode(turns))
        limit = rng.randint(full // 5, full)
        kept, ids = best(tokenizer, encode, turns, limit)
        if kept is None:
            continue
        found = shortened(tokenizer, template, prompt, limit)
        assert len(found) <= limit
        if bos:
            assert found[0] == tokenizer.bos_token_id
            assert found.count(found[0]) == 1
        if kept[-1] == turns[-1] and kept[0][1] in {turn[1] for turn in turns}:
            whole += 1
            assert found == ids  # whole turns: exactly
        else:  # words: tokens of the rest are not those of the whole, so a few more may go
            cut += 1
            text, longest = tokenizer.decode(found), tokenizer.decode(ids)
            assert len(longest) - 16 <= len(text) <= len(longest)
            frame = tokenizer.decode(encode([*kept[:-1], (kept[-1][0], "X")])).split("X")
            if kept[-1] != turns[-1]:
                assert text.startswith(frame[0])
            assert text.endswith(frame[-1])
    assert whole > 3
    assert cut > 1


def test_a_worked_example(tiny_tokenizer):
    tokenizer, template = with_chat(tiny_tokenizer), get_template("chat")
    turns = [
        ("system", "s"),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "345678"),
    ]

    def left(limit):
        return tokenizer.decode(shortened(tokenizer, template, chat(*turns), limit))

    def length(*kept):
        return len(template.encode_prompt(tokenizer, chat(*kept)))

    start, end = "<|im_start|>", "<|im_end|>\n"
    head, tail = f"{start}system\ns{end}", f"{end}{start}assistant\n"
    full, last = length(*turns), length(turns[0], turns[-1])
    assert left(full).startswith(f"{head}{start}user\na{end}")
    for limit in (full - 1, last):
        assert left(limit) == f"{head}{start}user\n345678{tail}"
    assert left(last - 2) == f"{head}{start}user\n5678{tail}"
    least = length(turns[0], ("user", "8"))
    assert left(least) == f"{head}{start}user\n8{tail}"
    # no room beside the system turn: now it loses words too, and the question comes first
    assert left(least - 1) == f"{start}system\n{end}{start}user\n8{tail}"
    with pytest.raises(RefusedPromptError, match=rf"within {least - 2} tokens, 'chat' takes"):
        left(least - 2)


def test_results_of_tools_are_cut_where_there_is_no_other_turn(tiny_tokenizer):
    tokenizer, template = with_chat(tiny_tokenizer), get_template("chat")
    turns = [("user", "1234"), ("assistant", "56"), ("tool", "789")]
    full = len(template.encode_prompt(tokenizer, chat(*turns)))
    limits = (full - 1, full - 7)
    texts = [tokenizer.decode(shortened(tokenizer, template, chat(*turns), n)) for n in limits]
    for text in texts:
        roles = [part.partition("\n")[0] for part in text.split("<|im_start|>")[1:]]
        assert roles == ["user", "assistant", "tool", "assistant"]
    whole = texts[0].replace("234", "1234")
    assert whole.count("1234") == 1
    assert texts[1] == whole.replace("1234", "").replace("56", "").replace("789", "89")


def test_a_plain_text_loses_its_first_tokens(tiny_tokenizer):
    template = get_template("plain")
    prompt = Prompt(
        "hello to the world", [{"role": "user", "content": "hello to the world"}], "", {}
    )
    tokens = template.encode_prompt(tiny_tokenizer, prompt)
    assert template.shorten_prompt(tiny_tokenizer, prompt, tokens, 3) == tokens[-3:]


@pytest.mark.parametrize("name", ["instruction", "alpaca"])
def test_a_text_is_cut_inside_its_frame(tiny_tokenizer, name):
    template = get_template(name)
    prompt = Prompt("abcdefgh", [], "", {})
    tokens = template.encode_prompt(tiny_tokenizer, prompt)
    found = template.shorten_prompt(tiny_tokenizer, prompt, tokens, len(tokens) - 2)
    whole = tiny_tokenizer.decode(tokens)
    assert tiny_tokenizer.decode(found) == whole.replace("abcdefgh", "cdefgh")
