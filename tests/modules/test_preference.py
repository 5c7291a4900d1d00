"""The loop of ranked candidates: exact gradients, the reference in its three places, metrics."""

import json
import math
from dataclasses import dataclass

import pytest
import torch
from compared import ranked, sequence
from descent import SaveAt, gradient, sgd, weights
from harness import run_processes
from small_preference import loaded, make, metrics_of
from toy_preference import Likely
from transformers import AutoModelForCausalLM

from instructgpt.algorithms.dpo import DPO
from instructgpt.data.collate import collate_comparisons
from instructgpt.data.comparisons import ComparisonDataModule
from instructgpt.models.artefact import read_artefact
from instructgpt.models.load import Network
from instructgpt.models.trained import LoRA
from instructgpt.rewards.rules import CountReward
from instructgpt.types import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(("batch_size", "accumulate"), [(4, 2), (1, 8)])
@pytest.mark.parametrize("adapter", [None, LoRA(rank=2, dropout=0.0)])
def test_training_does_not_depend_on_the_microbatch(
    fit, comparison_data, policy_artefact, batch_size, accumulate, adapter
):
    """K varies and one prompt is all tied: a mean of means would differ, of metrics too."""
    runs = []
    for size, parts in ((8, 1), (batch_size, accumulate)):
        module = make(policy_artefact, trained=adapter)
        torch.manual_seed(3)  # of the adapter
        trainer = fit(
            module,
            comparison_data(batch_size=size),
            max_epochs=2,
            accumulate_grad_batches=parts,
            limit_train_batches=2 * parts,
        )
        assert trainer.global_step == 4
        runs.append((weights(module), metrics_of(trainer)))
    (whole, metrics), (cut, cut_metrics) = runs
    torch.testing.assert_close(cut, whole, atol=1e-5, rtol=1e-5)
    assert cut_metrics == pytest.approx(metrics, rel=1e-3, abs=1e-5)
    assert {"train/accuracy", "train/margin", "train/rewards/chosen"} <= set(metrics)


@pytest.mark.parametrize("max_tokens", [None, 60])
def test_one_step_is_the_gradient_of_equation_7(fit, comparison_data, policy_artefact, max_tokens):
    """Oracle: each pair alone, each response unpadded through plain transformers."""
    options = {"algorithm": DPO(beta=0.5), "network": Network(max_tokens=max_tokens)}
    data, module = comparison_data(batch_size=8), make(policy_artefact, **options)
    fit(module, data, max_steps=2)  # the first step starts at the reference, where all scores are 0
    start = make(policy_artefact, **options)
    fit(start, data, max_steps=1)
    policy, other = (AutoModelForCausalLM.from_pretrained(policy_artefact).eval() for _ in "pr")
    policy.load_state_dict(start.policy.state_dict())
    loader = data.train_dataloader()
    loader.set_epoch(0)
    batch = list(loader)[1]
    assert (len(batch.pieces(max_tokens)) > 1) == (max_tokens is not None)

    def logprob(network, prompt, response):
        tokens, r = sequence(batch, prompt, response), int(batch.response_lengths[prompt, response])
        logprobs = network(input_ids=tokens[None]).logits[0].log_softmax(-1)
        return sum(logprobs[t - 1, tokens[t]] for t in range(len(tokens) - r, len(tokens)))

    def score(prompt, response):
        with torch.no_grad():
            base = logprob(other, prompt, response)
        return 0.5 * (logprob(policy, prompt, response) - base)

    prompts = []
    for prompt, ranks in ranked(batch):
        real = [(score(prompt, k), rank) for k, rank in ranks]
        pairs = [a - b for a, rank in real for b, worse in real if rank < worse]
        if pairs:
            prompts.append(torch.stack([-torch.nn.functional.logsigmoid(d) for d in pairs]).mean())
    loss = torch.stack(prompts).mean()
    assert float(loss.detach()) != pytest.approx(math.log(2), abs=1e-3)
    loss.backward()
    after = dict(module.policy.named_parameters())
    for name, before in policy.named_parameters():
        expected = before.detach() - 0.1 * before.grad
        torch.testing.assert_close(after[name].detach(), expected, atol=1e-5, rtol=1e-4)


