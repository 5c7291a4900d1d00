"""Other algorithms beside PPO in the miniature: preference, true utility, distance, tax.

    python -m instructgpt pipeline --config configs/miniature_algorithms.yaml
    python benchmarks/miniature_algorithms.py runs/miniature

Reads what that pipeline measured, and writes results/miniature_algorithms.json with a table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from instructgpt.evaluation.arms import Arm, arms
from instructgpt.evaluation.records import to_json
from instructgpt.evaluation.results import Results, read_results

OUTPUT = Path(__file__).parent / "results" / "miniature_algorithms.json"


def row(arm: Arm, results: Results) -> dict[str, Any]:
    """What is known of one policy."""
    return {
        "label": results.labels[arm.model],
        f"preferred to {results.baseline}, T = 1": to_json(arm.win_rate),
        "true utility, 1 to 7, T = 1": to_json(arm.utility),
        "nats a response from its start": arm.end.kl,
        "NLP tasks": to_json(results.nlp[arm.model]["mean"]),
    }


def main() -> None:
    """Write the file and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of the pipeline")
    results = read_results(parser.parse_args().run / "evaluate" / "results.json")
    rows = {arm.model: row(arm, results) for arm in arms(results)}
    judge = next(iter(results.judges.values()))
    facts = {"seed": results.seed, "judge": judge, "intervals": "95 %", "policies": rows}
    OUTPUT.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print("| | preferred to SFT | true utility | KL from SFT | NLP tasks |\n|---|---|---|---|---|")
    for one in rows.values():
        label, won, useful, kl, nlp = one.values()
        share = f"{won['value']:.1%} [{won['low']:.1%}, {won['high']:.1%}]"
        utility = f"{useful['value']:.2f} [{useful['low']:.2f}, {useful['high']:.2f}]"
        print(f"| {label} | {share} | {utility} | {kl:.2f} nats | {nlp['value']:.1%} |")


if __name__ == "__main__":
    main()
