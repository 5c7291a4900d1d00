"""What the doctor looks at before the first optimizer step: a check finds one thing, or nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from instructgpt.callbacks.plan import PlanPrinter
from instructgpt.data.rows import AnyRow, ComparisonRow, LanguageRow
from instructgpt.models.artefact import read_artefact
from instructgpt.models.template import CHAT
from instructgpt.models.tokenizer import pad_id
from instructgpt.modules.base import StageModule
from instructgpt.modules.memory import MIB
from instructgpt.types import Diagnosis, LanguageBatch

LOOKED = 256
"""Rows that are looked at, the first ones."""
FEWEST = 32
"""Episodes of a rollout without any end that say something: with 32, less than one of ten ends."""
MOST_UNKNOWN = 0.01
"""Share of tokens that stand for what a tokenizer does not know. None does in byte-level ones."""
MOST_FIRST_ERROR = 1e-4
"""Of |ratio - 1| in the first update. It is 0 in every number format, and at most 1e-5 where a
network computes rows by themselves otherwise than in batches (tests/modules/test_families.py)."""

Check = Callable[[StageModule], Diagnosis | None]


def eos_trained(stage: StageModule) -> Diagnosis | None:
    """Whether responses end with the token that ends them, and whether it is a target."""
    rows = first_rows(stage)
    ends = set(stage.template.stop_ids(stage.tokenizer)) if rows else set()
    ended = [row for row in rows if any(int(text[-1]) in ends for text in responses(row))]
    name = "/".join(map(str, stage.tokenizer.convert_ids_to_tokens(sorted(ends)))) if rows else ""
    why = "a model that never learns to end writes until its limit cuts it"
    if rows and not ended:
        what = f"none of the first {len(rows):,} rows has a response that ends with {name}"
        remedy = "raise --data.max_response_tokens, or look at the rows' own end"
        return Diagnosis("eos_trained", what, why, remedy)
    if not ended or not isinstance(ended[0], LanguageRow):
        return None
    batch = stage.data.collate(ended)
    assert isinstance(batch, LanguageBatch)
    if ends & set(batch.rows.tokens[batch.targets].tolist()):
        return None
    what = f"{len(ended):,} of the first {len(rows):,} rows end with {name}, which is no target"
    if pad_id(stage.tokenizer) not in ends:
        return Diagnosis("eos_trained", what, why, "let the collate function count it in `targets`")
    what += " and the padding token, too"
    return Diagnosis("pad_eos", what, why, "make masks of lengths, or give padding its own token")


def eos_reachable(stage: StageModule) -> Diagnosis | None:
    """Whether sampling lets a response end before its limit."""
    sampling = getattr(getattr(stage, "answers", stage), "sampling", None)
    if sampling is None:
        return None  # nothing is sampled
    least, most = sampling.min_response_tokens, stage.data.max_response_tokens
    if least < most:
        return None
    what = f"no response of fewer than {least} tokens may end, and the limit is {most}"
    remedy = "raise --data.max_response_tokens or lower --model.sampling.min_response_tokens"
    return Diagnosis("eos_reachable", what, "no response ever ends", remedy)


def template(stage: StageModule) -> Diagnosis | None:
    """Whether prompts are written as the model that training starts from knows them."""
    if stage.tokenizer is None:
        return None  # nothing is read
    own, used = stage.tokenizer.chat_template, stage.template
    plain = stage.init_from is not None and read_artefact(stage.init_from) is None
    if not plain or not own or used.pattern == CHAT:
        return None
    what = f"prompts are written as {used.name!r}, '{stage.init_from}' has a chat template"
    why = "it has learned to answer in that, and starts anew in another"
    return Diagnosis("template", what, why, "leave --data.template out to use the model's own")


def tokenizer(stage: StageModule) -> Diagnosis | None:
    """Whether the tokenizer knows what stands in the rows."""
    if not (rows := first_rows(stage)):
        return None
    unknown, others = stage.tokenizer.unk_token_id, stage.template.stop_ids(stage.tokenizer)
    if unknown is None or unknown in (*others, stage.tokenizer.bos_token_id):
        return None  # it has a meaning of its own, as in GPT-2
    tokens = torch.cat([text for row in rows for text in (*asked(row), *responses(row))])
    share = float((tokens == unknown).float().mean())
    if share <= MOST_UNKNOWN:
        return None
    what = f"{share:.1%} of the tokens of the first rows are {stage.tokenizer.unk_token}"
    why = "what the tokenizer does not know is neither read nor written"
    return Diagnosis("tokenizer", what, why, "use the tokenizer that the weights were trained with")


def memory(stage: StageModule) -> Diagnosis | None:
    """Whether the memory that the plan asks for is there."""
    plans = [one.memory for one in stage.trainer.callbacks if isinstance(one, PlanPrinter)]  # type: ignore[attr-defined]
    room = capacity(stage.device)
    if not plans or plans[0] is None or not room:
        return None
    needed = plans[0].bytes + plans[0].beside
    if needed <= room:
        return None
    what = f"the plan needs about {needed / MIB:,.0f} MiB, the device has {room / MIB:,.0f}"
    remedy = (
        "lower --model.network.max_tokens, then --model.network.gradient_checkpointing true, "
        "--model.trained LoRA"
    )
    return Diagnosis("memory", what, "the run is going to be killed", remedy)


BEFORE: tuple[Check, ...] = (eos_trained, eos_reachable, template, tokenizer, memory)
"""When training begins. Heads, offset and template of a reward model are told of when it is loaded;
what does not fit at all (context, tokens, another template) has been refused then."""


def first_rows(stage: StageModule) -> list[AnyRow]:
    """Rows that are trained on and hold a response."""
    if stage.tokenizer is None or not stage.data.has_prompts:
        return []
    rows: list[AnyRow] = list(stage.data.train_rows[:LOOKED])
    return [row for row in rows if isinstance(row, LanguageRow | ComparisonRow)]


def responses(row: AnyRow) -> Sequence[Tensor]:
    """Tokens of what a row teaches."""
    if isinstance(row, ComparisonRow):
        return row.responses
    assert isinstance(row, LanguageRow)
    return (row.tokens[row.trained :],)


def asked(row: AnyRow) -> Sequence[Tensor]:
    """Tokens of what stands before it."""
    if isinstance(row, ComparisonRow):
        return (row.prompt,)
    assert isinstance(row, LanguageRow)
    return (row.tokens[: row.trained],)


def capacity(device: torch.device) -> int:
    """Bytes that a device has in all; 0 where nobody says."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type != "cpu":
        return 0
    room = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # of a container
        file = Path("/sys/fs/cgroup", name)
        text = file.read_text().strip() if file.is_file() else ""
        room += [int(text)] if text.isdigit() else []
    return min(room)


