"""``generate`` from a file and from the terminal."""

import datetime
import decimal
import io
import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet
from rows import read_rows, write_rows

from instructgpt.__main__ import main as run
from instructgpt.commands import chat, generate
from instructgpt.models.artefact import save_policy
from instructgpt.models.load import Network, load_policy
from instructgpt.models.template import get_template
from instructgpt.models.tokenizer import BPE, train_bpe
from instructgpt.rollout import sampler
from instructgpt.terminal import printable


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy") / "export"
    tokenizer = train_bpe(["the cat says meow and the dog says woof"], BPE(vocab_size=270))
    architecture = {"model_type": "gpt2", "n_layer": 1, "n_embd": 16, "n_head": 2}
    model = load_policy(None, architecture | {"n_positions": 64}, Network(), tokenizer)
    about = {"stage": "sft", "template": get_template("instruction"), "parent": None}
    save_policy(model, tokenizer, folder, **about, config={}, metrics={})
    return str(folder)


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    rows = [{"prompt": "cat", "id": "a"}, {"prompt": "the dog says"}, {"prompt": "woof"}]
    write_rows(path, rows)
    return str(path)


def answers(policy, prompts, tmp_path, *more):
    out = tmp_path / "out.jsonl"
    args = ["generate", "--model", policy, "--prompts", prompts, "--output", str(out)]
    assert run([*args, "--max_response_tokens=5", *more]) == 0
    return read_rows(out)


def test_the_last_line_says_where_the_rows_are(policy, prompts, tmp_path, capsys):
    answers(policy, prompts, tmp_path)
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote 3 rows to {tmp_path / 'out.jsonl'}"


@pytest.mark.parametrize("module", ["SFTModule", "PPOModule"])
def test_predict_writes_the_same_rows_for_the_same_seed(policy, tmp_path, module):
    """In batches of other sizes."""
    path = tmp_path / "prompts.jsonl"
    texts = ["cat", "the dog says", "woof", "the cat says meow", "dog"]
    rows = [{"prompt": text, "tag": i} for i, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = [f"--model={module}", f"--model.init_from={policy}", "--model.sampling.batch_size=4"]
    if module == "PPOModule":
        options += ["--model.reward=CountReward", "--model.reward.text=e"]
    data = ["--data=PromptDataModule", f"--data.train={path}", "--data.validation=null"]
    data += ["--data.validation_batch_size=2", "--data.responses=3"]
    data += ["--data.max_prompt_tokens=50", "--data.max_response_tokens=5"]
    written = []
    for seed in (3, 4):
        out = tmp_path / f"predicted_{seed}"
        given = [f"--output={out}", f"--seed_everything={seed}"]
        assert run(["predict", *options, *data, *given]) == 0
        written.append([json.loads(line) for line in (out / "predictions.jsonl").open()])
    made = answers(policy, str(path), tmp_path, "--responses=3", "--seed=3", "--batch_size=9")
    assert made == written[0]
    assert made != written[1]
    assert len({text for row in made for text in row["responses"]}) > 5


def test_a_row_a_prompt_in_order(policy, prompts, tmp_path):
    rows = answers(policy, prompts, tmp_path, "--responses=3")
    assert [row["prompt"] for row in rows] == ["cat", "the dog says", "woof"]
    assert rows[0]["id"] == "a"
    assert all(len(row["responses"]) == len(row["finished"]) == 3 for row in rows)
    assert len({response for row in rows for response in row["responses"]}) > 3


def test_responses_do_not_depend_on_the_batch_but_on_the_seed(policy, prompts, tmp_path):
    one = answers(policy, prompts, tmp_path, "--responses=2", "--batch_size=1")
    assert answers(policy, prompts, tmp_path, "--responses=2", "--batch_size=16") == one
    assert answers(policy, prompts, tmp_path, "--responses=2", "--seed=1") != one


def test_a_stop_text_ends_responses(policy, prompts, tmp_path):
    plain = answers(policy, prompts, tmp_path, "--responses=2")
    stop = plain[0]["responses"][0][2]
    cut = answers(policy, prompts, tmp_path, "--responses=2", "--stop", stop)
    for row, short in zip(plain, cut, strict=True):
        for i, text in enumerate(row["responses"]):
            assert short["responses"][i] == text.partition(stop)[0]
            assert short["finished"][i] == (row["finished"][i] or stop in text)


@pytest.mark.parametrize("text", ["###", "null", "#"])
def test_a_stop_text_is_taken_as_it_is(policy, prompts, tmp_path, monkeypatch, text):
    """YAML, in which options are written, would read a comment or nothing."""
    seen = []
    monkeypatch.setattr(sampler, "said", lambda *given: seen.append(given[4]) or ("", True))
    answers(policy, prompts, tmp_path, "--stop", text)
    assert set(seen) == {text}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output=answers.jsonl.gz"], "--output must be a file of JSONL"),
        (["--output={prompts}"], "--output must not be the file of the prompts"),
        (["--output={folder}"], "--output must be a file, got the folder"),
        (["--model={run}", "--output=x"], "--model must be an artefact, got the folder of a run: "),
    ],
)
def test_places_that_cannot_be_meant(policy, prompts, tmp_path, capsys, options, message):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "export").symlink_to(policy)
    places = {"prompts": prompts, "folder": tmp_path, "run": tmp_path / "run"}
    before = Path(prompts).read_text()
    args = ["generate", f"--model={policy}", f"--prompts={prompts}"]
    assert run([*args, *(one.format(**places) for one in options)]) == 2
    assert message in capsys.readouterr().err
    assert Path(prompts).read_text() == before


