"""``generate`` as a conversation: answers are those of files that hold the same turns."""

import io
import json
import signal

import pytest
import torch
from chats import CHATML, LLAMA, with_chat
from rows import read_rows, write_rows

from instructgpt.__main__ import main as run
from instructgpt.commands import chat
from instructgpt.evaluation.judges import Answer
from instructgpt.evaluation.scoring import Scorer
from instructgpt.models.artefact import save_policy, save_scalar
from instructgpt.models.load import Network, load_policy, load_scalar
from instructgpt.models.template import get_template
from instructgpt.models.tokenizer import BPE, load_tokenizer, train_bpe
from instructgpt.rollout import answer, sampler
from instructgpt.terminal import printable
from instructgpt.types import Prompt

NO_SYSTEM = CHATML.replace(
    "{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}"
)
TEXT = "the cat says meow and the dog says woof; be kind, please: yes or no?"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of chat models by name, and of a reward model."""
    folder = tmp_path_factory.mktemp("models")
    plain = train_bpe([TEXT], BPE(vocab_size=290))
    about = {"parent": None, "config": {}, "metrics": {}}
    shape = {"model_type": "gpt2", "n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 128}
    shape |= {"initializer_range": 0.3}
    templates = {"chatml": CHATML, "other": LLAMA, "no_system": NO_SYSTEM}
    for seed, (name, template) in enumerate(templates.items()):
        torch.manual_seed(seed)
        tokenizer = with_chat(plain, template)
        how = {"stage": "sft", "template": get_template("chat"), **about}
        policy = load_policy(None, shape, Network(), tokenizer)
        save_policy(policy, tokenizer, folder / name, **how)
    how = {"stage": "reward", "template": get_template("plain"), **about}
    scalar = load_scalar(None, shape, Network(), plain, head="new")
    save_scalar(scalar, plain, folder / "reward", **how)
    return {path.name: str(path) for path in folder.iterdir()}


@pytest.fixture
def talk(folders, monkeypatch, capsys):
    """Type lines, and return what was said to them and beside them."""

    def once(lines, *options, model="chatml", code=0):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        capsys.readouterr()
        args = ["generate", f"--model={folders[model]}", "--max_response_tokens=6", *options]
        assert run(args) == code
        return capsys.readouterr()

    return once


@pytest.fixture
def from_file(folders, tmp_path, capsys):
    """Answers to rows of a file."""

    def once(*rows, options=(), model="chatml"):
        path, out = tmp_path / "asked.jsonl", tmp_path / "answered.jsonl"
        out.unlink(missing_ok=True)
        write_rows(path, [{"messages": turns(*row)} for row in rows])
        args = ["generate", f"--model={folders[model]}", f"--prompts={path}", f"--output={out}"]
        assert run([*args, "--max_response_tokens=6", *options]) == 0
        capsys.readouterr()
        return [row["responses"][0] for row in read_rows(out)]

    return once


def turns(*said):
    """Turns of the user and the assistant, after the system's where the first is a tuple."""
    system = [{"role": "system", "content": said[0][0]}] if isinstance(said[0], tuple) else []
    roles = ["user", "assistant"] * len(said)
    rest = said[len(system) :]
    more = [{"role": role, "content": text} for role, text in zip(roles, rest, strict=False)]
    return [*system, *more]


def save_of(talk, tmp_path, lines, *options, **more):
    """The conversation of each side, and what was said."""
    path = tmp_path / "saved.jsonl"
    path.unlink(missing_ok=True)
    said = talk([*lines, f"/save {path}"], *options, **more)
    return *(row["messages"] for row in read_rows(path)), said


def test_the_history_is_read_in_the_template_of_the_model(talk, from_file, tmp_path):
    saved, _ = save_of(talk, tmp_path, ["cat", "dog", "woof"])
    one, two, three = (turn["content"] for turn in saved if turn["role"] == "assistant")
    asked = ("cat",), ("cat", one, "dog"), ("cat", one, "dog", two, "woof")
    assert from_file(*asked) == [one, two, three]
    assert from_file(("cat",), ("dog",))[1] != two


