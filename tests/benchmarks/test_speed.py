"""benchmarks/speed.py is fair: both sides do the same work, and it says so where they do not.

What is timed is run here at tiny shapes, in this process, for one unit each; no time is looked at.
TRL's side runs where trl is installed (the extra ``bench``).
"""

import json
from dataclasses import replace

import pytest
import speed
import speed_account
import speed_ours
import speed_peers
import speed_report
import speed_rows
import speed_turns
import speed_whole
from matplotlib import pyplot
from speed_data import EOS, SHAPES, prepare

ROWS = {row.name: row.tiny() for row in speed_rows.TABLE}
ROWS["rollout-llama"] = replace(ROWS["rollout"], shape="tiny-llama")


class Enough(BaseException):
    """One unit is done."""


class OneUnit(speed_turns.Turns):
    """Ends the work where a second unit would begin."""

    def __init__(self):
        super().__init__("cpu")
        self.units = []

    def begin(self):
        if self.units:
            raise Enough
        super().begin()

    def end(self, **fixed):
        counts = {name: int(number) for name, number in self.counts.items()}
        self.units.append({"counts": counts, **fixed})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("speed")


def made(row, folder):
    place = prepare(folder, row.shape, row.dtype, row.rows)
    return place, json.loads((place / "ids.json").read_text())


def ours(row, folder):
    turns, (place, _) = OneUnit(), made(row, folder)
    work = row.work(place, "cpu")
    with pytest.raises(Enough):
        (speed_ours.rollout if row.kind == "rollout" else speed_ours.train)(work, turns)
    return turns.units[0]


def peer(row, folder):
    turns, (place, rows) = OneUnit(), made(row, folder)
    work = row.work(place, "cpu", settings=row.settings[0])
    with pytest.raises(Enough):
        speed_peers.run(work, rows, turns)
    return turns.units[0]


WORK = ["ppo", "ppo-llama", "ppo-lora", "rollout", "reward-4", "reward-9", "dpo", "sft-16k"]
OF_PEERS = ["rollout", "rollout-llama", "reward-4", "dpo", "sft-16k"]


@pytest.mark.parametrize(
    ("side", "name"), [*[(ours, name) for name in WORK], *[(peer, name) for name in OF_PEERS]]
)
def test_each_side_does_the_work_that_the_row_says(side, name, folder):
    row = ROWS[name]
    if side is peer and row.peer == "trl":
        pytest.importorskip("trl", reason="TRL lives in an environment of its own")
    _, rows = made(row, folder)
    assert speed_rows.problems(row, rows, side(row, folder), peer=side is peer) == []


def test_other_work_is_named(folder):
    row = ROWS["sft-16k"]
    _, rows = made(row, folder)
    tokens = sum(len(one["prompt"]) + len(one["responses"][0]) for one in rows)
    targets = sum(len(one["responses"][0]) for one in rows)
    right = {"steps": row.steps, "targets": targets, "tokens": tokens}
    found = {"counts": right, "dtype": "float32"}
    assert speed_rows.problems(row, rows, found, peer=True) == []
    for name, number in right.items():
        wrong = {"counts": {**right, name: number + 1}, "dtype": "float32"}
        (line,) = speed_rows.problems(row, rows, wrong, peer=True)
        assert line == f"sft-16k, the peer: {name} must be {number}, got {number + 1}"
    (line,) = speed_rows.problems(row, rows, {**found, "dtype": "bfloat16"}, peer=False)
    assert line == "sft-16k, ours: dtype must be float32, got bfloat16"


def test_texts_and_ids_are_the_same_rows(folder):
    place, rows = made(ROWS["reward-4"], folder)
    texts = [json.loads(line) for line in (place / "rows.jsonl").read_text().splitlines()]
    for row, text in zip(rows, texts, strict=True):
        assert [int(word[1:]) for word in text["prompt"].split()] == row["prompt"]
        for ids, response in zip(row["responses"], text["responses"], strict=True):
            assert [*(int(word[1:]) for word in response.split()), EOS] == ids


def test_the_account_of_a_rollout_by_hand():
    row = ROWS["rollout"]
    # 12 d^2 weights a layer, d = 48, 2 layers; 3 + 2 tokens, which see 1 + 2 + 3 and 4 + 5 keys.
    body, head = 12 * 48 * 48 * 2, 48 * SHAPES["tiny"]["vocab_size"]
    rows = [{"prompt": [3, 4, 5], "answer": 2, "responses": []}]
    flop, moved = speed_account.account(row, rows)["sample"]
    assert flop == 2 * body * 5 + 4 * 48 * 2 * 15 + 2 * head * 2
    assert moved == 2 * 4 * (body + head)  # two steps read all weights
    machine = {"peak_gflops": 1e-9, "gigabytes_per_second": 1e-9}  # one a second of each
    assert speed_account.bound({"sample": (flop, moved)}, machine) == max(flop, moved)


def test_a_prompt_counts_once_for_all_its_responses():
    row = ROWS["reward-4"]
    rows = [{"prompt": [3, 4], "answer": 1, "responses": [[EOS], [5, EOS]]}]
    body = 12 * 48 * 48 * 2
    flop, _ = speed_account.account(row, rows)["update"]
    assert flop == 3 * (2 * body * 5 + 4 * 48 * 2 * (3 + 3 + 3 + 4))


