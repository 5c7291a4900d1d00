"""A stream in batches: the same for any number of workers and ranks, and after any resume."""

from itertools import islice

import pytest
import torch
from lightning.pytorch import Trainer
from streams import Recorder, SaveAll, stream

from instructgpt.data.formats import Told
from instructgpt.data.shuffled import Mixture
from instructgpt.data.stream_loader import Decoded, Steps, StreamLoader
from instructgpt.data.summary import Summary
from instructgpt.types import UserError


def decode(items):
    """A number gives as many rows as its remainder by 3 says; 49 is bad where it is an error."""
    summary, rows = Summary(), []
    for item in items:
        summary.read(item.origin, "number", item.where, Told({}))
        rows += [(item.value, copy) for copy in range(item.value % 3)]
    summary.tell("numbers are numbers")
    return Decoded(rows, summary)


def each(rows, rest):
    return rows, rest


def in_pairs(rows, rest):
    """As blocks of text: rows do not end where records do."""
    values = rest + [value for value, _ in rows]
    whole = len(values) // 5 * 5
    return [tuple(values[i : i + 5]) for i in range(0, whole, 5)], values[whole:]


def loader(cut=each, workers=0, seed=0, decode=decode, **steps):
    sets = [stream(), stream(5, 1, [(100, 113)])]
    steps = Steps(**{"batch_size": 4, "batches": 60, **steps})
    return StreamLoader(Mixture(sets, [2, 1], seed), decode, cut, list, steps, workers)


@pytest.mark.parametrize("cut", [each, in_pairs])
def test_workers_change_nothing(cut):
    whole = list(loader(cut))
    assert len(whole) == len(loader()) == 60
    assert all(len(batch) == 4 for batch in whole)
    assert list(loader(cut, 1)) == list(loader(cut, 3)) == whole != list(loader(cut, seed=1))


def test_every_row_comes_once_a_turn():
    one = StreamLoader(Mixture([stream()], [1], 0), decode, each, list, Steps(7, 14), 0)
    # 50 numbers: 17 with remainder 0, 17 with 1, 16 with 2, which makes 49 rows
    turn = [row for batch in islice(one, 7) for row in batch]
    assert sorted(turn) == [(value, copy) for value in range(50) for copy in range(value % 3)]


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_batches_of_one(world):
    ranks = [list(loader(rank=rank, world_size=world)) for rank in range(world)]
    one = list(loader(batch_size=4 * world))
    joined = [[row for part in parts for row in part] for parts in zip(*ranks, strict=True)]
    assert joined == one


@pytest.mark.parametrize(("workers", "places"), [(0, range(61)), (3, (5, 31))])
@pytest.mark.parametrize("cut", [each, in_pairs])
def test_resume_anywhere(cut, workers, places):
    whole, full = list(loader(cut, batches=120)), loader(cut)
    list(full)
    for done in places:
        one = loader(cut, workers)
        seen = list(islice(one, done))
        other = loader(cut, workers)
        other.load_state_dict(one.state_dict())
        rest = list(other)
        assert seen + rest == whole[: len(seen) + len(rest)]
        assert len(rest) == (60 - done or 60)
        if done < 60:  # what was counted is what one run counts
            assert other.seen().lines() == full.seen().lines()


def test_an_epoch_goes_on_where_the_last_one_ended():
    whole = list(loader(batches=80))
    one, seen = loader(), []
    for epoch in range(6):
        one.set_epoch(epoch)
        seen += list(islice(one, 10))  # limit_train_batches=10
        other = loader()
        other.load_state_dict(one.state_dict())
        other.load_state_dict({"epoch": epoch + 1, "yielded": 0})
        assert list(islice(other, 9)) == whole[10 * epoch + 10 :][:9]
    assert seen == whole[:60]


def test_an_incomplete_optimizer_step_is_taken_back():
    whole = list(loader())
    one = loader(accumulate=4)
    list(islice(one, 11))
    other = loader(accumulate=4)
    other.load_state_dict(one.state_dict())
    other.load_state_dict({"epoch": 0, "yielded": 8})
    assert list(islice(other, 5)) == whole[8:13]
    with pytest.raises(UserError, match="knows the stream behind 8 and 11 batches"):
        other.load_state_dict({"epoch": 0, "yielded": 7})


def test_what_was_seen_is_counted_and_noted_once():
    one = loader(workers=2)
    list(islice(one, 20))
    lines = one.seen().lines()
    assert lines.count("numbers are numbers") == 1
    (chunk,) = [place["chunk"] for place in one.state_dict()["places"][1:]]
    assert lines[0] == f"read numbers: {32 * (chunk + 1)} number"  # not what workers have ahead


def bad(items):
    if any(item.value == 49 for item in items):
        return UserError("numbers:49: must be less")
    return decode(items)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_row_is_one_line_in_any_process(workers):
    with pytest.raises(UserError, match=r"^numbers:49: must be less$"):
        list(loader(workers=workers, decode=bad))


def nothing(items):
    summary = Summary()
    for item in items:
        summary.drop("of no use", item.where)
    return Decoded([], summary)


def test_a_stream_that_gives_nothing_ends_in_one_line():
    with pytest.raises(UserError, match=r"--data.train: no rows left: .* of no use \(\d+, "):
        next(iter(loader(decode=nothing)))


def test_iteration_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(islice(loader(workers=1), 5))
    assert torch.equal(torch.get_rng_state(), before)


def fit(folder, workers=0, ckpt_path=None, **kwargs):
    module = Recorder()
    accumulate = kwargs.get("accumulate_grad_batches", 1)
    trainer = Trainer(
        max_steps=12 // accumulate,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        callbacks=[] if ckpt_path else [SaveAll(folder)],
        **kwargs,
    )
    steps = {"batches": 12, "accumulate": accumulate}
    trainer.fit(module, loader(in_pairs, workers, **steps), ckpt_path=ckpt_path)
    return module.seen


def test_lightning_resumes_exactly(tmp_path):
    whole = fit(tmp_path)
    assert whole == list(loader(in_pairs, batches=12))
    for step in (1, 7, 11):
        assert whole[:step] + fit(tmp_path, ckpt_path=tmp_path / f"{step}.ckpt") == whole
    assert whole[:7] + fit(tmp_path, 2, ckpt_path=tmp_path / "7.ckpt") == whole


def test_lightning_resumes_exactly_with_epochs_of_some_batches(tmp_path):
    whole = fit(tmp_path, limit_train_batches=5)
    assert whole == list(loader(in_pairs, batches=12))
    for step in (3, 5, 7, 10, 11):
        rest = fit(tmp_path, ckpt_path=tmp_path / f"{step}.ckpt", limit_train_batches=5)
        assert whole[:step] + rest == whole
