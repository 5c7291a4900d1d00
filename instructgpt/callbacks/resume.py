"""What a resume may change: its configuration is compared with the checkpoint's, key by key."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from instructgpt.types import UserError

FREE = (
    # where things lie, how they are shown, how fast they are computed
    "output",
    "export",
    "bands",
    "ckpt_path",
    "weights_only",
    "checkpoint.*",
    "doctor.*",
    "trainer.default_root_dir",
    "trainer.logger*",
    "trainer.log_every_n_steps",
    "trainer.profiler*",
    "trainer.enable_*",
    "trainer.model_registry",
    "trainer.fast_dev_run",
    "trainer.barebones",
    "trainer.benchmark",
    "trainer.detect_anomaly",
    "trainer.inference_mode",
    "trainer.limit_test_batches",
    "trainer.limit_predict_batches",
    "model.sampling.batch_size",
    "model.batches.microbatch_size",
    "model.precompute",
    "*.gradient_checkpointing",
    "*.network.max_tokens",
    "*.trust_remote_code",
    "data.cache",
    "data.num_proc",
    "data.num_workers",
    "data.responses",
    "data.validation_batch_size",
)
CONTENT = (
    # names of what is known by its content, which is compared when it has been read
    "model.init_from",
    "model.tokenizer",
    "model.value.init_from",
    "model.reward*.init_from",
    "data.train",
    "data.validation",
    "data.pretraining",
    "data.tokenizer",
    "data.template",
    "data.format*",
    "data.columns",
    "data.on_error",
)
OBEYED = (
    # nothing of them is in the state, or it is set anew
    "trainer.max_*",
    "trainer.min_*",
    "trainer.gradient_clip_*",
    "trainer.callbacks*",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy*",
    "trainer.deterministic",
    "trainer.limit_val_batches",
    "trainer.val_check_interval",
    "trainer.check_val_every_n_epoch",
    "trainer.num_sanity_val_steps",
    "model.optimizer.lr",
    "model.optimizer.betas",
    "model.optimizer.eps",
    "model.optimizer.weight_decay",
    "model.optimizer.momentum",
    "model.value.lr",
    "model.value.weight_decay",
    "model.value.warmup_phases",
    "model.schedule*",
    "model.judge*",
    "model.kl.kl_coef",
    "model.kl.target",
    "model.kl.horizon",
    "model.algorithm.*",
    "model.pretraining.ptx_coef",
    "model.dropout",
    "model.trained.dropout",
    "model.trained.lr",
    "model.trained.weight_decay",
    "model.validation_prompts",
    "model.sampling.top_*",
    "model.sampling.min_response_tokens",
    "model.sampling.repetition_penalty",
    "model.sampling.stop",
    "model.sampling.engine",
    "*.network.attention",
    "data.demonstrations",
    "data.batch_size",  # of all processes together it is compared when their number is known
)
COUNTED = ("model.algorithm.epochs", "model.algorithm.responses_per_prompt")
"""What the place in a run is counted in, among the options that may otherwise change."""
WHOLE = ("bands", "model.architecture", "data.train", "data.columns", "trainer.callbacks")
"""Dictionaries that are one value, not a group of options."""
SHOWN = 60


class Change(NamedTuple):
    """An option that is not what it was."""

    key: str
    was: Any
    now: Any

    def __str__(self) -> str:
        """As printed."""
        was, now = _different(self.was, self.now)
        return f"{self.key} {_shown(was)} → {_shown(now)}"

    def refused(self) -> str:
        """As printed where it must not be."""
        was, now = _different(self.was, self.now)
        return f"{self.key} {_shown(now)} (was {_shown(was)})"


def history(checkpoint: dict[str, Any], asked: dict[str, Any], path: str) -> list[str]:
    """Compare what is asked with a checkpoint, and say what changes.

    Args:
        checkpoint: from which a run goes on.
        asked: the configuration.
        path: of the checkpoint.

    Returns:
        All changes since the run began, a line each.
    """
    known = checkpoint["instructgpt"]
    if "config" not in known:
        rank_zero_warn(f"{path} holds no configuration: what is asked now is not compared with it")
        return []
    changes = compare_configs(known["config"], asked, path)
    for change in changes:
        rank_zero_info(f"resume: {change}")
    step = checkpoint["global_step"]
    return [*known["changes"], *(f"from step {step} on: {change}" for change in changes)]


def compare_configs(theirs: dict[str, Any], ours: dict[str, Any], path: str) -> list[Change]:
    """Find what a resume changes; what cannot be obeyed is refused.

    Args:
        theirs: the configuration in the checkpoint. Keys that it does not know are new in this
            version, and no change.
        ours: the configuration asked for.
        path: of the checkpoint.

    Returns:
        What will be obeyed.

    Raises:
        UserError: one line that names every option that must stay as it was.
    """
    before, after = dict(leaves(theirs)), dict(leaves(ours))
    changes = [
        Change(key, before[key], value)
        for key, value in after.items()
        if key in before and before[key] != value and not _inside_another(key, before, after)
    ]
    refused = [change for change in changes if not _may_change(change)]
    if refused:
        listed = ", ".join(change.refused() for change in refused)
        raise UserError(
            f"--ckpt_path {path} cannot go on with {listed}: leave it as it was, or start anew "
            "with --model.init_from and without --ckpt_path"
        )
    return [change for change in changes if matches(change.key, OBEYED)]


def _may_change(change: Change) -> bool:
    if matches(change.key, CONTENT):  # but a fraction to hold out is no name
        return not any(isinstance(value, float) for value in (change.was, change.now))
    if matches(change.key, COUNTED):
        return False
    return matches(change.key, FREE) or matches(change.key, OBEYED)


def _inside_another(key: str, before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether an option belongs to an object of another class, which is reported itself."""
    parts = key.split(".")
    above = [".".join(parts[:end]) for end in range(1, len(parts))]
    return any(name in before and before[name] != after.get(name) for name in above)


def matches(key: str, patterns: tuple[str, ...]) -> bool:
    """Whether an option is one of those."""
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Options by their dotted names as on the command line; the class of an object by its own."""
    if key in WHOLE or not isinstance(node, dict | list):
        yield key, node
    elif isinstance(node, list):
        if not any(isinstance(part, dict) for part in node):
            yield key, node
            return
        yield key, f"{len(node)} of them"
        for number, part in enumerate(node):
            yield from leaves(part, f"{key}.{number}")
    elif "class_path" in node:
        yield key, node["class_path"]
        yield from leaves(node.get("init_args") or {}, key)
    else:
        for name, part in node.items():
            yield from leaves(part, f"{key}.{name}" if key else name)


def _different(was: Any, now: Any) -> tuple[Any, Any]:
    """Of two dictionaries only what is not the same in both."""
    if not (isinstance(was, dict) and isinstance(now, dict)):
        return was, now
    same = {key for key, value in was.items() if key in now and now[key] == value}
    one, other = ({k: v for k, v in node.items() if k not in same} for node in (was, now))
    return one, other


def _shown(value: Any) -> str:
    text = "null" if value is None else str(value)
    if text.startswith(("instructgpt.", "torch.")):  # a class
        text = text.rpartition(".")[2]
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
