"""The loader: any place of a run can be resumed, any number of ranks sees the same batches."""

import sys
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from streams import Recorder, SaveAll

from instructgpt.data.loader import StatefulLoader
from instructgpt.data.order import Group, one_pass
from instructgpt.data.rows import LanguageRow

ROWS = [LanguageRow(torch.tensor([i, i]), 1) for i in range(23)]
SHUFFLED = partial(one_pass, [Group(0, 23, 23)], 0)


def straight(epoch):
    return range(23)


def numbers(rows):
    """Row numbers of a batch; blank rows are -1."""
    return [int(row.tokens[0]) if row.trained < 2 else -1 for row in rows]


def loader(order=SHUFFLED, training=True, batch_size=4, **kwargs):
    return StatefulLoader(ROWS, numbers, batch_size, order, training, **kwargs)


def run(one, epochs):
    seen = []
    for epoch in epochs:
        one.set_epoch(epoch)
        seen += list(one)
    return seen


def test_an_epoch_has_each_row_once_and_drops_the_incomplete_batch():
    one = loader()
    batches = list(one)
    assert len(one) == len(batches) == 5
    assert all(len(batch) == 4 for batch in batches)
    assert [row for batch in batches for row in batch] == SHUFFLED(0)[:20].tolist()
    assert run(one, [0]) == batches != run(one, [1])


def test_a_large_order_is_no_python_objects():
    rows = range(10**6)
    before = sys.getallocatedblocks()
    one = StatefulLoader(rows, list, 4, partial(one_pass, [Group(0, 10**6, 10**6)], 0), True)
    batch = next(iter(one))
    assert len(one.batches(0)) == 250_000
    assert sys.getallocatedblocks() - before < 10_000
    assert batch == one.batches(0)[0]
    assert batch != one.batches(1)[0]


def test_the_only_batch_is_kept_although_incomplete():
    one = loader(batch_size=50)
    assert [sorted(batch) for batch in one] == [list(range(23))]


@pytest.mark.parametrize(("workers", "places"), [(0, range(1, 16)), (2, (3, 5))])
def test_resume_anywhere(workers, places):
    whole = run(loader(), range(3))
    for done in places:
        one = loader(num_workers=workers)
        seen = []
        for epoch in range(3):
            one.set_epoch(epoch)
            for batch in one:
                seen.append(batch)
                if len(seen) == done:
                    state = one.state_dict()
                    break
            if len(seen) == done:
                break
        other = loader(num_workers=workers)
        other.load_state_dict(state)
        first = list(other)  # Lightning calls iter before set_epoch when it resumes between epochs
        rest = run(other, range(other.epoch + 1, 3))
        if done == 15:
            assert other.epoch == 3
        else:
            assert seen + first + rest == whole


def test_a_shortened_epoch_does_not_shorten_the_next():
    # limit_train_batches=2: the state at the end of the epoch says 2 of 5
    one = loader()
    iterator = iter(one)
    next(iterator), next(iterator)
    other = loader()
    other.load_state_dict(one.state_dict())
    assert run(other, [1]) == run(loader(), [1])


def test_iteration_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(loader(num_workers=1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("order", [SHUFFLED, straight])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("world", [2, 3, 5, 30])
def test_ranks_share_the_same_global_batches(order, training, world):
    ranks = [list(loader(order, training, 2, rank=rank, world_size=world)) for rank in range(world)]
    assert len({len(batches) for batches in ranks}) == 1
    one = list(loader(order, training, 2 * world))
    for parts, whole in zip(zip(*ranks, strict=True), one, strict=True):
        assert [row for part in parts for row in part if row >= 0] == whole


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_covers_every_row_once(world):
    ranks = [list(loader(straight, False, rank=rank, world_size=world)) for rank in range(world)]
    assert len({len(batches) for batches in ranks}) == 1
    seen = [row for batches in ranks for batch in batches for row in batch if row >= 0]
    assert sorted(seen) == list(range(23))


def fit(folder, workers=0, ckpt_path=None, callbacks=(), **kwargs):
    module = Recorder()
    trainer = Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        callbacks=list(callbacks),
        **kwargs,
    )
    trainer.fit(module, loader(num_workers=workers), ckpt_path=ckpt_path)
    return module.seen


def test_lightning_resumes_exactly(tmp_path):
    whole = fit(tmp_path, callbacks=[SaveAll(tmp_path)])
    assert whole == run(loader(), range(3))
    for step in (1, 3, 5, 7, 10, 14):  # 5 and 10 are the last batches of epochs
        assert whole[:step] + fit(tmp_path, ckpt_path=tmp_path / f"{step}.ckpt") == whole
    assert whole[:7] + fit(tmp_path, 2, ckpt_path=tmp_path / "7.ckpt") == whole


def test_lightning_resumes_exactly_with_fewer_batches(tmp_path):
    whole = fit(tmp_path, callbacks=[SaveAll(tmp_path)], limit_train_batches=2)
    assert len(whole) == 6
    for step in (1, 2, 3, 4):
        rest = fit(tmp_path, ckpt_path=tmp_path / f"{step}.ckpt", limit_train_batches=2)
        assert whole[:step] + rest == whole
