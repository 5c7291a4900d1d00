"""The PPO stage: plan, exact means, PPO-ptx, networks, learning."""

import copy

import pytest
import torch
from descent import weights
from lightning.pytorch import Callback
from small_ppo import Watch, make
from tiny_models import flat, padded_scores

from instructgpt.algorithms.kl import FixedKL
from instructgpt.algorithms.ppo import PPO
from instructgpt.models.artefact import read_artefact
from instructgpt.models.forward import run
from instructgpt.models.load import Network, load_policy, load_scalar
from instructgpt.models.trained import LoRA
from instructgpt.modules.networks import Value
from instructgpt.modules.pretraining import Pretraining
from instructgpt.rewards.learned import LearnedReward
from instructgpt.rewards.rules import CountReward
from instructgpt.rollout.drawing import Sampling
from instructgpt.rollout.updates import Batches
from instructgpt.types import UserError


def test_the_update_divides_by_the_temperature(fit, prompt_data, policy_artefact):
    """The log-probabilities are those of logits / temperature, recomputed by plain means."""
    module = make(policy_artefact, sampling=Sampling(temperature=0.5))
    fit(module, prompt_data(), max_epochs=1, limit_train_batches=1)
    experience = module.phase.buffer.experience
    oracle = load_policy(policy_artefact, None, Network(), None).eval()
    rollout = experience.rollout
    for row in range(8):
        tokens = rollout.tokens[row][rollout.mask[row]]
        n = int(rollout.response_mask[row].sum())
        with torch.no_grad():
            logits = oracle(input_ids=tokens[None]).logits[0, :-1] / 0.5
        expected = logits.log_softmax(-1).gather(1, tokens[1:, None])[-n:, 0]
        torch.testing.assert_close(experience.logprobs[row, :n], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "trainer_options", "steps"),
    [
        ({}, {"max_epochs": 3}, 6),  # 3 phases x 8 / 4
        ({"algorithm": PPO(epochs=2)}, {"max_epochs": 2}, 8),  # x 2 passes
        ({"batches": Batches(8, 8, 2)}, {"max_epochs": 2}, 2),
        ({}, {"max_epochs": 2, "accumulate_grad_batches": 2}, 4),
        ({}, {"max_steps": 3}, 3),
        ({}, {"fast_dev_run": True}, 1),
        ({}, {"max_epochs": 2, "limit_train_batches": 1}, 2),
        ({}, {"max_epochs": 2, "overfit_batches": 1}, 2),
    ],
)
def test_steps_equal_the_plan(fit, prompt_data, policy_artefact, options, trainer_options, steps):
    module = make(policy_artefact, **options)
    trainer = fit(module, prompt_data(), **trainer_options)
    assert trainer.global_step == steps == module.planned_steps()


@pytest.mark.parametrize(("microbatch", "budget"), [(1, None), (2, 30), (None, 16), (None, 50)])
def test_training_does_not_depend_on_the_microbatch(
    fit, prompt_data, policy_artefact, reward_artefact, files, microbatch, budget
):
    """Of some episodes or tokens or all, with the pretraining mix, over two phases."""
    data = {"pretraining": files["text"], "pretraining_block_size": 16}
    results = []
    for size, tokens in ((8, None), (microbatch, budget)):
        module = make(
            policy_artefact,
            LearnedReward(reward_artefact),
            batches=Batches(8, 8, size),
            network=Network(max_tokens=tokens),
            pretraining=Pretraining(0.5, 1),
        )
        trainer = fit(module, prompt_data(**data), max_epochs=2)
        assert trainer.accumulate_grad_batches == 1
        assert trainer.global_step == 2
        results.append(weights(module))
    torch.testing.assert_close(results[1], results[0], atol=1e-5, rtol=1e-5)


class Start(Callback):
    """Keeps the networks as they were before the first step."""

    def on_train_start(self, trainer, pl_module):
        self.networks = copy.deepcopy(pl_module.networks)


