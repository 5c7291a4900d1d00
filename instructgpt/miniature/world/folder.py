"""The world as a folder of files."""

from __future__ import annotations

import json
from pathlib import Path

from instructgpt.callbacks.common import json_lines
from instructgpt.miniature.world.dataset import People, Sizes, files, misconceptions
from instructgpt.miniature.world.tokenizer import make_tokenizer
from instructgpt.models.folder import replacing, write_text
from instructgpt.terminal import say
from instructgpt.types import UserError, require


def write(output: Path, seed: int, sizes: Sizes, people: People) -> None:
    """Write all files; ``world.json`` is the last one.

    Args:
        output: folder.
        seed: of all that is drawn.
        sizes: numbers of rows.
        people: who asks and who demonstrates.
    """
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
    if any(folder.is_file() for folder in (output, *output.parents)):
        raise UserError(f"--output must be a folder, got {output}: a file is in its place")
    for name, count in sizes._asdict().items():
        require(count >= 1, f"--{name}", ">= 1", count)
    for name in ("toxic_share", "good_share", "short_share"):
        if not 0 <= (share := getattr(people, name)) <= 1:
            raise UserError(f"--{name} must be in [0, 1], got {share}")
    if (total := people.good_share + people.short_share) > 1:
        raise UserError(f"--good_share and --short_share must add up to at most 1, got {total:g}")