def test_the_first_loss_is_that_of_the_reference(fit, comparison_data, policy_artefact):
    """Policy and reference are equal bit for bit, also where dropout is in the configuration."""
    trainer = fit(make(policy_artefact), comparison_data(batch_size=8), max_steps=1)
    metrics = metrics_of(trainer)
    assert metrics["train/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert metrics["train/rewards/chosen"] == metrics["train/margin"] == 0
    assert metrics["train/accuracy"] == 0.5
    assert metrics["train/logprobs/chosen"] < 0


def test_neither_order_nor_pieces_matter(comparison_data, policy_artefact, fit):
    """Neither that of the prompts nor that of the responses to each; of loss and gradient."""
    data, module = comparison_data(batch_size=8), make(policy_artefact)
    fit(module, data, max_steps=1)
    rows = list(data.train_rows)
    turned = [
        row._replace(responses=row.responses[::-1], ranking=row.ranking[::-1])
        for row in reversed(rows)
    ]
    batch, back = collate_comparisons(rows), collate_comparisons(turned)

    def of(parts):
        found = [module.candidates(part, "train") for part in parts]
        values = [
            torch.cat([getattr(one, name)[one.mask] for one in found]).sort().values
            for name in ("scores", "logprobs")
        ]
        totals, counts, _ = zip(*map(module.algorithm.loss, found), strict=True)
        loss = sum(totals) / sum(counts)
        return [*values, loss, gradient(loss, module.policy)]

    expected = of([batch])
    assert expected[-1].abs().max() > 1e-3
    for parts in ([back], batch.pieces(100), back.pieces(1)):
        torch.testing.assert_close(of(parts), expected, atol=1e-5, rtol=1e-5)


def test_no_second_network_where_none_is_needed(fit, comparison_data, policy_artefact, monkeypatch):
    seen = loaded(monkeypatch)
    fit(make(policy_artefact, algorithm=Likely()), comparison_data(), max_steps=1)
    module = make(policy_artefact, trained=LoRA(rank=2))
    fit(module, comparison_data(), max_steps=1)
    assert not seen
    assert "reference" not in module.memory().frozen
    module = make(policy_artefact)
    fit(module, comparison_data(), max_steps=1)
    assert seen == [policy_artefact]
    assert module.memory().frozen["reference"] > 0
    assert not any("reference" in name for name in module.state_dict())


def test_the_reference_of_an_adapter_is_the_policy_without_it(
    fit, comparison_data, policy_artefact
):
    """After training, the score of a response is beta times what the adapter has changed."""
    module = make(policy_artefact, trained=LoRA(rank=2), algorithm=DPO(beta=1.0))
    data = comparison_data(batch_size=8)
    fit(module, data, max_epochs=2)
    batch = next(iter(data.train_dataloader()))
    frozen = make(policy_artefact, algorithm=DPO(beta=1.0))
    fit(frozen, comparison_data(batch_size=8), max_steps=1)
    off = module.reference_logprobs(batch, "train")
    torch.testing.assert_close(off, frozen.reference_logprobs(batch, "train"))
    assert module.policy.training
    assert not torch.allclose(module.candidates(batch, "train").scores, torch.zeros(()))


def test_validation_is_that_of_reward_models_and_more(fit, comparison_data, policy_artefact, files):
    results = []
    for size in (1, 64):
        module = make(policy_artefact, optimizer=lambda p: sgd(p, lr=1.0))
        data = comparison_data(batch_size=8, validation=files["comparisons"])
        trainer = fit(module, data, max_epochs=2)
        trainer.limit_val_batches = 1.0
        again = comparison_data(batch_size=size, validation=files["comparisons"])
        trainer.validate(module, again, verbose=False)
        results.append({k: v for k, v in metrics_of(trainer).items() if "val/" in k})
    assert results[1] == pytest.approx(results[0], rel=1e-3, abs=1e-5)
    found = results[0]
    assert found["val/margin"] == pytest.approx(
        found["val/rewards/chosen"] - found["val/rewards/rejected"], rel=1e-3
    )
    assert found["val/accuracy"] > 0.5
    assert {"val/accuracy_by_labeler/ann", "val/accuracy_by_k/k3", "val/calibration_error"} <= set(
        found
    )


def test_answers_are_shown_scored_and_compared_with_the_reference(
    fit, comparison_data, policy_artefact
):
    options = {"validation_prompts": 4, "reward": CountReward(text="e")}
    module = make(policy_artefact, optimizer=lambda p: sgd(p, lr=1.0), **options)
    data = comparison_data(max_response_tokens=6)
    trainer = fit(module, data, max_epochs=2, limit_val_batches=1.0)
    assert module.monitor == ("val/score", "max")
    last = [row for row in module.samples if row["step"] == trainer.global_step]
    metrics = metrics_of(trainer)
    assert len(last) == 4
    assert metrics["val/kl"] == pytest.approx(sum(row["kl"] for row in last) / 4, rel=1e-4)
    assert metrics["val/kl"] != 0
    assert metrics["val/score"] == sum(row["response"].count("e") for row in last) / 4


KTO = [
    {"prompt": "say one", "completion": "one", "label": True},
    {"prompt": "say two", "completion": "four five", "label": False},
]


def kto_data(tmp_path, policy_artefact, **options):
    path = tmp_path / "kto.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in KTO * 4))
    return ComparisonDataModule(
        train=str(path), validation=str(path), tokenizer=policy_artefact, batch_size=4, **options
    )


def test_unpaired_rows_are_read_where_the_algorithm_does(fit, tmp_path, policy_artefact):
    limits = {"max_prompt_tokens": 24, "max_response_tokens": 24}
    data = kto_data(tmp_path, policy_artefact, **limits)
    module = make(policy_artefact, algorithm=Likely())
    trainer = fit(module, data, max_epochs=3, limit_val_batches=1.0)
    metrics = metrics_of(trainer)
    assert "judged alone: 8 good, 8 bad" in data.summary
    assert metrics["val/rewards/chosen"] > metrics["val/rewards/rejected"]
    assert "val/accuracy" not in metrics
    with pytest.raises(UserError, match='"label" judges one response alone, as in KTO'):
        fit(make(policy_artefact), kto_data(tmp_path, policy_artefact, **limits), max_steps=1)


def test_what_does_not_fit_is_refused(
    fit, comparison_data, policy_artefact, reward_artefact, files
):
    with pytest.raises(UserError, match="holds a reward or value model"):
        fit(make(reward_artefact), comparison_data(), max_steps=1)
    data = comparison_data(demonstrations=files["demonstrations"])
    with pytest.raises(UserError, match=r"--data.demonstrations is for the offset of a reward"):
        fit(make(policy_artefact), data, max_steps=1)
    with pytest.raises(UserError, match=r"model.precompute must be false: Likely uses no ref"):
        make(policy_artefact, algorithm=Likely(), precompute=True)
    with pytest.raises(UserError, match=r"model.dropout must be in \[0, 1\), got 1.0"):
        make(policy_artefact, dropout=1.0)


def test_a_number_that_is_not_finite_stops_the_run(fit, comparison_data, policy_artefact):
    @dataclass(frozen=True)
    class Broken(DPO):
        def scores(self, responses):
            return super().scores(responses) * torch.nan

    with pytest.raises(UserError, match=r"the loss is nan \(samples .*\) at optimizer step 1"):
        fit(make(policy_artefact, algorithm=Broken()), comparison_data(), max_steps=1)


@pytest.mark.parametrize("name", ["loss", "count", "rewards/chosen"])
def test_parts_have_names_of_their_own(fit, comparison_data, policy_artefact, name):
    @dataclass(frozen=True)
    class Named(DPO):
        def loss(self, candidates):
            return *super().loss(candidates)[:2], {name: torch.zeros(())}

    message = f"parts of Named.loss must be other than what the loop logs itself, got {name}"
    with pytest.raises(UserError, match=message):
        fit(make(policy_artefact, algorithm=Named()), comparison_data(), max_steps=1)


def test_export_is_a_plain_causal_model(fit, comparison_data, policy_artefact, tmp_path):
    module = make(policy_artefact)
    fit(module, comparison_data(), max_steps=1)
    module.export(tmp_path / "export", config={}, metrics={"val/loss": 2.0})
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "export")
    tokens = torch.tensor([[3, 4, 5]])
    torch.testing.assert_close(plain(tokens).logits, module.policy.eval()(tokens).logits)
    artefact = read_artefact(str(tmp_path / "export"))
    assert (artefact.stage, artefact.parent) == ("preference", policy_artefact)
    fit(make(str(tmp_path / "export")), comparison_data(), max_steps=1)  # a further round