def test_a_table_takes_the_place_of_the_old_one(tmp_path):
    page = tmp_path / "page.md"
    start, end = speed_report.MARKS
    page.write_text(f"before\n{start}\n| old |\n{end}\nafter\n")
    side = {"cpu_seconds": 1.0, "seconds": 1.0, "n": 4}
    row = {
        "about": "work",
        "ours": side,
        "peer": {"name": "trl", "setting": {"micro": 1}, "cpu_seconds": 3.0},
        "speed": [3.0, 2.5, 3.5],
        "memory": 0.5,
        "account": {"share_of_peak": 0.66},
        "aim": {"speed": 2.5, "memory": 0.4, "share": None},
    }
    table = list(speed_report.lines({"rows": {"dpo": row}}))
    speed_report.put_in(page, table)
    text = page.read_text()
    compared = "**3.00** [2.50, 3.50], n = 4 (≥ 2.5) | 0.50 (≤ 0.4, missed) | 66%"
    line = f"| work | TRL 1.16 (micro 1) | 1 | 3 | {compared} |"
    assert text == "\n".join(["before", start, *table, end, "after\n"])
    assert table[-1] == line


RESULTS = {
    device: json.loads((speed.HERE / "results" / name).read_text())
    for device, name in (("cpu", "speed.json"), ("cuda", "speed_cuda.json"))
}


@pytest.mark.parametrize("page", speed_report.PAGES, ids=lambda page: page.name)
def test_the_pages_say_what_the_results_say(page):
    text = page.read_text()
    shown = speed_report.tables(RESULTS["cpu"])
    shown |= {speed_report.OF_GPU: list(speed_report.on_gpu(RESULTS["cuda"]))}
    found = {marks: table for marks, table in shown.items() if marks[0] in text}
    assert speed_report.MARKS in found
    for (start, end), table in found.items():
        assert "\n".join([start, *table, end]) in text


def test_every_row_has_been_measured_beside_its_peer():
    rows = RESULTS["cpu"]["rows"]
    assert set(rows) == {*(row.name for row in speed_rows.TABLE), *speed.WHOLE}
    for row in speed_rows.TABLE:
        found = rows[row.name]
        aim = {"speed": row.aim, "memory": row.memory, "share": row.share}
        assert (found["aim"], found["peer"]["name"]) == (aim, row.peer)
        assert found["peer"]["setting"] in row.settings
        assert min(found["ours"]["n"], found["peer"]["n"]) >= 5
        assert {"speed", "memory", "account", "machine"} <= set(found)
    for found in rows["scaling"]["series"].values():
        assert found["slope"]
        assert found["expected_slope"]


def test_the_machine_of_each_row_is_said():
    rows = {"a": {"about": "one", "machine": "X"}, "b": {"about": "two", "machine": "Y"}}
    rows |= {"c": {"about": "three", "machine": "Y", "ours": {"n": 4}}}
    first_look = "Rows with an n below five are a first look, while other work ran."
    line = speed_report.measured_on({"machine": {"name": "X"}, "rows": rows})
    assert line == f"On Y; one core, one thread. On X: one. {first_look}"


def test_unfair_rows_are_not_kept_and_the_others_are_at_once(tmp_path, monkeypatch, capsys):
    """The command goes on after a side that fails, and later measures what is missing only."""
    output, asked = tmp_path / "speed.json", []

    def measure(row, options):
        asked.append(row.name)
        if row.name == "reward-4":
            raise SystemExit("it failed")
        assert output.exists() == (row.name == "reward-9")  # written when the row is there
        found = RESULTS["cpu"]["rows"][row.name]
        return dict(found), ["tokens must be 2, got 1"] if row.name == "reward-9" else []

    def command(*args):
        asked.clear()
        more = [f"--output={output}", f"--runs={tmp_path / 'runs'}"]
        monkeypatch.setattr("sys.argv", ["speed.py", *args, *more])
        speed.main()

    monkeypatch.setattr(speed, "measure", measure)
    monkeypatch.setattr(speed, "machine", lambda options: {"name": "this one"})
    three = ["reward-4", "dpo", "reward-9"]
    with pytest.raises(SystemExit, match=r"kept of:\nreward-4: it failed\ntokens must be 2, got 1"):
        command(*three)
    assert asked == three
    with pytest.raises(SystemExit):
        command(*three, "--missing")
    assert asked == ["reward-4", "reward-9"]
    kept = json.loads(output.read_text())
    assert kept["rows"]["dpo"]["machine"] == kept["machine"]["name"] == "this one"
    assert list(kept["rows"]) == ["dpo"]
    command("dpo", "--minutes=1e-9")
    assert not asked
    assert "dpo: left out, 1e-09 minutes are over" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command("reward-5")
    assert "got reward-5" in capsys.readouterr().err


def test_a_slope_is_the_power():
    points = [{"x": x, "seconds": 3 * x**1.5} for x in (2.0, 5.0, 7.0)]
    assert speed_whole.slope_of(points, "seconds") == 1.5
    assert speed_whole.slope_of(points[:1], "seconds") is None


def test_the_plot_has_each_series_beside_its_expected_slope(tmp_path):
    speed_report.plot(speed_report.in_order(RESULTS["cpu"]), tmp_path / "speed.png")
    bars, *others = pyplot.gcf().axes
    pyplot.close()
    names = [label.get_text() for label in bars.get_yticklabels()]
    assert names == [row.name for row in speed_rows.TABLE]
    series = RESULTS["cpu"]["rows"]["scaling"]["series"]
    assert [axis.get_xlabel() for axis in others] == [*series]
    for axis, found in zip(others, series.values(), strict=True):
        assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
        measured, expected = axis.get_lines()
        assert measured.get_label() == f"measured, slope {found['slope']}"
        assert expected.get_label() == f"useful FLOP, slope {found['expected_slope']}"
        flop = [point["useful_gflop"] for point in found["points"]]
        ratios = [y / one for y, one in zip(expected.get_ydata(), flop, strict=True)]
        assert ratios == pytest.approx([ratios[0]] * len(flop))