def test_optional_keys_are_kept(policy, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"prompt": "cat", "category": "x", "meta": {"a": [1]}}) + "\n")
    (row,) = answers(policy, str(path), tmp_path)
    assert (row["category"], row["meta"]) == ("x", {"a": [1]})


def test_columns_of_any_type_are_kept_as_text_or_left_out_before_sampling(policy, tmp_path, capsys):
    columns = {
        "prompt": ["cat"],
        "day": [datetime.date(2024, 2, 29)],
        "price": [decimal.Decimal("0.10")],
        "raw": [b"caf\xc3\xa9"],
        "picture": [b"\x89PNG"],
    }
    path = tmp_path / "prompts.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    (row,) = answers(policy, str(path), tmp_path)
    assert (row["day"], row["price"], row["raw"]) == ("2024-02-29", "0.10", "café")
    assert "picture" not in row
    left_out = 'column "picture" is left out: bytes that are not UTF-8'
    assert capsys.readouterr().err.startswith(f"note: {path}: {left_out} (first: {path}:1)\n")


EVIL = "a\x1b[31mb\x9b1mc\u202ed\x7f"


def test_responses_do_not_act_on_the_terminal_and_are_exact_in_files(
    policy, prompts, tmp_path, capsys, monkeypatch
):
    row = {"id": "a", "prompt": EVIL, "responses": [EVIL, "b"], "finished": [True, True]}
    monkeypatch.setattr(generate, "answer", lambda *_, **__: iter([row]))
    model = ["generate", "--model", policy]
    with monkeypatch.context() as patch:
        patch.setattr(sampler, "said", lambda *_: (EVIL, True))
        patch.setattr("sys.stdin", io.StringIO("cat\n\n"))
        assert run([*model, "--responses=2"]) == 0
    visible = r"a\u001b[31mb\u009b1mc\u202ed\u007f"
    assert capsys.readouterr().out == f"{visible}\n---\n{visible}\n"
    assert run([*model, "--prompts", prompts]) == 0
    shown = capsys.readouterr().out
    assert not set(shown) & set("\x1b\x9b\u202e\x7f")
    assert json.loads(shown) == row
    assert answers(policy, prompts, tmp_path) == [row]


def test_greedy_is_the_same_every_time(policy, prompts, tmp_path):
    rows = answers(policy, prompts, tmp_path, "--greedy=true", "--responses=2")
    assert all(row["responses"][0] == row["responses"][1] for row in rows)


