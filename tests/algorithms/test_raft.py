"""RAFT by hand, against a loop, and what must not change it."""

import pytest
import torch

from instructgpt.algorithms.raft import RAFT
from instructgpt.types import Rollout, ScoredRollout, UserError


def scored(scores, lengths, finished=None):
    """A rollout with responses of up to 3 tokens; a length of 0 is a row without a score."""
    rows = len(lengths)
    mask = torch.arange(3) < torch.tensor(lengths)[:, None]
    ends = torch.ones(rows).bool() if finished is None else torch.tensor(finished)
    tokens = torch.arange(rows * 5).view(rows, 5)
    nothing = torch.zeros(rows, 3)
    rollout = Rollout(tokens, torch.ones(rows, 2).bool(), mask, ends, nothing, nothing[..., None])
    return ScoredRollout(rollout, torch.tensor(scores), nothing, nothing, None, nothing)


def test_by_hand():
    """The best of 1, 4, 2 is row 1; the second prompt's best did not end, which costs its score."""
    rollout = scored([1.0, 4, 2, 0, 9, -0.5], [1, 2, 3, 1, 3, 2], [True] * 4 + [False, True])
    algorithm = RAFT(responses_per_prompt=3)
    rows = algorithm.trained_rows(rollout, 0.0)
    assert rows.tolist() == [1, 3]  # -1 takes the place of 9
    assert algorithm.trained_per_prompt == 1
    best = algorithm.experience(rollout, 0.0)
    best = best._replace(rollout=Rollout(*(field[rows] for field in best.rollout)))
    assert algorithm.row_weights(best).tolist() == [2, 1]
    new = torch.tensor([[-1.0, -2, torch.nan], [-0.5, torch.nan, 7]], requires_grad=True)
    loss = algorithm.loss(best, new, None)
    assert loss.total.item() == pytest.approx(1 + 2 + 0.5) == loss.parts["policy"].item()
    loss.total.backward()
    assert new.grad.tolist() == [[-1, -1, 0], [-1, 0, 0]]


def test_matches_a_loop_and_leaves_out_what_has_no_score():
    """Rows without a score are 0, which is more than what the others have."""
    generator = torch.Generator().manual_seed(1)
    scores = (-torch.rand(40, generator=generator)).tolist()
    lengths = torch.randint(0, 4, (40,), generator=generator).tolist()
    lengths[8:12] = [0] * 4  # a prompt without any score
    scores = [score if length else 0.0 for score, length in zip(scores, lengths, strict=True)]
    rows = RAFT(responses_per_prompt=4).trained_rows(scored(scores, lengths), 0.0).tolist()
    for prompt, row in enumerate(rows):
        group = range(4 * prompt, 4 * prompt + 4)
        assert row in group
        given = [one for one in group if lengths[one]]
        assert not given or row == max(given, key=lambda one: scores[one])


def test_the_penalty_can_choose_another():
    """Log-ratios of 1 and 3 nats; 4 - 3 beta falls below 3 - beta when beta is above 1/2."""
    rollout = scored([3.0, 4], [1, 2])
    reference = torch.tensor([[-1.0, -9, -9], [-1, -2, torch.nan]])
    rollout, algorithm = (
        rollout._replace(reference_logprobs=reference),
        RAFT(responses_per_prompt=2),
    )
    assert algorithm.trained_rows(rollout, 0.49).item() == 1
    assert algorithm.trained_rows(rollout, 0.51).item() == 0


def test_only_the_order_of_scores_matters():
    rollout, algorithm = scored([0.1, 3, 0.2, -1], [1, 2, 1, 3]), RAFT(responses_per_prompt=2)
    other = rollout._replace(scores=rollout.scores.exp() * 5)
    expected = algorithm.trained_rows(rollout, 0.0).tolist()
    assert algorithm.trained_rows(other, 0.0).tolist() == expected == [1, 2]


def test_one_response_is_no_choice():
    with pytest.raises(UserError, match="responses_per_prompt must be >= 2 to choose from"):
        RAFT(responses_per_prompt=1)