@pytest.mark.parametrize("max_tokens", [None, 30])
@pytest.mark.parametrize("kind", ["separate", "shared"])
def test_one_step_is_the_gradient_of_the_token_mean(
    fit, prompt_data, policy_artefact, kind, max_tokens
):
    """Oracle: policy and value loss of the whole minibatch, divided by its response tokens.

    Each row alone, as the path for padded rows reads it.
    """
    module = make(
        policy_artefact,
        batches=Batches(8, 8),
        value=Value(kind, lr=0.1),
        network=Network(max_tokens=max_tokens),
    )
    start = Start()
    fit(module, prompt_data(), max_steps=1, callbacks=[start])
    experience = module.phase.buffer.experience
    plan, lengths = module.plan_of_updates, module.phase.buffer.lengths
    parts = plan.micro_batches(torch.arange(8), lengths)
    assert (len(parts) > 2) == (max_tokens is not None)
    rollout = experience.rollout
    policy, _, value = start.networks
    total = 0.0
    for row in range(8):
        tokens = rollout.tokens[row][rollout.mask[row]][None]
        n, real = int(rollout.response_mask[row].sum()), torch.ones_like(tokens).bool()
        output = run(policy, tokens, real, hidden=True)
        logprobs = output.logits[0, :-1].log_softmax(-1)
        new = logprobs.gather(1, tokens[0, 1:, None])[-n:, 0]
        ratio = (new - experience.logprobs[row, :n]).exp()
        advantage = experience.advantages[row, :n]
        clipped = ratio.clamp(0.8, 1.2)
        total = total - torch.minimum(ratio * advantage, clipped * advantage).sum()
        values = value(output.hidden) if kind == "shared" else padded_scores(value, tokens)
        error = values[0, -n - 1 : -1] - experience.returns[row, :n]
        total = total + 0.1 * 0.5 * error.square().sum()  # nothing is clipped yet
    (total / rollout.response_mask.sum()).backward()
    for trained, oracle in ((module.policy, policy), (module.networks.value, value)):
        changed = dict(trained.named_parameters())
        for name, before in oracle.named_parameters():
            if before.requires_grad:
                expected = before.detach() - 0.1 * before.grad
                torch.testing.assert_close(changed[name].detach(), expected, atol=1e-5, rtol=1e-5)


def test_ptx_gradient_is_ppo_plus_gamma_times_pretraining(fit, prompt_data, policy_artefact, files):
    """Eq. 2 in one step: what SGD changes is the sum of what the two terms change alone."""
    data = {"pretraining": files["text"], "pretraining_block_size": 16}
    start = load_policy(policy_artefact, None, Network(), None).eval()
    changes, norms = {}, {}
    for gamma in (0.0, 3.0):
        watch = Watch()
        module = make(policy_artefact, batches=Batches(8, 8), pretraining=Pretraining(gamma, 2))
        fit(module, prompt_data(**data), max_epochs=1, callbacks=[watch])
        pairs = zip(module.policy.parameters(), start.parameters(), strict=True)
        changes[gamma] = [(a - b).detach() for a, b in pairs]
        norms[gamma] = watch.phases[0]
    batch = module.trainer.datamodule.pretraining_rows(0, 16, 0, 1)
    blocks = batch.rows.tokens.split(batch.rows.layout.lengths.tolist())
    losses = [start(block[None], labels=block[None]).loss * (len(block) - 1) for block in blocks]
    total, count = sum(losses), batch.targets.sum()
    (total / count).backward()
    for both, ppo, p in zip(changes[3.0], changes[0.0], start.parameters(), strict=True):
        torch.testing.assert_close(both, ppo - 0.1 * 3.0 * p.grad, atol=1e-5, rtol=1e-5)
    ptx_norm = torch.nn.utils.get_total_norm([3.0 * p.grad for p in start.parameters()])
    ppo_norm = torch.nn.utils.get_total_norm([c / 0.1 for c in changes[0.0]])
    assert norms[3.0]["gradient_norm/ptx"] == pytest.approx(float(ptx_norm), rel=1e-5)
    assert norms[3.0]["gradient_norm/ppo"] == pytest.approx(float(ppo_norm), rel=1e-4)
    assert norms[3.0]["loss/ptx"] == pytest.approx((total / count).item(), rel=1e-4)


