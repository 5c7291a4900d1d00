"""Whether a run moved anything beyond noise: a rate that is too low ends as well as a good one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean, variance
from typing import NamedTuple

from instructgpt.functional.intervals import Interval
from instructgpt.models.trained import FrozenTrunk
from instructgpt.modules.base import StageModule
from instructgpt.types import Diagnosis

FEWEST_STEPS = 8
"""With fewer optimizer steps the spread of their losses is not known."""

AT_THE_END = "moved_nothing"
"""Name of the finding."""

RATE, HEAD_RATE = "--model.optimizer.lr", "--model.trained.lr"
"""Options of a learning rate; the second is that of a head on a frozen trunk."""

RATES = {
    "sft": "1e-4 to 5e-4",
    "reward": "1e-4 to 1e-3",
    "preference": "1e-4 to 5e-4",
    "ppo": "1e-4 to 3e-4",
}
"""Of LoRA, by stage, in runs of some ten to hundred steps; of all weights a tenth.
Where they come from stands in docs/decisions.md."""


class Run(NamedTuple):
    """What is known of a run that has ended."""

    stage: str
    losses: Sequence[float]  # of the optimizer steps
    metrics: Mapping[str, float]  # logged last
    intervals: Mapping[str, Interval]  # of some of them
    episodes: int  # of a rollout phase; 0 where there is none
    beta: float | None  # of an algorithm whose scores are beta times a log-ratio
    rate: float  # of learning, at its peak
    option: str = RATE  # that it was given by


def standing_still(run: Run) -> Diagnosis | None:
    """Where nothing moved beyond noise; None where something did, or nobody can know.

    A policy at a KL of k nats from where it started can have raised the mean of any score by at
    most sqrt(2 k) of its standard deviation. Over N answers that is hidden in noise, two standard
    errors, where k < 2 / N.

    Args:
        run: that has ended.
    """
    found = _finding(run)
    if not found:
        return None
    usual = RATES.get(run.stage)
    rates = f", where LoRA moves a short run at {usual} and all weights at a tenth" if usual else ""
    what = f"nothing moved beyond noise: {found}"
    why = "what is exported is what the run began with"
    remedy = f"raise {RATE} (now {run.rate:g}{rates}), or train longer, on more rows"
    if run.option == HEAD_RATE:
        why = "what is exported knows nothing of what is better"
        remedy = (
            "train on more rows, or on other --model.trained.layers and tokens; a higher "
            f"{HEAD_RATE} (now {run.rate:g}) only gets the head sooner to where its loss is least"
        )
    return Diagnosis(AT_THE_END, what, why, remedy)


def _finding(run: Run) -> str:
    if len(run.losses) < FEWEST_STEPS or run.rate <= 0:
        return ""
    if run.stage == "reward":
        return _at_chance(run.metrics, run.intervals)
    if run.stage == "preference":
        return _no_margin(run.metrics, run.beta)
    if run.episodes:
        return _near(run.metrics, run.episodes)
    fall = run.intervals.get("val/loss_fall")
    return no_descent(run.losses) if fall is None else _no_fall(fall)


def _no_fall(fall: Interval) -> str:
    """Of an adapter, on the same rows with and without it."""
    if fall.low > 0:
        return ""
    return (
        f"the adapter lowers the validation loss by {(fall.low + fall.high) / 2:.2g} "
        f"[{fall.low:.2g}, {fall.high:.2g}] (val/loss_fall)"
    )


def no_descent(losses: Sequence[float]) -> str:
    """What is wrong with the last quarter of the steps against the first; "" if it is lower.

    Args:
        losses: of at least ``FEWEST_STEPS`` optimizer steps.
    """
    few = len(losses) // 4
    first, last = losses[:few], losses[-few:]
    fell = fmean(first) - fmean(last)
    noise = 2 * sqrt((variance(first) + variance(last)) / few)
    if fell > noise:
        return ""
    return (
        f"the loss of the last quarter of the steps is {fell:.2g} below that of the first, which "
        f"is within its noise ({noise:.2g})"
    )


def _at_chance(metrics: Mapping[str, float], intervals: Mapping[str, Interval]) -> str:
    known = intervals.get("val/accuracy")
    if known is None or known.low > 0.5:
        return ""
    return (
        f"the accuracy, {metrics['val/accuracy']:.3f} [{known.low:.3f}, {known.high:.3f}] over "
        f"{known.n:,} prompts, is not above chance"
    )


def _no_margin(metrics: Mapping[str, float], beta: float | None) -> str:
    """Log-ratios that differ by d between chosen and rejected mean a KL of about d² / 8."""
    pairs = metrics.get("val/pairs", 0.0)
    if not beta or not pairs:
        return ""
    apart, least = metrics["val/margin"] / beta, 4 / sqrt(pairs)
    if apart >= least:
        return ""
    return (
        f"chosen responses are {apart:.2g} nats likelier against rejected ones than before "
        f"(val/margin / beta), less than the {least:.2g} that {int(pairs):,} answers could show"
    )


def _near(metrics: Mapping[str, float], episodes: int) -> str:
    kl = metrics.get("ppo/kl_k3")
    if kl is None or kl * episodes >= 2:
        return ""
    return (
        f"the policy is {kl:.2g} nats (ppo/kl_k3) from where it started, less than the "
        f"{2 / episodes:.2g} that the mean score of {episodes:,} answers could show"
    )


def run_of(module: StageModule, metrics: Mapping[str, float]) -> Run:
    """What a stage knows of its run.

    Args:
        module: the stage.
        metrics: logged last.
    """
    batches = getattr(module, "batches", None)
    beta = getattr(getattr(module, "algorithm", None), "beta", None)
    episodes = batches.rollout_batch_size if batches else 0
    known = (module.stage, module.step_losses, metrics, module.intervals)
    return Run(*known, episodes, beta, module.peak_rate, rate_option(module))


def rate_option(module: StageModule) -> str:
    """The option that a stage has its learning rate from."""
    head = isinstance(getattr(module, "trained", None), FrozenTrunk)
    return HEAD_RATE if head else RATE
