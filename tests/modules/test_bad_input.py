"""Everything the user can get wrong about files and stages, through the command line.

Each case ends in one line that names the place and the rule, exit code 2, and no output.
"""

import gzip
import json
import shutil

import pytest
from planted import unlisted
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from instructgpt.__main__ import main
from instructgpt.models.tokenizer import BPE, train_bpe

STAGES = {
    "sft": ["--model=SFTModule", "--data=DemonstrationDataModule"],
    "reward": ["--model=RewardModule", "--data=ComparisonDataModule"],
    "ppo": ["--model=PPOModule", "--data=PromptDataModule", "--model.reward=CountReward"],
}
GOOD = {
    "sft": {"prompt": "say hello", "response": "hello"},
    "reward": {"prompt": "say hello", "responses": ["hello", "one"], "ranking": [1, 2]},
    "ppo": {"prompt": "say hello"},
}


@pytest.fixture
def error_of(tmp_path, capsys, policy_artefact):
    """Run a stage on rows, and return the one line it ends with."""

    def run(stage, rows, *options, name="rows.jsonl"):
        path = tmp_path / name
        if rows is not None:
            lines = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in rows]
            path.write_bytes(b"\n".join(lines) + b"\n")
        output = tmp_path / "output"
        arguments = [f"--data.train={path}", "--data.validation=null", f"--output={output}"]
        arguments += [f"--model.init_from={policy_artefact}", "--trainer.accelerator=cpu"]
        arguments += ["--data.max_prompt_tokens=20", "--data.max_response_tokens=20"]
        if stage == "ppo":
            arguments += ["--model.reward.text=e"]
        capsys.readouterr()
        code = main(["fit", *STAGES[stage], *arguments, *options])
        printed = capsys.readouterr().err.strip().splitlines()
        assert code == 2
        assert not any(line.startswith(("Traceback", "usage")) for line in printed)
        assert not output.exists()
        assert printed[-1].startswith("instructgpt: error: ")
        assert sum("error:" in line for line in printed) == 1
        return printed[-1]

    return run


@pytest.mark.parametrize(
    ("stage", "row", "expected"),
    [
        ("sft", b'{"prompt": "say', ["rows.jsonl:2", "JSON"]),
        ("sft", {"prompt": "say"}, ["rows.jsonl:2", "response"]),
        ("sft", {"prompt": 3, "response": "a"}, ["rows.jsonl:2", "prompt", "3"]),
        ("sft", {"prompt": "say", "response": ""}, ["rows.jsonl:2", "response", "empty"]),
        ("sft", {"prompt": "say", "response": True}, ["rows.jsonl:2", "response", "True"]),
        ("reward", {**GOOD["reward"], "responses": ["a"], "ranking": [1]}, [":2", "responses"]),
        ("reward", {**GOOD["reward"], "ranking": [1, 2, 3]}, [":2", "ranking", "3"]),
        ("reward", {**GOOD["reward"], "ranking": [True, 2]}, [":2", "ranking"]),
        ("reward", {**GOOD["reward"], "responses": ["a", ""]}, [":2", "responses", "empty"]),
        ("reward", {**GOOD["reward"], "responses": ["a", False]}, [":2", "responses"]),
        ("ppo", {"prompt": ""}, ["rows.jsonl:2", "prompt", "empty"]),
    ],
)
def test_a_bad_row(error_of, stage, row, expected):
    line = error_of(stage, [GOOD[stage], row])
    for part in expected:
        assert part.lower() in line.lower(), line


def test_a_line_of_ten_megabytes(error_of):
    long = {**GOOD["sft"], "prompt": "x" * 10_000_000}
    line = error_of("sft", [GOOD["sft"], long])
    assert "rows.jsonl:2" in line
    assert "8 MiB" in line


def test_an_unknown_file(error_of):
    line = error_of("sft", None, name="nowhere.jsonl")
    assert "nowhere.jsonl" in line


def test_a_byte_order_mark(error_of):
    line = error_of("sft", [json.dumps(GOOD["sft"]).encode("utf-16")])
    assert "rows.jsonl" in line
    assert "UTF-16" in line


@pytest.mark.parametrize("content", [b"not gzip at all", gzip.compress(b"x" * 999, mtime=0)[:20]])
def test_an_unreadable_gzip(error_of, tmp_path, content):
    (tmp_path / "rows.jsonl.gz").write_bytes(content)
    line = error_of("sft", None, name="rows.jsonl.gz")
    assert "rows.jsonl.gz" in line
    assert "gzip" in line


@pytest.mark.parametrize("stage", list(STAGES))
def test_rows_longer_than_the_context(error_of, stage):
    line = error_of(stage, [GOOD[stage]] * 4, "--data.max_prompt_tokens=99")
    assert "context of 64 tokens, got 119" in line


def test_another_template_than_the_stage_before(error_of):
    line = error_of("sft", [GOOD["sft"]] * 4, "--data.template=alpaca")
    assert "template" in line
    assert "'plain'" in line
    assert "'alpaca'" in line


def test_another_tokenizer_than_the_stage_before(error_of, tmp_path):
    other = train_bpe(["other words than those"], BPE(vocab_size=270))
    other.save_pretrained(tmp_path / "other")
    line = error_of("reward", [GOOD["reward"]] * 4, f"--model.tokenizer={tmp_path / 'other'}")
    assert "tokenizer" in line
    assert str(tmp_path / "other") in line


def test_a_reward_model_without_head_weights(error_of, policy_artefact):
    options = ["--model.reward=LearnedReward", f"--model.reward.init_from={policy_artefact}"]
    arguments = [GOOD["ppo"]] * 4
    STAGES["learned"] = ["--model=PPOModule", "--data=PromptDataModule"]
    try:
        line = error_of("learned", arguments, *options)
    finally:
        del STAGES["learned"]
    assert "no reward head" in line
    assert policy_artefact in line


def test_a_reward_model_that_lost_its_head(error_of, reward_artefact, tmp_path):
    broken = unlisted(shutil.copytree(reward_artefact, tmp_path / "broken"))
    tensors = load_file(broken / "model.safetensors")
    del tensors["score.weight"]
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    line = error_of("ppo", [GOOD["ppo"]] * 4, f"--model.value.init_from={broken}")
    assert "no reward head" in line
    assert str(broken) in line


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ["--model.batches.rollout_batch_size=8", "--model.batches.minibatch_size=5"],
            "must be a divisor of rollout",
        ),
        (["--model.pretraining.ptx_coef=-1"], "model.pretraining.ptx_coef must be >= 0, got -1"),
        (["--model.kl.kl_coef=-0.5"], "kl_coef must be >= 0, got -0.5"),
        (["--model.algorithm.clip_range=-1"], "clip_range must be > 0, got -1"),
        (["--model.algorithm=PPOO"], "unknown class PPOO"),
        (["--model.clip=0.2"], "unknown option --model.clip"),
        (
            ["--model.pretraining.ptx_coef=1", "--model.batches.rollout_batch_size=4"],
            "data.pretraining must be given",
        ),
    ],
)
def test_wrong_settings(error_of, options, expected):
    assert expected in error_of("ppo", [GOOD["ppo"]] * 4, *options)


def test_a_folder_of_an_earlier_run_survives_a_bad_one(error_of, tmp_path, reward_artefact):
    """The artefact of a stage is read, never touched, by what starts from it."""
    error_of("reward", [GOOD["sft"]], f"--model.init_from={reward_artefact}")
    AutoTokenizer.from_pretrained(reward_artefact)
    AutoModelForSequenceClassification.from_pretrained(reward_artefact)
