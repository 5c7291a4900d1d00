"""The bands in which the metrics of a recipe move, from some runs of it with other seeds.

    python benchmarks/bands.py RUN RUN … --recipe configs/sft.yaml [--metrics val/loss …]

Writes ``bands/NAME.json`` beside the recipe and names it there (``bands: bands/NAME.json``), so
that ``fit`` shows them. All runs must have had the same options, but for their seeds. Rows, and
weights that were downloaded, become part of what the bands hold for if they were the same in all
runs; where each seed makes its own world they were not. Weights that a stage has made are never
twice the same, on two machines.

**Of which length.** Bands are of whole runs, at shares of them, and judge runs as long as those.
Where the schedule is Constant nothing depends on the length (phases, warm-ups and the order of the
rows are counted from the start): then the runs may be short, even of different lengths, and the
bands are of their first steps, and judge those of a run of any length. There a run that was stopped
is as good as one that ended.

**How wide.** At each place where the runs logged a metric: mean ± k·sd. The sd is that between the
runs, over the places next to it together, and at least half of what it is over all places and 0.5 %
of the largest value (few runs agree by chance). k is what Student's t asks for so that a new run
stays inside **everywhere** with 95 % (Bonferroni over all places of all metrics; √(1 + 1/n), as the
mean is of n runs only), but at most 6: a band of more says nothing. What that means for n runs is
written down: the chance of a new run to be inside at one place, and at least which everywhere. With
two runs that is .87 at one place and nothing that could be promised everywhere; the smallest and
largest of two would hold a third one in 1 of 3 cases.

**How well.** Each run is judged by bands of the others, and ``--judge RUN …`` judges further runs
by those written; ``--results FILE`` keeps the counts.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bands_width import DIGITS, Points, band_of, chance

from instructgpt.callbacks.band_watch import STEP, VALIDATION
from instructgpt.callbacks.bands import CLOCKS, SLACK, Setting, Watch, read_bands, setting_of
from instructgpt.errors import guess
from instructgpt.evaluation.history import SHOWN, event_curves
from instructgpt.models.checkpoint import load_checkpoint
from instructgpt.models.source import ARTEFACT_FILE
from instructgpt.types import UserError, require

MADE = [name for name in SHOWN if not name.startswith("loss/")]
"""Metrics that get bands unless others are asked for: the policy's loss is noise around 0, by how
advantages are made, and squares (of the value model) have more large values than an sd says."""
SHARES = ("accuracy", "eos_rate", "calibration_error")
"""Metrics that lie between 0 and 1, by the end of their names."""
LENGTHLESS = "instructgpt.Constant"
"""The schedule under which no curve depends on the length of a run."""


class Run(NamedTuple):
    """A run, finished or stopped."""

    folder: Path
    stage: str
    seed: int
    setting: Setting
    steps: int
    curves: dict[str, Points]  # at optimizer steps

    @property
    def at_steps(self) -> bool:
        """Whether its first steps are those of longer runs."""
        return bool(self.setting.options.get("model.schedule") == LENGTHLESS)


def read_run(folder: Path) -> Run:
    """What a run was, and all that it logged.

    Args:
        folder: of the run.
    """
    checkpoint = load_checkpoint(folder / "checkpoints" / "last.ckpt", "RUN")
    known, steps = checkpoint["instructgpt"], int(checkpoint["global_step"])
    weights = sum(weight.numel() for weight in checkpoint["state_dict"].values())
    config = known["config"]
    origins = {
        name: origin
        for name, origin in known["origins"].items()
        if name.startswith("data.") or not Path(origin[0], ARTEFACT_FILE).is_file()
    }
    made = (origins, known["batching"], weights)
    curves: dict[str, Points] = {}
    for name, curve in event_curves(str(folder), None).items():
        if not name.startswith(("bands/", *CLOCKS)) and "/" in name:
            late = name.startswith(STEP + VALIDATION)  # Lightning writes them, then counts the step
            curves[name] = [(step + late, value) for step, value in curve]
    return Run(
        folder,
        known["class_path"],
        config["seed_everything"],
        setting_of(config, *made),
        steps,
        curves,
    )


def check_same(runs: Sequence[Run]) -> None:
    """Refuse runs that are not of one recipe.

    Args:
        runs: with different seeds.
    """
    first = runs[0]
    for run in runs[1:]:
        for what, one, other in (
            ("stage", first.stage, run.stage),
            ("rows a step", first.setting.rows, run.setting.rows),
            ("weights", first.setting.weights, run.setting.weights),
            *(
                (name, value, run.setting.options.get(name))
                for name, value in first.setting.options.items()
            ),
        ):
            require(
                one == other, f"{what} of {run.folder}", f"that of {first.folder} ({one})", other
            )
    seeds = [run.seed for run in runs]
    require(len(set(seeds)) == len(seeds), "the seeds of the runs", "different", seeds)
    steps = [run.steps for run in runs]
    close = first.at_steps or max(steps) <= min(steps) * (1 + SLACK)
    require(close, "the optimizer steps of the runs", f"within {SLACK:.0%} of each other", steps)


def cut(runs: Sequence[Run]) -> list[Run]:
    """Runs without what the shortest of them has not, where bands are of first steps.

    Args:
        runs: of one recipe.
    """
    fewest = min(run.steps for run in runs)

    def first(run: Run) -> dict[str, Points]:
        return {name: [p for p in curve if p[0] <= fewest] for name, curve in run.curves.items()}

    return [run._replace(curves=first(run)) if run.at_steps else run for run in runs]


def chosen(runs: Sequence[Run], metrics: Sequence[str] | None) -> list[str]:
    """The metrics that get bands.

    Args:
        runs: that logged them.
        metrics: as asked for; default: MADE, of which all runs logged some.
    """
    everywhere = [n for n in runs[0].curves if all(r.curves.get(n) for r in runs)]
    if metrics is None:
        found = [name for name in MADE if name in everywhere]
        require(bool(found), "the metrics of the runs", "some that all have logged", "none")
        return found
    for name in metrics:
        if name not in everywhere:
            hint = guess(name, everywhere) or f" (there are {', '.join(everywhere)})"
            raise UserError(f"--metrics: not every run has logged {name}{hint}")
    return list(metrics)


def make_bands(runs: Sequence[Run], metrics: Sequence[str]) -> dict[str, Any]:
    """The content of a file of bands.

    Args:
        runs: of one recipe.
        metrics: that get bands.
    """
    steps, at_steps = [run.steps for run in runs], runs[0].at_steps
    curves = {name: [placed(run, name) for run in runs] for name in metrics}
    places = sum(min(map(len, several)) for several in curves.values())
    promised = chance(len(runs), places)
    first, *rest = (run.setting for run in runs)
    same = {
        name: digest
        for name, digest in first.origins.items()
        if all(other.origins.get(name) == digest for other in rest)
    }
    return {
        "runs": len(runs),
        "seeds": sorted(run.seed for run in runs),
        "chance": {name: round(value, DIGITS) for name, value in promised._asdict().items()},
        "steps": [min(steps), max(steps)],
        "at_steps": at_steps,
        "rows": first.rows,
        "weights": first.weights,
        "origins": same if rest else first.origins,
        "options": first.options,
        "metrics": {
            name: band_of(one, promised.k, name.endswith(SHARES))._asdict()
            for name, one in curves.items()
        },
    }


def placed(run: Run, metric: str) -> Points:
    """A curve of a run as knots are placed: at steps, or at shares of the run.

    Args:
        run: one of several.
        metric: that it has logged.
    """
    unit = 1 if run.at_steps else run.steps
    return [(step / unit, value) for step, value in run.curves[metric]]


# -- how well


def judged(run: Run, content: Mapping[str, Any]) -> dict[str, Watch]:
    """What ``fit`` would have said of a run.

    Args:
        run: that was made.
        content: of a file of bands.
    """
    found, bands = {}, read_bands(content)
    for name in bands.metrics:
        found[name] = watch = Watch()
        for step, value in run.curves.get(name, ()):
            low, high = bands.bounds(name, int(step), run.steps)
            if not math.isnan(low):
                watch.see(int(step), value, low, high)
    return found


def counts(verdicts: Mapping[int, Mapping[str, Watch]]) -> dict[str, Any]:
    """Of some judged runs: how many left a band anywhere, and with how many values.

    Args:
        verdicts: by the seed of the run.
    """
    watches = [watch for found in verdicts.values() for watch in found.values()]
    left = {
        str(seed): {name: watch.outside for name, watch in found.items() if watch.left}
        for seed, found in verdicts.items()
    }
    return {
        "runs": len(verdicts),
        "left": sum(map(bool, left.values())),
        "values": sum(watch.values for watch in watches),
        "outside": sum(watch.outside for watch in watches),
        "lines": sum(len(watch.left) for watch in watches),
        "by_seed": {seed: found for seed, found in left.items() if found},
    }


def left_out(runs: Sequence[Run], metrics: Sequence[str]) -> dict[str, Any]:
    """Each run judged by bands of the others.

    Args:
        runs: of one recipe.
        metrics: that have bands.
    """
    others = {run.seed: [other for other in runs if other is not run] for run in runs}
    return counts({r.seed: judged(r, make_bands(others[r.seed], metrics)) for r in runs})


# -- files


def as_text(content: Mapping[str, Any]) -> str:
    """JSON with a line for each option, digest and side of a band.

    Args:
        content: of a file of bands.
    """

    def lines(node: Any, indent: str, level: int) -> str:
        if not isinstance(node, dict) or not node or level == 0:
            return json.dumps(node)
        inner = indent + " "
        parts = [f"{inner}{json.dumps(k)}: {lines(v, inner, level - 1)}" for k, v in node.items()]
        return "{\n" + ",\n".join(parts) + f"\n{indent}}}"

    depths = {"metrics": 2, "options": 1, "origins": 1, "chance": 0}
    parts = [f' "{key}": {lines(value, " ", depths.get(key, 0))}' for key, value in content.items()]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def name_in(recipe: Path, file: Path) -> None:
    """Have a recipe name its bands, as its second option, behind ``output`` or the comments.

    Args:
        recipe: a YAML of a stage.
        file: of the bands, in a folder beside it.
    """
    line = f"bands: {file.relative_to(recipe.parent)}"
    lines = recipe.read_text(encoding="utf-8").splitlines()
    there = [i for i, text in enumerate(lines) if text.startswith("bands:")]
    if there:
        if lines[there[0]].split("#")[0].strip() == line:
            return
        lines[there[0]] = line
    else:
        at = next(i for i, text in enumerate(lines) if text and not text.startswith("#"))
        at += lines[at].startswith("output:")
        lines.insert(at, line)
    recipe.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(args: Sequence[str] | None = None) -> None:
    """Make bands, judge runs, write.

    Args:
        args: of the command line.
    """
    about = str(__doc__).partition("\n")[0]
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--recipe", type=Path, required=True, help="YAML that is to name the bands")
    parser.add_argument("--metrics", nargs="+", help="default: losses, accuracies, KL, …")
    parser.add_argument("--judge", nargs="+", type=Path, default=[], metavar="RUN")
    parser.add_argument("--results", type=Path, help="JSON in which the counts are kept")
    asked = parser.parse_args(args)
    require(len(asked.runs) >= 2, "RUN", "at least two runs", len(asked.runs))
    runs = [read_run(folder) for folder in asked.runs]
    check_same(runs)
    runs = cut(runs)
    metrics = chosen(runs, asked.metrics)
    content = make_bands(runs, metrics)
    read_bands(content)
    found = {"chance": content["chance"], "metrics": metrics, "seeds": content["seeds"]}
    if len(runs) > 2:
        found["left_out"] = left_out(runs, metrics)
    if asked.judge:
        others = [read_run(folder) for folder in asked.judge]
        check_same([*runs, *others])
        found["judged"] = counts({run.seed: judged(run, content) for run in others})
    file = asked.recipe.parent / "bands" / f"{asked.recipe.stem}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(as_text(content), encoding="utf-8")
    name_in(asked.recipe, file)
    if asked.results:
        kept = json.loads(asked.results.read_text()) if asked.results.is_file() else {}
        kept[asked.recipe.with_suffix("").as_posix()] = found
        asked.results.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
    print(f"{asked.recipe} names {file}")


if __name__ == "__main__":
    main()
