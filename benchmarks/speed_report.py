"""The table and the plot of benchmarks/speed.py, made of its results file and nothing else."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speed_rows import TABLE

ROOT = Path(__file__).resolve().parents[1]
HEAD = (
    "| work | against | CPU s, ours | theirs | times as fast | memory | share of peak |",
    "| --- | --- | --- | --- | --- | --- | --- |",
)
ACCOUNT = (
    "| work | useful GFLOP | FLOP/byte | least CPU s | CPU s | share of peak | parts (wall) |",
    "| --- | --- | --- | --- | --- | --- | --- |",
)
GPU = (
    "| work | against | seconds | theirs | times as fast | tokens/s | memory | share of peak |",
    "| --- | --- | --- | --- | --- | --- | --- | --- |",
)
OF_GPU = "<!-- gpu -->", "<!-- /gpu -->"
MARKS = "<!-- speed -->", "<!-- /speed -->"
OF_ACCOUNT = "<!-- account -->", "<!-- /account -->"
OF_MACHINE = "<!-- machine -->", "<!-- /machine -->"
PAGES = ROOT / "README.md", ROOT / "docs/speed.md"
FEW = 5
"""Units of each side below which their number is said."""
PEERS = {"ppo": "TRL 1.12", "trl": "TRL 1.16", "generate": "`generate`"}


def lines(results: dict[str, Any]) -> Iterator[str]:
    """The table in Markdown; what was aimed at stands behind, and "missed" where it was.

    Args:
        results: as in the file.
    """
    yield from HEAD
    for name, row in results["rows"].items():
        aim = row.get("aim", {})
        if "account" in row:
            yield _compared(row)
        elif name == "start":
            for what, key in (("`fit --help`", "fit --help"), ("`fit` to the first step", "fit")):
                before = row[key].get("before", {}).get("cpu_seconds")
                ours = row[key]["ours"]["cpu_seconds"]
                yield _itself(what, f"{ours:.2f}", ours, before, aim.get(key))
        elif name == "miniature":
            before, ours = row.get("before", {}).get("seconds"), row["ours"]["seconds"]
            yield _itself(
                "miniature pipeline (wall)", f"{ours:.3g}", ours, before, aim.get("speed")
            )
        elif name == "ranks":
            one, two = (row[f"{n}"]["seconds"] for n in ("1 process", "2 processes"))
            about = "PPO phase, two ranks on two cores (wall) | one rank"
            yield f"| {about} | {two:.3g} | {one:.3g} | **{row['speed']:.2f}** | | |"


def _aim(value: float, aim: float | None, most: bool = False, form: str = "g") -> str:
    """What was aimed at, in brackets."""
    if aim is None:
        return ""
    met = value <= aim if most else value >= aim
    return f" ({'≤' if most else '≥'} {aim:{form}}{'' if met else ', missed'})"


def _compared(row: dict[str, Any]) -> str:
    ours, share, aim = row["ours"], row["account"]["share_of_peak"], row["aim"]
    end = f"{share:.0%}{_aim(round(share, 2), aim.get('share'), form='.0%')} |"
    peer = row.get("peer")
    if not peer:
        return f"| {row['about']} | - | {ours['cpu_seconds']:.3g} | | | | {end}"
    middle, low, high = row["speed"]
    few = f", n = {ours['n']}" if ours["n"] < FEW else ""
    setting = ", ".join(f"{key} {value}" for key, value in peer["setting"].items())
    return (
        f"| {row['about']} | {PEERS[peer['name']]} ({setting}) | {ours['cpu_seconds']:.3g} | "
        f"{peer['cpu_seconds']:.3g} | **{middle:.2f}** [{low:.2f}, {high:.2f}]{few}"
        f"{_aim(middle, aim['speed'])} | "
        f"{row['memory']:.2f}{_aim(row['memory'], aim['memory'], most=True)} | {end}"
    )


def _itself(
    what: str, cell: str, ours: float, before: float | None, aim: float | None = None
) -> str:
    if before is None:
        return f"| {what} | - | {cell} | | | | |"
    speed = before / ours
    times = f"**{speed:.2f}**{_aim(speed, aim)}"
    return f"| {what} | itself, before | {cell} | {before:.3g} | {times} | | |"


def accounts(results: dict[str, Any]) -> Iterator[str]:
    """How much work each row is, how fast it could be done at most, and how fast it was.

    Args:
        results: as in the file.
    """
    yield from ACCOUNT
    for row in results["rows"].values():
        if "account" not in row:
            continue
        found, seconds = row["account"], row["ours"]["cpu_seconds"]
        parts = found.get("share_by_wall_time", {})
        shares = ", ".join(f"{name.replace('_', ' ')} {one:.0%}" for name, one in parts.items())
        yield (
            f"| {row['about']} | {sum(found['useful_gflop'].values()):.0f} | "
            f"{found['flop_per_byte']:.0f} | {found['least_seconds']:.3g} | {seconds:.3g} | "
            f"{found['share_of_peak']:.0%} of {found['peak_gflops']:.0f} GFLOP/s | {shares} |"
        )


def on_gpu(results: dict[str, Any]) -> Iterator[str]:
    """The table of a GPU, where seconds are those of the wall, and the share is of its parts, too.

    Args:
        results: as in the file.
    """
    yield from GPU
    for row in results["rows"].values():
        ours, peer, found = row["ours"], row.get("peer"), row["account"]
        against = PEERS[peer["name"]] if peer else "-"
        theirs = f"{peer['seconds']:.3g}" if peer else ""
        times = ""
        if peer:
            middle, low, high = row["speed"]
            aim = _aim(middle, row["aim"]["speed"])
            times = f"**{middle:.2f}** [{low:.2f}, {high:.2f}]{aim}"
        parts = found.get("share_by_wall_time", {})
        shares = ", ".join(f"{name.replace('_', ' ')} {one:.0%}" for name, one in parts.items())
        share = f"{found['share_of_peak']:.0%}" + f" ({shares})" * bool(shares)
        memory = f"{ours['peak_megabytes'] / 1e3:.1f} GB"
        yield (
            f"| {row['about']}, n = {ours['n']} | {against} | {ours['seconds']:.3g} | {theirs} | "
            f"{times} | {row['per_second']:,.0f} | {memory} | {share} |"
        )


def put_in(page: Path, table: list[str], marks: tuple[str, str] = MARKS) -> None:
    """Replace what stands between the marks of a page, if it has them."""
    text, (start, end) = page.read_text(), marks
    if start in text:
        whole = "\n".join([start, *table, end])
        pattern = f"{re.escape(start)}.*?{re.escape(end)}"
        page.write_text(re.sub(pattern, lambda _: whole, text, flags=re.DOTALL))


def plot(results: dict[str, Any], path: Path) -> None:
    """Ratios to the peers, and the cost of a phase against three sizes.

    Args:
        results: as in the file.
        path: of the picture.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import EngFormatter

    series = results["rows"].get("scaling", {}).get("series", {})
    figure, axes = pyplot.subplots(1, 1 + len(series), figsize=(4 * (1 + len(series)), 3.4))
    bars, *others = axes if len(series) else [axes]
    compared = {n: row["speed"] for n, row in results["rows"].items() if "memory" in row}
    for place, (middle, low, high) in enumerate(compared.values()):
        bars.barh(place, middle, xerr=[[middle - low], [high - middle]], color="tab:cyan")
    aims = [results["rows"][name]["aim"]["speed"] for name in compared]
    bars.plot(aims, range(len(aims)), "k|", markersize=14, label="aimed at")
    bars.set_yticks(range(len(compared)), list(compared))
    bars.invert_yaxis()  # as in the table
    bars.axvline(1, color="grey", linewidth=1)
    bars.legend(fontsize=7)
    bars.set_xlabel("times as fast as the peer")
    for axis, (name, found) in zip(others, series.items(), strict=True):
        points = found["points"]
        x, y = ([float(f"{point[key]:.3g}") for point in points] for key in ("x", "cpu_seconds"))
        flop = [point["useful_gflop"] for point in points]
        line = [y[-1] * one / flop[-1] for one in flop]
        axis.loglog(x, y, "o-", label=f"measured, slope {found['slope']}")
        axis.loglog(x, line, "--", label=f"useful FLOP, slope {found['expected_slope']}")
        axis.minorticks_off()
        axis.set_xticks(x)
        axis.set_yticks(y, [f"{one:g}" for one in y])
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.set_xlabel(name)
        axis.set_ylabel("CPU seconds of a phase")
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def measured_on(results: dict[str, Any]) -> str:
    """The machine of most rows, which were on others, and whether some are only a first look.

    Args:
        results: as in the file.
    """
    rows = results["rows"].values()
    (usual, _), *others = Counter(row["machine"] for row in rows).most_common()
    line = f"On {usual}; one core, one thread."
    for name, _ in others:
        those = "; ".join(row["about"] for row in rows if row["machine"] == name)
        line += f" On {name}: {those}."
    if any(row.get("ours", {}).get("n", FEW) < FEW for row in rows):
        line += " Rows with an n below five are a first look, while other work ran."
    return line


