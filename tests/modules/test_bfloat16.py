"""What fit says of bfloat16 on a CPU."""

# ruff: noqa: E501  one case a line reads best

import re

import pytest
import torch
from toy_stage import fit

from instructgpt.modules.bfloat16 import bfloat16_lines

FLOAT32, BFLOAT16 = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("network", "precision", "seconds", "line"),
    [
        (FLOAT32, "bf16-mixed", (0.0044, 0.002), "2.2 times as fast as float32 on this CPU (one product of 512 x 512)"),
        (FLOAT32, "bf16-mixed", (0.003, 0.12), "40 times slower than float32 on this CPU (one product of 512 x 512): leave --trainer.precision out"),
        (BFLOAT16, "bf16-true", (0.003, 0.6), "200 times slower than float32 on this CPU (one product of 512 x 512): leave --trainer.precision out"),
        (BFLOAT16, "32-true", (0.003, 0.12), "40 times slower than float32 on this CPU (one product of 512 x 512): leave --model.network.dtype out"),
    ],
)  # fmt: skip
def test_it_is_compared_with_float32(network, precision, seconds, line):
    takes = dict(zip((torch.float32, torch.bfloat16), seconds, strict=True))
    assert bfloat16_lines(network, precision, "cpu", takes.get) == [("bfloat16", line)]


@pytest.mark.parametrize(
    ("network", "precision", "device"),
    [(FLOAT32, "32-true", "cpu"), (FLOAT32, "16-mixed", "cpu"), (BFLOAT16, "bf16-true", "cuda")],
)
def test_nothing_is_measured_without_it_or_elsewhere(network, precision, device):
    def seconds(dtype):
        raise AssertionError("measured")

    assert bfloat16_lines(network, precision, device, seconds) == []


@pytest.mark.parametrize("options", [["--trainer.precision=bf16-mixed"], []])
def test_fit_measures_and_says_it(tmp_path, capsys, options):
    fit(tmp_path, "--trainer.max_steps=1", *options)
    said = [line for line in capsys.readouterr().out.splitlines() if "bfloat16" in line]
    assert len(said) == len(options)
    for line in said:
        assert re.match(r"  bfloat16 +[\d.]+ times (as fast as|slower than) float32 on ", line)
