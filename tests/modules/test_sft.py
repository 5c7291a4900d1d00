"""SFT: exact means whatever the batch is cut into; dropout; metrics; selection; export."""

import math

import pytest
import torch
from descent import SaveAt, gradient, sgd, weights
from lightning.pytorch import Callback
from transformers import AutoModelForCausalLM

from instructgpt.algorithms.schedule import Constant
from instructgpt.data.text import TextDataModule
from instructgpt.functional.losses import cross_entropy_loss
from instructgpt.models.artefact import read_artefact
from instructgpt.models.forward import run
from instructgpt.models.load import Network, load_policy
from instructgpt.models.trained import LoRA
from instructgpt.modules.language import language_loss
from instructgpt.modules.sft import SFTModule
from instructgpt.rewards.rules import CountReward
from instructgpt.types import FlatRows, LanguageBatch, UserError


class Watch(Callback):
    """The tokens of the largest forward pass."""

    most = 0

    def on_train_start(self, trainer, pl_module):
        def see(module, arguments, result):
            self.most = max(self.most, arguments[0].numel())

        pl_module.policy.get_input_embeddings().register_forward_hook(see)


def make(source, **options):
    defaults = {"dropout": 0.0, "optimizer": sgd, "schedule": Constant(), "validation_prompts": 0}
    return SFTModule(init_from=source, **{**defaults, **options})


def trained(fit, module, data, **options):
    trainer = fit(module, data, **{"max_epochs": 2, **options})
    return weights(module), trainer


def text_data(files, tokenizer):
    sizes = {"block_size": 20, "batch_size": 4, "max_prompt_tokens": 8, "max_response_tokens": 8}
    return TextDataModule(train=files["text"], tokenizer=tokenizer, **sizes)