def in_order(results: dict[str, Any]) -> dict[str, Any]:
    """The same with its rows as the table has them, whenever they were measured."""
    places = {row.name: place for place, row in enumerate(TABLE)}
    rows = sorted(results["rows"].items(), key=lambda item: places.get(item[0], len(places)))
    return {**results, "rows": dict(rows)}


def tables(results: dict[str, Any]) -> dict[tuple[str, str], list[str]]:
    """What stands between which marks of the pages that have them.

    Args:
        results: as in the file of CPUs.
    """
    found = in_order(results)
    return {
        MARKS: list(lines(found)),
        OF_ACCOUNT: list(accounts(found)),
        OF_MACHINE: [measured_on(found)],
    }


def report(results: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the table; write it and the plot, unless it is of tiny shapes or another device.

    Args:
        results: as in the file.
        options: of the command line.
    """
    if options.device == "cuda":
        table = list(on_gpu(in_order(results)))
        print(*table, sep="\n")
        if options.output == ROOT / "benchmarks/results/speed_cuda.json":
            put_in(ROOT / "docs/speed.md", table, OF_GPU)
        return
    results = in_order(results)
    print(*lines(results), sep="\n")
    if not options.tiny and options.output == ROOT / "benchmarks/results/speed.json":
        for page in PAGES:
            for marks, table in tables(results).items():
                put_in(page, table, marks)
        plot(results, ROOT / "docs/speed.png")
    elif options.tiny:
        plot(results, options.runs / "speed.png")
