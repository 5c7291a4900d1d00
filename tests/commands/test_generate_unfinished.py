"""``generate`` writes rows as they come, goes on where it stopped, and leaves no prompt unsaid."""

import json
import os
import re
import signal
from pathlib import Path

import pytest
import torch
from harness import killed

from instructgpt.__main__ import main as run
from instructgpt.models.artefact import save_policy
from instructgpt.models.load import Network, load_policy
from instructgpt.models.template import get_template
from instructgpt.models.tokenizer import BPE, train_bpe
from instructgpt.rollout import answer

ROWS = 9
CHAT = (
    "{% for m in messages %}{% if 'sorry' in m.content %}{{ raise_exception('no regrets') }}"
    "{% endif %}{{ m.content }}: {% endfor %}"
)


def export(folder, template="plain", seed=0, chat_template=None, n_positions=64):
    torch.manual_seed(seed)
    tokenizer = train_bpe(["the cat says meow and the dog says woof"], BPE(vocab_size=270))
    tokenizer.chat_template = chat_template
    architecture = {"model_type": "gpt2", "n_layer": 1, "n_embd": 16, "n_head": 2}
    model = load_policy(None, architecture | {"n_positions": n_positions}, Network(), tokenizer)
    about = {"stage": "sft", "template": get_template(template), "parent": None}
    save_policy(model, tokenizer, folder, **about, config={}, metrics={})
    return str(folder)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return export(tmp_path_factory.mktemp("policy") / "export")


def write(path, prompts):
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in prompts))
    return str(path)


@pytest.fixture
def work(policy, tmp_path):
    """The command line: nine prompts with two responses each, four at once."""
    prompts = write(tmp_path / "p.jsonl", [f"the cat {'says ' * (n % 4)}{n}" for n in range(ROWS)])
    args = ["generate", f"--model={policy}", f"--prompts={prompts}", "--responses=2"]
    return [*args, "--max_response_tokens=5", "--batch_size=4", f"--output={tmp_path}/out.jsonl"]


@pytest.fixture
def whole(work, tmp_path):
    """What an uninterrupted run writes."""
    assert run(work) == 0
    path = tmp_path / "out.jsonl"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.jsonl", "p.jsonl"]
    return path.rename(tmp_path / "expected").read_bytes()


def interrupting(monkeypatch, after, how):
    """Stop after some rows; note those that are made."""
    made, real = [], answer.row_of

    def stopping(*args):
        if len(made) == after:
            how()
        made.append(real(*args))
        return made[-1]

    monkeypatch.setattr(answer, "row_of", stopping)
    return made


def ctrl_c():
    raise KeyboardInterrupt


def test_after_ctrl_c_the_same_command_goes_on(work, whole, tmp_path, monkeypatch, capsys):
    out, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    with monkeypatch.context() as patch:
        interrupting(patch, 4, ctrl_c)
        assert run(work) == 130
    assert not out.exists()
    assert partial.read_bytes() == b"".join(whole.splitlines(keepends=True)[:4])
    said = f"4 rows are in {partial}: the same command goes on there; delete that file to start"
    assert said in capsys.readouterr().err
    with monkeypatch.context() as patch:  # and again, in its first row
        interrupting(patch, 0, ctrl_c)
        assert run(work) == 130
    made = interrupting(monkeypatch, -1, ctrl_c)
    assert run(work) == 0
    assert out.read_bytes() == whole
    assert len(made) == 5  # those that were left
    assert not list(tmp_path.glob("*.partial*"))


