"""Which rows an update sees: arithmetic, independence of ranks, exact resume."""

import pytest
import torch

from instructgpt.rollout.updates import UpdateLoader, UpdatePlan
from instructgpt.seeds import mix, uniforms
from instructgpt.types import UserError


def plan(world_size=1, rank=0, accumulate=1, epochs=2):
    return UpdatePlan(16, 8, epochs, accumulate, world_size, rank, seed=3)


def test_counts():
    # 2 passes x 16 episodes / 8 a minibatch = 4 updates; 2 ranks x 2 accumulated = 2 episodes a
    # micro-batch
    p = plan(world_size=2, accumulate=2)
    assert (p.updates, p.microbatch_size, p.microbatches) == (4, 2, 8)


def test_a_pass_sees_every_row_once_and_passes_differ():
    p = plan()
    passes = [torch.cat([p.minibatch(0, u) for u in pair]) for pair in ((0, 1), (2, 3))]
    for rows in passes:
        assert sorted(rows.tolist()) == list(range(16))
    assert passes[0].tolist() != passes[1].tolist()
    assert p.minibatch(0, 0).tolist() != p.minibatch(1, 0).tolist()


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_minibatch_is_the_union_over_ranks_and_microbatches(world_size, accumulate):
    for update in range(4):
        seen = [
            plan(world_size, rank, accumulate).microbatch(5, update * accumulate + step)
            for rank in range(world_size)
            for step in range(accumulate)
        ]
        assert sorted(torch.cat(seen).tolist()) == sorted(plan().minibatch(5, update).tolist())


def test_window_is_what_the_ranks_compute_also_when_cut_short():
    plans = [plan(2, rank, accumulate=2) for rank in (0, 1)]
    whole = torch.cat([p.microbatch(0, i) for p in plans for i in (2, 3)])
    assert sorted(plans[0].window(0, 3, available=8).tolist()) == sorted(whole.tolist())
    # the trainer stops after micro-batch 2: the second step has one micro-batch a rank only
    cut = torch.cat([p.microbatch(0, 2) for p in plans])
    assert sorted(plans[1].window(0, 2, available=3).tolist()) == sorted(cut.tolist())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((16, 6, 1, 1, 1, 0, 0), "minibatch_size must divide rollout_batch_size (16), got 6"),
        ((15, 5, 1, 1, 2, 0, 0), "multiple of the 2 processes, got 15"),
        ((16, 8, 1, 3, 1, 0, 0), "1 process(es) x 3 accumulated micro-batches, got 8"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(arguments, message):
    with pytest.raises(UserError) as error:
        UpdatePlan(*arguments)
    assert message in str(error.value)


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_loader_resumes_at_the_exact_microbatch(stop):
    def run(loader, epochs):
        for epoch in epochs:
            loader.set_epoch(epoch)
            for rows in loader:
                yield epoch, rows.tolist(), loader.state_dict()

    whole = list(run(UpdateLoader(plan()), range(3)))
    epoch, _, state = whole[4 + stop - 1]
    resumed = UpdateLoader(plan())
    resumed.load_state_dict(state)
    # Lightning restarts in the epoch of the checkpoint, or in the next one when it was complete
    rest = list(run(resumed, range(epoch + int(stop == 4), 3)))
    assert [r[:2] for r in rest] == [w[:2] for w in whole[4 + stop :]]


def test_noise_names_a_sample_and_nothing_else():
    ids = torch.tensor([7, 3, 9])
    together, alone = uniforms(1, 2, ids, 5), uniforms(1, 2, ids[2:], 5)
    assert torch.equal(together[2:], alone)
    assert not torch.equal(uniforms(1, 3, ids, 5), together)
    assert together.min() >= 0
    assert together.max() < 1
    assert len({mix(a, b) for a in range(50) for b in range(50)}) == 2500