# -- of the first rollout, before it is learned from


def no_end(metrics: Mapping[str, float], episodes: int) -> Diagnosis | None:
    """Whether any response ended."""
    if episodes < FEWEST or metrics["ppo/eos_rate"] > 0:
        return None
    what = f"none of {episodes:,} sampled responses ended within the limit (ppo/eos_rate)"
    why = "all of them get the score of unfinished ones, if there is one, and none is better"
    remedy = "raise --data.max_response_tokens, or train SFT until its answers end"
    return Diagnosis("no_end", what, why, remedy)


def scores_vary(metrics: Mapping[str, float], episodes: int) -> Diagnosis | None:
    """Whether the reward tells responses apart."""
    mean, spread = metrics["ppo/score"], metrics["ppo/score_std"]
    if episodes < 2 or spread > 1e-6 * max(1.0, abs(mean)):
        return None
    what = f"all {episodes:,} responses have the score {mean:.4g} (ppo/score_std is 0)"
    why = "there is nothing to learn from"
    return Diagnosis("scores_vary", what, why, "look at --model.reward, and at samples.jsonl")


ROLLOUT: tuple[Callable[[Mapping[str, float], int], Diagnosis | None], ...] = (no_end, scores_vary)


def first_ratio(metrics: Mapping[str, Any], recorded: bool) -> Diagnosis | None:
    """Whether ratios are 1 before anything is learned.

    Args:
        metrics: of a whole phase.
        recorded: sampling gave the log-probabilities, which differ: ``sampler_gap`` judges them.
    """
    error = metrics.get("ppo/first_ratio_error", 0.0)
    if recorded or error <= MOST_FIRST_ERROR:
        return None
    what = f"a ratio of the first update is {error:.2g} from 1 (ppo/first_ratio_error)"
    why = "the same network says different things of the same tokens: updates are off-policy"
    remedy = "look for noise in the network (dropout of its own code), or for a change of weights"
    return Diagnosis("first_ratio", what, why, remedy)
