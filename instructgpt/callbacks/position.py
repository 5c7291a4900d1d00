"""Where a run stands in its epochs, and how a resumed one is put exactly there.

What we know of the inside of Lightning's loops (2.6) stands here. A checkpoint is written in the
middle of hooks, where some counters are ahead of others. Lightning guesses from them which hook it
was ("restart stages") and completes the rest, which goes wrong: a guess about the last batch of an
epoch without validation outlives that epoch, so that the next checkpoint counts one epoch less
than was trained; and an epoch that ``max_steps`` cuts short counts as a whole one. So nothing is
left to guess: the counters are settled before Lightning reads them, all at the end of the last
batch (or at the beginning of an epoch), and the loops start there with nothing to complete.
"""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason


def settle(checkpoint: dict[str, Any], accumulate: int) -> int:
    """Make all counters of a checkpoint agree on one moment between two batches.

    Args:
        checkpoint: as loaded, before Lightning takes the state of its loops from it; changed.
        accumulate: batches of an optimizer step; of an incomplete one, whose gradients are in no
            checkpoint, the run goes back to the first.

    Returns:
        Epochs that are complete.
    """
    loops = checkpoint["loops"]["fit_loop"]
    epochs, batches = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
    epoch, done = max(epochs["current"]["started"] - 1, 0), batches["current"]["processed"]
    total = batches["total"]["processed"]
    if batches["is_last_batch"] and done == batches["current"]["ready"]:
        epoch, kept = epoch + 1, 0
    else:
        kept = done - done % accumulate
        total -= done - kept
    for counters, value in (
        (epochs["total"], epoch),
        (epochs["current"], epoch),
        (batches["total"], total),
        (batches["current"], kept),
    ):
        counters.update(dict.fromkeys(counters, value))
    batches["is_last_batch"] = False
    return int(epoch)


def restart(trainer: Trainer) -> None:
    """Put the loops of a resumed run, and its train loader, to where the checkpoint left them.

    For ``on_train_start``: Lightning has interpreted the counters then, and fetched no batch yet.
    It may have made the loader before the checkpoint was read, for a schedule that asks how long
    the run is; ours start lazily.
    """
    loop = trainer.fit_loop
    if not loop.is_resuming:
        return
    inner = loop.epoch_loop
    epoch, batches = loop.epoch_progress.current.ready, inner.batch_progress.current.ready
    for one in (loop, inner, inner.val_loop):
        one.reset_restart_stage()
    loop._restarting = True
    loop._load_combined_loader_states()
    loop._restarting = False
    inner.restarting = batches > 0  # keep the counters of this epoch instead of starting from 0
    inner.val_loop.restarting = False
    # The loop adds the last step of the batches done, which a hook in that batch could not count.
    inner._batches_that_stepped = trainer.global_step - (batches > 0)
    assert loop._combined_loader is not None
    for loader in loop._combined_loader.flattened:
        if hasattr(loader, "set_epoch"):  # one of ours
            loader.load_state_dict({"epoch": epoch, "yielded": batches})
    stopped = (one for one in trainer.callbacks if isinstance(one, EarlyStopping))  # type: ignore[attr-defined]
    trainer.should_stop = trainer.should_stop or any(map(_has_stopped, stopped))


def _has_stopped(early: EarlyStopping) -> bool:
    """Whether the run had been stopped when it was saved, and would be again."""
    if early.stopping_reason == EarlyStoppingReason.PATIENCE_EXHAUSTED:
        return early.wait_count >= early.patience
    return early.stopping_reason != EarlyStoppingReason.NOT_STOPPED


def accumulating(trainer: Trainer) -> bool:
    """Whether gradients are being collected for a step that is still to come."""
    return trainer.fit_loop.epoch_loop._should_accumulate()


def epoch_ends(trainer: Trainer) -> bool:
    """Whether the batch just trained was the last of its epoch."""
    return trainer.fit_loop.epoch_loop._num_ready_batches_reached()


def validation_follows(trainer: Trainer) -> bool:
    """Whether the batch just trained is followed by a validation; False where a clock decides."""
    loop = trainer.fit_loop
    by_the_clock = trainer._val_check_time_interval is not None  # type: ignore[attr-defined]
    if by_the_clock or not trainer.enable_validation or loop._data_fetcher is None:
        return False  # clocks differ between ranks, which must decide alike
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
