"""``generate``: answer prompts from a file, or interactively, with any policy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from instructgpt.commands.policy import Policy, load
from instructgpt.errors import check_unused
from instructgpt.terminal import note, say

if TYPE_CHECKING:  # imported when needed: `generate --help` should not wait for them
    from instructgpt.callbacks.unfinished import UnfinishedRows
    from instructgpt.commands.reference import KLReference
    from instructgpt.data.formats import Row
    from instructgpt.data.rows import PromptRow
    from instructgpt.models.load import Network
    from instructgpt.rollout.answer import Wish
    from instructgpt.rollout.drawing import Sampling


def generate(
    model: str,
    prompts: str | None = None,
    output: str | None = None,
    against: str | None = None,
    reward_model: str | None = None,
    reference: str | None = None,
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
        prompts: file or folder with prompts (.jsonl, .json, .csv, .parquet); without it, what is
            typed is a conversation (``/system``, ``/reset``, ``/save``); an empty line ends it.
        output: JSONL file, ``OUTPUT.partial`` until it is whole, where the same command goes on.
        against: a second model that answers what is typed, too, with a history of its own.
        reward_model: folder or hub id of a reward model, whose scores of typed answers are shown.
        reference: a policy of the same tokenizer; rows get ``kl``, log p - log q of each answer.
        responses: to each prompt; a conversation goes on from the first.
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
    check_positive(responses, max_response_tokens, batch_size)
    places = Places(model, prompts, output, against, reward_model, reference)
    loading = Loading(template, dtype, trust_remote_code, device)
    bent = (top_p, top_k, min_response_tokens, repetition_penalty)
    drawn = (temperature_of(greedy, temperature, top_p, top_k), *bent, stop, batch_size)
    respond(places, loading, responses, max_response_tokens or 0, drawn, seed)


class Places(NamedTuple):
    """Who answers what, and where to."""

    model: str
    prompts: str | None
    output: str | None
    against: str | None
    reward_model: str | None
    reference: str | None


class Loading(NamedTuple):
    """How policies are loaded."""

    template: str
    dtype: Any
    trust_remote_code: bool
    device: str

    def network(self) -> Network:
        """How they are held."""
        from instructgpt.models.load import Network

        return Network(self.dtype, trust_remote_code=self.trust_remote_code)

    def policy(self, source: str) -> Policy:
        """A policy from a folder or the hub."""
        return load(source, self.template, self.network(), self.device)


def respond(
    places: Places,
    loading: Loading,
    responses: int,
    max_response_tokens: int,
    drawn: tuple[Any, ...],
    seed: int,
) -> None:
    """Answer prompts of a file, which is read before the policy is loaded, or of the terminal."""
    from instructgpt.data.questions import read
    from instructgpt.rollout.answer import Wish
    from instructgpt.rollout.drawing import Sampling

    wish = Wish(responses, max_response_tokens, Sampling(*drawn), seed)
    check_paths(places)
    if places.prompts is None:
        talk(places, loading, wish)
    else:
        unused = {"against": places.against, "reward_model": places.reward_model}
        check_unused(generate, "--prompts", **unused)
        given, about = read(places.prompts)
        if places.reference is not None:
            check_plain(wish.sampling)
        policy, reference = loading.policy(places.model), None
        if places.reference is not None:
            from instructgpt.commands.reference import KLReference

            reference = KLReference.load(places.reference, loading.network(), policy)
        answer_file(policy, reference, given, about, wish, places.output)


def talk(places: Places, loading: Loading, wish: Wish) -> None:
    """Hold a conversation in the terminal."""
    from instructgpt.commands.chat import Critic, Side, converse
    from instructgpt.types import UserError

    model, _, output, against, reward_model, reference = places
    check_unused(generate, "a conversation", reference=reference)
    if output is not None:
        hint = "in a conversation /save FILE writes it"
        raise UserError(f"--output must be left out without --prompts, got {output}; {hint}")
    label = "" if against is None else f"--model {model}: "
    sides = [Side(model, loading.policy(model), label)]
    if against is not None:
        try:
            sides.append(Side(against, loading.policy(against), f"--against {against}: "))
        except UserError as error:
            raise UserError(f"--against: {error}") from error
    critic = None
    if reward_model is not None:
        critic = Critic.load(reward_model, loading.network(), sides[0].policy)
    converse(sides, critic, wish)


def temperature_of(greedy: bool, temperature: float, top_p: float, top_k: int) -> float:
    """0 for greedy; then options of sampling must not be given."""
    if not greedy:
        return temperature
    check_unused(generate, "--greedy", temperature=temperature, top_p=top_p, top_k=top_k)
    return 0.0


def check_plain(sampling: Sampling) -> None:
    """Refuse samples that are not of the policy itself: a KL is a mean over its own."""
    greedy = sampling.temperature == 0
    heat = {"greedy": True} if greedy else {"temperature": sampling.temperature}
    bent = ("top_p", "top_k", "min_response_tokens", "repetition_penalty")
    given = {name: getattr(sampling, name) for name in bent}
    check_unused(generate, "--reference", **heat, **given)


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


def check_paths(places: Places) -> None:
    """Refuse the folder of a run, and an output that would fail or replace the prompts."""
    from instructgpt.models.source import ARTEFACT_FILE
    from instructgpt.types import UserError

    prompts, output = places.prompts, places.output
    for name in ("model", "against", "reward_model", "reference"):
        place = getattr(places, name)
        artefact = Path(place or "", "export", ARTEFACT_FILE)
        if place and artefact.is_file() and not Path(place, "config.json").exists():
            rule = f"--{name} must be an artefact, got the folder of a run"
            raise UserError(f"{rule}: {artefact.parent}?")
    if output is not None and Path(output).exists() and not Path(output).is_file():
        kind = "folder" if Path(output).is_dir() else "device"
        raise UserError(f"--output must be a file, got the {kind} {output}")
    if output is not None and output.endswith((".gz", ".csv", ".tsv", ".parquet")):
        raise UserError(f"--output must be a file of JSONL, such as answers.jsonl, got {output}")
    if output is not None and prompts and Path(output).resolve() == Path(prompts).resolve():
        raise UserError(f"--output must not be the file of the prompts, got {output}")


def answer_file(
    policy: Policy,
    reference: KLReference | None,
    given: list[Row],
    about: list[str],
    wish: Wish,
    output: str | None,
) -> None:
    """Answer prompts to a file, going on where an earlier call stopped, or to the terminal."""
    from instructgpt.callbacks.common import json_lines
    from instructgpt.callbacks.unfinished import UnfinishedRows

    wish, rows = policy.encode(given, wish)
    facts = facts_of(policy, reference, rows, wish)
    file = UnfinishedRows(Path(output), facts) if output else None
    done = file.open(1) if file else 0
    for line in (*about, policy.choice):  # now it is sure to answer
        note(line)
    if file is None:
        for row in answer(policy, reference, rows, wish):
            say(json_lines([row]).rstrip("\n"))  # the escapes of say are those of JSON
        return
    write(answer(policy, reference, rows[done:], wish), file, len(rows))


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


def answer(
    policy: Policy, reference: KLReference | None, rows: list[PromptRow], wish: Wish
) -> Iterator[dict[str, Any]]:
    """Rows with responses, in order, as they come."""
    from instructgpt.rollout import answer
    from instructgpt.rollout.drawing import Request

    network, tokenizer, template, *_ = policy
    asked = [Request(row.tokens.tolist(), row.sample_id, row.prompt.id) for row in rows]
    found = answer.answers(network, asked, wish, tokenizer, template)
    for row, request, said in zip(rows, asked, found, strict=True):
        measured = {} if reference is None else {"kl": reference.kl(request.tokens, said)}
        yield answer.row_of(row.prompt, said) | measured


def facts_of(
    policy: Policy, reference: KLReference | None, rows: list[PromptRow], wish: Wish
) -> dict[str, Any]:
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
        "--reference": None if reference is None else network_hash(reference.network),
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "--prompts": rows_hash(rows),
    }
