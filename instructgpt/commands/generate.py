"""``generate``: answer prompts from a file, or interactively, with any policy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from instructgpt.errors import check_unused
from instructgpt.terminal import note, say

if TYPE_CHECKING:  # imported when needed: `generate --help` should not wait for them
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from instructgpt.callbacks.unfinished import UnfinishedRows
    from instructgpt.data.formats import Row
    from instructgpt.data.rows import PromptRow
    from instructgpt.models.template import Template
    from instructgpt.rollout.answer import Wish


def generate(
    model: str,
    prompts: str | None = None,
    output: str | None = None,
    responses: int = 1,
    max_response_tokens: int | None = None,
    stop: str = "",
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    greedy: bool = False,
    min_response_tokens: int = 0,
    repetition_penalty: float = 1.0,
    seed: int = 0,
    template: str = "",
    batch_size: int = 16,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    trust_remote_code: bool = False,
) -> None:
    """Answer prompts with a policy.

    Rows: id, prompt, messages and the optional keys of the prompt's row, responses, finished. Long
    prompts are cut as in ``fit``, those that the template refuses are left out; both are reported.

    Args:
        model: folder of an artefact (``runs/ppo/export``) or of a Hugging Face model, or a hub id.
        prompts: file or folder with prompts (.jsonl, .json, .csv, .parquet); without it, every
            line typed is a prompt, answered word by word, and an empty line ends.
        output: JSONL file; until all rows are there they are in ``OUTPUT.partial``, where the same
            command goes on (delete it to start over); without it, rows go to the terminal.
        responses: to each prompt.
        max_response_tokens: responses end here at the latest; default: 256, or as many as the
            context has room for, but a quarter of it at least.
        stop: text at which a response ends; it and what follows are cut off; default: none.
        temperature: divides the logits before sampling.
        top_p: sample from the smallest set of tokens with at least this probability; 1 = all.
        top_k: sample from this many most likely tokens; 0 = all.
        greedy: take the most likely token always.
        min_response_tokens: no response ends before it has as many.
        repetition_penalty: makes tokens that are in the row already less likely; 1 = none.
        seed: of sampling; a response depends on it, on the number of its row and on --responses.
        template: how a prompt is written: plain, instruction, alpaca, hh, chat, or a text with
            ``{prompt}``; default: the artefact's, else the tokenizer's chat template, else plain.
        batch_size: responses sampled at once; whenever one ends, the next takes its place.
        device: where to compute.
        dtype: number format of the weights.
        trust_remote_code: run code that comes with the model.
    """
    from instructgpt.models.load import Network
    from instructgpt.rollout.answer import Wish
    from instructgpt.rollout.drawing import Sampling

    check_positive(responses, max_response_tokens, batch_size)
    bent = (top_p, top_k, min_response_tokens, repetition_penalty)
    sampling = Sampling(temperature_of(greedy, temperature, top_p, top_k), *bent, stop, batch_size)
    wish = Wish(responses, max_response_tokens or 0, sampling, seed)
    check_paths(model, prompts, output)
    how = (template, Network(dtype, trust_remote_code=trust_remote_code), device)
    answer_with(lambda: load(model, *how), prompts, output, wish)


def answer_with(
    loading: Callable[[], Policy], prompts: str | None, output: str | None, wish: Wish
) -> None:
    """Answer prompts of a file, which is read before the policy is loaded, or of the terminal."""
    from instructgpt.data.questions import read

    given, about = read(prompts) if prompts is not None else ([], [])
    policy = loading()
    if prompts is None:
        converse(policy, wish)
    else:
        answer_file(policy, given, about, wish, output)


def temperature_of(greedy: bool, temperature: float, top_p: float, top_k: int) -> float:
    """0 for greedy; then options of sampling must not be given."""
    if not greedy:
        return temperature
    check_unused(generate, "--greedy", temperature=temperature, top_p=top_p, top_k=top_k)
    return 0.0


def check_positive(responses: int, max_response_tokens: int | None, batch_size: int) -> None:
    """Refuse numbers below one."""
    from instructgpt.types import UserError

    for name, value in {
        "responses": responses,
        "max_response_tokens": 1 if max_response_tokens is None else max_response_tokens,
        "batch_size": batch_size,
    }.items():
        if value < 1:
            raise UserError(f"--{name} must be >= 1, got {value}")


def check_paths(model: str, prompts: str | None, output: str | None) -> None:
    """Refuse the folder of a run, and an output that would fail or replace the prompts."""
    from instructgpt.models.source import ARTEFACT_FILE
    from instructgpt.types import UserError

    artefact = Path(model, "export", ARTEFACT_FILE)
    if artefact.is_file() and not Path(model, "config.json").exists():
        raise UserError(f"--model must be an artefact, got the folder of a run: {artefact.parent}?")
    if output is not None and Path(output).exists() and not Path(output).is_file():
        kind = "folder" if Path(output).is_dir() else "device"
        raise UserError(f"--output must be a file, got the {kind} {output}")
    if output is not None and output.endswith((".gz", ".csv", ".tsv", ".parquet")):
        raise UserError(f"--output must be a file of JSONL, such as answers.jsonl, got {output}")
    if output is not None and prompts and Path(output).resolve() == Path(prompts).resolve():
        raise UserError(f"--output must not be the file of the prompts, got {output}")


def answer_file(
    policy: Policy, given: list[Row], about: list[str], wish: Wish, output: str | None
) -> None:
    """Answer prompts to a file, going on where an earlier call stopped, or to the terminal."""
    from instructgpt.callbacks.common import json_lines
    from instructgpt.callbacks.unfinished import UnfinishedRows

    wish, rows = policy.encode(given, wish)
    file = UnfinishedRows(Path(output), facts_of(policy, rows, wish)) if output else None
    done = file.open(1) if file else 0
    for line in (*about, policy.choice):  # now it is sure to answer
        note(line)
    if file is None:
        for row in answer(policy, rows, wish):
            say(json_lines([row]).rstrip("\n"))  # the escapes of say are those of JSON
        return
    write(answer(policy, rows[done:], wish), file, len(rows))


def write(rows: Iterator[dict[str, Any]], file: UnfinishedRows, total: int) -> None:
    """Write rows as they come, with a bar or lines that say how far they are."""
    from instructgpt.callbacks.progress import display

    if file.rows:
        say(f"going on behind the {file.rows:,} rows of {file.partial}")
    shown = display()
    shown.show("prompts", file.rows, total)  # from where the rate is measured
    try:
        for row in rows:
            file.add([row])
            shown.show("prompts", file.rows, total)
        file.finish()
    finally:
        shown.close()
        file.interrupt()
    say(f"wrote {file.rows:,} rows to {file.path}")


class Policy(NamedTuple):
    """A policy with what it needs to read and write text."""

    network: nn.Module
    tokenizer: PreTrainedTokenizerBase
    template: Template
    context: int | None  # tokens of prompt and response together
    choice: str  # of the template, in a line

    def encode(self, given: list[Row], wish: Wish) -> tuple[Wish, list[PromptRow]]:
        """What is asked for with the limit that there is room for, and the prompts as tokens."""
        from instructgpt.data import questions

        _, tokenizer, template, context, _ = self
        asked = wish.max_response_tokens
        limit = questions.response_limit(given, tokenizer, template, context, asked)
        rows = questions.encode(given, tokenizer, template, context, limit)
        return wish._replace(max_response_tokens=limit), rows


def load(source: str, template: str, network: Any, device: str) -> Policy:
    """Load a policy for sampling.

    Args:
        source: folder or hub id.
        template: name of the template, or nothing for that of the model.
        network: number format.
        device: where to, or "auto".
    """
    import torch

    from instructgpt.models.choice import choose_template
    from instructgpt.models.forward import virtual_tokens
    from instructgpt.models.load import context_length, load_policy
    from instructgpt.models.tokenizer import load_tokenizer
    from instructgpt.types import UserError

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device != "cpu" and not getattr(torch, device).is_available():
        raise UserError(f"--device must be there, got {device}: this machine has none")
    tokenizer = load_tokenizer(source, network.trust_remote_code)
    chosen = choose_template(template, source, tokenizer, "--template")
    model = load_policy(source, None, network, tokenizer)
    context = context_length(model.config)
    room = None if context is None else context - virtual_tokens(model)
    policy: nn.Module = model
    return Policy(policy.to(device).eval(), tokenizer, chosen.template, room, str(chosen))


def answer(policy: Policy, rows: list[PromptRow], wish: Wish) -> Iterator[dict[str, Any]]:
    """Rows with responses, in order, as they come."""
    from instructgpt.rollout import answer
    from instructgpt.rollout.drawing import Request

    network, tokenizer, template, *_ = policy
    asked = [Request(row.tokens.tolist(), row.sample_id, row.prompt.id) for row in rows]
    found = answer.answers(network, asked, wish, tokenizer, template)
    for row, said in zip(rows, found, strict=True):
        yield answer.row_of(row.prompt, said)


def facts_of(policy: Policy, rows: list[PromptRow], wish: Wish) -> dict[str, Any]:
    """What the answers depend on: not on ``--batch_size``."""
    from instructgpt.callbacks.unfinished import network_hash, rows_hash
    from instructgpt.models.tokenizer import tokenizer_fingerprint

    network, tokenizer, template, *_ = policy
    parameter = next(network.parameters())
    return {
        "--responses": wish.responses,
        "--max_response_tokens": wish.max_response_tokens,
        "--stop": repr(wish.sampling.stop),
        "--temperature": wish.sampling.temperature,
        "--top_p": wish.sampling.top_p,
        "--top_k": wish.sampling.top_k,
        "--min_response_tokens": wish.sampling.min_response_tokens,
        "--repetition_penalty": wish.sampling.repetition_penalty,
        "--seed": wish.seed,
        "--device": parameter.device.type,
        "--dtype": parameter.dtype,
        "--template": f"{template.name}, {template.fingerprint(tokenizer)}",
        "--model": network_hash(network),
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "--prompts": rows_hash(rows),
    }


def speak(policy: Policy, row: PromptRow, wish: Wish) -> None:
    """Say the responses to a prompt while they are drawn."""
    from instructgpt.rollout import answer
    from instructgpt.rollout.drawing import Request

    network, tokenizer, template, *_ = policy
    asked = Request(row.tokens.tolist(), row.sample_id, row.prompt.id)
    answer.speak(network, asked, wish, tokenizer, template, partial(say, end=""))
    say("")


def converse(policy: Policy, wish: Wish) -> None:
    """Answer line by line, until an empty line or the end of the input."""
    from instructgpt.data.formats import Row
    from instructgpt.types import Prompt, UserError

    note(policy.choice)
    mark = "> " if sys.stdin.isatty() else ""
    for number in range(sys.maxsize):
        try:
            text = input(mark)
        except EOFError:
            return
        if not text.strip():
            return
        prompt = Prompt(text, [{"role": "user", "content": text}], "", {})
        given = Row(f"line {number + 1}", prompt, [], [], "", "", "")
        try:
            room, rows = policy.encode([given], wish)
            rows = [row._replace(sample_id=number) for row in rows]
            for row in rows:
                speak(policy, row, room)
        except UserError as error:  # of this line only
            say(f"instructgpt: {error}", error=True)
