"""One rule for templates: as asked, the artefact's, the tokenizer's own, plain."""

import json
from pathlib import Path

import pytest
import torch
from planted import unlisted
from rows import read_rows, write_rows

from instructgpt.__main__ import main as run
from instructgpt.commands.policy import load
from instructgpt.data.comparisons import ComparisonDataModule
from instructgpt.data.demonstrations import DemonstrationDataModule
from instructgpt.data.prompts import PromptDataModule
from instructgpt.data.text import TextDataModule
from instructgpt.evaluation.scoring import Scorer
from instructgpt.models.artefact import save_policy, save_scalar
from instructgpt.models.choice import choose_template
from instructgpt.models.load import Network, load_policy, load_scalar
from instructgpt.models.template import get_template
from instructgpt.rewards.learned import LearnedReward
from instructgpt.types import UserError
from tests.chats import CHATML, with_chat

ROW = {"prompt": "p", "response": "r", "responses": ["a", "b"], "ranking": [1, 2], "text": "t t t"}


@pytest.fixture
def tokenizers(tiny_tokenizer):
    return {"chat": with_chat(tiny_tokenizer), "plain": tiny_tokenizer}


@pytest.fixture
def make_model(tmp_path, make_architecture, tokenizers):
    """A policy and a reward model in one kind of folder: foreign, or an artefact."""

    def make(kind, tokenizer, template=None):
        tokenizer, folder = tokenizers[tokenizer], tmp_path / kind
        about = {"template": get_template(template or "plain"), "parent": None}
        about |= {"config": {}, "metrics": {}}
        if kind == "policy":
            model = load_policy(None, make_architecture("gpt2"), Network(), tokenizer)
            save_policy(model, tokenizer, folder, stage="sft", **about)
        else:
            model = load_scalar(None, make_architecture("gpt2"), Network(), tokenizer, head="new")
            save_scalar(model, tokenizer, folder, stage="reward", **about)
        if template is None:
            (folder / "instructgpt.json").unlink()
        return str(folder)

    return make


def by_data(folder, rows):
    found = set()
    for kind in (
        DemonstrationDataModule,
        ComparisonDataModule,
        PromptDataModule,
        TextDataModule,
    ):
        data = kind(train=rows, validation=None, tokenizer=folder)
        data.setup("fit")
        (line,) = [line for line in data.summary if line.startswith("template: ")]
        found.add((data.template.name, line))
    ((name, line),) = found
    return name, line


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    return str(tmp_path / "rows.jsonl")


HINT = "{option} chooses another"


@pytest.mark.parametrize(
    ("tokenizer", "own", "name", "reason"),
    [
        ("chat", None, "chat", f"the tokenizer's own; {HINT}"),
        ("plain", None, "plain", f"the tokenizer has no chat template; {HINT}"),
        ("chat", "hh", "hh", "that of '{folder}'"),
        ("chat", "chat", "chat", "that of '{folder}'"),
        ("plain", "instruction", "instruction", "that of '{folder}'"),
    ],
)
def test_all_verbs_and_stages_agree(make_model, rows, tokenizers, tokenizer, own, name, reason):
    folder = make_model("policy", tokenizer, own)
    said = reason.format(folder=folder, option="--data.template")
    assert by_data(folder, rows) == (name, f"template: {name} ({said})")
    policy = load(folder, "", Network(), "cpu")
    said = reason.format(folder=folder, option="--template")
    assert (policy.template.name, policy.choice) == (name, f"template: {name} ({said})")

    folder = make_model("reward", tokenizer, own)
    reward = LearnedReward(folder)
    # whatever the policy's template is
    reward.prepare(tokenizers["plain"], get_template("alpaca"), torch.device("cpu"))
    assert reward.template.name == Scorer(folder).template.name == name
    said = any("says no template, so template: " in one.what for one in reward.warnings())
    assert said == (own is None)


def test_what_is_asked_for_comes_first(make_model, rows, tokenizers):
    folder = make_model("policy", "chat", "hh")
    data = PromptDataModule(
        train=rows, validation=None, tokenizer=folder, template="Q: {prompt}\nA:"
    )
    data.setup("fit")
    assert r"template: 'Q: {prompt}\nA:' (as asked)" in data.summary
    assert load(folder, "plain", Network(), "cpu").template.name == "plain"


def test_a_chat_template_that_changed_is_refused_everywhere(make_model, rows, tokenizers, capsys):
    folder, reward = make_model("policy", "chat", "chat"), make_model("reward", "chat", "chat")
    for path in (folder, reward):
        file = unlisted(Path(path)) / "chat_template.jinja"
        file.write_text(CHATML.replace("assistant", "bot"))
    uses = [
        lambda: by_data(folder, rows),
        lambda: load(folder, "", Network(), "cpu"),
        lambda: Scorer(reward),
        lambda: LearnedReward(reward).prepare(
            tokenizers["chat"], get_template("chat"), torch.device("cpu")
        ),
    ]
    for use in uses:
        with pytest.raises(UserError, match=r"must be 'chat', with which .* but what it writes"):
            use()
    chosen = choose_template(None, make_model("policy", "chat", "hh"), tokenizers["chat"])
    assert chosen.template.name == "hh"  # which reads no chat template


TURNS = [
    {"role": "user", "content": "Sky?"},
    {"role": "assistant", "content": "Blue."},
    {"role": "user", "content": "Sea?"},
]


def test_turns_survive_generate_and_label(make_model, tmp_path, capsys):
    folder, prompts = make_model("policy", "chat"), tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"messages": TURNS}) + "\n" + json.dumps({"prompt": "Hi"}))
    answers = tmp_path / "answers.jsonl"
    files = ["--prompts", str(prompts), "--output", str(answers)]
    run(["generate", "--model", folder, *files, "--max_response_tokens", "9"])
    assert "note: template: chat (the tokenizer's own; --template" in capsys.readouterr().err
    first, second = map(json.loads, answers.read_text().splitlines())
    assert first["messages"] == TURNS
    assert "messages" not in second
    said = {"responses": ["a", "b"], "finished": None}
    rows = [row | said for row in (first, second)]
    write_rows(answers, rows)
    run(["label", "--samples", str(answers), "--by", "people", "--output", str(tmp_path)])
    ranked = tmp_path / "ranked.jsonl"
    asked = read_rows(tmp_path / "to_label.jsonl")
    ranked.write_text("".join(json.dumps(row | {"ranking": [1, 2]}) + "\n" for row in asked))
    data = ComparisonDataModule(train=str(ranked), validation=None, tokenizer=folder)
    data.setup("fit")
    row = data.train_rows[0]
    text = data.tokenizer.decode([*row.prompt, *row.responses[0]])
    assert text.startswith("<|im_start|>user\nSky?<|im_end|>\n<|im_start|>assistant\nBlue.<|im")


def test_evaluate_names_the_template_of_its_reward_model(make_model, tmp_path, capsys):
    row = json.dumps({"prompt": "Hi", "responses": ["a", "b"]}) + "\n"
    models = {name: tmp_path / f"{name}.jsonl" for name in ("one", "two")}
    for path in models.values():
        path.write_text(row)
    folder = make_model("reward", "chat")
    files = "{" + ", ".join(f"{name}: {path}" for name, path in models.items()) + "}"
    command = ["evaluate", "--answers", files, "--baseline", "one", "--reward_model", folder]
    assert run([*command, "--output", str(tmp_path / "report")]) == 0
    said = f"note: reward model '{folder}': template: chat (the tokenizer's own)"
    assert said in capsys.readouterr().err
