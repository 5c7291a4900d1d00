"""Steps that nobody looks at log nothing, and whoever looks sees what they would have logged."""

import json

import pytest
from toy_stage import ToyModule, fit

STEPS = 12  # of two epochs, with a validation at the end of each


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the toy; returns what the logger and the export got, and the steps that logged."""

    def run(name, *more):
        steps = []
        log_step = ToyModule.log

        def note(self, name, *args, **kwargs):
            if name == "train/loss":
                steps.append(self.global_step + 1)
            log_step(self, name, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(ToyModule, "log", note)
            logger = ("--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path / name}")
            fit(tmp_path / name, *logger, "--trainer.log_every_n_steps=5", *more)
        (curves,) = (tmp_path / name).glob("**/metrics.csv")
        facts = json.loads((tmp_path / name / "export" / "instructgpt.json").read_text())
        return curves.read_text(), facts["metrics"], steps

    return run


def test_steps_log_where_it_is_read_and_beside_a_callback_of_the_user_always(run):
    watcher = ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss")
    *sparse, steps = run("sparse")
    *dense, all_steps = run("dense", *watcher, "--trainer.callbacks.patience=100")
    assert steps == [1, 5, 6, 10, 12]  # the first, every fifth, and before validations
    assert all_steps == list(range(1, STEPS + 1))
    assert sparse == dense


def test_the_last_step_logs_wherever_it_is(run):
    *_, steps = run("run", "--trainer.max_steps=9")
    assert steps == [1, 5, 6, 9]
