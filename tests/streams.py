"""Numbers to stream, and a model that writes down what it is given."""

import torch
from lightning.pytorch import Callback, LightningModule

from instructgpt.data.opening import Item
from instructgpt.data.shuffled import ShuffledSet


class Numbers:
    """A source of some numbers, which counts how many were read."""

    def __init__(self, numbers):
        self.numbers, self.read = list(numbers), 0

    def open(self, mark):
        return Opened(self, mark or 0)


class Opened:
    def __init__(self, source, place):
        self.source, self.place = source, place

    def __iter__(self):
        for number in self.source.numbers[self.place :]:
            self.place += 1
            self.source.read += 1
            yield Item(f"{number}", "numbers", number)

    def mark(self):
        return self.place


def stream(buffer=7, seed=0, files=((0, 20), (20, 23), (23, 50))):
    return ShuffledSet([Numbers(range(*span)) for span in files], buffer, seed, 0)


class Recorder(LightningModule):
    """Trains a single number and writes down its batches."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch)
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class SaveAll(Callback):
    """Saves after every batch."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_end(self, trainer, *args):
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")
