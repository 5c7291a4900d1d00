"""Who listens to a stage where no callback does."""

from lightning.pytorch.utilities import rank_zero_warn

from instructgpt.types import Diagnosis


def silent(part: str, done: int, total: int) -> None:
    """Report progress to nobody."""


def warn(finding: Diagnosis) -> None:
    """Say what was found."""
    rank_zero_warn(str(finding))
