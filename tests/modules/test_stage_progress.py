"""What the terminal says of a running stage: time left, tokens a second, seconds of the parts."""

import re
from types import SimpleNamespace

import pytest
from small_ppo import make

from instructgpt.callbacks.progress import Lines, StageProgress
from instructgpt.callbacks.throughput import Throughput
from instructgpt.modules import ppo
from instructgpt.modules.clock import RolloutClock, time_left
from instructgpt.modules.sft import SFTModule

ROLLOUT, UPDATE = 50.0, 10.0  # seconds


@pytest.fixture
def now(monkeypatch):
    """A clock that the test moves."""
    clock = [0.0]
    for module in ("callbacks.progress", "modules.clock"):
        fake = SimpleNamespace(monotonic=lambda: clock[0])
        monkeypatch.setattr(f"instructgpt.{module}.time", fake)
    monkeypatch.setattr(StageProgress, "_due", lambda self: True)
    monkeypatch.setattr("instructgpt.callbacks.progress.display", lambda: Lines(seconds=0))
    return clock


def seconds_left(text):
    """Of the lines of the fit: step and seconds left."""
    found = re.findall(r"^fit (\d+)/\d+ .*?(?:(\d):(\d\d):(\d\d) left|$)", text, re.MULTILINE)
    return [(int(n), int(h or 0) * 3600 + int(m or 0) * 60 + int(s or 0)) for n, h, m, s in found]


def test_time_left_counts_the_rollouts_to_come(
    now, monkeypatch, capsys, policy_artefact, prompt_data, fit
):
    """3 phases of a rollout (50 s) and 2 updates (10 s each) take 210 s.

    By its steps alone a run would promise 5 * 60 = 300 s after the first of them, and is 150 s from
    its end.
    """
    collect, step = ppo.PPOModule.collect, ppo.PPOModule.training_step

    def slow_collect(module, phase):
        for part in (1, 2):
            now[0] += ROLLOUT / 2
            module.progress("sample", part, 2)
        return collect(module, phase)

    def slow_step(self, rows, batch_idx):
        now[0] += UPDATE
        return step(self, rows, batch_idx)

    monkeypatch.setattr(ppo.PPOModule, "collect", slow_collect)
    monkeypatch.setattr(ppo.PPOModule, "training_step", slow_step)
    module = make(policy_artefact)
    options = {"max_epochs": 3, "callbacks": [StageProgress()], "enable_progress_bar": True}
    fit(module, prompt_data(), **options)
    told = seconds_left(capsys.readouterr().out)
    ends = {step: step * UPDATE + -(-step // 2) * ROLLOUT for step in range(1, 7)}
    for number in range(1, 7):
        assert (number, 210 - ends[number]) in told
    assert (2, 210 - 70 - 25) in told, "in the middle of the second rollout"
    assert (2, 210 - 70 - 50) in told, "at its end"


def test_time_left_in_numbers():
    """4 steps and 1.5 rollouts of 8 s took 20 s: 2 s a step, and half a rollout less to come."""
    clock = RolloutClock()
    assert time_left(0, 10, 5.0, clock, 0) is None
    assert time_left(4, 6, 20.0, clock, 0) == 30.0
    assert time_left(4, 6, 20.0, clock, 2) is None, "nobody knows what a rollout takes"
    clock.before = 7.0  # of before an interruption
    assert time_left(4, 6, 20.0, clock, 2) == 30.0 + 14.0
    clock.spent, clock.count = 8.0, 1
    assert time_left(4, 6, 16.0, clock, 2) == 6 * 2 + 2 * 8


def test_a_phase_says_seconds_and_tokens_of_its_parts(
    now, capsys, policy_artefact, prompt_data, fit
):
    module = make(policy_artefact)
    options = {"max_epochs": 2, "callbacks": [StageProgress()], "enable_progress_bar": True}
    trainer = fit(module, prompt_data(), **options)
    last = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fit 4/4")][-1]
    found = re.search(
        r"sampling ([\d.]+) s \(([\d,]+) tokens/s\), scoring ([\d.]+) s, "
        r"updates ([\d.]+) s \(([\d,]+) tokens/s\)$",
        last,
    )
    assert found, last
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    tokens = metrics["ppo/response_length"] * 8
    sampled, trained = (float(found[i].replace(",", "")) for i in (2, 5))
    assert sampled == pytest.approx(tokens / metrics["time/sample"], abs=0.5)
    passes = module.algorithm.epochs
    assert trained == pytest.approx(passes * tokens / metrics["time/update"], rel=1e-3, abs=0.5)


def test_supervised_stages_say_tokens_a_second(
    now, capsys, gpt2, policy_artefact, demonstration_data, fit
):
    module = SFTModule(architecture=gpt2, validation_prompts=0)
    callbacks = [Throughput(), StageProgress()]
    options = {"max_epochs": 1, "callbacks": callbacks, "enable_progress_bar": True}
    fit(module, demonstration_data(batch_size=4), **options)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fit ")]
    assert "tokens/s" not in lines[0], "nothing is known yet"
    rates = [re.search(r"([\d,]+) tokens/s$", line) for line in lines[1:]]
    assert rates
    assert all(rate and float(rate[1].replace(",", "")) > 0 for rate in rates)