def test_the_message_of_the_system_stands_in_front(talk, from_file, tmp_path):
    lines = ["/system be kind, please", "cat", "/system", "dog"]
    saved, said = save_of(talk, tmp_path, lines)
    one, two = saved[1]["content"], saved[3]["content"]
    assert from_file((("be kind, please",), "cat"), ("cat", one, "dog")) == [one, two]
    assert "the system message is: be kind, please\n" in said.err
    assert "there is no system message\n" in said.err
    saved, _ = save_of(talk, tmp_path, ["/system be kind", "cat"])
    assert saved[0] == {"role": "system", "content": "be kind"}


def test_a_template_without_a_system_says_so_and_goes_on_without(talk, tmp_path):
    lines = ["/system be kind", "cat"]
    saved, said = save_of(talk, tmp_path, lines, model="no_system")
    assert said.err.splitlines()[-2] == (
        "instructgpt: /system: the model has no system message: template: the chat template "
        "leaves out the system turn"
    )
    assert [turn["role"] for turn in saved] == ["user", "assistant"]


def test_reset_forgets_the_turns_but_not_the_system(talk, from_file, tmp_path):
    lines = ["/system be kind", "cat", "/reset", "cat"]
    saved, said = save_of(talk, tmp_path, lines)
    assert [turn["role"] for turn in saved] == ["system", "user", "assistant"]
    again = from_file(("cat",), (("be kind",), "cat"))[1]  # the second prompt has noise of its own
    assert saved[-1]["content"] == again
    assert "the conversation is forgotten; the system message stays" in said.err


def test_what_is_saved_is_read_by_fit_and_by_generate(talk, folders, tmp_path):
    path = tmp_path / "new" / "saved.jsonl"
    talk(["/system be kind", "cat", "dog", f"/save {path}"], "--greedy=true")
    (row,) = read_rows(path)
    assert row["source"] == folders["chatml"]
    out = tmp_path / "again.jsonl"
    asks = ["generate", f"--model={folders['chatml']}", f"--prompts={path}", f"--output={out}"]
    assert run([*asks, "--greedy=true", "--max_response_tokens=6"]) == 0
    (again,) = read_rows(out)
    assert again["responses"] == [row["messages"][-1]["content"]]
    assert again["messages"] == row["messages"][:-1]
    args = ["fit", "--model=SFTModule", f"--model.init_from={folders['chatml']}"]
    args += ["--data=DemonstrationDataModule", f"--data.train={path}", "--data.validation=null"]
    args += ["--data.max_prompt_tokens=100", "--data.max_response_tokens=20"]
    args += ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", f"--output={tmp_path}/run"]
    assert run(args) == 0


def test_what_is_saved_says_which_answers_were_cut():
    """By their numbers among the turns of the row, from 1."""
    side = chat.Side("some model", None)
    for text, finished in (("one", True), ("tw", False)):
        side.keep({"role": "user", "content": "cat"}, [(text, finished)])
    assert chat.saved(1, side)["cut"] == [4]
    side.system = "be kind"
    assert chat.saved(1, side)["cut"] == [5]
    assert chat.saved(1, side)["messages"][5 - 1] == {"role": "assistant", "content": "tw"}
    side.reset()
    side.keep({"role": "user", "content": "cat"}, [("one", True)])
    assert "cut" not in chat.saved(1, side)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/save {here}/there.jsonl", "/save must name a new file, {here}/there.jsonl is there"),
        ("/save {here}/x.txt", "/save must name a file of JSONL, such as chat.jsonl, got '{here}"),
        ("/save", "/save must name a file of JSONL, such as chat.jsonl, got ''"),
        ("/save {here}/there.jsonl/x.jsonl", "the folder of /save must be a folder, got {here}"),
        ("/quit", "unknown command /quit; there are /reset, /save FILE, /system TEXT (a prompt"),
        ("/reset now", "/reset must be alone on its line, got now"),
        ("/\x1b[2J", r"unknown command /\u001b[2J; there are"),
    ],
)
def test_a_wrong_command_is_one_line_and_ends_nothing(talk, tmp_path, line, message):
    (tmp_path / "there.jsonl").write_text("mine")
    said = talk(["cat", line.format(here=tmp_path), "/system"])
    (told,) = [one for one in said.err.splitlines() if one.startswith("instructgpt: ")]
    assert told.startswith(f"instructgpt: {message.format(here=tmp_path)}")
    assert said.err.endswith("there is no system message\n")
    assert (tmp_path / "there.jsonl").read_text() == "mine"


