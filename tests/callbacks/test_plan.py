"""The plan is printed, and compared with what was done."""

import warnings

import pytest
from toy_stage import ToyModule, fit


def test_the_plan_is_printed_before_training(tmp_path, capsys):
    fit(tmp_path)
    out = capsys.readouterr().out
    assert f"plan of ToyModule in {tmp_path}:" in out
    assert "optimizer steps       12" in out


def test_a_difference_is_warned_about(tmp_path, monkeypatch):
    monkeypatch.setattr(ToyModule, "planned_steps", lambda self: 13)
    with pytest.warns(UserWarning, match="planned 13 optimizer steps, did 12"):
        fit(tmp_path)


def test_no_warning_when_the_plan_holds_or_the_run_was_told_to_stop(tmp_path, monkeypatch):
    def stop(self, batch, batch_idx):
        self.trainer.should_stop = True  # as max_time and EarlyStopping do

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        fit(tmp_path)
        fit(tmp_path, "--trainer.fast_dev_run=3")
        fit(tmp_path, "--trainer.limit_train_batches=2")
        fit(tmp_path, "--trainer.max_steps=5")
        fit(tmp_path, "--trainer.overfit_batches=2")
        monkeypatch.setattr(ToyModule, "on_train_batch_start", stop)
        assert fit(tmp_path).trainer.global_step < 12
    assert not [w for w in seen if "optimizer steps" in str(w.message)]
