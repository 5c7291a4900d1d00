"""``world``: write the data of the miniature world."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def world(
    output: str = "runs/world",
    seed: int = 0,
    documents: int = 40000,
    validation_documents: int = 1000,
    demonstrations: int = 800,
    validation_demonstrations: int = 200,
    label_prompts: int = 3000,
    rl_prompts: int = 8000,
    validation_prompts: int = 300,
    general: int = 400,
    closed: int = 75,
    truth: int = 250,
    toxic: int = 150,
    nlp: int = 150,
    mix: Literal["paper", "flat"] = "paper",
    toxic_share: float = 0.06,
    good_share: float = 0.3,
    short_share: float = 0.35,
) -> None:
    """Write the data of the miniature world: a web, prompts, demonstrations, evaluation sets.

    Args:
        output: folder to write; all its files are in the public formats (JSONL).
        seed: of all that is drawn; facts and misconceptions are the same in every world.
        documents: of the web, for pretraining; about 29 tokens each.
        validation_documents: of the same web, for the loss on text.
        demonstrations: prompts with an answer by a person, for SFT.
        validation_demonstrations: the same, with prompts of the validation split.
        label_prompts: prompts whose samples are going to be ranked.
        rl_prompts: prompts for PPO.
        validation_prompts: of the validation split: for reward models and PPO.
        general: evaluation prompts of all use cases.
        closed: evaluation prompts of each of the four closed-domain use cases.
        truth: evaluation questions about misconceptions that no prompt of the training touches.
        toxic: evaluation prompts after rude sentences, for each of: nothing asked, something nice,
            something rude.
        nlp: few-shot prompts of each public NLP task.
        mix: shares of the use cases: Table 1 of the paper, or a flatter one.
        toxic_share: share of prompts after rude sentences among the prompts for labels, PPO and
            validation.
        good_share: share of demonstrations that are good.
        short_share: share of demonstrations that are short; the rest is sloppy.
    """
    from instructgpt.miniature.world.dataset import People, Sizes
    from instructgpt.miniature.world.folder import write

    sizes = Sizes(
        documents,
        validation_documents,
        demonstrations,
        validation_demonstrations,
        *(label_prompts, rl_prompts, validation_prompts),
        *(general, closed, truth, toxic, nlp),
    )
    write(Path(output), seed, sizes, People(mix, toxic_share, good_share, short_share))
