"""Loggers that keep runs: a resume goes on in the same one; options, secrets, failures."""

import sys
from types import ModuleType, SimpleNamespace
from uuid import uuid4

import pytest
from last_line import last_line
from lightning.pytorch.loggers import CometLogger, MLFlowLogger, WandbLogger
from toy_stage import fit, toy_args

from instructgpt.__main__ import main

ENDS = []  # what was ended
MINE = f"--trainer.logger={__name__}"


class Kept:
    """What the stand-ins below share: a name, given or new, and what was logged."""

    experiment, name, save_dir = None, "p", None

    def begin(self, given):
        self.kept = given or uuid4().hex
        self.options = {}

    @property
    def version(self):
        return self.kept

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params):
        self.options.update(params)

    def finalize(self, status):
        pass

    def log_graph(self, model, input_array=None):
        pass

    def after_save_checkpoint(self, checkpoint_callback):
        pass


class Wandb(Kept, WandbLogger):
    def __init__(self, id: str | None = None, project: str = "p"):
        self.begin(id)
        if "wandb" in sys.modules:
            sys.modules["wandb"].run = SimpleNamespace(id=self.kept, finish=self.finish)

    def finish(self, exit_code):
        ENDS.append(("wandb", exit_code))

    def log_table(self, key, columns=None, data=None, dataframe=None, step=None):
        pass


class Comet(Kept, CometLogger):
    def __init__(self, experiment_key: str | None = None):
        self.begin(experiment_key)
        self.experiment = SimpleNamespace(
            log_table=lambda *args, **given: None, end=lambda: ENDS.append(("comet", 0))
        )


class MLFlow(Kept, MLFlowLogger):
    params = {"model.optimizer.lr": "0.05"}  # as if there since the run began  # noqa: RUF012

    def __init__(self, run_id: str | None = None):
        self.begin(run_id)
        data = SimpleNamespace(params=self.params if run_id else {})
        self.experiment = SimpleNamespace(
            get_run=lambda run: SimpleNamespace(data=data), log_table=lambda *a, **given: None
        )

    run_id = Kept.version


class Unreachable(Wandb):
    """A server that is not there, in the words of the library."""

    def log_hyperparams(self, params):
        raise type("CommError", (Exception,), {"__module__": "wandb.errors"})("no\nanswer")


def loggers(cli):
    return [one for one in cli.trainer.loggers if isinstance(one, Kept)]


def test_a_resume_goes_on_in_the_same_run_and_nothing_else_does(tmp_path):
    def kept(folder, *more):
        (logger,) = loggers(fit(tmp_path / folder, f"{MINE}.Wandb", *more))
        return logger.kept

    first = kept("a", "--trainer.max_epochs=1")
    assert kept("a", "--ckpt_path=last") == first
    assert kept("a", "--ckpt_path=last", "--trainer.max_epochs=3") == first
    last = f"--ckpt_path={tmp_path}/a/checkpoints/last.ckpt"
    assert kept("b", last, "--trainer.max_epochs=4") != first
    other = ("--trainer.logger.project=q", "--ckpt_path=last", "--trainer.max_epochs=4")
    assert kept("a", *other) != first
    assert kept("a") != first


def test_each_of_several_loggers_goes_on_in_its_own(tmp_path):
    names = [f"{{class_path: {__name__}.{kind}}}" for kind in ("MLFlow", "Wandb", "Comet")]
    asked = f"--trainer.logger=[{', '.join(names)}]"
    before = loggers(fit(tmp_path, asked, "--trainer.max_epochs=1"))
    after = loggers(fit(tmp_path, asked, "--ckpt_path=last"))
    assert [one.kept for one in before] == [one.kept for one in after]
    assert len({one.kept for one in before}) == 3
    for one in before:
        assert one.options["model.optimizer.lr"] == 0.05
        assert one.options["data.batch_size"] == 2
        assert not [name for name in one.options if name.startswith("trainer.logger")]
    assert after[1].options["trainer.max_epochs"] == 2
    assert before[0].options.keys() - after[0].options.keys() == set(MLFlow.params)