def test_parameter_groups_have_their_own_rates(fit, prompt_data, policy_artefact):
    module = make(policy_artefact, value=Value(lr=0.0))
    start = load_scalar(policy_artefact, None, Network(), None, head="new")
    fit(module, prompt_data(), max_epochs=1)
    names = [group["name"] for group in module.optimizers().param_groups]
    assert names == ["policy", "value"]
    trunk = dict(module.value_model.trunk.named_parameters())
    for name, parameter in start.trunk.named_parameters():
        assert torch.equal(trunk[name], parameter)


def test_value_model_starts_from_the_reward_model(
    fit, prompt_data, policy_artefact, reward_artefact
):
    module = make(policy_artefact, LearnedReward(reward_artefact))
    fit(module, prompt_data(), max_epochs=1, limit_train_batches=1, max_steps=1)
    rm = load_scalar(reward_artefact, None, Network(), None, head="stored").eval()
    rollout = module.phase.buffer.experience.rollout
    with torch.no_grad():
        said = padded_scores(rm, rollout.tokens, rollout.mask)
    mask, before = rollout.response_mask, rollout.prompt_mask.shape[1] - 1
    torch.testing.assert_close(
        module.phase.buffer.experience.values[mask],
        said[:, before:-1][mask],
        atol=1e-5,
        rtol=1e-5,
    )


def test_missing_eos_takes_the_place_of_the_score(fit, prompt_data, policy_artefact):
    watch = Watch()
    module = make(policy_artefact, algorithm=PPO(missing_eos_score=-7.0))
    fit(module, prompt_data(max_response_tokens=2), max_epochs=1, callbacks=[watch])
    phase = watch.phases[0]
    eos = phase["ppo/eos_rate"]
    assert eos < 1
    if eos == 0:
        assert phase["ppo/score_episode"] == -7.0
    assert phase["ppo/score"] >= 0


@pytest.mark.parametrize("name", ["loss", "count", "ratio"])
def test_parts_have_names_of_their_own(fit, prompt_data, policy_artefact, name):
    class Named(PPO):
        def loss(self, *args):
            loss = super().loss(*args)
            return loss._replace(parts={name: loss.total.detach()})

    message = f"parts of Named.loss must be other than what the loop logs itself, got {name}"
    with pytest.raises(UserError, match=message):
        fit(make(policy_artefact, algorithm=Named()), prompt_data(), max_epochs=1)


def test_ema_is_updated_once_a_phase(fit, prompt_data, policy_artefact):
    module = make(policy_artefact, ema_decay=0.75)
    start = load_policy(policy_artefact, None, Network(), None)
    fit(module, prompt_data(), max_epochs=1)
    averages = module.phase.average.weights
    for (name, after), before in zip(
        module.policy.named_parameters(), start.parameters(), strict=True
    ):
        expected = 0.75 * before + 0.25 * after
        torch.testing.assert_close(averages[name], expected.detach())


def test_exports_policy_average_and_value(fit, prompt_data, policy_artefact, tmp_path):
    module = make(policy_artefact, ema_decay=0.5)
    fit(module, prompt_data(validation=0.5), max_epochs=1, limit_val_batches=None)
    module.export(tmp_path / "export", config={}, metrics={})
    policy = load_policy(str(tmp_path / "export"), None, Network(), None)
    ema = load_policy(str(tmp_path / "export" / "ema"), None, Network(), None)
    value = load_scalar(str(tmp_path / "export" / "value"), None, Network(), None, head="stored")
    torch.testing.assert_close(weights(policy), weights(module.policy))
    assert not torch.allclose(weights(ema), weights(policy))
    rows = flat(torch.tensor([[3, 4]]))
    torch.testing.assert_close(value.eval()(rows), module.value_model.eval()(rows))
    artefact = read_artefact(str(tmp_path / "export"))
    assert artefact.stage == "ppo"
    assert [one["name"] for one in artefact.data] == ["prompts.jsonl", "held out of the above"]
    low, high, n = module.intervals["val/score"]
    assert low <= float(module.trainer.callback_metrics["val/score"]) <= high
    assert n == len(module.data.validation_rows)


