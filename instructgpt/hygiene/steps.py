"""The tasks of a preparation: a pass over one shard, a decision on all, and the output.

A step is called as ``step(data, rank, world_size)``, which is how datatrove runs it on this machine
or on a cluster; ``rank`` is the number of the shard.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from instructgpt.hygiene.account import Account, Example, Outcome, beginning, count, shown
from instructgpt.hygiene.base import Decision
from instructgpt.hygiene.clean_row import SPLITS, CleanRow
from instructgpt.hygiene.lengths import count as count_tokens
from instructgpt.hygiene.reading import parse_shard
from instructgpt.hygiene.recipe import Cleaning, Pass
from instructgpt.hygiene.use_cases import use_case_of
from instructgpt.hygiene.work import RAW, ShardKeys, Work
from instructgpt.models.folder import write_bytes

DECISION = "decision"


def stage_of(number: int) -> str:
    """Folder of a pass."""
    return f"pass{number}"


def arrays_of(place: int) -> str:
    """How the names of a rule's arrays begin."""
    return f"{place}."


@dataclass(frozen=True)
class Step:
    """A task of a pass.

    Args:
        work: folder.
        recipe: with the rules.
        number: of the pass.
    """

    work: Work
    recipe: Cleaning
    number: int

    @property
    def rules(self) -> Pass:
        """What the pass applies."""
        return self.recipe.passes[self.number]


@dataclass(frozen=True)
class ShardPass(Step):
    """One pass over one shard."""

    def __call__(self, data: Any, rank: int, world_size: int) -> None:
        """Apply the rules to a shard, unless that is done, and remove the one that was read."""
        if not self.work.path(stage_of(self.number), f"{rank:05d}.json").exists():
            self._apply(rank)
        before = RAW if self.number == 0 else stage_of(self.number - 1)
        self.work.shard(before, rank).unlink(missing_ok=True)

    def _apply(self, rank: int) -> None:
        """Read the shard, apply the rules, write what is left and what rules on all need."""
        own, stage = self.rules, stage_of(self.number)
        accounts: dict[int, Account] = {}
        rows, summary = self._read(rank)
        came = len(rows)
        for place in own.each:
            account = accounts[place] = Account()
            rule, left = self.recipe.row_rule(place), []
            for row, verdict in zip(rows, rule.check_all(rows), strict=True):
                account.add(row, verdict, self.recipe.mask)
                if verdict.row is not None:
                    left.append(verdict.row)
            rows = left
        told = {str(place): account.to_json() for place, account in accounts.items()}
        found = {"came": came, "rows": len(rows), "rules": told, "summary": summary}
        if self.number + 1 == len(self.recipe.passes):
            found["outcome"] = asdict(self._write_out(rank, rows))
        else:
            self.work.write_rows(stage, rank, rows)
            self.work.write_arrays(stage, f"{rank:05d}", self._keys(rows))
        self.work.write_json(stage, f"{rank:05d}", found)

    def _read(self, rank: int) -> tuple[list[CleanRow], Any]:
        if self.number == 0:
            rows, summary = parse_shard(self.work, rank, self.recipe.wish)
            return rows, summary.to_json()
        before = stage_of(self.number - 1)
        rows = self.work.read_rows(before, rank)
        decided = self.work.read_arrays(before, DECISION)
        start, end = decided["starts"][rank], decided["starts"][rank + 1]
        dropped, split = decided["dropped"][start:end], decided["split"][start:end]
        kept = [
            row._replace(split=SPLITS[at])
            for row, out, at in zip(rows, dropped, split, strict=True)
            if not out
        ]
        return kept, None

    def _keys(self, rows: Sequence[CleanRow]) -> dict[str, np.ndarray]:
        split = [SPLITS.index(row.split) if row.split in SPLITS else 0 for row in rows]
        arrays = {"split": np.array(split, np.uint8)}
        for place in self.rules.every if rows else ():
            keys = self.recipe.global_rule(place).keys(rows)
            arrays |= {f"{arrays_of(place)}{name}": array for name, array in keys.items()}
        return arrays

    def _write_out(self, rank: int, rows: Sequence[CleanRow]) -> Outcome:
        """Write the lines of each split."""
        outcome, lines = Outcome(), dict[str, list[str]]()
        tokens = partial(count_tokens, tokenizer=None)
        for row in rows:
            row = row if row.split else row._replace(split=SPLITS[0])
            outcome.add(row, use_case_of(row), tokens)
            lines.setdefault(row.split, []).append(
                json.dumps(row.public(), ensure_ascii=False) + "\n"
            )
        for split, some in lines.items():
            if some:
                raw = "".join(some)
                try:
                    write_bytes(self.work.shard(split, rank), raw.encode())
                except UnicodeEncodeError:  # half a surrogate pair, which JSON can hold as \ud800
                    raw = "".join(json.dumps(json.loads(one)) + "\n" for one in some)
                    write_bytes(self.work.shard(split, rank), raw.encode())
        return outcome


