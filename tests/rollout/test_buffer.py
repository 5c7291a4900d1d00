"""The buffer: rows, joining ranks, checkpoints."""

import torch

from instructgpt.algorithms.ppo import PPOExperience
from instructgpt.rollout.buffer import RolloutBuffer, take
from instructgpt.rollout.gather import gather, gather_rows
from instructgpt.types import Rollout, ScoredRollout


def scored(rows, prompt, response, seed):
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, response + 1, (rows,), generator=g)
    widths = torch.randint(1, prompt + 1, (rows,), generator=g)
    rollout = Rollout(
        torch.randint(0, 50, (rows, prompt + response), generator=g),
        torch.arange(prompt)[None] >= prompt - widths[:, None],
        torch.arange(response)[None] < lengths[:, None],
        torch.rand(rows, generator=g) > 0.5,
        torch.randn(rows, response, generator=g),
        torch.zeros(rows, response, 0),
    )
    columns = [torch.randn(rows, n, generator=g) for n in (response, response, response + 1)]
    return ScoredRollout(
        rollout,
        torch.randn(rows, generator=g),
        *columns,
        entropy=torch.randn(rows, response, generator=g),
    )


def test_joined_ranks_keep_every_real_number():
    """Two ranks whose prompts and responses have other widths."""
    parts = [scored(3, 4, 5, seed=1), scored(3, 6, 2, seed=2)]

    def on(rank):
        """What each rank gets, with stand-ins for the tensors of the other, in the order asked."""
        asked = []
        gather(parts[1 - rank].rollout, parts[1 - rank].scores, keep(asked), 2)
        return iter(asked)

    def keep(asked):
        widths = torch.tensor([[4, 5], [6, 2]])
        return lambda x: (asked.append(x), widths if x.shape == (2,) else torch.stack([x, x]))[1]

    other = on(0)
    widths = torch.tensor([[4, 5], [6, 2]])

    def all_gather(mine):
        theirs = next(other)
        return widths if mine.shape == (2,) else torch.stack([mine, theirs])

    rollout, scores = gather(parts[0].rollout, parts[0].scores, all_gather, 2)
    assert rollout.tokens.shape == (6, 11)
    assert torch.equal(scores, torch.cat([part.scores for part in parts]))
    for first, part in ((0, parts[0]), (3, parts[1])):
        for row in range(3):
            mask = part.rollout.response_mask[row]
            assert torch.equal(
                rollout.logprobs[first + row][rollout.response_mask[first + row]],
                part.rollout.logprobs[row][mask],
            )
            real = rollout.tokens[first + row][rollout.mask[first + row]]
            assert torch.equal(real, part.rollout.tokens[row][part.rollout.mask[row]])


def test_what_ranks_said_about_their_shares_comes_back_in_order():
    shares = [torch.tensor([3, 0]), torch.tensor([1, 2])]
    said = {"values": torch.tensor([[3.0], [0.0]])}
    joined = gather_rows(said, shares, lambda x: torch.stack([x, torch.tensor([[1.0], [2.0]])]))
    assert joined["values"].squeeze(1).tolist() == [0, 1, 2, 3]


def buffer_of(s, phase, weights):
    experience = PPOExperience(s.rollout, s.logprobs, s.values[:, :-1], s.logprobs, s.entropy)
    return RolloutBuffer(phase, experience, s.logprobs, weights, torch.arange(len(s.scores)))


def test_rows_and_their_weight():
    s = scored(5, 3, 4, seed=3)
    s.rollout.response_mask[4] = False  # abstained
    buffer = buffer_of(s, 2, torch.tensor([1.0, 0.5, 0.25, 1.0, 7.0]))
    rows = torch.tensor([4, 1])
    batch = take(buffer.experience, rows)
    assert torch.equal(batch.rollout.tokens, s.rollout.tokens[rows])
    assert torch.equal(batch.returns, s.entropy[rows])
    assert buffer.weight(rows) == 0.5  # a row without response adds nothing


def test_checkpoint_is_plain_tensors(tmp_path):
    s = scored(5, 3, 4, seed=4)
    buffer = buffer_of(s, 7, s.rollout.response_mask.sum(1))
    torch.save(buffer.state_dict(), tmp_path / "state")
    state = torch.load(tmp_path / "state", weights_only=True)
    back = RolloutBuffer.from_state_dict(state, PPOExperience)
    assert back.phase == 7
    for name in ("logprobs", "weights", "rows"):
        assert torch.equal(getattr(back, name), getattr(buffer, name))
    for a, b in zip(back.experience.rollout, buffer.experience.rollout, strict=True):
        assert torch.equal(a, b)
    for a, b in zip(back.experience[1:], buffer.experience[1:], strict=True):
        assert torch.equal(a, b)
