"""Chat templates: every turn is written, or the prompt is refused by name."""

import pytest

from instructgpt.models.chat import RefusedPromptError
from instructgpt.models.template import get_template
from instructgpt.types import UserError
from tests.chats import CHATML, GEMMA, LLAMA, VICUNA, chat, with_chat

SYSTEM, USER = ("system", "Be kind."), ("user", "What is up?")
TALK = [USER, ("assistant", "Not much."), ("user", "And now?")]
TOOL = [USER, ("assistant", "I look."), ("tool", '{"up": "the sky"}')]


def written(tokenizer, prompt):
    return tokenizer.decode(get_template("chat").encode_prompt(tokenizer, prompt))


@pytest.mark.parametrize("template", [CHATML, LLAMA, GEMMA, VICUNA])
def test_templates_as_they_are_out_there_are_fine(tiny_tokenizer, template):
    tokenizer = with_chat(tiny_tokenizer, template)
    for turns in ([USER], [SYSTEM, USER], TALK, [SYSTEM, *TALK]):
        text = written(tokenizer, chat(*turns))
        assert all(words in text for _, words in turns)
    if template != LLAMA:
        assert '{"up": "the sky"}' in written(tokenizer, chat(*TOOL))


KNOWS_USERS = (
    "{% for m in messages %}{% if m['role'] in ['user', 'assistant'] %}<|im_start|>{{ m['role'] }}"
    "\n{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GLUES = (
    "{% for m in messages %}{% if m['role'] == 'user' %}\n\nHuman: {% elif m['role'] == 'assistant'"
    " %}\n\nAssistant: {% endif %}{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}\n\nAssistant:{% endif %}"
)
LAST_LINE = "{% for m in messages %}[{{ m['content'].split('\n')[-1] }}]{% endfor %}"
REFUSES = "{{ raise_exception('only\nthe user') if messages[0]['role'] == 'system' }}" + CHATML


@pytest.mark.parametrize(
    ("template", "turns", "rule"),
    [
        (KNOWS_USERS, [SYSTEM, USER], "leaves out the system turn"),
        (KNOWS_USERS, [("system", "u"), ("user", "u")], "leaves out the system turn"),  # same words
        (KNOWS_USERS, TOOL, "leaves out the tool turn"),
        (GLUES, TOOL, "writes the tool turn without a speaker behind the assistant turn"),
        (LAST_LINE, [("user", "one\ntwo")], "leaves out words of the user turn 'one\\ntwo'"),
        (REFUSES, [SYSTEM, USER], "refuses the prompt: only the user"),
        (LLAMA, [USER, USER], "refuses the prompt: roles must alternate"),
        ("{% include 'secrets' %}", [USER], "fails with TypeError: no loader for this"),
        ("{{ 1 / 0 }}", [USER], "fails with ZeroDivisionError: division by zero"),
        ("{{ nothing.at.all }}", [USER], "fails with UndefinedError: 'nothing' is undefined"),
        ("{{ 1 + 'a' }}", [USER], "fails with TypeError: unsupported operand"),
        ("{% for m in", [USER], "fails with TemplateSyntaxError: "),
        ("{{ messages | wrong }}", [USER], "fails with TemplateAssertionError: No filter named"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", [USER], "fails with RecursionError: "),
        ("{{ messages.__class__.__mro__ }}", [USER], "fails with SecurityError: "),
    ],
)
def test_what_a_template_cannot_write_is_refused(tiny_tokenizer, template, turns, rule):
    with pytest.raises(RefusedPromptError) as caught:
        written(with_chat(tiny_tokenizer, template), chat(*turns))
    assert str(caught.value).startswith(f"template: the chat template {rule}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("template", ["{% include 'x' %}", "{{ 1 / 0 }}", "{% for"])
def test_broken_templates_are_one_line_wherever_they_are_used(tiny_tokenizer, template):
    tokenizer, broken = with_chat(tiny_tokenizer, template), get_template("chat")
    for use in (broken.end_id, broken.stop_ids, broken.fingerprint):
        with pytest.raises(UserError, match=r"^template: the chat template fails with \w+: .*$"):
            use(tokenizer)
    with pytest.raises(UserError, match="template: the chat template fails"):
        broken.encode_response(tokenizer, "Hi")


def test_results_of_tools_may_be_written_as_json(tiny_tokenizer):
    template = CHATML.replace("m['content']", "m['content'] | tojson")
    text = written(with_chat(tiny_tokenizer, template), chat(*TOOL))
    assert '<|im_start|>tool\n"{\\"up\\": \\"the sky\\"}"<|im_end|>' in text


def test_a_response_has_its_header_though_the_template_is_not_told(tiny_tokenizer):
    # old ChatML: add_generation_prompt does nothing, so the header comes with the words only
    old = CHATML.partition("{% if add")[0]
    assert written(with_chat(tiny_tokenizer, old), chat(*TALK)) == written(
        with_chat(tiny_tokenizer, CHATML), chat(*TALK)
    )
    assert written(with_chat(tiny_tokenizer, LLAMA), chat(USER)).endswith("What is up? [/INST]")


def test_one_of_several_templates_is_the_default(tiny_tokenizer):
    named = {"default": CHATML, "rag": "{{ 1 / 0 }}"}
    several, single = with_chat(tiny_tokenizer, named), with_chat(tiny_tokenizer, CHATML)
    assert written(several, chat(USER)) == written(single, chat(USER))
    template = get_template("chat")
    assert template.fingerprint(several) == template.fingerprint(single)
    with pytest.raises(UserError, match=r"must have a default chat template, .* has rag, tools"):
        written(with_chat(tiny_tokenizer, {"rag": CHATML, "tools": CHATML}), chat(USER))
