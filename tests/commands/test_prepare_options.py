"""No option of ``prepare`` without an effect: each is flipped, and other rows or lines come out.

Compared are the rows, the report without the options that it repeats, what is said and, with Slurm,
the jobs.
"""

import dataclasses
import inspect
import json
import random
import shutil

import pytest
from rows import write_rows
from stand_ins import presidio, slurm

from instructgpt.__main__ import main as run
from instructgpt.commands.prepare import prepare

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]
LONG = " ".join(f"{first}{second}" for first in WORDS for second in ("", "ty"))
GERMAN = "Können Sie mir bitte sagen, wie ich vom Bahnhof zum alten Hafen komme?"
FRENCH = "Bonjour, où est la gare ?"
HELD = {"splits.validation": 0.6}
NAMES = {"personal.kinds": "[name]"}
EVALUATION = {"decontaminate.against": "{evaluation}"}
LANGUAGE = {"language.keep": "[en]"}
SCORED = {"quality.reward": "LengthReward", "quality.reward.target": 9}
SAFE = {"safety.reward": "LengthReward", "safety.reward.target": 9}
TOKENS = "stand_ins.TokenReward"
BALANCED = {"balance.towards": "uniform", "balance.least": 2}
MIXED = {"mixture.temperature": 5.0}
SLURM = {"executor": "slurm", "slurm.partition": "cpu"}
# an option -> its other value, or that with options that both runs have
FLIPS = {
    "input": "{other}",
    "output": "elsewhere",
    "kind": "prompts",
    "format": "alpaca",
    "columns": ("{response: written}", {"input": "{both}"}),
    "on_error": ("skip", {"input": "{bad}"}),
    "write": "parquet",
    "skip": "[prefix]",
    "prefix.characters": 20,
    "prefix.one_row_a_prompt": True,
    "users.most": 2,
    "splits.validation": 0.6,
    "splits.test": 0.6,
    "splits.seed": 1,
    "personal.action": ("mask", {"personal.splits": "all"}),
    "personal.kinds": ("[phone]", {"personal.splits": "all"}),
    "personal.splits": ("all", HELD),
    "personal.regions": ("[US]", {"personal.splits": "all"}),
    "personal.language_model": ("en_core_web_sm", NAMES),
    "near_duplicates.similarity": 1.0,
    "near_duplicates.words": 9,
    "near_duplicates.of": "row",
    "decontaminate.against": "{evaluation}",
    "decontaminate.ngram": (3, {**EVALUATION, "decontaminate.shortest": 3}),
    "decontaminate.shortest": (13, EVALUATION),
    "lengths.least_prompt": 8,
    "lengths.most_prompt": 9,
    "lengths.least_response": 3,
    "lengths.most_response": 3,
    "lengths.tokenizer": ("{tokenizer}", {"lengths.most_prompt": 9}),
    "language.keep": "[en]",
    "language.sure": (1.0, LANGUAGE),
    "language.shortest": (10, LANGUAGE),
    "responses.empty": False,
    "responses.refusals": True,
    "responses.flags": "{nothing: true}",
    "responses.words": "{words}",
    "quality.reward": TOKENS,
    "quality.least": (-0.5, SCORED),
    "quality.step": (0.1, SCORED),
    "quality.tokenizer": ("{tokenizer}", {"quality.reward": TOKENS}),
    "safety.reward": TOKENS,
    "safety.least": (-0.5, SAFE),
    "safety.step": (0.1, SAFE),
    "safety.tokenizer": ("{tokenizer}", {"safety.reward": TOKENS}),
    "balance.towards": ("uniform", {"balance.least": 2}),
    "balance.least": (20, BALANCED),
    "mixture.temperature": 5.0,
    "mixture.cap": 3,
    "mixture.sizes": ("{a: 1000, b: 1}", MIXED),
    "num_proc": (4, SLURM),
    "executor": ("slurm", {"slurm.partition": "cpu"}),
    "slurm.partition": ("gpu", SLURM),
    "slurm.time": ("00:10:00", SLURM),
    "slurm.memory": (3, SLURM),
    "slurm.environment": ("source here", SLURM),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, tokenizer_folder):
    """A file for each name in braces."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = random.Random(0)
    rows = []
    for i in range(24):
        words = " ".join(rng.choices(WORDS, k=9))
        row = {"prompt": f"{i} {words}?", "response": words[:20], "user": f"u{i % 4}"}
        row |= {"source": "b" if i % 3 else "a", "category": "open_qa" if i % 5 else "rewrite"}
        rows.append(row)
    answers = {
        f"{'x' * 220} a": "to be left out, after all",
        f"{'x' * 220} b": "a prompt that begins in the same way",
        f"{'y' * 50} a": "another word",
        f"{'y' * 50} b": "and another",
        LONG: "they say nearly the same",
        LONG.replace("seven ", "eleven "): "but for a word of some",
        "Write to mary@example.com": "yes, I did",
        "Write to anna@example.com now": "yes, I did so",
        "Ring me back: 06 12 34 56 78": "I will do so",
        "What does one say in a run of so many words that are nowhere else?": "as the test does",
        "Say this: it is found whole from eight words on": "or is it",
        GERMAN: "im Norden",
        FRENCH: "au nord",
        "Is there nothing to say?": "...",
        "Will you?": "As an AI, I cannot help with that.",
        "And this?": "it is bad",
    }
    rows += [{"prompt": prompt, "response": text} for prompt, text in answers.items()]
    rows += [{"prompt": "Is it?", "response": one} for one in ("yes, it is", "no, it is not")]
    rows.append({"prompt": "What is marked?", "response": "this one", "flagged": True})
    both = [{"written": f"done {i}", **rows[i]} for i in range(6)]
    sets = {
        "raw": rows,
        "other": rows[:9],
        "bad": [*rows[:5], {"prompt": 3}],
        "both": both,
        "evaluation": [
            {"text": "one say in a run of so many words that are nowhere else"},
            {"text": "it is found whole from eight words on"},
        ],
    }
    paths = {name: write_rows(folder / f"{name}.jsonl", some) for name, some in sets.items()}
    (folder / "words.txt").write_text("bad\n")
    return {**paths, "words": folder / "words.txt", "tokenizer": tokenizer_folder}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The same for all runs, for paths are said."""
    return tmp_path_factory.mktemp("runs") / "place"