@dataclass(frozen=True)
class DecidePass(Step):
    """What the rules on all rows say at the end of a pass."""

    def __call__(self, data: Any, rank: int, world_size: int) -> None:
        """Ask each rule in turn about the rows that are left."""
        stage = stage_of(self.number)
        shards = self.work.read_json(RAW, "all")["shards"]
        sizes = [self.work.read_json(stage, f"{shard:05d}")["rows"] for shard in range(shards)]
        starts = np.r_[0, np.cumsum(sizes)].astype(np.int64)
        left = np.ones(starts[-1], bool)
        split = ShardKeys(self.work, stage, shards, "", left)["split"]
        known = any(self.recipe.rules[place].name == "splits" for place in self._before())
        accounts = {}
        for place in self.rules.every:
            rule = self.recipe.global_rule(place)
            keys = ShardKeys(self.work, stage, shards, arrays_of(place), left.copy())
            rows = np.flatnonzero(left)
            decision = rule.decide(keys, split[rows]) if len(rows) else None
            if decision is None:
                accounts[str(place)] = Account().to_json()
                continue
            came = split[rows] if known else None
            if decision.split is not None:
                split[rows], known, came = decision.split, True, decision.split
            account = self._account(decision, rows, came, starts)
            accounts[str(place)] = account.to_json()
            left[rows[decision.dropped]] = False
        self.work.write_arrays(
            stage, DECISION, {"dropped": ~left, "split": split, "starts": starts}
        )
        self.work.write_json(stage, DECISION, accounts)

    def _before(self) -> list[int]:
        return [place for one in self.recipe.passes[: self.number] for place in one.every]

    def _account(
        self, decision: Decision, rows: np.ndarray, came: np.ndarray | None, starts: np.ndarray
    ) -> Account:
        """Count what a rule has decided, with the first examples of each reason.

        Args:
            decision: of the rule.
            rows: places of the rows it was asked about, among those of the pass.
            came: their splits, None before they are known.
            starts: of the shards.
        """
        account = Account(notes=list(decision.notes), counts=dict(decision.counts))
        every = {"": np.ones(len(rows), bool)}
        parts = every if came is None else {s: came == i for i, s in enumerate(SPLITS)}
        for name, which in parts.items():
            if which.any():
                count(account.came, name, int(which.sum()))
                if out := int((which & decision.dropped).sum()):
                    count(account.dropped, name, out)
        for number, reason in enumerate(decision.reasons):
            found = np.flatnonzero(decision.dropped & (decision.reason == number))
            if len(found):
                count(account.reasons, reason, len(found))
                account.examples[reason] = [
                    self._example(
                        int(rows[at]),
                        int(rows[decision.because[at]]) if decision.because[at] >= 0 else -1,
                        starts,
                    )
                    for at in found[:3]
                ]
        return account

    def _example(self, dropped: int, stays: int, starts: np.ndarray) -> Example:
        mask = self.recipe.mask
        row = self._row(dropped, starts)
        other = self._row(stays, starts) if stays >= 0 else None
        said = shown(beginning(other), mask) if other else ""
        return Example(row.where, shown(beginning(row), mask), other.where if other else "", said)

    def _row(self, at: int, starts: np.ndarray) -> CleanRow:
        shard = int(np.searchsorted(starts, at, side="right")) - 1
        with self.work.shard(stage_of(self.number), shard).open("rb") as file:
            for number, line in enumerate(file):
                if number == at - starts[shard]:
                    return CleanRow.loads(line)  # type: ignore[arg-type]
        raise AssertionError("a row of a decision is in its shard")
