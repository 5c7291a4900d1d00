"""A head on features of a frozen trunk, and several heads on one trunk."""

import json

import pytest
import torch
from descent import SaveAt, weights
from harness import run_processes
from interrupted import interrupt_call
from small_preference import make as preference
from torch.nn.functional import logsigmoid
from transformers import AutoModelForSequenceClassification

from instructgpt.algorithms.kwise import KWise
from instructgpt.algorithms.schedule import Constant
from instructgpt.evaluation.scoring import Scorer
from instructgpt.models.artefact import read_artefact
from instructgpt.models.features import Features
from instructgpt.models.heads import Heads
from instructgpt.models.load import Network, load_policy, load_scalar
from instructgpt.models.trained import FrozenTrunk, LastLayers, LoRA, attach
from instructgpt.modules.bootstrap import bootstrap_counts, ensemble_loss
from instructgpt.modules.cached import made_from
from instructgpt.modules.memory import learning_shape
from instructgpt.modules.networks import Value
from instructgpt.modules.ppo import PPOModule
from instructgpt.modules.reward import RewardModule
from instructgpt.modules.sft import SFTModule
from instructgpt.rewards.base import RewardFunction
from instructgpt.rewards.learned import LearnedReward, number_format
from instructgpt.rewards.mixture import MixtureReward
from instructgpt.rewards.rules import LengthReward
from instructgpt.rollout.updates import Batches
from instructgpt.types import Prompt, Sample, UserError, shared_rows

FROZEN = FrozenTrunk(layers=[1, -1], tokens=["last", "mean"], lr=0.01, ridge=0.0)
PROMPT, RESPONSES = [5, 6, 7, 8], [[9, 10], [11, 12, 13], [14]]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make(source, trained=FROZEN, **options):
    return RewardModule(init_from=source, trained=trained, schedule=Constant(), **options)


def states(trunk, prompt, response):
    """Oracle: hidden states of one row by transformers alone."""
    found = trunk(input_ids=torch.tensor([prompt + response]), output_hidden_states=True)
    return [one[0] for one in found.hidden_states]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "lfm2"])  # the last is padded
