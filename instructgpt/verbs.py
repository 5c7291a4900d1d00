"""The verbs: what each is for, and what whoever runs one has to know of it.

Standard library only, so that ``python -m instructgpt --help`` imports next to nothing.
"""

from __future__ import annotations

from typing import NamedTuple


class Verb(NamedTuple):
    """A verb; ``trainer`` tells those of Lightning from those that are plain functions.

    ``writes`` is what ``--output`` names in the folder of a run, "" the folder itself. ``asks`` are
    options without which the verb would talk to a person at the terminal. ``resumes`` is True where
    ``--ckpt_path last`` goes on with what was interrupted.
    """

    about: str
    trainer: bool = False
    writes: str = ""
    asks: tuple[str, ...] = ()
    resumes: bool = False
    report: str = ""  # file in the folder that a person will want to open

    @property
    def seed_option(self) -> str:
        """Where it has a seed, the name of it."""
        return "seed_everything" if self.trainer else "seed"


VERBS = {
    "fit": Verb(
        "train one stage: pretraining, SFT, reward model, PPO, DPO, …", trainer=True, resumes=True
    ),
    "plan": Verb(
        "say beforehand what a fit takes: memory, steps, tokens, time, what would make it fit",
        trainer=True,
    ),
    "validate": Verb("run the validation set once", trainer=True),
    "test": Verb("run the test loop of a module once", trainer=True),
    "predict": Verb("write responses (policies) or scores (reward models) as JSONL", trainer=True),
    "pipeline": Verb("run all stages in order: the paper in miniature, or your own"),
    "world": Verb("write the data of the miniature world"),
    "prepare": Verb(
        "clean data: duplicates, splits by user, personal data, …, with a report",
        writes="data",
        report="data/report.html",
    ),
    "generate": Verb(
        "answer prompts from a file, or interactively, with any policy",
        writes="responses.jsonl",
        asks=("prompts",),
    ),
    "label": Verb("rank sampled responses, by simulated labelers, people or a reward model"),
    "evaluate": Verb("compare policies: win rates, ground truth, a report", report="report.html"),
    "benchmark": Verb("ask public sets before and after: accuracy by log-likelihood, tax"),
    "export": Verb("write the artefact of a run from one of its checkpoints", writes="export"),
    "cache": Verb("say what is kept for later runs (tokenised data), or empty it"),
}
