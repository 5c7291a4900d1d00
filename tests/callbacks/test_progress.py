"""Progress for terminals and for log files."""

import io
import time

from rich.console import Console
from toy_stage import ToyModule, fit

from instructgpt.callbacks.progress import Bars, Lines, StageProgress, _rate
from instructgpt.terminal import duration


def test_lines_come_at_intervals_with_rate_and_time_left(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lines = Lines(seconds=10)
    for done in range(0, 31):  # two steps a second
        now[0] = done / 2
        lines.show("fit", done, 100, "loss 1")
    # at 10 s: 20 steps done, 80 left at 2/s = 40 s
    assert capsys.readouterr().out == "fit 20/100  2.0/s  0:00:40 left  loss 1\n"


def test_lines_of_a_resumed_run_count_its_own_steps(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lines = Lines(seconds=10)
    lines.show("fit", 1000, 1100)
    now[0] = 20.0
    lines.show("fit", 1010, 1100)  # 10 steps in 20 s, 90 left: 180 s
    assert capsys.readouterr().out == "fit 1010/1100  2.0s each  0:03:00 left\n"


def test_a_total_that_is_not_known(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lines = Lines(seconds=1)
    lines.show("fit", 0, None)
    now[0] = 2.0
    lines.show("fit", 6, None)
    assert capsys.readouterr().out == "fit 6/?  3.0/s\n"


def test_the_time_left_that_is_told_is_shown(capsys):
    lines = Lines(seconds=0)
    lines.show("fit", 1, 10, "loss 1", left=3725.0)
    assert capsys.readouterr().out == "fit 1/10  1:02:05 left  loss 1\n"
    screen = io.StringIO()
    bars = Bars(Console(file=screen, force_terminal=True, width=120))
    bars.show("fit", 1, 10, left=3725.0)
    bars.close()
    assert "1:02:05" in screen.getvalue()


def test_bars_show_both_tasks():
    screen = io.StringIO()
    bars = Bars(Console(file=screen, force_terminal=True, width=120))
    bars.show("fit", 1, 10)
    bars.show("  sampling", 3, 4)
    bars.show("fit", 2, 10, "loss 0.5")
    bars.close()
    text = screen.getvalue()
    assert "sampling" in text
    assert "3/4" in text
    assert "2/10" in text
    assert "loss 0.5" in text


def test_numbers():
    assert (_rate(None), _rate(2.5), _rate(0.25)) == ("", "2.5/s", "4.0s each")
    assert duration(3725) == "1:02:05"


class Recorder:
    def __init__(self):
        self.shown, self.hidden, self.closed = [], [], 0

    def show(self, name, done, total, note="", left=None):
        self.shown.append((name, done, total))

    def hide(self, name):
        self.hidden.append(name)

    def close(self):
        self.closed += 1


def test_the_fit_is_counted_in_steps_and_parts_get_a_bar_of_their_own(tmp_path, monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr("instructgpt.callbacks.progress.Lines", lambda: recorder)
    monkeypatch.setattr(StageProgress, "_due", lambda self: True)
    step = ToyModule.training_step

    def with_parts(self, batch, batch_idx):
        for done in (1, 2):
            self.progress("sampling", done, 2)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(ToyModule, "training_step", with_parts)
    fit(tmp_path, "--trainer.accumulate_grad_batches=3")  # 2 steps an epoch, 2 epochs
    fits = [entry for entry in recorder.shown if entry[0] == "fit"]
    assert fits[0] == ("fit", 0, 4)
    assert fits[-1] == ("fit", 4, 4)
    assert ("  sampling", 1, 2) in recorder.shown
    assert "  sampling" in recorder.hidden
    assert ("  validation", 3, 3) in recorder.shown
    assert recorder.closed
