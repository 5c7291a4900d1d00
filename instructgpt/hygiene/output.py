"""The output of a preparation: rows of each split, the report, and a mark that says what it is."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructgpt.hygiene.clean_row import SPLITS
from instructgpt.hygiene.inputs import MARK
from instructgpt.hygiene.page import write_page
from instructgpt.hygiene.parquet import write_parquet
from instructgpt.hygiene.recipe import Cleaning
from instructgpt.hygiene.report import lines_of, report_of
from instructgpt.hygiene.work import Work
from instructgpt.models.folder import replacing
from instructgpt.terminal import say
from instructgpt.types import UserError

LEFT = (".fit.lock",)
"""Files that others of this package put into folders."""


@dataclass(frozen=True)
class WriteOutput:
    """The last task: the output takes its place as a whole.

    Args:
        work: folder of the preparation.
        recipe: what was done.
        output: folder to write.
        names: of the input, for the report.
        mark: fingerprint.
    """

    work: Work
    recipe: Cleaning
    output: str
    names: tuple[str, ...]
    mark: str

    def __call__(self, data: Any, rank: int, world_size: int) -> None:
        """Write everything and say what came out."""
        report = report_of(self.work, self.recipe, self.names)
        with replacing(Path(self.output), MARK) as folder:
            for split in SPLITS:
                parts = sorted(self.work.path(split).glob("*.jsonl"))
                if parts:
                    self._write_rows(folder, split, parts)
            text = json.dumps(report, indent=1, ensure_ascii=True) + "\n"
            (folder / "report.json").write_text(text, encoding="utf-8")
            write_page(report, folder)
            files = {one.name: file_hash(one) for one in sorted(folder.iterdir())}
            mark = {"fingerprint": self.mark, "files": files, "mixed": report["mixed"]}
            (folder / MARK).write_text(json.dumps(mark, indent=1) + "\n", encoding="utf-8")
        say("\n".join(lines_of(report)))
        say(f"wrote {Path(self.output) / 'report.html'}")

    def _write_rows(self, folder: Path, split: str, parts: list[Path]) -> None:
        if self.recipe.write == "parquet":
            write_parquet(parts, folder / f"{split}.parquet")
            return
        with (folder / f"{split}.jsonl").open("wb") as file:
            for part in parts:
                with part.open("rb") as lines:
                    shutil.copyfileobj(lines, file)


def file_hash(path: Path) -> str:
    """Of what a file holds."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_unchanged(output: Path, files: Mapping[str, str]) -> None:
    """Refuse to replace what is not as it was written.

    Args:
        output: folder.
        files: name -> hash of what was written.

    Raises:
        UserError: somebody changed a file or added one.
    """
    for path in sorted(output.iterdir()):
        if path.name in (MARK, *LEFT):
            continue
        if path.name not in files:
            raise UserError(
                f"--output {output} holds {path.name}, which prepare did not write: move it away"
            )
        if file_hash(path) != files[path.name]:
            raise UserError(
                f"--output {output}: {path.name} was changed since it was written: move it away"
            )
    missing = [name for name in files if not (output / name).exists()]
    if missing:
        raise UserError(f"--output {output}: {missing[0]} is missing: move the folder away")
