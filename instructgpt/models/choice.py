"""Which template a model's prompts are written with: one rule for all verbs and stages."""

from __future__ import annotations

from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from instructgpt.models.artefact import check_template, read_artefact
from instructgpt.models.template import BUILT_IN, Template, get_template


class Choice(NamedTuple):
    """A template, and why it is this one."""

    template: Template
    reason: str

    def __str__(self) -> str:
        """Both, in one line."""
        name = self.template.name
        return f"template: {name if name in BUILT_IN else repr(name)} ({self.reason})"


def choose_template(
    asked: str | None, source: str | None, tokenizer: PreTrainedTokenizerBase, option: str = ""
) -> Choice:
    """The template asked for, else the artefact's, else the tokenizer's, else plain.

    Args:
        asked: name or pattern; None or "" for the rule.
        source: folder or hub id of the model, which may be an artefact.
        tokenizer: of the model, which may have a chat template.
        option: what asks for one, to name it where nothing did; "" if nothing can.

    Raises:
        UserError: the artefact's template does not do what it did when it was trained.
    """
    if asked:
        return Choice(get_template(asked), "as asked")
    if source is not None and (artefact := read_artefact(source)) is not None:
        template = get_template(artefact.template)
        check_template(artefact, tokenizer, template)
        return Choice(template, f"that of '{source}'")
    hint = f"; {option} chooses another" if option else ""
    if tokenizer.chat_template:
        return Choice(get_template("chat"), f"the tokenizer's own{hint}")
    return Choice(get_template("plain"), f"the tokenizer has no chat template{hint}")
