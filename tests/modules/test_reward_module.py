"""The reward stage: K-wise loss over micro-batches, metrics, offset, export."""

import json
import random

import pytest
import torch
from compared import ranked, sequence
from descent import SaveAt, gradient, sgd, weights
from lightning.pytorch import Trainer
from rows import read_rows, write_rows
from tiny_models import padded_scores
from transformers import AutoModelForSequenceClassification

from instructgpt.__main__ import main as run
from instructgpt.algorithms.schedule import Constant
from instructgpt.data.collate import collate_comparisons
from instructgpt.data.comparisons import ComparisonDataModule
from instructgpt.data.sketch import read_sketch
from instructgpt.models.artefact import read_artefact
from instructgpt.models.load import Network, load_scalar
from instructgpt.modules.reward import RewardModule
from instructgpt.types import UserError


def make(source, **options):
    defaults = {"optimizer": sgd, "schedule": Constant()}
    return RewardModule(init_from=source, **{**defaults, **options})


@pytest.mark.parametrize(("batch_size", "accumulate"), [(4, 2), (2, 4), (1, 8)])
def test_training_does_not_depend_on_the_microbatch(
    fit, comparison_data, reward_artefact, batch_size, accumulate
):
    """K varies and one prompt is all tied: a mean of means would differ."""
    whole, cut = make(reward_artefact), make(reward_artefact)
    fit(whole, comparison_data(batch_size=8), max_epochs=2, limit_train_batches=2)
    trainer = fit(
        cut,
        comparison_data(batch_size=batch_size),
        max_epochs=2,
        accumulate_grad_batches=accumulate,
        limit_train_batches=2 * accumulate,
    )
    assert trainer.global_step == 4
    torch.testing.assert_close(weights(cut), weights(whole), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("max_tokens", [None, 100, 1])
def test_one_step_is_the_gradient_of_equation_1(
    fit, comparison_data, reward_artefact, tiny_tokenizer, max_tokens
):
    """Oracle: each pair alone, -log sigmoid(s_w - s_l), mean over a prompt's, then over prompts."""
    data = comparison_data(batch_size=8)
    module = make(reward_artefact, network=Network(max_tokens=max_tokens))
    fit(module, data, max_steps=1)
    oracle = load_scalar(reward_artefact, None, Network(), tiny_tokenizer, head="stored", dropout=0)
    oracle.eval()
    batch = next(iter(data.train_dataloader()))
    assert len(batch.pieces(max_tokens)) == {None: 1, 100: 4, 1: 8}[max_tokens]

    def score(prompt, response):
        tokens = sequence(batch, prompt, response)[None]
        return padded_scores(oracle, tokens)[0, -1]

    prompts = []
    for prompt, real in ranked(batch):
        pairs = [(w, loser) for w, rw in real for loser, rl in real if rw < rl]
        if pairs:
            margins = torch.stack([score(prompt, w) - score(prompt, x) for w, x in pairs])
            prompts.append(-torch.nn.functional.logsigmoid(margins).mean())
    torch.stack(prompts).mean().backward()
    changed = dict(module.model.named_parameters())
    for name, before in oracle.named_parameters():
        if before.grad is not None:
            expected = before.detach() - 0.1 * before.grad
            torch.testing.assert_close(changed[name].detach(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("max_tokens", [None, 100, 1])
def test_scores_do_not_depend_on_the_order_of_prompts_and_responses(
    fit, comparison_data, reward_artefact, max_tokens
):
    """Nor do loss and gradient; the scores are those of padded rows."""
    module = make(reward_artefact, network=Network(max_tokens=max_tokens))
    data = comparison_data(batch_size=8)
    fit(module, data, max_steps=1)
    rows = list(data.train_rows)

    def scores(rows):
        return [row["scores"] for row in module.predict_step(collate_comparisons(rows), 0)]

    def loss_and_gradient(rows):
        pieces = collate_comparisons(rows).pieces(max_tokens)
        parts = [
            module.algorithm.loss(module.scores(one), one.ranking, one.ranking_mask)
            for one in pieces
        ]
        total, count = map(sum, zip(*parts, strict=True))
        return total / count, gradient(total / count, module.model)

    expected, names = scores(rows), {len(row.responses) for row in rows}
    assert names == {2, 3, 4}
    turned = [
        row._replace(responses=row.responses[::-1], ranking=row.ranking[::-1])
        for row in reversed(rows)
    ]
    for found, real in zip(scores(turned), reversed(expected), strict=True):
        assert found[::-1] == pytest.approx(real, abs=1e-5)
    torch.testing.assert_close(
        loss_and_gradient(turned), loss_and_gradient(rows), atol=1e-5, rtol=1e-5
    )
    joined = [torch.cat([row.prompt, one]) for row in rows for one in row.responses]
    tokens = torch.nn.utils.rnn.pad_sequence(joined, batch_first=True)
    mask = torch.arange(tokens.shape[1]) < torch.tensor([[len(one)] for one in joined])
    padded = padded_scores(module.model, tokens, mask)[range(len(mask)), mask.sum(1) - 1]
    assert [score for row in expected for score in row] == pytest.approx(padded.tolist(), abs=1e-5)


def test_metrics_count_pairs_whatever_the_batch_size(fit, comparison_data, reward_artefact, files):
    results = []
    for size in (1, 5, 64):
        data = comparison_data(batch_size=size, validation=files["comparisons"])
        trainer = fit(make(reward_artefact), comparison_data(), max_steps=1)
        trainer.limit_val_batches = 1.0
        trainer.validate(make(reward_artefact), data, verbose=False)
        results.append({k: float(v) for k, v in trainer.callback_metrics.items() if "val/" in k})
    for result in results[1:]:
        assert result == pytest.approx(results[0], rel=1e-4, abs=1e-6)
    assert "val/loss" in results[0]
    rows = read_rows(files["comparisons"])
    pairs = [
        (len(r["responses"][i]), len(r["responses"][j]))
        for r in rows
        for i, a in enumerate(r["ranking"])
        for j, b in enumerate(r["ranking"])
        if a < b
    ]
    assert results[0]["val/pairs"] == len(pairs)
    assert {
        "val/accuracy_by_labeler/ann",
        "val/accuracy_by_labeler/ben",
        "val/accuracy_by_k/k3",
    } <= set(results[0])


def test_names_in_the_table_of_results_are_names(reward_artefact, tmp_path, capsys, monkeypatch):
    """Lightning prints them with rich, to which [/b] would be an error and [red] a color."""
    monkeypatch.setenv("COLUMNS", "200")
    row = {"prompt": "say", "responses": ["one two", "one"], "ranking": [1, 2]}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row | {"labeler": "[red]x[/b]\x1b[31m\x9b"}) + "\n")
    args = ["validate", "--model", "RewardModule", "--data", "ComparisonDataModule"]
    args += [f"--model.init_from={reward_artefact}", f"--data.train={path}"]
    args += [f"--data.validation={path}", f"--output={tmp_path}/run", "--trainer.logger=false"]
    args += ["--data.max_prompt_tokens=8", "--data.max_response_tokens=8"]
    assert run(args) == 0
    out = capsys.readouterr().out
    assert r"val/accuracy_by_labeler/[red]x[/b]\u001b[31m\u009b" in out
    assert "\x1b[31m" not in out
    assert "\x9b" not in out


def test_longer_wins_baseline_by_hand(fit, policy_artefact, reward_artefact, tmp_path):
    """The longer wins one pair, the shorter another, the third is equal: (1 + 0 + 0.5) / 3."""
    rows = [
        {"prompt": "say", "responses": ["one two three", "one"], "ranking": [1, 2]},
        {"prompt": "hello", "responses": ["one two three", "one"], "ranking": [2, 1]},
        {"prompt": "world", "responses": ["one", "one"], "ranking": [1, 2]},
    ]
    path = tmp_path / "three.jsonl"
    write_rows(path, rows)
    data = ComparisonDataModule(
        train=str(path),
        validation=str(path),
        tokenizer=policy_artefact,
        max_prompt_tokens=10,
        max_response_tokens=20,
    )
    trainer = fit(make(reward_artefact), data, max_steps=1, limit_val_batches=None)
    assert float(trainer.callback_metrics["val/accuracy_longer_wins"]) == pytest.approx(0.5)


def test_offset_makes_demonstrations_score_zero(
    fit, comparison_data, policy_artefact, files, tmp_path
):
    module = make(policy_artefact)
    data = comparison_data(demonstrations=files["demonstrations"])
    fit(module, data, max_steps=2, limit_val_batches=None)
    module.finalize()
    module.export(tmp_path / "export", config={}, metrics={})
    artefact = read_artefact(str(tmp_path / "export"))
    assert artefact.offset != 0
    rows = {one["use"]: (one["name"], one["rows"]) for one in artefact.data}
    assert rows == {
        "training": ("comparisons.jsonl", len(data.train_rows)),
        "validation": ("held out of the above", len(data.validation_rows)),
        "offset of the scores": ("demonstrations.jsonl", 24),
    }
    (prompts,) = (read_sketch(one["prompts"]) for one in artefact.data if "prompts" in one)
    assert prompts.distinct == len({str(row.prompt.tolist()) for row in data.train_rows})
    assert artefact.parent_digest == module.origins["model.init_from"].digest
    assert module.intervals["val/accuracy"].n <= len(data.validation_rows)
    back = load_scalar(str(tmp_path / "export"), None, Network(), module.tokenizer, head="stored")
    back.eval()
    scores = [back.score(b.rows) for b in data.demonstration_dataloader()]
    assert abs(float(torch.cat(scores).mean())) < 1e-5


def test_without_demonstrations_the_artefact_has_no_offset(
    fit, comparison_data, policy_artefact, tmp_path
):
    module = make(policy_artefact)
    fit(module, comparison_data(), max_steps=1)
    module.finalize()
    module.export(tmp_path / "export", config={}, metrics={})
    assert read_artefact(str(tmp_path / "export")).offset is None
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "export")


