"""What is checked before rows are read."""

from __future__ import annotations

from lightning.pytorch import Trainer
from transformers import PreTrainedTokenizerBase

from instructgpt.models.artefact import check_artefact, read_artefact
from instructgpt.models.template import Template


def check_start(
    trainer: Trainer | None, tokenizer: PreTrainedTokenizerBase, template: Template
) -> None:
    """Refuse text that the model's artefact cannot read, before there is any work.

    Args:
        trainer: of the run, if there is one.
        tokenizer: of the rows.
        template: of the rows.
    """
    module = trainer.lightning_module if trainer else None
    source = getattr(module, "init_from", None)
    if isinstance(source, str) and (artefact := read_artefact(source)) is not None:
        check_artefact(artefact, tokenizer, template)
