"""How to write prompts for an artefact with transformers alone: in words, and as code that runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from instructgpt.models.chat import chat_template, response_header
from instructgpt.models.template import CHAT, HH, Template, default_bos
from instructgpt.models.transcript import transcript
from instructgpt.terminal import printable


def rendering(tokenizer: PreTrainedTokenizerBase, template: Template) -> str:
    """How prompts and responses are written, in two sentences.

    Args:
        tokenizer: of the artefact.
        template: of the artefact.
    """
    end = template.end_id(tokenizer)
    name = span(tokenizer.convert_ids_to_tokens(end))
    how = "by the tokenizer's chat template" if template.pattern == CHAT else "as a text"
    return (
        f"A row is the tokens of the prompt, written {how} up to where the response begins, those "
        f"of the response, and the token {end} ({name}) that ends it. Nothing follows that token: "
        "what a chat template writes behind an assistant's turn, such as a line break, is no part "
        "of a row and would move scores"
    )


def span(value: Any) -> str:
    """A value as code in which nothing ends the code, the line or the cell of a table."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    if "\n" in text:
        text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return "`" + printable(text).replace("`", "'").replace("|", "\\|") + "`"


def is_plain(about: dict[str, Any]) -> bool:
    """Whether transformers reads an artefact; else its parts lie apart."""
    return about.get("adapter") != "prefix" and about.get("head") in (None, "score")


def code(
    folder: Path, tokenizer: PreTrainedTokenizerBase, template: Template, about: dict[str, Any]
) -> list[str]:
    """Lines of Python that answer a prompt, or score a response.

    Args:
        folder: of the artefact, with its weights.
        tokenizer: of the artefact.
        template: of the artefact.
        about: what ``instructgpt.json`` says about it.
    """
    scores, plain = about.get("head") is not None, is_plain(about)
    lines = ["import torch"]
    if plain:
        kind = "SequenceClassification" if scores else "CausalLM"
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config["model_type"] == "shift_gpt":
            lines += ["import instructgpt.models.shift_gpt  # tells transformers about it"]
        lines += [f"from transformers import AutoModelFor{kind}, AutoTokenizer", ""]
        lines += ['folder = "."', "tokenizer = AutoTokenizer.from_pretrained(folder)"]
        lines += [f"model = AutoModelFor{kind}.from_pretrained(folder).eval()"]
    else:
        load, more = ("load_scalar", ', head="stored"') if scores else ("load_policy", "")
        lines += [f"from instructgpt.models.load import Network, {load}"]
        lines += ["from instructgpt.models.tokenizer import load_tokenizer"]
        lines += ["from instructgpt.types import shared_rows", ""] if scores else [""]
        lines += ['folder = "."', "tokenizer = load_tokenizer(folder)"]
        lines += [f"model = {load}(folder, None, Network(), tokenizer{more}).eval()"]
    lines += [*_prompt(tokenizer, template)]
    return lines + (_score(tokenizer, template, about, plain) if scores else _sample(tokenizer))


def _prompt(tokenizer: PreTrainedTokenizerBase, template: Template) -> list[str]:
    """Lines that make ``ids`` of a prompt."""
    asked = "What is up?"
    if template.pattern == CHAT:
        header = response_header(tokenizer, chat_template(tokenizer))
        lines = [f'messages = [{{"role": "user", "content": {json.dumps(asked)}}}]']
        lines += ["prompt = tokenizer.apply_chat_template("]
        lines += ["    messages, tokenize=False, add_generation_prompt=True"]
        lines += [f") + {header!r}" if header else ")"]
    else:
        pattern = template.pattern
        if pattern == HH:
            pattern = transcript([{"role": "user", "content": "{prompt}"}])
        lines = [f'prompt = {pattern!r}.replace("{{prompt}}", {json.dumps(asked)})']
    lines += ["ids = tokenizer(prompt, add_special_tokens=False).input_ids"]
    if (bos := default_bos(tokenizer)) is not None:
        lines += [f"ids = ids if ids[:1] == [{bos}] else [{bos}, *ids]"]
    return lines


def _score(
    tokenizer: PreTrainedTokenizerBase, template: Template, about: dict[str, Any], plain: bool
) -> list[str]:
    """Lines that score a response."""
    space = " " if template.pattern == HH else ""
    lines = [f"response = {space + 'Not much.'!r}"]
    if not plain:
        lines += ["prompt = list(ids)"]
    lines += ["ids += tokenizer(response, add_special_tokens=False).input_ids"]
    lines += [f"ids += [{template.end_id(tokenizer)}]  # unless the response was cut off"]
    lines += ["with torch.no_grad():"]
    if not plain:
        return [
            *lines,
            "    score = model.score(shared_rows([prompt], [[ids[len(prompt) :]]]))[1].item()",
        ]
    offset = (about.get("offset") or 0.0) + (about.get("shift") or 0.0)
    zero = "what demonstrations score"
    if about.get("shift"):
        zero = "where our scores are 0"
    lines += ["    logits = model(input_ids=torch.tensor([ids])).logits"]
    return [*lines, f"score = logits[0, 0].item() - {offset!r}  # {zero}"]


def _sample(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Lines that answer a prompt."""
    return [
        "with torch.no_grad():",
        "    rows = model.generate(input_ids=torch.tensor([ids]), max_new_tokens=64)",
        "response = tokenizer.decode(rows[0, len(ids) :], skip_special_tokens=True)",
    ]
