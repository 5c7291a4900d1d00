"""``benchmark``: ask public sets of several models, as lm-eval does: the alignment tax."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from instructgpt.terminal import say

if TYPE_CHECKING:  # imported when needed: `benchmark --help` should not wait for them
    from instructgpt.callbacks.unfinished import UnfinishedRows
    from instructgpt.commands.policy import Policy
    from instructgpt.evaluation.asking import Limits
    from instructgpt.evaluation.benchmark import BenchmarkResults, Questions


def benchmark(
    models: dict[str, str],
    sets: dict[str, str],
    output: str = "runs/benchmark",
    examples: dict[str, str] | None = None,
    max_response_tokens: int = 256,
    max_tokens: int = 1024,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    trust_remote_code: bool = False,
) -> None:
    """Ask public sets of models before and after training; write results.json.

    Sets: hellaswag, rte, sst2, wsc, truthfulqa, crows_pairs and winogender by the log-probabilities
    of their choices, gsm8k by what the model writes; prompts and measures are those of lm-eval 0.4.
    ``MODEL.jsonl`` has every problem with its log-probabilities.

    Args:
        models: name -> folder or hub id of a policy; the others are compared with the first, such
            as ``{before: runs/sft/export, after: runs/ppo/export}``.
        sets: set -> file of its rows, as they are published.
        output: folder to write; the same command goes on where it was interrupted.
        examples: set -> file of its rows that stand before each problem, with their solutions;
            default: none, also for gsm8k (lm-eval: five).
        max_response_tokens: of what is written for gsm8k.
        max_tokens: of one forward pass; nothing else depends on it.
        seed: of the bootstrap.
        device: where to compute.
        dtype: number format of the weights.
        trust_remote_code: run code that comes with a model.
    """
    from instructgpt.commands.policy import load
    from instructgpt.evaluation.asking import Limits
    from instructgpt.evaluation.benchmark import BenchmarkResults, read_questions, results_of
    from instructgpt.models.load import Network

    check(models, max_response_tokens, max_tokens)
    questions = read_questions(sets, examples or {})
    network = Network(dtype, trust_remote_code=trust_remote_code)
    limits = Limits(max_tokens, max_response_tokens)
    with ExitStack() as files:
        noted = {}
        for name, source in models.items():
            policy = load(source, "plain", network, device)
            noted[name] = opened(Path(output, f"{name}.jsonl"), policy, questions, limits)
            files.callback(noted[name].interrupt)
            ask(name, policy, questions, noted[name], limits)
        rows = {name: noted_rows(file) for name, file in noted.items()}
        results = BenchmarkResults(models=models, seed=seed, sets=results_of(questions, rows, seed))
        write(results, noted.values(), Path(output))


def write(results: BenchmarkResults, files: Iterable[UnfinishedRows], output: Path) -> None:
    """Write the results, give the files of rows their names, and show what came out."""
    from instructgpt.evaluation.benchmark import table, write_results

    path = write_results(results, output)
    for file in files:
        file.finish()
    say(table(results))
    say(f"wrote {path}")


def check(models: dict[str, str], max_response_tokens: int, max_tokens: int) -> None:
    """Refuse names that are none of files, and numbers below one."""
    from instructgpt.types import UserError, require

    require(bool(models), "--models", "at least one model", "none")
    for name in models:
        if Path(name).name != name or name.startswith("."):
            raise UserError(f"--models must have names that files can have, got {name!r}")
    require(max_response_tokens >= 1, "--max_response_tokens", ">= 1", max_response_tokens)
    require(max_tokens >= 1, "--max_tokens", ">= 1", max_tokens)


def opened(
    path: Path, policy: Policy, questions: Sequence[Questions], limits: Limits
) -> UnfinishedRows:
    """The file of a model's rows, of which those that are there need not be computed."""
    from instructgpt.callbacks.unfinished import UnfinishedRows, network_hash, rows_hash
    from instructgpt.models.tokenizer import tokenizer_fingerprint

    parameter = next(policy.network.parameters())
    facts = {
        f"model {path.stem}": network_hash(policy.network),
        "tokenizer": tokenizer_fingerprint(policy.tokenizer),
        "--sets": rows_hash([[one.asks.name, one.places, one.problems] for one in questions]),
        "--device": parameter.device.type,
        "--dtype": parameter.dtype,
        **{f"--{name}": value for name, value in limits._asdict().items()},
    }
    file = UnfinishedRows(path, facts)
    if file.open(1):
        say(f"going on behind the {file.rows:,} rows of {file.partial}")
    return file


def noted_rows(file: UnfinishedRows) -> list[dict[str, Any]]:
    """The rows of a file that is not finished yet."""
    import json

    with file.partial.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def ask(
    name: str,
    policy: Policy,
    questions: Sequence[Questions],
    file: UnfinishedRows,
    limits: Limits,
) -> None:
    """Ask a model all that is not in its file yet, and note it.

    Args:
        name: of the model.
        policy: the model.
        questions: of all sets.
        file: gets a row a problem.
        limits: of tokens.
    """
    from instructgpt.callbacks.progress import display
    from instructgpt.evaluation.asking import found
    from instructgpt.evaluation.likelihood import Coder

    first, shown, coder = 0, display(), Coder(policy.tokenizer, policy.context)
    try:
        for asked in questions:
            total = len(asked.problems)
            done = min(max(0, file.rows - first), total)
            first += total
            if done == total:
                continue
            title = f"{name}: {asked.asks.title}"
            shown.show(title, done, total)  # from where the rate is measured
            for some in found(policy.network, coder, asked, done, limits):
                file.add([asked.row(done + i, one) for i, one in enumerate(some)])
                done += len(some)
                shown.show(title, done, total)
    finally:
        shown.close()
