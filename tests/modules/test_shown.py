"""Completions and figures in loggers other than TensorBoard's, by Lightning's own interfaces."""

import inspect

import numpy as np
import torch
from lightning.pytorch.loggers import CometLogger, CSVLogger, MLFlowLogger, WandbLogger
from lightning.pytorch.loggers.logger import DummyExperiment, DummyLogger, Logger
from toy_stage import fit

from instructgpt.modules.ranking_metrics import reliability_figure
from instructgpt.modules.shown import SHOWN_CHARACTERS, show_figure, show_table

ROWS = [
    {"prompt": "Pig?", "response": "<b>x</b>\n| y" * 1000, "score": 0.123456, "finished": True},
    {"prompt": "Owl?", "response": "", "score": None, "finished": False},
]
COLUMNS = ["prompt", "response", "score", "finished"]
CELLS = [
    ["Pig?", ROWS[0]["response"][:SHOWN_CHARACTERS], 0.123456, True],
    ["Owl?", "", None, False],
]


class Calls:
    """Writes down what is called, by name."""

    def __init__(self):
        self.made = []

    def __getattr__(self, name):
        return lambda *args, **given: self.made.append((name, args, given))


class Bare(Logger):
    """What Lightning asks of a logger, and no more."""

    def __init__(self, save_dir: str = ""):
        super().__init__()
        self.calls = Calls()

    name, version, experiment = "bare", 0, None

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params, *args, **kwargs):
        pass


class Wandb(Bare):
    """Also with the methods by which WandbLogger shows things, called as there."""

    def log_table(self, key, columns=None, data=None, dataframe=None, step=None):
        self.calls.log_table(key, columns, data, step)

    def log_image(self, key, images, step=None, **kwargs):
        self.calls.log_image(key, images, step)


class TablesOnly(Bare):
    log_table = Wandb.log_table


class MLFlow(MLFlowLogger):
    run_id, experiment = "r1", None

    def __init__(self):
        self.experiment = self.calls = Calls()


class Comet(CometLogger):
    experiment = None

    def __init__(self):
        self.experiment = self.calls = Calls()


def shown(logger):
    """What a logger was asked to show."""
    drawn = []

    def draw():
        drawn.append(reliability_figure(torch.tensor([0.3, -0.2])))
        return drawn[-1]

    show_table([logger], "samples", ROWS, 7)
    show_figure([logger], "val/reliability", draw, 7)
    return logger.calls.made, drawn


def test_the_stand_in_has_the_methods_of_wandb():
    for name in ("log_table", "log_image"):
        ours, theirs = (inspect.signature(getattr(kind, name)) for kind in (Wandb, WandbLogger))
        assert list(ours.parameters) == list(theirs.parameters)


def test_what_has_the_methods_of_wandb_gets_a_table_and_an_image():
    (table, image), _ = shown(Wandb())
    assert table == ("log_table", ("samples", COLUMNS, CELLS, 7), {})
    name, (key, (pixels,), step), _ = image
    assert (name, key, step) == ("log_image", "val/reliability", 7)
    assert pixels.shape == (420, 500, 3)
    assert pixels.dtype == np.uint8
    assert 0 < (pixels < 128).mean() < 0.2  # ink on paper


def test_mlflow_gets_artifacts_of_its_run():
    (table, figure), drawn = shown(MLFlow())
    data = {name: [row[i] for row in CELLS] for i, name in enumerate(COLUMNS)}
    assert table == ("log_table", ("r1",), {"data": data, "artifact_file": "samples.json"})
    assert figure == ("log_figure", ("r1", drawn[0], "val/reliability-7.png"), {})


def test_comet_gets_a_table_a_step():
    (table, figure), drawn = shown(Comet())
    given = {"tabular_data": CELLS, "headers": COLUMNS}
    assert table == ("log_table", ("samples-7.csv",), given)
    given = {"figure_name": "val/reliability", "figure": drawn[0], "step": 7}
    assert figure == ("log_figure", (), given)


def test_nothing_is_drawn_that_nobody_shows(tmp_path):
    assert shown(Bare()) == ([], [])
    assert [name for name, *_ in shown(TablesOnly())[0]] == ["log_table"]
    show_table([CSVLogger(tmp_path)], "samples", ROWS, 7)
    show_table([DummyLogger()], "samples", ROWS, 7)
    assert isinstance(DummyLogger().experiment, DummyExperiment)


def test_a_run_says_what_its_logger_will_not_show(tmp_path, caplog):
    caplog.set_level("INFO")
    fit(tmp_path / "a", f"--trainer.logger={__name__}.Bare")
    line = "Bare shows no completions and no figures; completions are in"
    assert caplog.messages.count(f"{line} {tmp_path}/a/samples.jsonl") == 1
    fit(tmp_path / "b", f"--trainer.logger={__name__}.TablesOnly")
    assert caplog.messages.count("TablesOnly shows no figures") == 1
    caplog.clear()
    fit(tmp_path / "c", f"--trainer.logger={__name__}.Wandb")
    assert "shows no" not in caplog.text
