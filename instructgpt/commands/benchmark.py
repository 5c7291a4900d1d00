"""``benchmark``: public sets, asked as lm-eval does (the alignment tax), or of reward models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from instructgpt.terminal import say

if TYPE_CHECKING:  # imported when needed: `benchmark --help` should not wait for them
    from instructgpt.callbacks.unfinished import UnfinishedRows
    from instructgpt.evaluation.asking import Limits
    from instructgpt.evaluation.benchmark import BenchmarkResults, ProblemSet
    from instructgpt.models.load import Network


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
    Or rewardbench2, of reward models. ``MODEL.jsonl`` has every problem with its log-probabilities
    or scores.

    Args:
        models: name -> folder or hub id of a policy, or of a reward model; the others are compared
            with the first, such as ``{before: runs/sft/export, after: runs/ppo/export}``.
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
    from instructgpt.evaluation.asking import Limits
    from instructgpt.evaluation.benchmark import BenchmarkResults, results_of
    from instructgpt.models.load import Network

    check(models, max_response_tokens, max_tokens)
    questions = read(sets, examples or {})
    network = Network(dtype, trust_remote_code=trust_remote_code, max_tokens=max_tokens)
    limits = Limits(max_tokens, max_response_tokens)
    load = reward_model if asks_reward_models(sets) else policy
    with ExitStack() as files:
        noted = {}
        for name, source in models.items():
            subject = load(source, network, device, limits)
            noted[name] = opened(Path(output, f"{name}.jsonl"), subject, questions, limits)
            files.callback(noted[name].interrupt)
            ask(name, subject, questions, noted[name])
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


def asks_reward_models(sets: Mapping[str, str]) -> bool:
    """Whether the sets are asked of reward models; a mixture is refused."""
    from instructgpt.evaluation.public_sets import REWARD_BENCH
    from instructgpt.types import require

    rule = f"{REWARD_BENCH} alone, or without it: it is asked of reward models, the others are not"
    require(REWARD_BENCH not in sets or len(sets) == 1, "--sets", rule, ", ".join(sets))
    return REWARD_BENCH in sets


def read(sets: Mapping[str, str], examples: Mapping[str, str]) -> Sequence[ProblemSet]:
    """The problems of all files."""
    from instructgpt.evaluation.benchmark import check_sets, read_questions
    from instructgpt.evaluation.reward_bench import read_reward_bench

    check_sets(sets, examples)
    if asks_reward_models(sets):
        return [read_reward_bench(path) for path in sets.values()]
    return read_questions(sets, examples)


class Subject(NamedTuple):
    """What is asked."""

    facts: dict[str, Any]  # that its rows depend on
    found: Callable[[Any, int], Iterator[Sequence[Any]]]  # what it says to a set from a problem on


def policy(source: str, network: Network, device: str, limits: Limits) -> Subject:
    """A policy, which is asked for log-probabilities and texts.

    Args:
        source: folder or hub id.
        network: number format.
        device: where to, or "auto".
        limits: of tokens.
    """
    from functools import partial

    from instructgpt.callbacks.unfinished import network_hash
    from instructgpt.commands.policy import load
    from instructgpt.evaluation.asking import found
    from instructgpt.evaluation.likelihood import Coder
    from instructgpt.models.tokenizer import tokenizer_fingerprint

    loaded = load(source, "plain", network, device)
    parameter = next(loaded.network.parameters())
    facts = {
        "weights": network_hash(loaded.network),
        "tokenizer": tokenizer_fingerprint(loaded.tokenizer),
        "--device": parameter.device.type,
        "--dtype": parameter.dtype,
    }
    coder = Coder(loaded.tokenizer, loaded.context)
    return Subject(facts, partial(found, loaded.network, coder, limits))


def reward_model(source: str, network: Network, device: str, limits: Limits) -> Subject:
    """A reward model, which is asked for scores; arguments as of ``policy``."""
    from functools import partial

    from instructgpt.commands.policy import device_of
    from instructgpt.evaluation.reward_bench import scored
    from instructgpt.rewards.learned import reads_alone

    place = device_of(device)
    reward = reads_alone(source, "--models", place, network)
    _, digest = reward.origins()["init_from"]
    facts = {"weights": digest, "--device": place.type, "--dtype": network.dtype}
    return Subject(facts, partial(scored, reward))


def opened(
    path: Path, subject: Subject, questions: Sequence[ProblemSet], limits: Limits
) -> UnfinishedRows:
    """The file of a model's rows, of which those that are there need not be computed."""
    from instructgpt.callbacks.unfinished import UnfinishedRows, rows_hash

    facts = {
        f"model {path.stem}": subject.facts.pop("weights"),
        "--sets": rows_hash([[one.name, one.places, one.problems] for one in questions]),
        **subject.facts,
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


def ask(name: str, subject: Subject, questions: Sequence[ProblemSet], file: UnfinishedRows) -> None:
    """Ask a model all that is not in its file yet, and note it.

    Args:
        name: of the model.
        subject: the model.
        questions: of all sets.
        file: gets a row a problem.
    """
    from instructgpt.callbacks.progress import display

    first, shown = 0, display()
    try:
        for asked in questions:
            total = len(asked.problems)
            done = min(max(0, file.rows - first), total)
            first += total
            if done == total:
                continue
            title = f"{name}: {asked.title}"
            shown.show(title, done, total)  # from where the rate is measured
            for some in subject.found(asked, done):
                file.add([asked.row(done + i, one) for i, one in enumerate(some)])
                done += len(some)
                shown.show(title, done, total)
    finally:
        shown.close()