@pytest.fixture
def look(inputs, place, tmp_path, monkeypatch, capsys):
    """Run it, and return its exit code, rows, the report, what it said, and jobs of a cluster."""
    monkeypatch.setattr("instructgpt.hygiene.page.figures_of", lambda report: {})
    calls = slurm(tmp_path / "bin", monkeypatch)
    presidio(monkeypatch)

    def once(options):
        place.mkdir()
        monkeypatch.chdir(place)
        args = [f"--{name}={value}" for name, value in options.items()]
        for name, path in inputs.items():
            args = [one.replace(f"{{{name}}}", str(path)) for one in args]
        calls.write_text("")
        capsys.readouterr()
        code = run(["prepare", *args])
        said = capsys.readouterr()
        files = [one for one in place.glob("*/*") if not one.parent.name.startswith(".")]
        written = {str(one.relative_to(place)): one.read_bytes() for one in files}
        for name in [one for one in written if one.endswith((".html", "prepare.json"))]:
            del written[name]  # made from the report; hash of the options
        for name in [one for one in written if one.endswith("report.json")]:
            report = json.loads(written[name])
            for rule in report["rules"]:
                del rule["options"]
            written[name] = report
        shutil.rmtree(place)
        return code, written, said.out, said.err if code else "", calls.read_text()

    return once


@pytest.fixture(scope="module")
def known():
    """What was seen, by options: many are compared with the same call."""
    return {}


BASE = {"input": "{raw}", "output": "out", "num_proc": 1}


@pytest.mark.parametrize("name", FLIPS)
def test_an_option_has_an_effect(name, look, known):
    value, both = FLIPS[name] if isinstance(FLIPS[name], tuple) else (FLIPS[name], {})
    options = {**BASE, **both}
    if (key := f"{options}") not in known:
        known[key] = look(options)
    assert known[key][0] == (2 if name == "on_error" else 0), known[key][3]
    assert known[key] != look({**options, name: value})


def test_the_same_options_are_seen_the_same(look):
    for options in (BASE, {**BASE, **SLURM}):
        assert look(options) == look(options)


def test_every_option_is_flipped():
    options = []
    for name, parameter in inspect.signature(prepare).parameters.items():
        if dataclasses.is_dataclass(group := parameter.default):
            options += [f"{name}.{field.name}" for field in dataclasses.fields(group)]
        else:
            options.append(name)
    assert list(FLIPS) == options
