"""The export at the end of a fit: whole or not at all."""

import json
import os
import stat

import pytest
import torch
from toy_stage import ToyModule, fit, toy_args

from instructgpt.__main__ import main as run
from instructgpt.callbacks.export import ExportArtefact


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


def test_the_final_numbers_are_those_of_the_last_step(tmp_path, monkeypatch):
    monkeypatch.setattr(ToyModule, "monitor", None)  # as in PPO, the last weights are exported
    # 6 batches an epoch, a validation after the fourth: at steps 4 and 10 of 12
    fit(tmp_path, "--trainer.val_check_interval=4")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert [row["step"] for row in metrics["validations"]] == [4, 10]
    assert metrics["exported"] == metrics["final"]
    assert metrics["final"]["step"] == 12
    assert "train/loss" in metrics["final"]
    assert not [name for name in metrics["final"] if name.startswith("val/")]


@pytest.mark.parametrize("end", ["max_epochs=2", "max_steps=12", "max_steps=5"])
def test_a_finished_run_resumed_takes_no_longer(tmp_path, end):
    fit(tmp_path)
    before = json.loads((tmp_path / "metrics.json").read_text())
    fit(tmp_path, "--ckpt_path=last", f"--trainer.{end}")
    after = json.loads((tmp_path / "metrics.json").read_text())
    assert after["final"]["val/loss"] == before["final"]["val/loss"]
    assert after["seconds"] <= before["seconds"] + 1


def test_a_clock_that_was_not_started_does_not_count_from_the_start_of_the_machine():
    callback = ExportArtefact({})
    callback.load_state_dict({"validations": [], "seconds": 3.0})
    assert callback.state_dict()["seconds"] == 3.0


def test_what_is_not_finite_is_null(tmp_path, monkeypatch):
    def diverged(self):
        self.log("val/loss", float("nan"))
        self.log("val/perplexity", float("inf"))

    monkeypatch.setattr(ToyModule, "on_validation_epoch_end", diverged)
    monkeypatch.setattr(ToyModule, "validation_step", lambda self, batch, batch_idx: None)
    fit(tmp_path)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    text = (tmp_path / "metrics.json").read_text()
    metrics = json.loads(text, parse_constant=refuse)
    assert metrics["final"]["val/loss"] is None
    assert metrics["validations"][0]["val/perplexity"] is None


def foreign(folder):
    (folder / "export").mkdir(parents=True)
    (folder / "export" / "thesis.tex").write_text("mine")


def test_a_foreign_folder_is_refused_before_training(tmp_path, capsys):
    foreign(tmp_path)
    assert run(toy_args("--output", str(tmp_path))) == 2
    out, err = capsys.readouterr()
    assert "must not replace" in err
    assert "export', which has no instructgpt.json" in err
    assert "plan of" not in out
    assert [path.name for path in tmp_path.rglob("*")] == ["export", "thesis.tex"]
    assert run(toy_args("--output", str(tmp_path), "--export=false")) == 0


def test_a_foreign_folder_is_refused_before_validation(tmp_path, capsys):
    fit(tmp_path / "run")
    foreign(tmp_path)
    capsys.readouterr()
    args = ["export", "--run", str(tmp_path / "run"), "--output", str(tmp_path / "export")]
    assert run(args) == 2
    out, err = capsys.readouterr()
    assert "must not replace" in err
    assert out == ""
    assert [path.name for path in (tmp_path / "export").iterdir()] == ["thesis.tex"]


def test_a_run_in_a_link_leaves_files_that_others_may_read(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "export").symlink_to(tmp_path / "exported")
    (tmp_path / "exported").mkdir()
    fit(tmp_path / "run")
    assert (tmp_path / "run").is_symlink()
    assert (tmp_path / "disk" / "export").is_symlink()
    assert (tmp_path / "exported" / "instructgpt.json").is_file()
    umask = os.umask(0)
    os.umask(umask)
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.suffix != ".ckpt":
            assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask, path
