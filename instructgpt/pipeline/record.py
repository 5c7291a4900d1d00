"""``pipeline.json``: what was run, for the report and for later."""

from __future__ import annotations

import json
import os
import platform
import shlex
import time
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import yaml

from instructgpt.pipeline.folder import is_finished, read_record, write_json
from instructgpt.pipeline.references import RUN_INFO
from instructgpt.pipeline.spec import Spec

PACKAGES = ("instructgpt", "torch", "lightning", "transformers", "tokenizers", "jsonargparse")


class RunRecord:
    """Configuration, versions and seconds, brought up to date before each stage.

    Args:
        spec: the pipeline.
        hashes: fingerprint of each stage.
        options: that the user gave, for the command.
    """

    def __init__(self, spec: Spec, hashes: dict[str, str], options: dict[str, Any]) -> None:
        self.spec, self.hashes = spec, hashes
        self.config = yaml.safe_dump(spec.document, sort_keys=False, allow_unicode=True)
        given = [f"--{name}={value}" for name, value in options.items() if value is not None]
        self.command = shlex.join(["python", "-m", "instructgpt", "pipeline", *given])
        self._begin = time.monotonic()
        self._before = self._earlier()

    @property
    def seconds(self) -> float:
        """Of this call."""
        return time.monotonic() - self._begin

    def _earlier(self) -> float:
        """Seconds of earlier calls that this one completes."""
        try:
            found = json.loads(self.spec.folder(RUN_INFO).read_text("utf-8"))
            same = found["config"] == self.config
            return float(found["total_seconds"]) if same and found["status"] != "finished" else 0.0
        except (OSError, ValueError, KeyError, TypeError):
            return 0.0

    def write(self, running: Collection[str], final: bool = False) -> None:
        """Write the file.

        Args:
            running: names of stages.
            final: nothing will follow.
        """
        rows = []
        for name, stage in self.spec.stages.items():
            record = read_record(self.spec.folder(name))
            finished = is_finished(self.spec.folder(name), self.hashes[name])
            state = "finished" if finished else "running" if name in running else "not finished"
            seconds = round(record.seconds, 3) if record and finished else None
            row = {"name": name, "verb": stage.verb, "state": state, "seconds": seconds}
            own = {"threads": record.threads} if record and record.threads > 1 and finished else {}
            rows.append(row | own)
        threads = os.environ.get("OMP_NUM_THREADS", "1")  # may be "4,2"
        done = all(row["state"] == "finished" for row in rows)
        value = {
            "command": self.command,
            "seed": self.spec.seed,
            "status": "finished" if done else "stopped" if final else "running",
            "total_seconds": round(self._before + self.seconds, 3),
            "stages": rows,
            "threads": int(threads) if threads.isdecimal() else threads,  # of the other stages
            "versions": {"python": platform.python_version(), **_versions()},
            "config": self.config,
        }
        write_json(self.spec.folder(RUN_INFO), value)


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
