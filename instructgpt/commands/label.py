"""``label``: rank sampled responses, by simulated labelers, by people, or by a reward model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from instructgpt.feedback.acquire import Acquire
from instructgpt.rewards.combine import Combined

if TYPE_CHECKING:  # imported when needed: `label --help` should not wait for it
    from instructgpt.data.formats import Row
    from instructgpt.evaluation.answers import AnswersRow
    from instructgpt.evaluation.choosing import Rankable


SIMULATED = (
    *("labelers", "agreement", "held_out_labelers", "held_out_agreement", "spread"),
    *("shift", "tie", "folds", "opposing"),
)
UNUSED = {
    "simulated": ("reward_model", "heads", "choose"),
    "people": (*SIMULATED, "heads"),
    "reward": (*SIMULATED, "validation", "choose"),
}
"""Options that have no use, by who ranks."""


def label(
    samples: str,
    validation: str | None = None,
    output: str = "runs/label",
    by: Literal["simulated", "people", "reward"] = "simulated",
    reward_model: str | None = None,
    heads: Combined = Combined(),
    choose: Acquire = Acquire(),
    seed: int = 0,
    labelers: int = 6,
    agreement: float = 0.726,
    held_out_labelers: int = 5,
    held_out_agreement: float = 0.773,
    spread: float = 0.35,
    shift: float = 0.5,
    tie: float = 0.2,
    folds: int = 3,
    opposing: bool = False,
) -> None:
    """Turn sampled responses into comparisons for the reward model.

    Args:
        samples: JSONL of ``generate --responses K``; every prompt is ranked by one labeler.
        validation: the same for held-out prompts, which every labeler of every group ranks.
        output: folder to write.
        by: ``simulated`` labelers value the attributes that the world's grader sees; for ``people``
            it writes ``to_label.jsonl``, ends with exit code 3, and goes on when its rows, with a
            ``ranking`` each, are in ``comparisons.jsonl``; ``reward`` writes the scores of a reward
            model as ``ratings``, its heads' ``disagreement``, and the best of K to ``best.jsonl``.
        reward_model: folder or hub id of what ranks by ``reward``, or chooses what people rank.
        heads: of ``reward_model``, where it has several.
        choose: what people rank, where not all.
        seed: of the labelers and of their choices, and of rows chosen at random.
        labelers: how many rank for training.
        agreement: how often two of them agree (paper, section 3.4: 72.6 ± 1.5 %).
        held_out_labelers: how many only evaluate.
        held_out_agreement: how often two of them agree (paper: 77.3 ± 1.3 %).
        spread: of people of one group: standard deviation of the logarithm of a weight.
        shift: the same of the mean weights of a third group, "shifted", with the training noise.
        tie: responses that look closer than this tie; in units of utility, which goes from 1 to 7.
        folds: cross-validation: the training labelers are split into so many groups, and each
            ``fold_<i>`` lacks the comparisons of one; 0 writes none.
        opposing: the training labelers are two groups, of so many each, who want opposite things:
            brief responses, and detailed ones. The ``source`` of a row is the group of its labeler.
    """
    from instructgpt.errors import check_unused
    from instructgpt.evaluation.answers import read_answers

    asked = locals()
    check_unused(label, f"--by {by}", **{name: asked[name] for name in UNUSED[by]})
    if by == "people":
        ask_people(read_answers(samples, least=2), validation, Path(output), asked)
    elif by == "reward":
        rank_by_reward(samples, reward_model, heads, Path(output))
    else:
        check_sizes(labelers, held_out_labelers, folds, spread, shift, tie)
        sizes = {"training": labelers, "held_out": held_out_labelers, "shifted": held_out_labelers}
        targets = {"training": agreement, "held_out": held_out_agreement}
        people = (seed, spread, shift, tie, opposing)
        rank_by_labelers(samples, validation, Path(output), sizes, targets, folds, people)


def rank_by_labelers(
    samples: str,
    validation: str | None,
    output: Path,
    sizes: dict[str, int],
    targets: dict[str, float],
    folds: int,
    people: tuple[int, float, float, float, bool],
) -> None:
    """Let simulated labelers rank.

    Args:
        samples: JSONL of ``generate``.
        validation: the same for held-out prompts.
        output: folder.
        sizes: labelers of each group.
        targets: agreement of each group.
        folds: groups of training labelers to leave out.
        people: seed, spread, shift, tie, and whether two groups want opposite things.
    """
    from instructgpt.evaluation.answers import read_answers
    from instructgpt.miniature.grading import grade_row
    from instructgpt.miniature.ranking import distinct_pairs, make_panels, write

    check_place(output)
    ranked = [(row, grade_row(row)) for row in read_answers(samples, least=2)]
    held = [(row, grade_row(row)) for row in read_answers(validation, 2)] if validation else []
    pairs = distinct_pairs(held or ranked)
    panels = make_panels(pairs, sizes, targets, *people)
    write(ranked, held, pairs, panels, targets, folds, people[0], output)


def check_sizes(
    labelers: int, held_out_labelers: int, folds: int, spread: float, shift: float, tie: float
) -> None:
    """Refuse numbers that make no panel."""
    from instructgpt.types import UserError

    for name, value in {"labelers": labelers, "held_out_labelers": held_out_labelers}.items():
        if value < 2:
            raise UserError(f"--{name} must be >= 2, got {value}: one person agrees with nobody")
    if folds and not 2 <= folds <= labelers:
        raise UserError(f"--folds must be 0, or from 2 to --labelers ({labelers}), got {folds}")
    for name, number in {"spread": spread, "shift": shift, "tie": tie}.items():
        if not 0 <= number < float("inf"):
            raise UserError(f"--{name} must be >= 0, got {number}")


def check_place(output: Path) -> None:
    """Refuse to write over what people have ranked."""
    from instructgpt.pipeline.folder import PEOPLE
    from instructgpt.types import UserError

    if (output / PEOPLE).exists():
        raise UserError(f"--output must not be where people were asked to rank, got {output}")


def rank_by_reward(samples: str, reward_model: str | None, heads: Combined, output: Path) -> None:
    """Write what a reward model thinks of each response, and the best one to each prompt.

    Args:
        samples: JSONL of ``generate``.
        reward_model: folder or hub id.
        heads: what several of it say into one score.
        output: folder.
    """
    from instructgpt.callbacks.common import json_lines
    from instructgpt.evaluation.answers import answers_of, read_answers
    from instructgpt.evaluation.scoring import Scorer
    from instructgpt.models.folder import write_text
    from instructgpt.terminal import note, say
    from instructgpt.types import UserError

    if reward_model is None:
        raise UserError("--reward_model must be given with --by reward, got none")
    check_place(output)
    rows = read_answers(samples, least=2)
    scorer = Scorer(reward_model, "--reward_model", heads)
    note(f"reward model '{reward_model}': {scorer.choice}")
    every = scorer.each([a for row in rows for a in answers_of(row, row.prompt, None)])
    ranked, best, at = [], [], 0
    for row in rows:
        found = every[at : at + len(row.responses)]
        scores, at = [one.score for one in found], at + len(found)
        place = max(range(len(scores)), key=scores.__getitem__)
        about = {**row.prompt.row, **row.optional}
        rated = {**about, "responses": row.responses, "ratings": scores}
        if scorer.heads > 1:
            rated["disagreement"] = [one.disagreement for one in found]
        ranked.append(rated)
        chosen = {"responses": [row.responses[place]], "finished": [row.finished[place]]}
        best.append({**about, **chosen})
    write_text(output / "best.jsonl", json_lines(best))
    write_text(output / "comparisons.jsonl", json_lines(ranked))
    say(f"{len(rows):,} prompts are rated in {output / 'comparisons.jsonl'}")


def ask_people(
    rows: list[AnswersRow], validation: str | None, output: Path, given: dict[str, Any]
) -> None:
    """Choose what people shall rank, and wait for them.

    Args:
        rows: sampled responses.
        validation: must not be given.
        output: folder.
        given: options: ``choose``, ``reward_model`` and ``seed``.
    """
    from instructgpt.evaluation import choosing
    from instructgpt.types import UserError

    if validation is not None:
        raise UserError(
            "--validation is for simulated labelers: the reward model holds out rows of "
            f"comparisons.jsonl itself (--data.validation), got {validation}"
        )
    scorers = choosing.judges_of(given["choose"], given["reward_model"])
    found = choosing.choose(choosing.rankable(rows), scorers, given["choose"], given["seed"])
    wait_for_people(found, output)


def wait_for_people(rows: list[Rankable], output: Path) -> None:
    """Write what people shall rank; go on when they have.

    Args:
        rows: to be ranked.
        output: folder.
    """
    from instructgpt.callbacks.common import json_lines
    from instructgpt.data.files import Item, read_file
    from instructgpt.data.formats import parse_item
    from instructgpt.pipeline.folder import ANSWER, PEOPLE
    from instructgpt.terminal import say
    from instructgpt.types import UserError, WaitingForLabelsError

    asked = [
        {**one.row.prompt.row, **one.row.optional, "responses": one.responses, **one.why}
        for one in rows
    ]
    question, answer = output / "to_label.jsonl", output / ANSWER
    edited = ask(question, output / PEOPLE, json_lines(asked).encode())
    if not answer.exists():
        state = f" ({question} is not as it was written: it is left alone)" if edited else ""
        raise WaitingForLabelsError(
            f"{len(asked):,} prompts wait for labels{state}: add to each row of {question} a "
            f'"ranking" of its responses (1 = best, equal = tie), save the rows as {answer}, and '
            "run the same command again"
        )
    # Both as they are read for training: what all responses repeat of their prompt is there once.
    items = [Item(str(question), str(question), row) for row in asked]
    known = {key(one.row) for item in items for one in parse_item(item, "responses")}
    ranked = [key(one.row) for item in read_file(answer) for one in parse_item(item, "comparison")]
    right = known.intersection(ranked)
    others = sum(row not in known for row in ranked)
    if not right:
        raise UserError(
            f"{answer}: must rank the responses in {question}, got rankings of others only: move "
            "it away"
        )
    more = f", and {others:,} others" if others else ""
    say(f"{len(right):,} of {len(asked):,} prompts are ranked in {answer}{more}")


def ask(question: Path, mark: Path, content: bytes) -> bool:
    """Write what is to be ranked, unless somebody has changed what we wrote; whether they have.

    Args:
        question: file to write.
        mark: file that says that people are asked, and with what hash.
        content: of the question.
    """
    from hashlib import sha256

    from instructgpt.models.folder import write_bytes

    if question.exists() and mark.exists():
        edited = sha256(question.read_bytes()).hexdigest() != mark.read_text().strip()
    else:
        edited = question.exists()
    if not edited:
        write_bytes(mark, sha256(content).hexdigest().encode())
        write_bytes(question, content)
    return edited


def key(row: Row) -> tuple[str, ...]:
    """What a row is about, whatever the white space around it."""
    return (row.prompt.text.strip(), *(text.strip() for text in row.responses))
