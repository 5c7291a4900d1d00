"""Log-probabilities of the reference, computed once and kept."""

import pytest
import torch
from descent import weights
from interrupted import interrupt_call
from safetensors.torch import load, save
from small_preference import loaded, make, metrics_of

from instructgpt.models.trained import LoRA
from instructgpt.modules.reference import Reference


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("adapter", [None, LoRA(rank=2)])
def test_precomputing_changes_nothing_and_is_found_again(
    fit, comparison_data, policy_artefact, monkeypatch, cache, caplog, adapter
):
    seen, runs = loaded(monkeypatch), []
    for precompute in (False, True, True):
        asked = {"precompute": precompute, "validation_prompts": 2}
        module = make(policy_artefact, trained=adapter, **asked)
        options = {"max_epochs": 2, "limit_val_batches": 1.0}
        data = comparison_data(batch_size=8, max_response_tokens=6)
        trainer = fit(module, data, **options)
        runs.append((weights(module), metrics_of(trainer)))
        assert module.reference.copy is None or not precompute
    (plain, metrics), (first, first_metrics), (again, again_metrics) = runs
    torch.testing.assert_close(first, plain, atol=1e-6, rtol=1e-5)
    assert ("val/kl" in first_metrics) == (adapter is not None)
    assert first_metrics == pytest.approx(
        {name: metrics[name] for name in metrics if name in first_metrics}, rel=1e-4, abs=1e-5
    )
    assert torch.equal(again, first)
    assert again_metrics == first_metrics
    assert len(seen) == (2 if adapter is None else 0)  # the third run found them
    told = "val/kl is not logged: model.precompute leaves no reference in memory"
    assert caplog.text.count(told) == (2 if adapter is None else 0)
    assert len(list(cache.rglob("*.safetensors"))) == 1
    assert not list(cache.rglob("*.tmp"))


def test_the_reference_goes_on_after_an_interruption(
    fit, comparison_data, policy_artefact, cache, monkeypatch, caplog
):
    def run():
        module = make(policy_artefact, precompute=True)
        fit(module, comparison_data(batch_size=2), max_steps=1)
        return module.kept

    calls = interrupt_call(monkeypatch, Reference, "logprobs", 3)
    with pytest.raises(SystemExit):
        run()
    found, before = run(), len(calls)
    assert "reference log-probabilities: 4 of " in caplog.text
    (file,) = cache.rglob("*.safetensors")
    file.unlink()
    alone = run()
    assert before - 3 == len(calls) - before - 2  # all but the batches that were done
    for name, own in alone.items():
        assert torch.equal(found[name].values, own.values)


@pytest.mark.parametrize("damage", ["cut", "other rows", "nan"])
def test_what_was_kept_and_is_broken_is_computed_anew(
    fit, comparison_data, policy_artefact, cache, damage
):
    def run():
        module = make(policy_artefact, precompute=True)
        fit(module, comparison_data(batch_size=8), max_steps=1)
        return module.kept["train"].values

    first = run()
    (file,) = cache.rglob("*.safetensors")
    content = file.read_bytes()
    broken = {name: torch.full_like(values, torch.nan) for name, values in load(content).items()}
    damaged = {
        "cut": content[:-4],
        "other rows": save({"train": torch.zeros(3)}),
        "nan": save(broken),
    }
    file.write_bytes(damaged[damage])
    with pytest.warns(UserWarning, match="reference log-probabilities in "):
        assert torch.equal(run(), first)
    assert file.read_bytes() == content


def test_other_rows_or_weights_are_not_found(
    fit, comparison_data, policy_artefact, peaked_artefact, cache
):
    for source, options in (
        (policy_artefact, {}),
        (policy_artefact, {"validation": 0.5}),
        (policy_artefact, {"max_response_tokens": 4}),
        (peaked_artefact, {}),
    ):
        fit(make(source, precompute=True), comparison_data(**options), max_steps=1)
    assert len(list(cache.rglob("*.safetensors"))) == 4