def test_features_are_those_of_transformers(make_architecture, tiny_tokenizer, kind):
    model = load_scalar(None, make_architecture(kind), Network(), tiny_tokenizer, "new").eval()
    features = Features.of([0, 1, -1], ["last", "mean"], model.trunk, "layers")
    found = features.read(model.trunk, shared_rows([PROMPT, [3]], [RESPONSES, [[4, 5]]]))
    rows = [(PROMPT, one) for one in RESPONSES] + [([3], [4, 5])]
    for got, (prompt, response) in zip(found[[1, 2, 3, 5]], rows, strict=True):
        chosen = [states(model.trunk, prompt, response)[layer] for layer in (0, 1, -1)]
        last, mean = ([one[-1] for one in chosen], [one[len(prompt) :].mean(0) for one in chosen])
        torch.testing.assert_close(got, torch.cat(last + mean), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("max_tokens", [None, 1])
def test_the_head_learns_by_equation_1_on_standardised_features(
    fit, comparison_data, policy_artefact, tiny_tokenizer, max_tokens
):
    """Oracle: features of each response alone, one step of Adam from 0: -lr * sign(gradient)."""
    data = comparison_data(batch_size=100)
    module = make(policy_artefact, network=Network(max_tokens=max_tokens))
    fit(module, data, max_steps=1)
    trunk = load_scalar(policy_artefact, None, Network(), tiny_tokenizer, "new", dropout=0).eval()
    rows = [
        [torch.stack([_features(trunk.trunk, row, one) for one in row.responses]), row.ranking]
        for row in data.train_rows
    ]
    every = torch.cat([features for features, _ in rows])
    head = module.model.head
    torch.testing.assert_close(head.mean, every.mean(0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(head.scale, every.std(0, correction=0), atol=1e-5, rtol=1e-4)
    weight = torch.zeros(every.shape[1], requires_grad=True)
    losses = []
    for features, ranking in rows:
        scores = (features - every.mean(0)) / every.std(0, correction=0) @ weight
        pairs = [
            -logsigmoid(scores[i] - scores[j])
            for i, better in enumerate(ranking)
            for j, worse in enumerate(ranking)
            if better < worse
        ]
        losses += [torch.stack(pairs).mean()] if pairs else []
    torch.stack(losses).mean().backward()
    clear = weight.grad.abs() > 1e-5
    assert clear.float().mean() > 0.9
    expected = (-0.01 * weight.grad.sign())[clear]
    torch.testing.assert_close(head.weight[0].detach()[clear], expected, atol=1e-4, rtol=1e-2)


def _features(trunk, row, response):
    prompt, response = row.prompt.tolist(), response.tolist()
    with torch.no_grad():
        one, _, last = (states(trunk, prompt, response)[layer] for layer in (1, 0, -1))
    kept = [state[-1] for state in (one, last)]
    return torch.cat(kept + [state[len(prompt) :].mean(0) for state in (one, last)])


@pytest.mark.parametrize("heads", [1, 3])
def test_features_are_computed_once_and_found_again(
    fit, comparison_data, policy_artefact, cache, monkeypatch, caplog, heads
):
    read, calls = Features.read, []

    def counted(self, *args):
        calls.append(1)
        return read(self, *args)

    monkeypatch.setattr(Features, "read", counted)
    runs, metrics = [], []
    for _ in range(2):
        module = make(policy_artefact, heads=heads)
        trainer = fit(module, comparison_data(batch_size=8), max_epochs=2, limit_val_batches=1.0)
        runs.append(weights(module.model.head))
        metrics.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        calls.append("|")
    first, second = "".join(map(str, calls)).strip("|").split("|")
    assert len(first) > 3
    assert second == "11"  # to know how many there are
    assert torch.equal(*runs)
    assert metrics[0] == metrics[1]
    assert ("val/disagreement" in metrics[0]) == (heads > 1)
    assert "tokens/s" in caplog.text
    assert len(list((cache / "instructgpt" / "features").iterdir())) == 1


def test_features_go_on_after_an_interruption(
    fit, comparison_data, policy_artefact, cache, monkeypatch, caplog
):
    def run():
        module = make(policy_artefact)
        fit(module, comparison_data(batch_size=2), max_steps=1)
        return module.kept

    calls = interrupt_call(monkeypatch, Features, "read", 4)
    with pytest.raises(SystemExit):
        run()
    (begun,) = (cache / "instructgpt" / "features").iterdir()
    assert "unfinished features" in made_from(begun)
    found, before = run(), len(calls)
    assert "features of frozen trunks: 2 of " in caplog.text
    assert not begun.exists()
    (file,) = (cache / "instructgpt" / "features").iterdir()
    file.unlink()
    alone = run()
    assert before - 4 == len(calls) - before - 1  # all but the batch that was done
    for name, own in alone.items():
        assert torch.equal(found[name].values, own.values)


@pytest.mark.parametrize(("trained", "heads"), [(FROZEN, 1), (FROZEN, 3), (LastLayers(1), 3)])
def test_an_artefact_scores_as_what_was_trained(
    fit, comparison_data, files, policy_artefact, tiny_tokenizer, tmp_path, trained, heads
):
    module = make(policy_artefact, trained, heads=heads)
    data = comparison_data(demonstrations=files["demonstrations"], batch_size=8)
    fit(module, data, max_epochs=1)
    module.finalize()
    module.export(tmp_path / "export", config={}, metrics={})
    assert float(module.model.offset) != 0
    rows = shared_rows([PROMPT], [RESPONSES])
    back = load_scalar(str(tmp_path / "export"), None, Network(), tiny_tokenizer, "stored").eval()
    expected = module.model.eval().each(rows)
    assert expected.shape == (4, heads)
    torch.testing.assert_close(back.each(rows), expected, atol=1e-6, rtol=1e-6)
    # every head scores demonstrations 0 on average
    sums = torch.zeros(heads)
    for row in data.demonstration_rows:
        prompt, response = row.tokens[: row.trained].tolist(), row.tokens[row.trained :].tolist()
        sums += back.each(shared_rows([prompt], [[response]]))[1].detach()
    torch.testing.assert_close(sums, torch.zeros(heads), atol=1e-3, rtol=0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_its_scores_are_those_of_the_number_format_it_was_trained_in(
    fit, comparison_data, policy_artefact, tmp_path, dtype
):
    """To the last bit where a command scores answers; what else is trained is read in float32."""
    module = make(policy_artefact, network=Network(dtype))
    fit(module, comparison_data(batch_size=8), max_epochs=1)
    config = {"model": {"init_args": {"network": {"dtype": dtype}}}}
    module.export(tmp_path / "export", config=config, metrics={})
    scorer = Scorer(str(tmp_path / "export"))
    assert next(scorer.reward.model.trunk.parameters()).dtype == getattr(torch, dtype)
    samples = [Sample(Prompt("x", None, "", {}), "", PROMPT, one, False) for one in RESPONSES]
    expected = module.model.eval().score(shared_rows([PROMPT], [RESPONSES]))[1:]
    assert torch.equal(scorer.reward.score(samples), expected.detach())
    plain = make(policy_artefact, LoRA(rank=2), network=Network(dtype))
    fit(plain, comparison_data(batch_size=8), max_steps=1)
    plain.export(tmp_path / "plain", config=config, metrics={})
    assert number_format(str(tmp_path / "plain")) == "float32"


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("trained", [FrozenTrunk(layers=[-1], tokens=["last"]), LoRA(rank=2)])
def test_what_a_classifier_can_hold_is_exported_as_one(
    fit, comparison_data, policy_artefact, tmp_path, trained, heads, capsys
):
    module = make(policy_artefact, trained, heads=heads)
    fit(module, comparison_data(batch_size=8), max_epochs=1)
    module.finalize()
    module.export(tmp_path / "export", config={}, metrics={})
    about = json.loads((tmp_path / "export" / "instructgpt.json").read_text())
    assert (f"is the mean of {heads} heads" in capsys.readouterr().out) == (heads > 1)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "export").eval()
    subtracted = (about["offset"] or 0.0) + about.get("shift", 0.0)
    scores = module.model.eval().score(shared_rows([PROMPT], [RESPONSES]))[1:]
    for score, response in zip(scores, RESPONSES, strict=True):
        logit = model(input_ids=torch.tensor([PROMPT + response])).logits[0, 0]
        torch.testing.assert_close(logit - subtracted, score, atol=1e-4, rtol=1e-4)


def test_what_it_cannot_hold_is_said(fit, comparison_data, policy_artefact, tmp_path):
    module = make(policy_artefact)
    fit(module, comparison_data(batch_size=8), max_steps=1)
    with pytest.warns(UserWarning, match="reads the last token of the last layer, and this head"):
        module.export(tmp_path / "export", config={}, metrics={})
    artefact = read_artefact(tmp_path / "export")
    assert (artefact.head, artefact.heads) == ("heads.safetensors", "heads.safetensors")
    assert artefact.features == {"layers": [1, 2], "tokens": ["last", "mean"]}
    (tmp_path / "export" / "instructgpt.json").write_text(
        (tmp_path / "export" / "instructgpt.json").read_text().replace('"mean"', '"sum"')
    )
    with pytest.raises(UserError, match="key 'features' must name layers and tokens"):
        load_scalar(str(tmp_path / "export"), None, Network(), None, "stored")


def test_bootstraps_depend_on_the_prompt_alone():
    prompts = [str(number) for number in range(2000)]
    counts = bootstrap_counts(prompts, 4, seed=1)
    assert torch.equal(bootstrap_counts(prompts[::-1], 4, seed=1).flip(0), counts)
    assert torch.equal(bootstrap_counts(prompts, 2, seed=1)[:100].gt(9), counts[:100, :2].gt(9))
    assert not torch.equal(bootstrap_counts(prompts, 4, seed=2), counts)
    # Poisson(1): mean and variance 1, and e^-1 of the prompts are not drawn at all
    assert counts.float().mean(0).sub(1).abs().max() < 0.06
    assert counts.float().var(0).sub(1).abs().max() < 0.15
    assert (counts == 0).float().mean(0).sub(0.3679).abs().max() < 0.03
    assert bool((counts.sum(1) > 0).all())
    correlations = torch.corrcoef(counts.float().T) - torch.eye(4)
    assert correlations.abs().max() < 0.08


def test_a_head_sees_a_prompt_as_often_as_it_has_drawn_it():
    torch.manual_seed(0)
    scores, ranking = torch.randn(3, 2, 2), torch.tensor([[1, 2], [2, 1], [1, 1]])
    mask, counts = torch.ones(3, 2, dtype=torch.bool), torch.tensor([[2, 0], [1, 1], [5, 0]])
    total, count, right = ensemble_loss(KWise(), scores, ranking, mask, counts)
    margins = scores[:, 0] - scores[:, 1]  # of prompt 0; of prompt 1 the other way; 2 is a tie
    losses = 2 * -logsigmoid(margins[0, 0]) - logsigmoid(-margins[1]).sum()
    assert float(total) == pytest.approx(float(losses) / 2)
    assert float(count) == (2 + 2) / 2
    hits = 2 * (margins[0, 0] > 0) + (margins[1] < 0).sum()
    assert float(right) == float(hits) / 2


def test_two_ranks_are_one(fit, comparison_data, policy_artefact, tmp_path, monkeypatch):
    def train(processes):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"{processes}"))
        module = make(policy_artefact, heads=2)
        strategy = {"strategy": "ddp", "devices": processes} if processes > 1 else {}
        data = comparison_data(batch_size=8 // processes)
        trainer = fit(module, data, max_epochs=2, limit_val_batches=1.0, **strategy)
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        return weights(module.model.head), found

    alone, metrics = train(1)
    for weight, found in run_processes(lambda: train(2)):
        torch.testing.assert_close(weight, alone, atol=1e-4, rtol=1e-3)
        assert found == pytest.approx(metrics, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("trained", [FROZEN, LastLayers(1)])
def test_resumes_exactly(fit, comparison_data, policy_artefact, tmp_path, trained):
    whole, half = make(policy_artefact, trained, heads=2), tmp_path / "half.ckpt"
    fit(whole, comparison_data(batch_size=4), max_epochs=2, callbacks=[SaveAt(3, half)])
    resumed = make(policy_artefact, trained, heads=2)
    fit(resumed, comparison_data(batch_size=4), max_epochs=2, ckpt_path=half)
    assert torch.equal(weights(resumed), weights(whole))
    held = torch.load(half, weights_only=True)["state_dict"]
    assert not any("wte" in name for name in held)


def test_ppo_learns_from_it(
    fit, comparison_data, prompt_data, policy_artefact, tmp_path, tiny_tokenizer
):
    module = make(policy_artefact, heads=3)
    fit(module, comparison_data(batch_size=8), max_epochs=2)
    module.export(tmp_path / "export", config={}, metrics={})
    learner = PPOModule(
        init_from=policy_artefact,
        reward=LearnedReward(str(tmp_path / "export"), combine="mean_minus_std", std_coef=0.5),
        batches=Batches(8, 4),
        trained=LastLayers(1),
        value=Value("separate"),
    )
    with pytest.warns(UserWarning, match="read features of whole responses: the value model star"):
        fit(learner, prompt_data(), max_epochs=2)
    assert learner.phase.metrics["ppo/first_ratio_error"] == 0
    assert learner.phase.metrics["ppo/disagreement"] > 0
    before = load_scalar(policy_artefact, None, Network(), tiny_tokenizer, "new").trunk
    kept = learner.frozen.reference.get_input_embeddings().weight
    assert kept is learner.policy.get_input_embeddings().weight  # there once
    assert torch.equal(kept, before.get_input_embeddings().weight)


def test_dpo_keeps_a_reference_beside_the_last_layers(fit, comparison_data, policy_artefact):
    module = preference(policy_artefact, trained=LastLayers(1))
    fit(module, comparison_data(batch_size=8, max_response_tokens=6), max_epochs=1)
    policy, copy = module.policy, module.reference.copy
    assert copy.get_input_embeddings().weight is policy.get_input_embeddings().weight
    before = dict(load_policy(policy_artefact, None, Network()).named_parameters())
    now, kept = dict(policy.named_parameters()), dict(copy.named_parameters())
    assert all(torch.equal(kept[name], weight) for name, weight in before.items())
    changed = {name for name, weight in before.items() if not torch.equal(now[name], weight)}
    assert changed
    assert all(".h.1." in name or ".ln_f." in name for name in changed)


@pytest.mark.parametrize(
    ("trained", "layers"), [(None, 2), (LoRA(rank=2), 2), (LastLayers(1), 1), (FROZEN, 0)]
)
def test_the_plan_counts_layers_that_gradients_go_through(
    make_architecture, tiny_tokenizer, trained, layers
):
    model = load_scalar(None, make_architecture("gpt2"), Network(), tiny_tokenizer, "new")
    assert learning_shape(attach(model, trained).trunk).layers == layers


def test_a_mixture_is_as_unsure_as_its_parts():
    class Unsure(RewardFunction):
        spread = torch.tensor([3.0, 0.0])

        def raw_scores(self, samples):
            return [1.0, 2.0]

    mixture = MixtureReward([Unsure(), LengthReward(3), Unsure()], [1.0, 2.0, -1.0])
    prompt = Prompt("a", [], "0", {})
    mixture.score([Sample(prompt, "b", [1], [2], True)] * 2)
    torch.testing.assert_close(mixture.spread, torch.tensor([18**0.5, 0.0]))


@pytest.mark.parametrize(
    ("combine", "formula"),
    [
        ("mean", lambda each: each.mean(1)),
        ("min", lambda each: each.amin(1)),
        ("mean_minus_std", lambda each: each.mean(1) - 0.5 * each.std(1, correction=0)),
    ],
)
def test_how_a_reward_combines_heads(combine, formula, tmp_path):
    reward = LearnedReward("x", combine=combine, std_coef=0.5 if "std" in combine else 1.0)
    each = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 0.0]])
    assert torch.equal(reward._combined(each), formula(each))