def test_to_the_terminal_and_from_it(policy, prompts, capsys, monkeypatch):
    model = ["generate", "--model", policy, "--max_response_tokens=5", "--greedy=true"]
    assert run([*model, "--prompts", prompts]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    monkeypatch.setattr("sys.stdin", io.StringIO("cat\n\nnever read\n"))
    assert run(model) == 0
    assert capsys.readouterr().out == printable(rows[0]["responses"][0]) + "\n"


def test_a_conversation_is_written_while_it_is_drawn(policy, tmp_path, capsys, monkeypatch):
    """Token by token, one response after the other; the texts are those of a file."""
    path = tmp_path / "asked.jsonl"
    write_rows(path, [{"prompt": "cat"}, {"prompt": "dog"}])
    how = ["--responses=2", "--seed=3", "--max_response_tokens=5"]
    rows = answers(policy, str(path), tmp_path, *how)
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", io.StringIO("cat\n/reset\ndog\n"))
    pieces, real = [], chat.say
    monkeypatch.setattr(chat, "say", lambda t, **more: pieces.append(t) or real(t, **more))
    assert run(["generate", f"--model={policy}", *how]) == 0
    texts = ["\n---\n".join(map(printable, row["responses"])) + "\n" for row in rows]
    assert capsys.readouterr().out == "".join(texts)
    assert len([piece for piece in pieces if piece]) > 10


def test_options_can_come_from_a_file(policy, prompts, tmp_path):
    (tmp_path / "g.yaml").write_text(f"model: {policy}\nresponses: 2\n")
    rows = answers(policy, prompts, tmp_path, f"--config={tmp_path}/g.yaml")
    assert len(rows[0]["responses"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--temperatur=1"], "unknown option --temperatur; did you mean temperature?"),
        (["--temperature=x"], "--temperature must be float, got x"),
        (["--temperature=-1"], "temperature must be >= 0, got -1.0"),
        (
            ["--greedy=true", "--temperature=0.5"],
            "--temperature must be left out with --greedy, got 0.5",
        ),
        (["--greedy=true", "--top_k=5"], "--top_k must be left out with --greedy, got 5"),
        (["--top_p=0"], "top_p must be in (0, 1], got 0.0"),
        (["--responses=0"], "--responses must be >= 1, got 0"),
        (["--prompts=nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--device=gpu"], "--device must be one of 'auto', 'cpu', 'cuda', 'mps', got gpu"),
        (["--template=nope"], "template: must be one of plain,"),
        (
            ["--max_response_tokens=60"],
            "and --max_response_tokens must fit into the context of 64 tokens, got",
        ),
    ],
)
def test_wrong_input(policy, prompts, tmp_path, capsys, options, message):
    out = tmp_path / "out.jsonl"
    args = ["generate", "--model", policy, "--prompts", prompts, "--output", str(out)]
    assert run([*args, *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not out.exists()


def test_a_link_to_the_answers_stays_one(policy, prompts, tmp_path):
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "far.jsonl")
    args = ["generate", "--model", policy, "--prompts", prompts, "--max_response_tokens=2"]
    assert run([*args, f"--output={tmp_path / 'link.jsonl'}"]) == 0
    assert (tmp_path / "link.jsonl").is_symlink()
    assert (tmp_path / "far.jsonl").stat().st_size


def test_no_model(capsys):
    assert run(["generate"]) == 2
    assert capsys.readouterr().err == "instructgpt: error: --model is required\n"


def test_the_default_limit_is_what_the_context_leaves(policy, monkeypatch, capsys):
    """A context of 64 tokens is shorter than the 256 of the default; a long line ends nothing."""
    lines = iter(["Say hello", "hello " * 400, "One two", ""])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    assert run(["generate", f"--model={policy}"]) == 0
    printed = capsys.readouterr()
    assert "context of" in printed.err
    assert printed.out.count("\n") >= 2


def test_what_columns_are_used_as_is_said_before_sampling(policy, tmp_path, capfd):
    path = tmp_path / "verl.jsonl"
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "cat"}]
    more = {"data_source": "x", "reward_model": {"style": "rule", "ground_truth": "3"}}
    path.write_text(json.dumps({"prompt": turns, **more}) + "\n")
    (row,) = answers(policy, str(path), tmp_path)
    assert {key: row[key] for key in more} == more
    assert "Be kind." in row["prompt"]
    said = capfd.readouterr().err
    assert "columns: prompt used as prompt; data_source, reward_model kept as metadata" in said
    path.write_text(json.dumps({"prompt": "cat", "context": "It says meow."}) + "\n")
    assert run(["generate", "--model", policy, "--prompts", str(path)]) == 2
    assert f'{path}:1: "context" changes what is asked' in capfd.readouterr().err