@pytest.mark.parametrize("adapter", [None, LoRA(rank=4)])
def test_learns_to_say_a_token_while_kl_stays_bounded(fit, prompt_data, peaked_artefact, adapter):
    watch = Watch()
    module = make(
        peaked_artefact,
        CountReward(text="o", maximum=4),
        trained=adapter,
        optimizer=lambda p: torch.optim.AdamW(p, lr=1e-2 if adapter else 3e-3),
        value=Value(lr=1e-2),
        batches=Batches(32, 16),
        algorithm=PPO(epochs=2, missing_eos_score=None),
        kl=FixedKL(0.1),
    )
    data = prompt_data(max_response_tokens=6, tokenizer=peaked_artefact)
    trainer = fit(module, data, max_epochs=25, callbacks=[watch])
    scores = [phase["ppo/score"] for phase in watch.phases]
    start, end = sum(scores[:3]) / 3, sum(scores[-3:]) / 3
    assert start < 1
    assert end > 2.5, scores  # of 4 at most
    assert 1 < watch.phases[-1]["ppo/kl"] < 25
    assert trainer.global_step == 100
    if adapter:
        assert module.frozen.reference is None
        assert watch.phases[0]["ppo/kl"] == pytest.approx(0, abs=1e-4)


def test_validation_reports_both_ways_of_answering(fit, prompt_data, policy_artefact):
    module = make(policy_artefact)
    trainer = fit(module, prompt_data(), max_epochs=1, limit_val_batches=None)
    names = {f"val/{n}" for n in ("score", "greedy_score", "kl", "response_length", "eos_rate")}
    assert names <= set(trainer.callback_metrics)
    assert {s["kind"] for s in module.samples} == {"sampled", "greedy"}
    assert all(s["score"] == s["response"].count("e") for s in module.samples)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ema_decay": 1.0}, r"model.ema_decay must be in \[0, 1\), got 1.0"),
        ({"sampling": Sampling(temperature=0)}, "temperature must be > 0 to learn from"),
    ],
)
def test_values_without_meaning_are_refused(policy_artefact, options, message):
    with pytest.raises(UserError, match=message):
        make(policy_artefact, **options)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Pretraining, {"ptx_coef": -1.0}, "model.pretraining.ptx_coef must be >= 0, got -1.0"),
        (Pretraining, {"ptx_per_episode": 0}, "ptx_per_episode must be >= 1, got 0"),
        (Batches, {"rollout_batch_size": 0}, "model.batches.rollout_batch_size must be >= 1"),
        (Value, {"lr": -1.0}, "model.value.lr must be >= 0, got -1.0"),
        (Value, {"kind": "shared", "init_from": "x"}, "init_from must be null with value.kind"),
    ],
)
def test_groups_of_options_refuse_values_without_meaning(kind, options, message):
    with pytest.raises(UserError, match=message):
        kind(**options)


@pytest.mark.parametrize(
    ("options", "trainer_options", "message"),
    [
        (
            {"batches": Batches(8, 5)},
            {},
            r"minibatch_size must be a divisor of rollout_batch_size \(8\), got 5",
        ),
        ({"batches": Batches(8, 4, 3)}, {}, "minibatch_size must be a multiple of 3 microb"),
        (
            {"batches": Batches(8, 4, 2)},
            {"accumulate_grad_batches": 4},
            "a multiple of 4 accumulated batches x 2 microbatch_size, got 4",
        ),
        (
            {"pretraining": Pretraining(1.0)},
            {},
            "data.pretraining must be given when model.pretraining.ptx_coef is 1.0",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    fit, prompt_data, policy_artefact, options, trainer_options, message
):
    with pytest.raises(UserError, match=message):
        fit(make(policy_artefact, **options), prompt_data(), max_epochs=1, **trainer_options)
