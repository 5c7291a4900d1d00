"""Time left, and what is shown of it."""

import io

import pytest
from rich.console import Console

from instructgpt.callbacks import progress as callbacks
from instructgpt.commands.functions import FUNCTIONS
from instructgpt.pipeline.board import LiveBoard, PlainBoard, Running, Status
from instructgpt.pipeline.forecast import Forecast, estimates, seconds_left
from instructgpt.pipeline.spec import read_spec

STATUS = Status(
    0.25, 61.0, 3600.0, [Running("a [b]x[/b] \\[", 5.0, "fit 1/2 [/not markup] [red]" + "y" * 300)]
)


def test_two_places_for_four_stages():
    """a ends at 1; then b and c until 3; then d: 4, or 5 with one place after another."""
    waiting = {"b": (2.0, ["a"]), "c": (2.0, ["a"]), "d": (1.0, ["b"])}
    assert seconds_left({"a": 1.0}, waiting, 2) == 4.0
    assert seconds_left({"a": 1.0}, waiting, 1) == 6.0
    assert seconds_left({"a": 1.0}, waiting, 9) == 4.0


def test_a_stage_with_threads_takes_as_many_places():
    """a until 1; b alone until 3, in both places; then c and d: 5. If b takes one: 3."""
    waiting = {"b": (2.0, []), "c": (2.0, []), "d": (1.0, ["a"])}
    assert seconds_left({"a": 1.0}, waiting, 2, {"b": 2}) == 5.0
    assert seconds_left({"a": 1.0}, waiting, 2) == 3.0
    assert seconds_left({"b": 2.0}, {"c": (2.0, [])}, 2, {"b": 2}) == 4.0


def test_a_stage_that_waits_for_nothing_here_does_not_hang():
    assert seconds_left({}, {"b": (2.0, ["c"]), "c": (1.0, ["b"])}, 2) == 0.0
    assert seconds_left({}, {}, 2) == 0.0


@pytest.mark.parametrize(
    ("costs", "measured", "expected"),
    [
        ({"a": 1.0, "b": 2.0}, {}, {"a": 1.0, "b": 2.0}),
        ({"a": 1.0, "b": 2.0, "c": 4.0}, {"a": 3.0, "b": 3.0}, {"a": 3.0, "b": 3.0, "c": 8.0}),
        ({"a": None, "b": None}, {"a": 3.0}, {"a": 3.0, "b": 3.0}),
        ({"a": None, "b": 10.0}, {"a": 3.0}, {"a": 3.0, "b": 10.0}),
        ({"a": None}, {}, {"a": 1.0}),
    ],
)
def test_costs_are_put_on_the_scale_of_what_was_measured(costs, measured, expected):
    assert estimates(costs, measured) == expected


class Told:
    """A child with a log."""

    def __init__(self, seconds, *lines):
        self.seconds, self._lines = seconds, list(lines)

    def lines(self):
        return self._lines


def test_steps_in_the_log_tell_how_long_a_stage_takes(toy):
    """Costs 10, 10, 20. Resumed at step 50 after 2 s, 75 after 7 s: 5 s more for the last 25.

    So b takes 12 s instead of 10, and c (24 + 0) is scaled by (9 + 12) / 20: 21 s.
    """
    text = "stages: {a: {verb: fit, cost: 10}, b: {verb: fit, cost: 10}, c: {verb: fit, cost: 20,"
    spec = read_spec(toy.write(text + " options: {x: '{b}'}}}"), FUNCTIONS)
    progress = Forecast(spec, list(spec.stages), {"a": 9.0})
    first = progress.status({"b": Told(2.0, "plan", "fit 50/100  9/s")}, ["c"], 11.0)
    assert first.left == pytest.approx((9 - 2) + 20 * 0.9)
    status = progress.status({"b": Told(7.0, "fit 75/100  5/s", "  validation 1/2")}, ["c"], 16.0)
    assert status.left == pytest.approx(5 + 21)
    assert status.fraction == pytest.approx((9 + 7) / (9 + 7 + 5 + 21))
    assert status.running == [Running("b", 7.0, "validation 1/2")]
    late = progress.status({"b": Told(50.0, "fit 75/100")}, ["c"], 59.0)
    assert late.fraction >= status.fraction, "the bar does not go back"


def test_a_stage_that_says_how_long_it_takes_is_believed(toy):
    """PPO counts its rollouts: 60 s at 10 s, and 40 s later, without another such line, 20 s."""
    spec = read_spec(toy.write("stages: {a: {verb: fit}}"), FUNCTIONS)
    progress, line = Forecast(spec, ["a"], {}), "fit 5/10  2.0s each  0:01:00 left  loss 1"
    assert progress.status({"a": Told(10.0, line)}, [], 10.0).left == pytest.approx(60)
    log = [line, "  sample 7/60  9.0/s  0:00:06 left"]
    assert progress.status({"a": Told(50.0, *log)}, [], 50.0).left == pytest.approx(20)
    log += ["fit 6/10  2.0s each  0:00:30 left  loss 1"]
    assert progress.status({"a": Told(51.0, *log)}, [], 51.0).left == pytest.approx(30)


def test_the_example_of_the_data_is_no_news(toy):
    spec = read_spec(toy.write("stages: {a: {verb: fit}}"), FUNCTIONS)
    log = Told(3.0, "  example:", "    | Say moo.", "    | ")
    running = Forecast(spec, ["a"], {}).status({"a": log}, [], 3.0).running
    assert running == [Running("a", 3.0, "example:")]


def test_nothing_is_promised_before_anything_is_known(toy):
    spec = read_spec(toy.write("stages: {a: {verb: fit}, b: {verb: fit}}"), FUNCTIONS)
    status = Forecast(spec, ["a", "b"], {}).status({"a": Told(9.0)}, ["b"], 9.0)
    assert (status.fraction, status.left) == (0.0, None)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_screen_shows_any_text_as_it_is_and_keeps_to_its_width(width):
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=width, color_system=None)
    screen = LiveBoard(console)
    screen.say("start [bold]a[/bold] [/x]")
    screen.update(STATUS)
    screen.close()
    shown = text.getvalue().replace("\x1b[?25l", "").split("\r")[0]
    first, bar, stage = shown.split("\n")
    assert first == "start [bold]a[/bold] [/x]"
    assert "25%  0:01:01" in bar
    assert ("1:00:00 left" in bar) == (width >= 80)
    assert stage.startswith("a [b]x[/b] \\[  0:00:05  fit 1/2 [/no")
    assert stage.endswith("…")
    assert len(stage) == width
    assert len(bar.rstrip()) <= width


def test_lines_come_now_and_then(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("instructgpt.pipeline.board.time.monotonic", lambda: now[0])
    lines = PlainBoard(seconds=15.0)
    for now[0] in (1.0, 14.9, 15.0, 16.0, 29.9, 30.0):
        lines.update(STATUS._replace(running=[Running("a", now[0], "fit [/x]")]))
    shown = capsys.readouterr().out.splitlines()
    assert shown == [
        "  a 0:00:15  fit [/x]",
        "  25% done, about 1:00:00 left",
        "  a 0:00:30  fit [/x]",
        "  25% done, about 1:00:00 left",
    ]


def test_a_stage_tells_its_steps_as_often_as_the_pipeline_asks(monkeypatch):
    assert callbacks.Lines().seconds == callbacks.LINE_SECONDS
    monkeypatch.setenv("INSTRUCTGPT_LINE_SECONDS", "2")
    assert callbacks.Lines().seconds == 2.0
    assert callbacks.Lines(seconds=0.0).seconds == 0.0
