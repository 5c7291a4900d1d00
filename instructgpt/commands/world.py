"""``world``: write the data of the miniature world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from instructgpt.terminal import say

if TYPE_CHECKING:
    from instructgpt.miniature.world.dataset import People, Sizes


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

    sizes = Sizes(
        documents,
        validation_documents,
        demonstrations,
        validation_demonstrations,
        *(label_prompts, rl_prompts, validation_prompts),
        *(general, closed, truth, toxic, nlp),
    )
    write(Path(output), seed, sizes, People(mix, toxic_share, good_share, short_share))


def write(output: Path, seed: int, sizes: Sizes, people: People) -> None:
    """Write all files; ``world.json`` is the last one.

    Args:
        output: folder.
        seed: of all that is drawn.
        sizes: numbers of rows.
        people: who asks and who demonstrates.
    """
    from instructgpt.callbacks.common import json_lines
    from instructgpt.miniature.world.dataset import files, misconceptions
    from instructgpt.miniature.world.tokenizer import make_tokenizer
    from instructgpt.models.folder import replacing, write_text

    check(output, sizes, people)
    rows = files(seed, sizes, people)
    tokenizer = make_tokenizer()
    with replacing(output / "tokenizer", "tokenizer.json") as folder:  # refuses what is not ours
        tokenizer.save_pretrained(folder)
    (output / "world.json").unlink(missing_ok=True)  # of another world
    for name, content in rows.items():
        write_text(output / f"{name}.jsonl", json_lines(content))
    about = {
        "seed": seed,
        "sizes": sizes._asdict(),
        **people._asdict(),
        "rows": {f"{name}.jsonl": len(content) for name, content in rows.items()},
        "vocabulary": len(tokenizer),
        "misconceptions": misconceptions(),
    }
    write_text(output / "world.json", json.dumps(about, indent=1) + "\n")
    say(f"wrote {len(rows['text']):,} documents and {len(rows) - 1} other files to {output}")


def check(output: Path, sizes: Sizes, people: People) -> None:
    """Refuse a folder that cannot be one, and numbers of which no world can be made."""
    from instructgpt.types import UserError

    if any(folder.is_file() for folder in (output, *output.parents)):
        raise UserError(f"--output must be a folder, got {output}: a file is in its place")
    for name, count in sizes._asdict().items():
        if count < 1:
            raise UserError(f"--{name} must be >= 1, got {count}")
    for name in ("toxic_share", "good_share", "short_share"):
        if not 0 <= (share := getattr(people, name)) <= 1:
            raise UserError(f"--{name} must be in [0, 1], got {share}")
    if (total := people.good_share + people.short_share) > 1:
        raise UserError(f"--good_share and --short_share must add up to at most 1, got {total:g}")
