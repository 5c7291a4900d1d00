"""Rankings by simulated labelers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from instructgpt.callbacks.common import json_lines
from instructgpt.evaluation.answers import AnswersRow
from instructgpt.evaluation.judges import Answer
from instructgpt.feedback.labelers import Attributes, Labeler, generator
from instructgpt.feedback.panels import (
    Panel,
    calibrate,
    make_panel,
    opposing_panels,
    panel_to_json,
)
from instructgpt.miniature.world.grader import WEIGHTS
from instructgpt.models.folder import write_text
from instructgpt.terminal import say
from instructgpt.types import UserError

Ranked = list[tuple[AnswersRow, list[Answer]]]
Rows = list[dict[str, Any]]
Pairs = list[tuple[Attributes, Attributes]]


def distinct_pairs(ranked: Ranked) -> Pairs:
    """The pairs that can be decided, as attributes: all with different texts, none empty."""
    pairs = []
    for _, graded in ranked:
        shown = [one for one in graded if one.text.strip()]
        for i, first in enumerate(shown):
            rest = (other for other in shown[i + 1 :] if other.text != first.text)
            pairs += [(first.attributes, other.attributes) for other in rest]
    if not pairs:
        where = ranked[0][0].where if ranked else "samples"
        raise UserError(
            f"{where}: responses must differ to be ranked, got the same text everywhere"
        )
    return pairs


def make_panels(
    pairs: Pairs,
    sizes: dict[str, int],
    targets: dict[str, float],
    seed: int,
    spread: float,
    shift: float,
    tie: float,
    opposing: bool = False,
) -> dict[str, Panel]:
    """The training, held-out and shifted labelers, with their noise.

    Args:
        pairs: responses on which agreement is measured.
        sizes: labelers of each group.
        targets: agreement of the first two groups.
        seed: of the draw.
        spread: within a group.
        shift: of the third group.
        tie: width of a tie.
        opposing: two training groups who want opposite things, instead of one.
    """
    panels = {}
    factors = {}
    for name, target in targets.items():
        panel = make_panel(name, sizes[name], WEIGHTS, seed, spread, tie=tie)
        panels[name], factors[name] = calibrate(panel, pairs, target)
    if opposing:
        groups = opposing_panels(sizes["training"], WEIGHTS, seed, tie=tie)
        found = [calibrate(group, pairs, targets["training"])[0].labelers for group in groups]
        panels["training"] = Panel("training", (*found[0], *found[1]))
    shifted = make_panel("shifted", sizes["shifted"], WEIGHTS, seed, spread, shift, tie=tie)
    # Other taste at equal noise: what is measured is generalisation, not how careful people are.
    panels["shifted"] = shifted.louder(factors["training"])
    return panels


def write(
    ranked: Ranked,
    held: Ranked,
    pairs: Pairs,
    panels: dict[str, Panel],
    targets: dict[str, float],
    folds: int,
    seed: int,
    output: Path,
) -> None:
    """Rank everything and write the files.

    Args:
        ranked: responses to train on.
        held: responses to validate on.
        pairs: responses on which agreement is measured.
        panels: the groups.
        targets: agreement asked for.
        folds: of cross-validation.
        seed: of the choices.
        output: folder.
    """
    training = panels["training"]
    rows = rank_once(ranked, training, seed)
    groups = [training.names[i::folds] for i in range(folds)]
    write_text(output / "comparisons.jsonl", json_lines(rows))
    for number, left_out in enumerate(groups):
        kept = [row for row in rows if row["labeler"] not in left_out]
        write_text(output / f"fold_{number}" / "comparisons.jsonl", json_lines(kept))
    if held:
        everyone = [
            comparison(row, graded, labeler, seed) | {"source": name}
            for name, panel in panels.items()
            for labeler in panel.labelers
            for row, graded in held
        ]
        write_text(output / "validation.jsonl", json_lines(x for x in everyone if x["responses"]))
        write_text(output / "validation_fit.jsonl", json_lines(rank_once(held, training, seed)))
    about = describe(panels, targets, pairs, groups)
    write_text(output / "panels.json", json_text(about))
    report(rows, about, output)


def rank_once(ranked: Ranked, panel: Panel, seed: int) -> Rows:
    """Every prompt ranked by one labeler of a panel, each of them about as often.

    Args:
        ranked: prompts with graded responses.
        panel: who ranks.
        seed: of the choices.
    """
    # Who ranks what is a function of the prompts, whatever their order in the file.
    draw = [generator("assign", seed, row.prompt.id).random() for row, _ in ranked]
    place = {index: k for k, index in enumerate(sorted(range(len(ranked)), key=draw.__getitem__))}
    rows = [
        comparison(row, graded, panel.labelers[place[i] % len(panel.labelers)], seed)
        for i, (row, graded) in enumerate(ranked)
    ]
    return [row for row in rows if row["responses"]]


def comparison(
    row: AnswersRow, graded: list[Answer], labeler: Labeler, seed: int
) -> dict[str, Any]:
    """A row in the format of comparisons; without responses where fewer than two have a text.

    Args:
        row: prompt and responses.
        graded: its responses' grades.
        labeler: who ranks.
        seed: of the choice.
    """
    shown = [one for one in graded if one.text.strip()]  # comparisons have no empty responses
    shown = shown if len(shown) > 1 else []
    rng = generator("rank", seed, labeler.name, row.prompt.id)
    ranking = labeler.rank([one.attributes for one in shown], [one.text for one in shown], rng)
    return {
        **row.prompt.row,
        **row.optional,
        "responses": [one.text for one in shown],
        "finished": [one.finished for one in shown],
        "ranking": ranking,
        "labeler": labeler.name,
        "source": labeler.group,
    }


def describe(
    panels: dict[str, Panel],
    targets: dict[str, float],
    pairs: Pairs,
    groups: list[list[str]],
) -> dict[str, Any]:
    """``panels.json``: who the labelers are, how they agree, what can be learned of them.

    Args:
        panels: the groups.
        targets: agreement asked for.
        pairs: on which it is measured.
        groups: labelers left out in each fold.
    """
    about: dict[str, Any] = {"panels": {}, "folds": [{"labelers": names} for names in groups]}
    for name, panel in panels.items():
        about["panels"][name] = panel_to_json(panel) | {
            "agreement": {
                "value": round(panel.agreement(pairs), 6),
                "target": targets.get(name),
                "labelers": panel.names,
                "matrix": panel.agreement_matrix(pairs).round(6).tolist(),
                "pairs": len(pairs),
            },
            "ceiling": round(panel.ceiling(pairs), 6),
        }
    return about


def json_text(value: Any) -> str:
    """Readable JSON."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def report(rows: Rows, about: dict[str, Any], output: Path) -> None:
    """Say what was done."""
    pairs = ties = 0
    for row in rows:
        ranks = row["ranking"]
        pairs += len(ranks) * (len(ranks) - 1) // 2
        ties += sum(ranks[i] == ranks[j] for i in range(len(ranks)) for j in range(i))
    say(f"{len(rows):,} comparisons, {pairs:,} pairs, {ties / max(pairs, 1):.1%} of them ties")
    for name, panel in about["panels"].items():
        found, people = panel["agreement"], len(panel["labelers"])
        say(
            f"{name}: {people} labelers agree in {found['value']:.1%} of {found['pairs']:,} pairs; "
            f"no reward model can be right in more than {panel['ceiling']:.1%}"
        )
    say(f"wrote {output}")