def test_an_offset_that_no_longer_holds_is_dropped(fit, comparison_data, reward_artefact, tmp_path):
    module = make(reward_artefact)  # its offset is 0.25
    fit(module, comparison_data(), max_steps=1)
    with pytest.warns(UserWarning, match="measure it anew with --data.demonstrations"):
        module.finalize()
    module.export(tmp_path / "export", config={}, metrics={})
    assert read_artefact(str(tmp_path / "export")).offset is None


def test_training_accuracy_is_the_mean_over_prompts(
    fit, comparison_data, reward_artefact, monkeypatch
):
    """The same for 8 prompts at once and for one after the other."""
    seen = []
    monkeypatch.setattr(
        RewardModule, "log", lambda self, name, value, **_: seen.append((name, float(value)))
    )
    for size in (8, 1):
        options = {"accumulate_grad_batches": 8 // size, "max_steps": 1}
        fit(make(reward_artefact), comparison_data(batch_size=size), **options)
    whole, cut = (dict(seen[i : i + 3]) for i in (0, 3))
    assert cut == pytest.approx(whole, rel=1e-5)
    assert "train/accuracy" in whole


def test_learns_which_word_labelers_like(fit, policy_artefact, tmp_path):
    rng, rows = random.Random(1), []
    for i in range(120):
        responses = [
            " ".join(rng.choice(["one", "two", "six", "ten"]) for _ in range(4)) for _ in range(3)
        ]
        order = sorted({-r.count("ten") for r in responses})
        ranking = [order.index(-r.count("ten")) + 1 for r in responses]
        rows.append({"prompt": f"say {i}", "responses": responses, "ranking": ranking})
    path = tmp_path / "ten.jsonl"
    write_rows(path, rows)
    data = ComparisonDataModule(
        train=str(path),
        validation=0.3,
        tokenizer=policy_artefact,
        batch_size=16,
        max_prompt_tokens=10,
        max_response_tokens=20,
    )
    module = make(policy_artefact, optimizer=lambda p: torch.optim.AdamW(p, lr=1e-2))
    trainer = fit(module, data, max_epochs=12, limit_val_batches=None)
    assert float(trainer.callback_metrics["val/accuracy"]) > 0.9


def test_predicts_scores(fit, comparison_data, reward_artefact):
    module = make(reward_artefact)
    trainer = fit(module, comparison_data(), max_steps=1)
    rows = [row for batch in trainer.predict(module, comparison_data()) for row in batch]
    assert all(len(row["scores"]) >= 2 for row in rows)


def test_scores_rows_that_nobody_has_ranked(fit, reward_artefact, policy_artefact, tmp_path):
    path = tmp_path / "to-label.jsonl"
    path.write_text('{"id": "a", "prompt": "say", "responses": ["one", "two", "six"]}\n')
    data = ComparisonDataModule(
        train=str(path), tokenizer=policy_artefact, max_prompt_tokens=9, max_response_tokens=9
    )
    module = make(reward_artefact)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    rows = trainer.predict(module, data)[0]
    assert rows[0]["id"] == "a"
    assert len(set(rows[0]["scores"])) == 3


def tied(path, tied, decided):
    """Rows whose responses are all tied, and others."""
    rows = [{"prompt": f"say {i}", "responses": ["one", "two"]} for i in range(tied + decided)]
    rows = [row | {"ranking": [1, 1 + (i >= tied)]} for i, row in enumerate(rows)]
    write_rows(path, rows)
    return {"train": str(path), "tokenizer": None, "validation": None}


def make_tied(policy_artefact, options, batch_size):
    options = options | {"tokenizer": policy_artefact, "max_prompt_tokens": 24}
    return ComparisonDataModule(**options, max_response_tokens=24, batch_size=batch_size)


def test_no_step_consists_of_ties(fit, policy_artefact, tmp_path):
    """Its loss would be 0. Fewer ties than rows of a step are kept: they cannot fill one."""
    options = tied(tmp_path / "rows.jsonl", 6, 4)
    for batch_size, rows in ((2, 4), (6, 4), (8, 10)):
        data = make_tied(policy_artefact, options, batch_size)
        module = RewardModule(init_from=policy_artefact, optimizer=sgd, schedule=Constant())
        trainer = fit(module, data, max_epochs=1)
        assert len(data.train_rows) == rows
        assert float(trainer.callback_metrics["train/loss"]) > 0
        left_out = "left out of training: 6 rows, all tied" in data.summary
        assert left_out == (rows == 4)


def test_ties_only_are_refused(fit, policy_artefact, tmp_path):
    data = make_tied(policy_artefact, tied(tmp_path / "rows.jsonl", 3, 0), 8)
    module = RewardModule(init_from=policy_artefact, optimizer=sgd, schedule=Constant())
    expected = r"^--data.train must hold a row whose ranking is not all tied, got 3 tied rows$"
    with pytest.raises(UserError, match=expected):
        fit(module, data, max_epochs=1)


def test_resuming_in_the_middle_of_an_epoch_is_exact(
    fit, comparison_data, reward_artefact, tmp_path
):
    """Steps of several pieces, with dropout, whose draws depend on the step alone."""
    path, runs = tmp_path / "middle.ckpt", []
    for options in ({"callbacks": [SaveAt(2, path)]}, {"ckpt_path": path}):
        module = make(
            reward_artefact,
            optimizer=lambda p: torch.optim.AdamW(p, lr=1e-2),
            dropout=0.3,
            network=Network(max_tokens=60),
        )
        data = comparison_data(batch_size=4)
        trainer = fit(module, data, max_steps=6, **options)
        runs.append((trainer.global_step, weights(module)))
    assert all(len(batch.pieces(60)) > 1 for batch in data.train_dataloader())
    assert runs[0][0] == runs[1][0] == 6
    assert torch.equal(runs[1][1], runs[0][1])
