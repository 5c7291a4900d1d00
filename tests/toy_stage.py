"""A stage and its data that cost nothing, for tests of the command line and of the callbacks."""

import json
import random
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from instructgpt.algorithms.schedule import Constant, Schedule
from instructgpt.cli import StageCLI, main
from instructgpt.data.base import StageData
from instructgpt.models.load import Network
from instructgpt.modules.base import Monitor, StageModule
from instructgpt.types import LanguageBatch, UserError


class ToyRow(NamedTuple):
    values: torch.Tensor  # [5]; the last is 1 for a real row

    def blank(self):
        return ToyRow(torch.zeros(5))


def stack(rows):
    return torch.stack([row.values for row in rows])


class ToyData(StageData):
    """Rows of numbers.

    Args:
        train: not read.
        tokenizer: filled from the model.
        rows: how many.
        batch_size: rows per process and step.
        seed: of the order.
    """

    batch_type = torch.Tensor
    parse = None

    def __init__(
        self,
        train: str,
        tokenizer: str | None = None,
        rows: int = 12,
        batch_size: int = 2,
        seed: int = 0,
    ):
        LightningDataModule.__init__(self)
        self.count, self.batch_size, self.seed = rows, batch_size, seed
        self.tokenizer_name, self.num_workers, self.template = tokenizer, 0, None
        self.origins, self._streamed, self.streaming = {}, None, False

    def build(self, summary: Any, predict: bool) -> None:
        raise NotImplementedError

    @property
    def collate(self):
        return stack

    def setup(self, stage: str) -> None:
        generator = torch.Generator().manual_seed(0)
        self.tokenizer = None
        values = torch.randn(self.count, 5, generator=generator)
        values[:, 4] = 1
        self.train_rows = [ToyRow(row) for row in values]
        self.validation_rows = self.train_rows[:5]

    def train_dataloader(self):
        def order(epoch):
            rows = list(range(self.count))
            random.Random(self.seed * 1000 + epoch).shuffle(rows)
            return rows

        return self.loader(self.train_rows, order)


class OtherToyData(ToyData):
    """Does not fit ToyModule."""

    batch_type = LanguageBatch


class ToyModule(StageModule):
    """A linear map with dropout.

    Args:
        init_from: not used.
        architecture: not used.
        tokenizer: not used.
        network: not used.
        optimizer: makes the optimizer.
        schedule: of the learning rate.
        wrong: value of an option that must be positive.
        seed: of nothing.
    """

    stage = "toy"
    batch_type = predict_type = torch.Tensor
    data_module = predict_data = "ToyData"
    monitor = Monitor("val/loss", "min")

    def __init__(
        self,
        init_from: str | None = None,
        architecture: dict[str, Any] | None = None,
        tokenizer: str | None = None,
        network: Network = Network(),
        optimizer: OptimizerCallable = lambda p: torch.optim.SGD(p, lr=0.05),
        schedule: Schedule = Constant(),
        wrong: float = 1.0,
        seed: int = 0,
    ):
        if init_from is None:
            architecture = {"not": "used"}
        super().__init__(init_from, architecture, tokenizer, network, None, optimizer, schedule)
        if wrong <= 0:
            raise UserError(f"model.wrong must be > 0, got {wrong}")
        self.finalized, self.seed = 0, seed

    def text_format(self):
        return {}

    def build(self) -> None:
        self.layer = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 1))

    def trained_networks(self):
        return [self.layer]

    def error(self, batch):
        error = (self.layer(batch[:, :4]).squeeze(1) - 1).square()
        return (error * batch[:, 4]).sum(), batch[:, 4].sum()

    def training_step(self, batch, batch_idx):
        return self.summed_loss(*self.error(batch))

    def validation_step(self, batch, batch_idx):
        total, count = self.error(batch)
        self.log("val/loss", total / count.clamp_min(1), batch_size=len(batch), sync_dist=True)
        for row in batch:
            prompt = f"a|{row[0]:.3f}"
            self.samples.append({"step": self.global_step, "prompt": prompt, "score": 0.5})

    def predict_step(self, batch, batch_idx):
        self.progress("guessing", 1, 2)
        return [{"value": round(float(row[0]), 6)} for row in batch if row[4]]

    def finalize(self) -> None:
        self.finalized += 1

    def export(self, path, config, metrics) -> None:
        path.mkdir(parents=True, exist_ok=True)
        torch.save(self.layer.state_dict(), path / "weights.pt")
        (path / "README.md").write_text("---\nlicense: unknown\n---\n")
        (path / "instructgpt.json").write_text(json.dumps({"config": config, "metrics": metrics}))


def toy_args(*more: str) -> list[str]:
    """A fit of two epochs of six batches."""
    start = ["fit", "--model", "ToyModule", "--data", "ToyData", "--data.train", "x"]
    return [*start, "--trainer.accelerator", "cpu", "--trainer.max_epochs", "2", *more]


def fit(output: object, *more: str) -> StageCLI:
    """Fit the toy into a folder."""
    return main(toy_args("--output", str(output), *more))
