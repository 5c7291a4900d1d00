"""Which rows an update sees: arithmetic, independence of ranks, exact resume."""

from dataclasses import dataclass

import pytest
import torch

from instructgpt.algorithms.ppo import PPO
from instructgpt.rollout.updates import Batches, UpdateLoader, plan_updates
from instructgpt.seeds import mix, uniforms
from instructgpt.types import UserError


def plan(world_size=1, rank=0, accumulate=1, epochs=2):
    return plan_updates(Batches(16, 8), PPO(epochs=epochs), accumulate, world_size, rank, seed=3)


def test_counts():
    # 2 passes x 16 episodes / 8 a minibatch = 4 updates; 2 ranks x 2 accumulated = 2 episodes an
    # item
    p = plan(world_size=2, accumulate=2)
    assert (p.updates, p.item_size, p.items, p.microbatch_size) == (4, 2, 8, 2)
    in_pieces = plan_updates(Batches(16, 8, 2), PPO(), 1, 2, 0, seed=3)
    assert (in_pieces.updates, in_pieces.item_size, in_pieces.microbatch_size) == (2, 4, 2)


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
            plan(world_size, rank, accumulate).item(5, update * accumulate + step)
            for rank in range(world_size)
            for step in range(accumulate)
        ]
        assert sorted(torch.cat(seen).tolist()) == sorted(plan().minibatch(5, update).tolist())


def test_window_is_what_the_ranks_compute_also_when_cut_short():
    plans = [plan(2, rank, accumulate=2) for rank in (0, 1)]
    whole = torch.cat([p.item(0, i) for p in plans for i in (2, 3)])
    assert sorted(plans[0].window(0, 3, available=8).tolist()) == sorted(whole.tolist())
    # the trainer stops after micro-batch 2: the second step has one micro-batch a rank only
    cut = torch.cat([p.item(0, 2) for p in plans])
    assert sorted(plans[1].window(0, 2, available=3).tolist()) == sorted(cut.tolist())


@dataclass(frozen=True)
class Grouped(PPO):
    """Of K responses to a prompt the best two are learned from, in one micro-batch."""

    whole_groups = True
    responses_per_prompt: int = 3

    @property
    def trained_per_prompt(self):
        return 2


@pytest.mark.parametrize("world_size", [1, 2])
def test_rows_of_a_prompt_stay_together(world_size):
    # 24 episodes of 8 prompts leave 16 rows: 0 and 1 are of one prompt, 2 and 3 of the next
    for rank in range(world_size):
        p = plan_updates(Batches(24, 8, 2), Grouped(), 1, world_size, rank, seed=3)
        assert p.rows == 16
        seen = torch.cat([p.item(0, i) for i in range(p.items)]).view(-1, 2)
        assert torch.equal(seen[:, 0] % 2, torch.zeros(len(seen)).long())
        assert torch.equal(seen[:, 1], seen[:, 0] + 1)


@pytest.mark.parametrize(
    ("batches", "algorithm", "accumulate", "world_size", "message"),
    [
        (
            Batches(16, 6),
            PPO(),
            1,
            1,
            "must be a divisor of rollout_batch_size (16), got 6",
        ),
        (Batches(15, 5), PPO(), 1, 2, "size must be a multiple of 2 process(es), got 15"),
        (Batches(16, 8), PPO(), 3, 1, "must be a multiple of 3 accumulated batches, got 8"),
        (
            Batches(8, 4),
            Grouped(),
            1,
            1,
            "model.batches.rollout_batch_size must be a multiple of 3 responses to a prompt, got 8",
        ),
        (Batches(9, 4), Grouped(), 1, 2, "of 2 process(es) x 3 responses to a prompt, got 9"),
        (
            Batches(24, 5),
            Grouped(),
            1,
            1,
            "of the rows that are learned from (16), got 5",
        ),
        (Batches(24, 8, 1), Grouped(), 1, 1, "microbatch_size must be a multiple of 2 rows of a"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(batches, algorithm, accumulate, world_size, message):
    with pytest.raises(UserError) as error:
        plan_updates(batches, algorithm, accumulate, world_size, 0, seed=0)
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