def test_rows_are_in_the_file_while_it_runs_and_survive_a_kill(work, whole, tmp_path, monkeypatch):
    partial = tmp_path / "out.jsonl.partial"

    def die():
        interrupting(monkeypatch, 6, lambda: os.kill(os.getpid(), signal.SIGKILL))
        run(work)

    killed(die)
    assert partial.read_bytes() == b"".join(whole.splitlines(keepends=True)[:6])
    assert run(work) == 0
    assert (tmp_path / "out.jsonl").read_bytes() == whole


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_half_a_line_is_written_again(work, whole, tmp_path, monkeypatch, cut):
    with monkeypatch.context() as patch:
        interrupting(patch, 6, ctrl_c)
        run(work)
    partial = tmp_path / "out.jsonl.partial"
    partial.write_bytes(partial.read_bytes()[:-cut])
    assert run(work) == 0
    assert (tmp_path / "out.jsonl").read_bytes() == whole


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("--seed=1", "--seed (0), got 1"),
        ("--responses=1", "--responses (2), got 1"),
        ("--max_response_tokens=6", "--max_response_tokens (5), got 6"),
        ("--temperature=0.5", "--temperature (1.0), got 0.5"),
        ("--greedy=true", "--temperature (1.0), got 0.0"),
        ("--top_p=0.9", "--top_p (1.0), got 0.9"),
        ("--top_k=3", "--top_k (0), got 3"),
        ("--min_response_tokens=2", "--min_response_tokens (0), got 2"),
        ("--repetition_penalty=2", "--repetition_penalty (1.0), got 2.0"),
        ("--stop=x", "--stop (''), got 'x'"),
        ("--template=hh", "--template (plain, "),
        ("--dtype=bfloat16", "--dtype (torch.float32), got torch.bfloat16"),
        ("--model={other}", "--model ("),
        ("--reference={other}", "--reference (None), got "),
        ("--prompts={other}.jsonl", "--prompts ("),
    ],
)
def test_other_work_does_not_go_on(work, tmp_path, monkeypatch, capsys, option, name):
    with monkeypatch.context() as patch:
        interrupting(patch, 4, ctrl_c)
        run(work)
    other, partial = tmp_path / "other", tmp_path / "out.jsonl.partial"
    before = partial.read_bytes()
    if "{other}.jsonl" in option:  # as many, and one differs at the end
        text = (tmp_path / "p.jsonl").read_text()
        Path(f"{other}.jsonl").write_text(text.replace('8"}', '0"}'))
    elif "{other}" in option:
        export(other, seed=1)
    capsys.readouterr()
    assert run([*work, option.format(other=other)]) == 2
    error = capsys.readouterr().err
    assert f"{partial} was begun with another {name}" in error
    assert f"or delete {partial} to start over" in error
    assert len(error.splitlines()) == 1
    assert partial.read_bytes() == before
    partial.unlink()
    assert run([*work, option.format(other=other)]) == 0
    assert not list(tmp_path.glob("*.partial*"))


