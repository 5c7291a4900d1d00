"""Tokens a second count those of all batches and ranks."""

import time
from types import SimpleNamespace

import torch

from instructgpt.callbacks.throughput import Throughput
from instructgpt.types import LanguageBatch, flat_rows


def test_tokens_of_all_ranks_count(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    logged = []
    logger = SimpleNamespace(log_metrics=lambda values, step: logged.append((values, step)))
    trainer = SimpleNamespace(
        log_every_n_steps=2,
        global_step=7,
        loggers=[logger],
        strategy=SimpleNamespace(reduce=lambda value, reduce_op: 2 * value),  # two ranks
    )
    batch = LanguageBatch(flat_rows([[4, 5], [6]]), torch.tensor([False, True, False]))
    throughput = Throughput()
    throughput.on_train_start(trainer, None)
    for index in range(2):
        now[0] += 1.5
        throughput.on_train_batch_end(trainer, None, None, batch, index)
    # 3 tokens x 2 batches x 2 ranks in 3 seconds
    assert logged == [({"tokens_per_second": 4.0}, 7)]
