"""``generate``: answer prompts from a file, or interactively, with any policy."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from instructgpt.terminal import note, say

if TYPE_CHECKING:  # imported when needed: `generate --help` should not wait for them
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from instructgpt.models.template import Template
    from instructgpt.rollout.sampler import Sampling
    from instructgpt.types import Prompt

DEFAULT_RESPONSE_TOKENS = 256


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
    seed: int = 0,
    template: str = "",
    batch_size: int = 16,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    trust_remote_code: bool = False,
) -> None:
    """Answer prompts with a policy.

    Rows: id, prompt and the optional keys of the prompt's row, responses, finished.

    Args:
        model: folder of an artefact (``runs/ppo/export``) or of a Hugging Face model, or a hub id.
        prompts: file or folder with prompts (.jsonl, .json, .csv, .parquet); without it, every
            line typed in the terminal is a prompt, and an empty line ends.
        output: JSONL file to write; without it, rows go to the terminal.
        responses: to each prompt.
        max_response_tokens: responses end here at the latest; default: 256, or as many as the
            context has room for.
        stop: text at which a response ends; it and what follows are cut off; default: none.
        temperature: divides the logits before sampling.
        top_p: sample from the smallest set of tokens with at least this probability; 1 = all.
        top_k: sample from this many most likely tokens; 0 = all.
        greedy: take the most likely token always.
        seed: of sampling; a response depends on it, on the number of its row and on --responses.
        template: how a prompt is written: plain, instruction, alpaca, hh, chat, or a text with
            ``{prompt}``; default: that of the artefact, else the tokenizer's chat template, else
            plain.
        batch_size: responses sampled at once.
        device: where to compute.
        dtype: number format of the weights.
        trust_remote_code: run code that comes with the model.
    """
    from instructgpt.models.load import Network
    from instructgpt.rollout.sampler import Sampling

    check_positive(responses, max_response_tokens, batch_size)
    sampling = Sampling(0.0 if greedy else temperature, top_p, top_k, batch_size)
    network = Network(dtype=dtype, trust_remote_code=trust_remote_code)
    check_paths(model, prompts, output)
    rows = read_prompts(prompts) if prompts is not None else []
    policy = load(model, template, network, device)
    if prompts is None:
        converse(policy, responses, max_response_tokens, stop, sampling, seed)
        return
    limit = response_limit(policy, rows, max_response_tokens)
    answers = answer(policy, rows, responses, limit, stop, sampling, seed)
    write(answers if output is None else watched(answers, len(rows)), output)


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
    if output is not None and Path(output).is_dir():
        raise UserError(f"--output must be a file, got the folder {output}")
    if output is not None and prompts and Path(output).resolve() == Path(prompts).resolve():
        raise UserError(f"--output must not be the file of the prompts, got {output}")


def write(rows: Iterator[dict[str, Any]], output: str | None) -> None:
    """Write rows as JSONL: to the terminal one by one, to a file all or nothing."""
    from instructgpt.callbacks.common import json_lines
    from instructgpt.models.folder import write_text

    if output is not None:
        write_text(Path(output), json_lines(rows))
        return
    for row in rows:
        say(json_lines([row]).rstrip("\n"))  # the escapes of say are those of JSON


def watched(rows: Iterator[dict[str, Any]], total: int) -> Iterator[dict[str, Any]]:
    """The rows, with a bar or lines that say how far they are."""
    from instructgpt.callbacks.progress import display

    shown = display()
    try:
        for done, row in enumerate(rows, 1):
            yield row
            shown.show("prompts", done, total)
    finally:
        shown.close()


class Policy(NamedTuple):
    """A policy with what it needs to read and write text."""

    network: nn.Module
    tokenizer: PreTrainedTokenizerBase
    template: Template
    prompt_tokens: int | None  # of context, before the response is counted


def load(source: str, template: str, network: Any, device: str) -> Policy:
    """Load a policy for sampling.

    Args:
        source: folder or hub id.
        template: name of the template, or nothing for that of the model.
        network: number format.
        device: where to, or "auto".
    """
    import torch

    from instructgpt.models.artefact import read_artefact
    from instructgpt.models.forward import virtual_tokens
    from instructgpt.models.load import context_length, load_policy
    from instructgpt.models.template import get_template
    from instructgpt.models.tokenizer import load_tokenizer
    from instructgpt.types import UserError

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device != "cpu" and not getattr(torch, device).is_available():
        raise UserError(f"--device must be there, got {device}: this machine has none")
    artefact = read_artefact(source)
    tokenizer = load_tokenizer(source, network.trust_remote_code)
    name = template or (artefact.template if artefact else None)
    name = name or ("chat" if tokenizer.chat_template else "plain")
    model = load_policy(source, None, network, tokenizer)
    context = context_length(model.config)
    room = None if context is None else context - virtual_tokens(model)
    policy: nn.Module = model
    return Policy(policy.to(device).eval(), tokenizer, get_template(name), room)


def read_prompts(path: str) -> list[Prompt]:
    """The prompts of a file, a folder or a data set."""
    from instructgpt.data.formats import parse_prompt
    from instructgpt.data.sources import load as load_rows
    from instructgpt.data.summary import Summary

    summary = Summary()
    rows = load_rows([path], parse_prompt, "stop", summary)
    for line in summary.notes:
        note(line)
    return [row.prompt for row in rows]


def answer(
    policy: Policy,
    prompts: list[Prompt],
    responses: int,
    max_response_tokens: int,
    stop: str,
    sampling: Sampling,
    seed: int,
    first: int = 0,
) -> Iterator[dict[str, Any]]:
    """One row a prompt: id, prompt, its optional keys, responses, finished.

    Args:
        policy: what answers.
        prompts: what to answer.
        responses: to each prompt.
        max_response_tokens: limit of a response.
        stop: text that ends a response.
        sampling: how to draw, and how many at once.
        seed: of sampling.
        first: number of the first prompt, for its noise.
    """
    import torch

    from instructgpt.data.collate import collate_prompts
    from instructgpt.data.rows import PromptRow
    from instructgpt.models.tokenizer import pad_id
    from instructgpt.rollout.sampler import sample, to_samples

    network, tokenizer, template, _ = policy
    device = next(network.parameters()).device
    rows = [
        PromptRow(torch.tensor(encode(policy, prompt, max_response_tokens)), prompt, number)
        for number, prompt in enumerate(prompts, first)
    ]
    per_batch = max(1, sampling.batch_size // responses)
    for start in range(0, len(rows), per_batch):
        chosen = rows[start : start + per_batch]
        repeated = [
            row._replace(sample_id=row.sample_id * responses + k)
            for row in chosen
            for k in range(responses)
        ]
        batch = collate_prompts(repeated, pad_id(tokenizer))
        batch = batch._replace(tokens=batch.tokens.to(device), mask=batch.mask.to(device))
        stops = template.stop_ids(tokenizer)
        rollout = sample(network, batch, max_response_tokens, stops, sampling, seed)
        samples = to_samples(rollout, batch.prompts, tokenizer, template)
        for i, row in enumerate(chosen):
            group = samples[i * responses : (i + 1) * responses]
            ends = [cut(s.response, s.finished, stop) for s in group]
            yield row.prompt.meta | {
                "id": row.prompt.id,
                "prompt": row.prompt.text,
                "responses": [response for response, _ in ends],
                "finished": [finished for _, finished in ends],
            }


def cut(response: str, finished: bool, stop: str) -> tuple[str, bool]:
    """A response up to a stop text, and whether it is finished.

    >>> cut("Yes. Q: And", False, " Q:")
    ('Yes.', True)
    """
    if not stop or stop not in response:
        return response, finished
    return response.partition(stop)[0], True


def response_limit(policy: Policy, prompts: list[Prompt], asked: int | None) -> int:
    """The limit asked for, else 256 or what the longest prompt leaves of the context."""
    if asked is not None or policy.prompt_tokens is None:
        return asked or DEFAULT_RESPONSE_TOKENS
    lengths = [len(policy.template.encode_prompt(policy.tokenizer, p)) for p in prompts]
    return max(1, min(DEFAULT_RESPONSE_TOKENS, policy.prompt_tokens - max(lengths, default=0)))


def encode(policy: Policy, prompt: Prompt, max_response_tokens: int) -> list[int]:
    """Tokens of a prompt that leave room for the response; a prompt that does not is an error."""
    from instructgpt.types import UserError

    tokens = policy.template.encode_prompt(policy.tokenizer, prompt)
    room = policy.prompt_tokens
    if room is not None and len(tokens) + max_response_tokens > room:
        raise UserError(
            f"prompt {prompt.id or prompt.text[:40]!r} and --max_response_tokens must fit into the "
            f"context of {room} tokens, got {len(tokens)} + {max_response_tokens}"
        )
    if not tokens:
        raise UserError("a prompt must have at least one token, got none")
    return tokens


def converse(
    policy: Policy,
    responses: int,
    asked: int | None,
    stop: str,
    sampling: Sampling,
    seed: int,
) -> None:
    """Answer line by line, until an empty line or the end of the input."""
    from instructgpt.types import Prompt, UserError

    mark = "> " if sys.stdin.isatty() else ""
    for number in range(sys.maxsize):
        try:
            text = input(mark)
        except EOFError:
            return
        if not text.strip():
            return
        prompt = Prompt(text, [{"role": "user", "content": text}], "", {})
        limit = response_limit(policy, [prompt], asked)
        try:
            for row in answer(policy, [prompt], responses, limit, stop, sampling, seed, number):
                say("\n---\n".join(row["responses"]))
        except UserError as error:  # of this line only
            say(f"instructgpt: {error}", error=True)