def test_predictions_are_responses(fit, comparison_data, prompt_data, policy_artefact, monkeypatch):
    seen = loaded(monkeypatch)
    module = make(policy_artefact, precompute=True)
    trainer = fit(module, comparison_data(), max_steps=1)
    del seen[:]
    rows = [row for batch in trainer.predict(module, prompt_data(responses=2)) for row in batch]
    assert len(rows) == 20
    assert all(len(row["responses"]) == 2 for row in rows)
    assert not seen  # which needs no reference


@pytest.mark.parametrize("options", [{}, {"precompute": True}, {"trained": LoRA(rank=2)}])
def test_resuming_in_the_middle_of_an_epoch_is_exact(
    fit, comparison_data, policy_artefact, tmp_path, options
):
    """Steps of several pieces, with dropout, whose draws depend on the step alone."""
    path = tmp_path / "middle.ckpt"
    options = {**options, "dropout": 0.3, "network": Network(max_tokens=60)}
    whole = make(policy_artefact, **options)
    trainer = fit(whole, comparison_data(batch_size=4), callbacks=[SaveAt(2, path)], max_epochs=2)
    second = make(policy_artefact, **options)
    again = fit(second, comparison_data(batch_size=4), ckpt_path=path, max_epochs=2)
    assert trainer.global_step == again.global_step > 4
    assert torch.equal(weights(second), weights(whole))
    assert metrics_of(again) == metrics_of(trainer)


@pytest.mark.parametrize(
    "options",
    [
        {"precompute": True, "network": Network(max_tokens=60)},
        {"trained": LoRA(rank=2)},
        {"algorithm": Likely()},
    ],
)
def test_two_ranks_are_one(fit, comparison_data, policy_artefact, tmp_path, monkeypatch, options):
    def train(processes):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"{processes}"))  # not found again
        torch.manual_seed(0)
        module = make(policy_artefact, validation_prompts=4, **options)
        strategy = {"strategy": "ddp", "devices": processes} if processes > 1 else {}
        trainer = fit(
            module,
            comparison_data(batch_size=8 // processes, max_response_tokens=6),
            max_epochs=2,
            limit_train_batches=2,
            limit_val_batches=1.0,
            **strategy,
        )
        return weights(module).tolist(), metrics_of(trainer)

    alone, metrics = train(1)
    for weight, found in run_processes(lambda: train(2)):
        torch.testing.assert_close(torch.tensor(weight), torch.tensor(alone), atol=1e-5, rtol=1e-5)
        assert found == pytest.approx(metrics, rel=1e-3, abs=1e-5)