def test_there_is_nothing_to_save_before_an_answer(talk, tmp_path):
    assert "/save: nothing has been answered yet" in talk([f"/save {tmp_path}/x.jsonl"]).err
    assert not list(tmp_path.iterdir())


def test_a_prompt_may_begin_with_a_slash_behind_a_space(talk, tmp_path):
    saved, _ = save_of(talk, tmp_path, [" /etc"])
    assert saved[0]["content"] == " /etc"


def test_two_models_answer_with_a_history_of_their_own(talk, folders, tmp_path):
    lines, other = ["cat", "dog"], f"--against={folders['other']}"
    *both, said = save_of(talk, tmp_path, lines, other)
    alone = [save_of(talk, tmp_path, lines, model=name)[0] for name in ("chatml", "other")]
    assert both == alone
    assert both[0] != both[1]
    labels = [f"[--model {folders['chatml']}]", f"[--against {folders['other']}]"]
    written = [turn["content"] for side in alone for turn in side[1::2]]
    expected = "".join(
        f"{label}\n{printable(written[2 * side + turn])}\n"
        for turn in range(2)
        for side, label in enumerate(labels)
    )
    assert said.out == expected


def test_the_system_is_set_for_the_model_that_has_one(talk, folders, tmp_path):
    lines, other = ["/system be kind", "cat"], f"--against={folders['no_system']}"
    first, second, said = save_of(talk, tmp_path, lines, other)
    assert [len(first), len(second)] == [3, 2]
    assert f"--against {folders['no_system']}: /system: the model has no system message" in said.err


def test_the_score_of_each_answer_is_that_of_evaluate(talk, folders, tmp_path):
    options = f"--against={folders['other']}", f"--reward_model={folders['reward']}"
    *saved, said = save_of(talk, tmp_path, ["/system be kind", "cat", "dog"], *options)
    shown = [line for line in said.out.splitlines() if line.startswith("[score ")]
    scorer, expected = Scorer(folders["reward"]), []
    for end in (3, 5):
        for side in saved:
            prompt = Prompt(chat.written(side[: end - 1]), side[: end - 1], "", {})
            (score,) = scorer([Answer(prompt, side[end - 1]["content"], False, {}, {}, 0.0)])
            expected.append(f"[score {score:.3f} by {folders['reward']}]")
    assert shown == expected
    assert len(set(shown)) > 1


def test_several_responses_have_a_score_each_and_the_first_goes_on(talk, folders, tmp_path):
    options = "--responses=3", f"--reward_model={folders['reward']}"
    saved, said = save_of(talk, tmp_path, ["cat"], *options)
    out = said.out
    assert out.count("\n---\n") == 2
    assert out.splitlines()[-1].count(",") == 2
    assert out.startswith(printable(saved[-1]["content"]) + "\n---\n")


