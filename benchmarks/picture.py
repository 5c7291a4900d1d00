"""The picture in the README: four figures of a report side by side.

    python -m instructgpt pipeline
    python benchmarks/picture.py runs/miniature

Nothing is drawn anew: the figures are those that ``evaluate`` wrote. Goes to docs/report.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

FIGURES = ("win_rates_sampled", "utility", "over_optimisation_utility", "nlp")
OUTPUT = Path(__file__).parents[1] / "docs" / "report.png"
GAP = 16  # pixels


def composed(folder: Path) -> Image.Image:
    """The figures in two columns, each as it is."""
    parts = [Image.open(folder / f"{name}.png").convert("RGB") for name in FIGURES]
    rows = [parts[at : at + 2] for at in range(0, len(parts), 2)]
    heights = [max(part.height for part in row) for row in rows]
    width = max(part.width for part in parts)
    page = Image.new("RGB", (2 * width + GAP, sum(heights) + GAP * (len(rows) - 1)), "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, part in enumerate(row):
            page.paste(part, (column * (width + GAP), top))
        top += height + GAP
    return page.quantize(128)  # a third of the bytes, and looks the same


def main() -> None:
    """Put the picture together."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a pipeline that has been evaluated")
    OUTPUT.parent.mkdir(exist_ok=True)
    composed(parser.parse_args().run / "evaluate" / "figures").save(OUTPUT, optimize=True)


if __name__ == "__main__":
    main()