def test_what_is_refused(fit, comparison_data, demonstration_data, policy_artefact, tmp_path):
    with pytest.raises(UserError, match="must not be FrozenTrunk for a policy"):
        fit(SFTModule(init_from=policy_artefact, trained=FROZEN), demonstration_data(), max_steps=1)
    beyond = FrozenTrunk(layers=[3])
    with pytest.raises(UserError, match=r"trained\.layers must be between -3 and 2 for 'gpt2', go"):
        fit(make(policy_artefact, beyond), comparison_data(), max_steps=1)
    for wrong, told in (
        ({"layers": []}, r"trained\.layers must be numbers of layers, each once, got \[\]"),
        ({"tokens": ["first"]}, r"trained\.tokens must be some of last, mean, once, got"),
        ({"lr": -1.0}, r"trained\.lr must be >= 0"),
        ({"ridge": -1.0}, r"trained\.ridge must be >= 0"),
    ):
        with pytest.raises(UserError, match=told):
            FrozenTrunk(**wrong)
    with pytest.raises(UserError, match=r"model\.heads must be >= 1, got 0"):
        make(policy_artefact, heads=0)
    module = make(policy_artefact, heads=2)
    fit(module, comparison_data(batch_size=8), max_steps=1)
    module.export(tmp_path / "export", config={}, metrics={})
    with pytest.raises(UserError, match=r"model\.heads must be 2, as '.*export' has, got 1"):
        fit(make(str(tmp_path / "export")), comparison_data(), max_steps=1)
    with pytest.raises(UserError, match=r"reward\.combine must be one of mean, min, mean_minus_st"):
        LearnedReward("x", combine="max")
    assert isinstance(module.model.head, Heads)