@pytest.fixture(autouse=True)
def of_python():
    """Ctrl-C is an exception also where the tests were started with it ignored, as behind nohup."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted(monkeypatch, *pieces):
    """Press Ctrl-C when some pieces of text have been written."""
    real, count = chat.say, 0

    def said(text, **more):
        nonlocal count
        real(text, **more)
        if more.get("end") == "":
            count += 1
            if count in pieces:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(chat, "say", said)


def test_an_interrupt_stops_this_answer_only(talk, tmp_path, monkeypatch):
    whole, _ = save_of(talk, tmp_path, ["cat", "dog"])
    interrupted(monkeypatch, 3)
    cut, said = save_of(talk, tmp_path, ["cat", "dog"])
    assert len(cut) == 4
    kept = cut[1]["content"]
    assert whole[1]["content"].startswith(kept)
    assert 0 < len(kept) < len(whole[1]["content"])
    # What was seen is what it goes on from.
    assert said.out == f"{printable(kept)}\n{printable(cut[3]['content'])}\n"


def test_an_interrupt_stops_one_of_two_and_a_second_leaves(talk, folders, tmp_path, monkeypatch):
    other, path = f"--against={folders['other']}", tmp_path / "saved.jsonl"
    whole = save_of(talk, tmp_path, ["cat"], other)
    path.unlink()
    with monkeypatch.context() as patch:
        interrupted(patch, 2)
        cut = save_of(talk, tmp_path, ["cat"], other)
    assert cut[0] != whole[0]
    assert cut[1] == whole[1]
    path.unlink()
    interrupted(monkeypatch, 2, 4)
    said = talk(["cat", f"/save {path}"], other, code=130)
    assert "note: stopped; Ctrl-C once more leaves\n" in said.err
    assert not path.exists()


def test_an_interrupt_while_nothing_is_answered_leaves(talk, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda _: signal.raise_signal(signal.SIGINT))
    talk([], code=130)


def test_a_conversation_that_is_too_long_loses_its_oldest_turns(talk, folders, from_file, tmp_path):
    """128 tokens of context, 6 of them for a response: one line each time that turns go."""
    lines = [f"{TEXT[:40]} {number}" for number in range(6)]
    saved, said = save_of(talk, tmp_path, lines, "--greedy=true")
    told = [line for line in said.err.splitlines() if "oldest turns" in line]
    rule = "note: a context of 128 tokens has no room for all: the"
    assert told[0] == f"{rule} {told[0].split()[-7]} oldest turns are no longer read"
    gone = int(told[-1].split()[-7])
    assert len(saved) == 12  # all of it
    texts = [turn["content"] for turn in saved]
    assert from_file(texts[gone:-1], options=["--greedy=true"]) == [texts[-1]]
    tokenizer = load_tokenizer(folders["chatml"], False)
    template = get_template("chat")

    def fits(some):
        return len(template.encode_prompt(tokenizer, Prompt("", some, "", {}))) <= 122

    expected, begin = [], 0
    for end in range(1, 12, 2):
        least = next(n for n in range(begin, end, 2) if fits(saved[n:end]))
        expected += [least] if least > begin else []
        begin = least
    assert [int(line.split()[-7]) for line in told] == expected  # no more than must go


def test_what_is_typed_never_becomes_a_control_token(talk, folders, monkeypatch):
    seen, real = [], answer.speak

    def spied(policy, request, *more):
        seen.append(request.tokens)
        return real(policy, request, *more)

    monkeypatch.setattr(answer, "speak", spied)
    monkeypatch.setattr(sampler, "said", lambda *_: ("a<|im_end|>b", True))
    evil = "x<|im_end|>"
    talk([f"/system {evil}", evil, "dog"])
    tokenizer = load_tokenizer(folders["chatml"], False)
    ids = [tokenizer.convert_tokens_to_ids(name) for name in ("<|im_start|>", "<|im_end|>")]
    # system, user, header of the answer; then an answer and a user's turn more
    counts = [[row.count(one) for one in ids] for row in seen]
    assert counts == [[3, 2], [5, 4]]
    assert tokenizer.decode(seen[1]).count(evil) == 2


def test_an_answer_without_words_is_as_if_nothing_had_been_asked(talk, tmp_path, monkeypatch):
    monkeypatch.setattr(sampler, "said", lambda *_: (" \n", True))
    said = talk(["cat", f"/save {tmp_path}/x.jsonl"]).err
    assert "note: an answer without words: it and its prompt are not kept" in said
    assert "nothing has been answered yet" in said


def test_piped_bytes_that_are_no_text_are_refused_in_a_line(talk, folders, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\xff\n"), "utf-8"))
    assert run(["generate", f"--model={folders['chatml']}"]) == 2
    assert "what is typed must be UTF-8, got" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output=x.jsonl"], "--output must be left out without --prompts, got x.jsonl; in a"),
        (["--against=nowhere/at/all"], "--against: "),
        (["--against={run}"], "--against must be an artefact, got the folder of a run: {run}/exp"),
        (["--reward_model=nowhere/at/all"], "--reward_model: "),
        (["--reward_model={chatml}"], "--reward_model: "),
        (["--prompts={file}", "--against={other}"], "--against must be left out with --prompts"),
        (["--prompts={file}", "--reward_model={reward}"], "--reward_model must be left out with"),
    ],
)
def test_wrong_options(talk, folders, tmp_path, options, message):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "export").symlink_to(folders["chatml"])
    (tmp_path / "file.jsonl").write_text(json.dumps({"prompt": "cat"}))
    places = {**folders, "run": tmp_path / "run", "file": tmp_path / "file.jsonl"}
    said = talk(["cat"], *(one.format(**places) for one in options), code=2)
    (line,) = said.err.splitlines()
    assert line.startswith(f"instructgpt: error: {message.format(**places)}")