def test_an_offline_archive_of_comet_is_not_overwritten(tmp_path, monkeypatch):
    """Its name follows from the key and the seed."""
    comet = ModuleType("comet_ml")
    comet.OfflineExperiment = SimpleNamespace
    monkeypatch.setitem(sys.modules, "comet_ml", comet)
    (before,) = loggers(fit(tmp_path, f"{MINE}.Comet", "--trainer.max_epochs=1"))
    (after,) = loggers(fit(tmp_path, f"{MINE}.Comet", "--ckpt_path=last"))
    assert before.kept != after.kept


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ((f"{MINE}.Unreachable",), "--trainer.logger: no answer"),
        (
            ("--trainer.logger=CometLogger", "--trainer.logger.api_key=hunter2"),
            "--trainer.logger.api_key must be left out",
        ),
        (
            ("--trainer.logger=MLFlowLogger", "--trainer.logger.tracking_uri=http://ann:hunter2@h"),
            "--trainer.logger.tracking_uri must be without a password",
        ),
    ],
)
def test_what_goes_wrong_is_one_line_without_secrets(tmp_path, capsys, options, line):
    assert main(toy_args("--output", str(tmp_path / "run"), *options)) == 2
    said = last_line(capsys)
    assert said.startswith(f"instructgpt: error: {line}")
    assert "hunter2" not in said


def test_runs_end_with_the_verb_and_not_with_python(tmp_path, monkeypatch, capsys):
    """A stage of a pipeline does not come to the end of Python, and W&B lost all of its run."""
    monkeypatch.setitem(sys.modules, "wandb", ModuleType("wandb"))
    names = [f"{{class_path: {__name__}.{kind}}}" for kind in ("Wandb", "Comet")]
    ENDS.clear()
    fit(tmp_path / "run", f"--trainer.logger=[{', '.join(names)}]", "--trainer.max_epochs=1")
    assert ENDS == [("wandb", 0), ("comet", 0)]
    ENDS.clear()
    assert main(toy_args("--output", str(tmp_path / "failed"), f"{MINE}.Unreachable")) == 2
    assert ENDS == [("wandb", 1)]
    sys.modules["wandb"].run = SimpleNamespace(id="of someone else")
    ENDS.clear()
    fit(tmp_path / "run", f"{MINE}.Comet", "--trainer.max_epochs=1")
    assert ENDS == [("comet", 0)]


def test_weights_and_biases_itself(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    asked = ("--trainer.logger=WandbLogger", f"--trainer.logger.save_dir={tmp_path}")
    fit(tmp_path / "run", *asked, "--trainer.max_epochs=1")
    fit(tmp_path / "run", *asked, "--ckpt_path=last")
    names = [path.stem for path in tmp_path.glob("wandb/offline-run-*/*.wandb")]
    assert len(names) == 2
    assert len(set(names)) == 1
    assert len(list(tmp_path.glob("wandb/offline-run-*/files/media/table/samples_*.json"))) == 2


def test_mlflow_itself(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    store = f"sqlite:///{tmp_path}/runs.db"
    asked = ("--trainer.logger=MLFlowLogger", f"--trainer.logger.tracking_uri={store}")
    asked += (f"--trainer.logger.artifact_location={tmp_path}/things",)
    fit(tmp_path / "run", *asked, "--trainer.max_epochs=1")
    fit(tmp_path / "run", *asked, "--ckpt_path=last")
    client = mlflow.MlflowClient(store)
    (run,) = client.search_runs([one.experiment_id for one in client.search_experiments()])
    history = client.get_metric_history(run.info.run_id, "val/loss")
    assert [metric.step for metric in history] == [5, 11]
    assert "samples.json" in [one.path for one in client.list_artifacts(run.info.run_id)]
    assert run.data.params["model.optimizer.lr"] == "0.05"
