"""``prepare``: clean rows from raw ones, by the rules of the paper's appendix A and others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from instructgpt.data.reading import FormatName, Reading
from instructgpt.data.row_format import RowFormat
from instructgpt.data.sources import OnError
from instructgpt.data.workers import cores
from instructgpt.hygiene.balance import ClassBalance, SourceMixture
from instructgpt.hygiene.base import Rule
from instructgpt.hygiene.clean_row import Kind
from instructgpt.hygiene.contamination import Decontamination
from instructgpt.hygiene.engine import Machine, run
from instructgpt.hygiene.executors import Executor, Slurm, check_installed
from instructgpt.hygiene.inputs import earlier_sizes
from instructgpt.hygiene.language import LanguageFilter
from instructgpt.hygiene.lengths import LengthLimits
from instructgpt.hygiene.near import NearDuplicates
from instructgpt.hygiene.personal import PersonalData
from instructgpt.hygiene.prefix import CommonPrefix
from instructgpt.hygiene.quality import Quality, Safety
from instructgpt.hygiene.reading import RowKind, recognise_kind
from instructgpt.hygiene.recipe import Cleaning, Write, in_order
from instructgpt.hygiene.splits import Splits
from instructgpt.hygiene.unsafe import UnsafeResponses
from instructgpt.hygiene.users import UserCap
from instructgpt.terminal import say
from instructgpt.types import UserError, require

RuleName = Literal[
    "prefix",
    "users",
    "splits",
    "personal",
    "near_duplicates",
    "decontaminate",
    "lengths",
    "language",
    "responses",
    "quality",
    "safety",
    "balance",
    "mixture",
]


def prepare(  # noqa: D417 – a rule is a group of options, which says itself what it is
    input: list[str] | str,
    output: str = "runs/prepare",
    kind: Kind | None = None,
    format: RowFormat | FormatName | None = None,
    columns: dict[str, str] | None = None,
    on_error: OnError = "stop",
    write: Write = "jsonl",
    skip: list[RuleName] | None = None,
    prefix: CommonPrefix = CommonPrefix(),
    users: UserCap = UserCap(),
    splits: Splits = Splits(),
    personal: PersonalData = PersonalData(),
    near_duplicates: NearDuplicates = NearDuplicates(),
    decontaminate: Decontamination = Decontamination(),
    lengths: LengthLimits = LengthLimits(),
    language: LanguageFilter = LanguageFilter(),
    responses: UnsafeResponses = UnsafeResponses(),
    quality: Quality = Quality(),
    safety: Safety = Safety(),
    balance: ClassBalance = ClassBalance(),
    mixture: SourceMixture = SourceMixture(),
    num_proc: int | None = None,
    executor: Executor = "local",
    slurm: Slurm = Slurm(),
) -> None:
    """Clean rows: write train, validation and test, and a report of what was dropped and why.

    Rules are applied in the order of their options, a group each. Interrupted, the same command
    goes on; done, it changes nothing.

    Args:
        input: files, folders, patterns or data sets, in any format that training reads.
        output: folder to write: rows of each split, report.html and report.json.
        kind: what rows are: prompts, demonstrations, comparisons or text; default: what the first
            row is.
        format: of the rows, as --data.format of ``fit``.
        columns: of the rows, as --data.columns of ``fit``.
        on_error: what a bad row does: stop, or be skipped and counted.
        write: format of the rows.
        skip: rules that are left out.
        num_proc: processes, or tasks of a cluster at the same time; default: one for each core.
        executor: where it runs: on this machine, or as jobs of a Slurm or Ray cluster.
        slurm: what Slurm is told.
    """
    first = [prefix, users, splits, personal, near_duplicates, decontaminate, lengths]
    rules = [*first, language, responses, quality, safety, balance, mixture]
    names = [input] if isinstance(input, str) else input
    try:
        reading = Reading(format, columns)
        machine = Machine(executor, _processes(num_proc), slurm)
        _prepare(names, Path(output), kind, reading, on_error, write, rules, skip or [], machine)
    except UserError as error:
        raise UserError(f"{error}".replace("--data.", "--")) from error


def _processes(asked: int | None) -> int:
    if asked is None:
        return cores()
    require(asked >= 1, "--num_proc", ">= 1", asked)
    return asked


def _prepare(
    names: list[str],
    output: Path,
    kind: Kind | None,
    reading: Reading,
    on_error: OnError,
    write: Write,
    rules: list[Rule],
    skip: list[RuleName],
    machine: Machine,
) -> None:
    check_installed()
    require(bool(names), "--input", "at least one file, folder or data set", names)
    if kind is None:
        kind, reason = recognise_kind(names, reading, on_error)
        say(reason)
    sizes = earlier_sizes(names)
    rules = [
        replace(rule, sizes=sizes)
        if sizes and isinstance(rule, SourceMixture) and rule.sizes is None
        else rule
        for rule in rules
    ]
    chosen = in_order(rules, skip)
    for rule in chosen:
        rule.check_options(kind)
    run(names, output, Cleaning(RowKind(kind, on_error, reading), chosen, write), machine)