@pytest.mark.parametrize(("batch_size", "accumulate"), [(4, 2), (2, 4), (1, 8)])
def test_training_does_not_depend_on_the_microbatch(
    fit, demonstration_data, policy_artefact, batch_size, accumulate
):
    """Rows differ in length, so a mean of means would differ."""
    whole, _ = trained(
        fit, make(policy_artefact), demonstration_data(batch_size=8), limit_train_batches=2
    )
    cut, trainer = trained(
        fit,
        make(policy_artefact),
        demonstration_data(batch_size=batch_size),
        accumulate_grad_batches=accumulate,
        limit_train_batches=2 * accumulate,
    )
    assert trainer.global_step == 4
    torch.testing.assert_close(cut, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("max_tokens", [None, 30])
@pytest.mark.parametrize("kind", ["demonstrations", "text"])
def test_one_step_is_the_gradient_of_the_token_mean(
    fit, demonstration_data, policy_artefact, files, kind, max_tokens
):
    """Oracle: one unpadded row at a time through plain transformers, over the targets."""
    text = kind == "text"
    data = text_data(files, policy_artefact) if text else demonstration_data(batch_size=8)
    module = make(policy_artefact, network=Network(max_tokens=max_tokens))
    fit(module, data, max_steps=1)
    oracle = AutoModelForCausalLM.from_pretrained(policy_artefact, dtype=torch.float32).eval()
    data.train_dataloader().set_epoch(0)
    batch = next(iter(data.train_dataloader()))
    assert (len(batch.pieces(max_tokens)) > 2) == (max_tokens is not None)
    total, count = 0.0, 0
    lengths = batch.rows.layout.lengths.tolist()
    documents = zip(batch.rows.tokens.split(lengths), batch.targets.split(lengths), strict=True)
    for tokens, targets in documents:
        logprobs = oracle(input_ids=tokens[None]).logits[0].log_softmax(-1)
        for t in range(1, len(tokens)):
            if targets[t]:
                total, count = total - logprobs[t - 1, tokens[t]], count + 1
    (total / count).backward()
    for (name, before), after in zip(
        oracle.named_parameters(), module.policy.parameters(), strict=True
    ):
        expected = before.detach() - 0.1 * before.grad
        torch.testing.assert_close(after.detach(), expected, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("max_tokens", [1, 30, None])
def test_training_does_not_depend_on_the_token_budget(
    fit, demonstration_data, policy_artefact, max_tokens
):
    """Pieces of a batch, and batches of a step: one mean over the targets of all of them."""
    whole, _ = trained(fit, make(policy_artefact), demonstration_data(batch_size=16))
    module = make(policy_artefact, network=Network(max_tokens=max_tokens))
    watch = Watch()
    data = demonstration_data(batch_size=4)
    options = {"accumulate_grad_batches": 4, "callbacks": [watch], "limit_train_batches": 4}
    cut, trainer = trained(fit, module, data, **options)
    assert trainer.global_step == 2
    torch.testing.assert_close(cut, whole, atol=1e-5, rtol=1e-5)
    longest = data.train_rows.longest
    assert max_tokens is None or watch.most <= max(max_tokens, longest)


def test_validation_does_not_depend_on_the_token_budget(fit, demonstration_data, policy_artefact):
    losses = []
    for max_tokens in (1, 40, None):
        module = make(policy_artefact, network=Network(max_tokens=max_tokens))
        trainer = fit(module, demonstration_data(), max_steps=1, limit_train_batches=1)
        trainer.limit_val_batches = 1.0
        start = make(policy_artefact, network=Network(max_tokens=max_tokens))
        trainer.validate(start, demonstration_data(), verbose=False)
        losses.append(float(trainer.callback_metrics["val/loss"]))
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


def test_loss_and_gradient_are_those_of_the_padded_path_in_any_order(
    demonstration_data, policy_artefact, tiny_tokenizer
):
    policy = load_policy(policy_artefact, None, Network(), tiny_tokenizer).eval()
    data = demonstration_data(batch_size=8)
    data.prepare_data()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    lengths = batch.rows.layout.lengths
    tokens, targets = (
        torch.nn.utils.rnn.pad_sequence(list(flat.split(lengths.tolist())), batch_first=True)
        for flat in (batch.rows.tokens, batch.targets)
    )
    mask = torch.arange(tokens.shape[1]) < lengths[:, None]
    logits = run(policy, tokens, mask, every_id=True).logits[:, :-1]
    total, count = cross_entropy_loss(logits, tokens[:, 1:], targets[:, 1:])
    expected = gradient(total / count, policy)
    order = torch.randperm(len(lengths))
    layout, places = batch.rows.layout.select(order)
    shuffled = LanguageBatch(FlatRows(batch.rows.tokens[places], layout), batch.targets[places])
    for parts in ([batch], [shuffled], shuffled.pieces(40), batch.pieces(1)):
        found = [language_loss(policy, part) for part in parts]
        loss = sum(part.total for part in found) / count
        torch.testing.assert_close(loss, total / count, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(gradient(loss, policy), expected, atol=1e-5, rtol=1e-5)
        assert sum(part.targets for part in found) == count
        correct = ((logits.argmax(-1) == tokens[:, 1:]) & targets[:, 1:]).sum()
        assert sum(part.correct for part in found) == correct


def test_dropout_is_what_was_asked_for_and_on(fit, demonstration_data, policy_artefact):
    module = make(policy_artefact, dropout=0.5)
    fit(module, demonstration_data(), max_steps=1)
    assert module.policy.config.resid_pdrop == 0.5
    assert module.policy.training
    quiet, _ = trained(fit, make(policy_artefact), demonstration_data())
    noisy, _ = trained(fit, make(policy_artefact, dropout=0.5), demonstration_data())
    assert not torch.allclose(quiet, noisy)


def test_validation_is_the_mean_over_targets(fit, demonstration_data, policy_artefact):
    """The same numbers for any validation batch size, and perplexity = exp(loss)."""
    results = []
    for size in (1, 2, 64):
        trainer = fit(make(policy_artefact), demonstration_data(), max_steps=1)
        trainer.limit_val_batches = 1.0
        trainer.validate(make(policy_artefact), demonstration_data(batch_size=size), verbose=False)
        results.append({k: float(v) for k, v in trainer.callback_metrics.items()})
    for result in results[1:]:
        for name in ("val/loss", "val/accuracy", "val/perplexity"):
            assert result[name] == pytest.approx(results[0][name], rel=1e-5)
    assert results[0]["val/perplexity"] == pytest.approx(math.exp(results[0]["val/loss"]))


def test_reward_scores_answers_and_selects(fit, demonstration_data, policy_artefact):
    module = make(policy_artefact, reward=CountReward(text="e"), validation_prompts=4)
    data = demonstration_data()
    trainer = fit(module, data, max_epochs=1, limit_val_batches=None)
    assert module.monitor == ("val/score", "max")
    assert make(policy_artefact).monitor == ("val/loss", "min")
    shown = [s["response"].count("e") for s in module.samples]
    assert len(shown) == min(4, len(data.validation_rows)) > 0
    assert float(trainer.callback_metrics["val/score"]) == pytest.approx(sum(shown) / len(shown))


def test_a_reward_without_prompts_is_refused(policy_artefact):
    with pytest.raises(UserError, match=r"model.validation_prompts must be >= 1 .* got 0"):
        make(policy_artefact, reward=CountReward(text="e"), validation_prompts=0)


def test_a_rate_without_meaning_is_refused(fit, demonstration_data, policy_artefact):
    module = make(policy_artefact, optimizer=lambda p: torch.optim.AdamW(p, lr=-1.0))
    with pytest.raises(UserError, match=r"model.optimizer: Invalid learning rate: -1.0"):
        fit(module, demonstration_data(), max_steps=1)


def test_learns(fit, demonstration_data, policy_artefact):
    module = make(
        policy_artefact, optimizer=lambda p: torch.optim.AdamW(p, lr=1e-2), schedule=Constant()
    )
    data = demonstration_data(batch_size=8)
    trainer = fit(module, data, max_epochs=15, limit_val_batches=None)
    assert float(trainer.callback_metrics["train/loss"]) < 2.0  # starts near 7, ln 290 = 5.7


def test_export_is_a_plain_causal_model(fit, demonstration_data, policy_artefact, tmp_path):
    module = make(policy_artefact)
    trainer = fit(module, demonstration_data(), max_steps=1, limit_val_batches=None)
    low, high, n = module.intervals["val/loss"]
    assert low < float(trainer.callback_metrics["val/loss"]) < high
    assert n == len(module.data.validation_rows)
    module.export(tmp_path / "export", config={"seed": 1}, metrics={"val/loss": 2.0})
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "export")
    tokens = torch.tensor([[3, 4, 5]])
    module.policy.eval()
    torch.testing.assert_close(plain(tokens).logits, module.policy(tokens).logits)
    artefact = read_artefact(str(tmp_path / "export"))
    assert (artefact.stage, artefact.parent) == ("sft", policy_artefact)
    rows = {one["use"]: one["rows"] for one in artefact.data}
    data = module.data
    assert rows == {"training": len(data.train_rows), "validation": len(data.validation_rows)}


def test_context_is_checked(fit, demonstration_data, policy_artefact):
    with pytest.raises(UserError, match="context of 64 tokens, got 100"):
        fit(make(policy_artefact), demonstration_data(max_prompt_tokens=76), max_steps=1)


def test_wrong_data_module(fit, prompt_data, policy_artefact):
    with pytest.raises(
        UserError,
        match="SFTModule needs --data DemonstrationDataModule or TextDataModule, got Prompt",
    ):
        fit(make(policy_artefact), prompt_data(), max_steps=1)


@pytest.mark.parametrize(
    "sources", [{}, {"init_from": "x", "architecture": {"model_type": "gpt2"}}]
)
def test_one_source(sources):
    with pytest.raises(UserError, match="and not both"):
        SFTModule(**sources)


def test_resuming_with_another_template_is_refused(
    fit, demonstration_data, tmp_path, gpt2, tiny_tokenizer
):
    tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")

    def build():
        return SFTModule(architecture=gpt2, optimizer=sgd, validation_prompts=0)

    data = {"tokenizer": str(tmp_path / "tokenizer"), "max_prompt_tokens": 40}
    trainer = fit(build(), demonstration_data(**data), max_steps=1)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    other = demonstration_data(**data, template="instruction")
    with pytest.raises(UserError, match="trained with another template"):
        fit(build(), other, max_steps=2, ckpt_path=tmp_path / "a.ckpt")
    fit(build(), demonstration_data(**data), max_steps=2, ckpt_path=tmp_path / "a.ckpt")


@pytest.mark.parametrize("kind", ["demonstrations", "mixed", "text", "adapter"])
def test_resuming_in_the_middle_of_an_epoch_is_exact(
    fit, demonstration_data, policy_artefact, files, tmp_path, kind
):
    """Steps of several pieces, with dropout, whose draws depend on the step alone."""

    def data():
        if kind == "text":
            return text_data(files, policy_artefact)
        mix = {"pretraining": files["text"], "pretraining_block_size": 16}
        return demonstration_data(batch_size=6, **(mix if kind == "mixed" else {}))

    def build():
        options = {"dropout": 0.3, "network": Network(max_tokens=40)}
        options |= {"trained": LoRA(rank=2, dropout=0.2)} if kind == "adapter" else {}
        return make(policy_artefact, optimizer=lambda p: torch.optim.AdamW(p, lr=1e-2), **options)

    path, runs = tmp_path / "middle.ckpt", []
    for options in ({"callbacks": [SaveAt(2, path)]}, {"ckpt_path": path}):
        module, source = build(), data()
        trainer = fit(module, source, max_steps=6, **options)
        runs.append((trainer.global_step, weights(module)))
    assert all(len(batch.pieces(40)) > 1 for batch in source.train_dataloader())
    assert runs[0][0] == runs[1][0] == 6
    assert torch.equal(runs[1][1], runs[0][1])
