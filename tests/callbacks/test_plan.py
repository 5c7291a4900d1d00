"""The plan is printed, and compared with what was done."""

import pytest
from toy_stage import ToyModule, fit, toy_args

from instructgpt.__main__ import main as run
from instructgpt.types import UserError


def test_the_plan_is_printed_before_training(tmp_path, capsys):
    fit(tmp_path)
    out = capsys.readouterr().out
    assert f"plan of ToyModule in {tmp_path}:" in out
    assert "optimizer steps       12" in out


@pytest.mark.parametrize("planned", [11, 13])
def test_steps_that_were_not_planned_are_an_error(tmp_path, monkeypatch, capsys, planned):
    monkeypatch.setattr(ToyModule, "planned_steps", lambda self: planned)
    assert run(toy_args("--output", str(tmp_path))) == 2
    assert f"error: planned {planned} optimizer steps, did 12: nothing" in capsys.readouterr().err
    assert not (tmp_path / "export").exists()


def test_more_steps_than_planned_are_an_error_also_when_told_to_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(ToyModule, "planned_steps", lambda self: 5)
    monkeypatch.setattr(
        ToyModule, "on_train_epoch_end", lambda self: setattr(self.trainer, "should_stop", True)
    )
    with pytest.raises(UserError, match="planned 5 optimizer steps, did 6"):
        fit(tmp_path)


def test_a_checkpoint_that_is_further_than_the_plan_says_so(tmp_path):
    fit(tmp_path)
    said = "has done 12 optimizer steps, --trainer.max_epochs and max_steps ask for 7: nothing is"
    with pytest.warns(UserWarning, match=said):
        fit(tmp_path, "--trainer.max_steps=7", "--ckpt_path=last")


def test_no_error_when_the_plan_holds_or_the_run_was_told_to_stop(tmp_path, monkeypatch):
    def stop(self, batch, batch_idx):
        self.trainer.should_stop = True  # as max_time and EarlyStopping do

    fit(tmp_path)
    fit(tmp_path, "--trainer.fast_dev_run=3")
    fit(tmp_path, "--trainer.limit_train_batches=2")
    fit(tmp_path, "--trainer.max_steps=5")
    fit(tmp_path, "--trainer.overfit_batches=2")
    monkeypatch.setattr(ToyModule, "on_train_batch_start", stop)
    assert fit(tmp_path).trainer.global_step < 12