def test_another_batch_size_may_go_on(work, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupting(patch, 4, ctrl_c)
        run(work)
    assert run([*work, "--batch_size=6"]) == 0
    assert (tmp_path / "out.jsonl").read_bytes() == whole


def without_notes(error):
    """What was said but for the notes on template and columns."""
    return "".join(line for line in error.splitlines(True) if not line.startswith("note: "))


def test_two_do_not_write_one_file(work, tmp_path, monkeypatch, capsys):
    errors = []

    def second():
        made.append({})  # so that the second call does not come here
        capsys.readouterr()  # what the first has said
        assert run(work) == 2
        errors.append(capsys.readouterr().err)

    made = interrupting(monkeypatch, 1, second)
    assert run(work) == 0
    assert errors == [
        f"instructgpt: error: {tmp_path}/out.jsonl.partial is being written by another process\n"
    ]
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == ROWS


def test_a_partial_file_of_somebody_else_is_not_touched(work, tmp_path, capsys):
    partial = tmp_path / "out.jsonl.partial"
    partial.write_text("mine")
    assert run(work) == 2
    assert f"delete {partial} to start over" in capsys.readouterr().err
    assert partial.read_text() == "mine"


def test_a_place_that_cannot_be_written(work, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run([*work, f"--output={tmp_path}/file/out.jsonl"]) == 2
    assert "file/out.jsonl must be writable, got: " in capsys.readouterr().err
    assert run([*work, "--output=/dev/null"]) == 2
    assert "--output must be a file, got the device /dev/null" in capsys.readouterr().err


def responses(path):
    return {r["prompt"]: r["responses"] for r in map(json.loads, path.read_text().splitlines())}


def test_an_over_long_prompt_is_cut_as_in_fit_and_the_rest_go_on(policy, tmp_path, capsys):
    """59 of 64 tokens are left of the context; the answer is that to the prompt's last 59."""
    tokens = [chr(ord("a") + n % 23) for n in range(300)]  # a token each
    long, rest = "".join(tokens), ["cat", "the dog says"]
    answers = []
    for name, asked in (("long", long), ("end", long[-59:])):
        prompts = write(tmp_path / f"{name}.jsonl", [rest[0], asked, rest[1]])
        out = tmp_path / f"{name}.out"
        args = ["generate", f"--model={policy}", f"--prompts={prompts}", f"--output={out}"]
        assert run([*args, "--max_response_tokens=5"]) == 0
        answers.append(responses(out))
        error = without_notes(capsys.readouterr().err)
        line = (
            "warning: 1 of 3 prompts cut: prompts on the left, to 59 tokens "
            f"({prompts}:2); a context of 64 tokens has no more room beside "
            "--max_response_tokens 5\n"
        )
        assert error == (line if name == "long" else "")
    assert list(answers[0]) == [rest[0], long, rest[1]]
    assert list(answers[0].values()) == list(answers[1].values())


def test_one_long_prompt_does_not_shorten_the_answers_to_the_others(policy, tmp_path, capsys):
    """Without a limit asked for, responses have what is left of the context, at least a quarter."""
    prompts = write(tmp_path / "p.jsonl", ["cat", "x" * 63, "woof"])
    args = ["generate", f"--model={policy}", f"--prompts={prompts}", "--stop=never"]
    assert run([*args, f"--output={tmp_path}/out.jsonl"]) == 0
    # "woof" is the longest that leaves 16 tokens, in at most 4 tokens: 60 or more are left
    found = re.search(r"to (\d+) tokens.*--max_response_tokens (\d+)", capsys.readouterr().err)
    assert int(found[1]) + int(found[2]) == 64
    assert int(found[2]) >= 60


def test_a_prompt_that_the_template_refuses_is_left_out_and_named(tmp_path, capsys):
    policy = export(tmp_path / "export", "chat", chat_template=CHAT)
    texts = ["cat", "so sorry", "the dog says"]
    prompts = write(tmp_path / "p.jsonl", texts)
    args = ["generate", f"--model={policy}", "--max_response_tokens=5"]
    out = tmp_path / "out.jsonl"
    assert run([*args, f"--prompts={prompts}", f"--output={out}"]) == 0
    error = without_notes(capsys.readouterr().err)
    assert error.startswith("warning: 1 of 3 prompts left out: ")
    assert "no regrets" in error
    assert error.endswith(f"({prompts}:2)\n")
    answers = responses(out)
    assert list(answers) == ["cat", "the dog says"]
    # the noise of a row goes with its number in the file, whatever is left out before it
    others = write(tmp_path / "others.jsonl", ["cat", "sad", "the dog says"])
    assert run([*args, f"--prompts={others}", f"--output={tmp_path}/others.out"]) == 0
    assert responses(tmp_path / "others.out")["the dog says"] == answers["the dog says"]
    assert run([*args, f"--prompts={write(tmp_path / 'q.jsonl', texts[1:2])}"]) == 2
    assert "no prompt is left to answer: 1 bad (" in capsys.readouterr().err


def test_progress_has_a_rate_and_the_time_left(work, monkeypatch, capsys):
    monkeypatch.setenv("INSTRUCTGPT_LINE_SECONDS", "0")
    assert run(work) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "prompts " in line]
    assert re.fullmatch(r"prompts 6/9  [\d.]+(/s|s each)  0:00:0\d left", lines[6])
