"""The ridge of a head on frozen features."""

import re

import numpy as np
import pytest
import torch

from instructgpt.algorithms.schedule import Cosine
from instructgpt.functional.pairs import better_pairs, minimum
from instructgpt.models.trained import FrozenTrunk
from instructgpt.modules.reward import RewardModule
from instructgpt.modules.ridge import FOLDS, RIDGES, cross_validate

RANKINGS = [[1, 2], [2, 1, 2], [1, 1], [3, 1, 2]] * 10


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def margins(read, rankings):
    """Oracle: of each prompt the differences of better and worse responses."""
    first, found = 0, []
    for ranking in rankings:
        own = read[first : first + len(ranking)]
        pairs = [(i, j) for i, a in enumerate(ranking) for j, b in enumerate(ranking) if a < b]
        found.append(np.array([own[i] - own[j] for i, j in pairs]).reshape(-1, read.shape[1]))
        first += len(ranking)
    return found


def fitted(prompts, ridge):
    """Oracle: Newton's method on the mean over a prompt's pairs, summed, and the penalty."""
    width = prompts[0].shape[1]
    weights = np.zeros(width)
    for _ in range(30):
        slope, curve = ridge * weights, ridge * np.eye(width)
        for pairs in (one for one in prompts if len(one)):
            wrong = 1 / (1 + np.exp(pairs @ weights))
            slope -= wrong @ pairs / len(pairs)
            curve += (pairs.T * (wrong * (1 - wrong))) @ pairs / len(pairs)
        weights -= np.linalg.solve(curve, slope)
    return weights


def test_each_ridge_is_tried_on_the_prompts_that_did_not_train():
    read = torch.randn(sum(map(len, RANKINGS)), 3, generator=torch.Generator().manual_seed(1))
    folds = [number % FOLDS for number in range(len(RANKINGS))]
    prompts = margins(read.numpy().astype(float), RANKINGS)
    for tried in cross_validate(read.double(), RANKINGS, folds, scale=0.01):
        loss = right = count = 0.0
        for fold in range(FOLDS):
            others = [one for one, own in zip(prompts, folds, strict=True) if own != fold]
            weights = fitted(others, tried.strength * 0.01)
            for pairs in (one for one, own in zip(prompts, folds, strict=True) if own == fold):
                if len(pairs):
                    loss += np.logaddexp(0, -pairs @ weights).mean()
                    right += (pairs @ weights > 0).mean()
                    count += 1
        assert count == 30
        assert tried.loss == pytest.approx(loss / count)
        assert tried.accuracy == pytest.approx(right / count)


def test_the_head_ends_where_loss_and_ridge_are_least(fit, comparison_data, policy_artefact):
    data = comparison_data(batch_size=100)
    ridge = 2.0
    trained = FrozenTrunk(lr=0.01, ridge=ridge)
    module = RewardModule(init_from=policy_artefact, trained=trained, schedule=Cosine())
    fit(module, data, max_epochs=400)
    head, kept, rows = module.model.head, module.kept["train"], data.train_rows
    read = ((kept.values - head.mean) / head.scale).double()
    pairs = better_pairs([row.ranking for row in rows])

    def loss(weights):
        return pairs.loss(read @ weights) + ridge / 2 * weights.square().sum()

    best = minimum(loss, read.shape[1])
    assert best.norm() > 0.1
    torch.testing.assert_close(head.weight[0].detach().double(), best, atol=0.01, rtol=0.01)


def test_it_is_chosen_by_the_training_prompts_alone(fit, comparison_data, policy_artefact, caplog):
    data = comparison_data(batch_size=8)
    fit(RewardModule(init_from=policy_artefact, trained=FrozenTrunk()), data, max_steps=1)
    said = re.search(r"ridge: ([\d,]+), of 100 to 30,000 the best in 5 folds of (\d+)", caplog.text)
    assert float(said[1].replace(",", "")) in RIDGES
    assert int(said[2]) == sum(len(set(row.ranking)) > 1 for row in data.train_rows)
