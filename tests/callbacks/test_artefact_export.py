"""The export at the end of a fit: whole or not at all."""

import json

import pytest
import torch
from toy_stage import ToyModule, fit


def test_metrics_and_config_go_into_the_artefact(tmp_path):
    fit(tmp_path, "--model.optimizer.lr=0.03")
    about = json.loads((tmp_path / "export" / "instructgpt.json").read_text())
    assert about["config"]["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.03
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["stage"] == "toy"
    assert metrics["exported"] == about["metrics"]
    assert metrics["seconds"] > 0


def test_an_export_that_fails_leaves_the_previous_one(tmp_path, monkeypatch):
    fit(tmp_path)
    before = (tmp_path / "export" / "weights.pt").read_bytes()

    def half(self, path, config, metrics):
        torch.save({}, path / "weights.pt")
        raise OSError("disk full")

    monkeypatch.setattr(ToyModule, "export", half)
    with pytest.raises(OSError, match="disk full"):
        fit(tmp_path, "--seed_everything=1")
    assert (tmp_path / "export" / "weights.pt").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_without_validation_the_final_weights_are_exported(tmp_path):
    cli = fit(tmp_path, "--trainer.limit_val_batches=0")
    exported = torch.load(tmp_path / "export" / "weights.pt", weights_only=True)
    assert torch.equal(exported["0.weight"], cli.model.layer[0].weight)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["exported"] == metrics["final"]
    assert metrics["exported"]["step"] == 12
    assert "train/loss" in metrics["exported"]
    assert metrics["validations"] == []


def test_export_can_be_switched_off(tmp_path):
    fit(tmp_path, "--export=false")
    assert not (tmp_path / "export").exists()
