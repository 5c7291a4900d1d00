"""Chat templates as they are out there, in short, and tokenizers that have one."""

from __future__ import annotations

import copy
from typing import Any

from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from instructgpt.types import Prompt

SPECIAL = ["<|im_start|>", "<|im_end|>", "[INST]", "[/INST]"]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Llama 2: the system's words stand in the first user turn; no header for the assistant.
LLAMA = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
    "{% set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}"
    "{% endif %}{% for m in rest %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}[INST] {% if loop.first and system %}<<SYS>>\n{{ system }}\n"
    "<</SYS>>\n\n{% endif %}{{ m['content'] | trim }} [/INST]"
    "{% else %} {{ m['content'] | trim }} <|endoftext|>{% endif %}{% endfor %}"
)
# Gemma 3: the system's words come before the first user's, behind white space only.
GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}"
    "{% endif %}{% for m in rest %}<|im_start|>{{ 'model' if m['role'] == 'assistant' else "
    "m['role'] }}\n{{ first if loop.first else '' }}{{ m['content'] | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
# No special token anywhere, and a system turn where none is given.
VICUNA = (
    "{% if messages[0]['role'] != 'system' %}A chat between two.{% endif %}"
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}"
    "{% elif m['role'] == 'user' %} USER: {{ m['content'] }}"
    "{% else %} {{ m['role'].upper() }}: {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)


def with_chat(base: PreTrainedTokenizerFast, template: Any = CHATML) -> PreTrainedTokenizerFast:
    """A copy of a tokenizer with some special tokens more and a chat template."""
    tokenizer = copy.deepcopy(base)
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    tokenizer.chat_template = template
    return tokenizer


def started(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """A tokenizer that puts BOS in front of everything."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.bos_token, bos = "<|pad|>", tokenizer.convert_tokens_to_ids("<|pad|>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|pad|> $A", special_tokens=[("<|pad|>", bos)]
    )
    return copy.deepcopy(tokenizer)


def chat(*turns: tuple[str, str]) -> Prompt:
    """A prompt of (role, words)."""
    messages = [{"role": role, "content": words} for role, words in turns]
    return Prompt(messages[-1]["content"], messages, "0", {})
