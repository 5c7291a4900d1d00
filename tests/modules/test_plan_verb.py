"""``plan``: numbers by hand, those of ``fit`` for every loop, the paper's, and its refusals."""

import json
from dataclasses import fields

import pytest
from harness import run_processes

from instructgpt.__main__ import main as run
from instructgpt.callbacks.plan import PlanPrinter
from instructgpt.cli import main as fit_verb
from instructgpt.commands.plan import GIB, REMEDIES, PlanCLI
from instructgpt.commands.planned import Assumed
from instructgpt.modules.work import PF_DAY

ENDLESS = "--plan.device_memory=1e9"


@pytest.fixture
def small(tmp_path):
    """A folder with no weights, and what a plan needs beside it."""
    facts = {"model_type": "gpt2", "n_layer": 2, "n_embd": 8, "n_head": 2, "n_positions": 64}
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "config.json").write_text(json.dumps(facts | {"vocab_size": 100}))
    return [
        *("plan", "--model=SFTModule", f"--model.init_from={tmp_path / 'small'}"),
        *("--model.dropout=0", "--data=DemonstrationDataModule", "--data.train=nowhere.jsonl"),
        *("--data.batch_size=5", "--data.max_prompt_tokens=6", "--data.max_response_tokens=4"),
        *("--trainer.max_epochs=2", "--plan.rows=10", f"--output={tmp_path / 'run'}"),
    ]


def test_a_small_gpt2_by_hand(small, capsys):
    found = PlanCLI(small).planned
    # A layer: norms 2*16, c_attn 8*24+24, c_proj 8*8+8, MLP 8*32+32 and 32*8+8, together 872.
    # With embeddings 800 and 512, and the last norm 16: 3,072 weights, 1,760 of them in layers.
    assert "3,072 parameters, 3,072 trained" in capsys.readouterr().out
    # 10 rows in batches of 5, twice
    assert found.steps == 4
    # A row of 6 + 4: 21 + 10 pairs within, 24 across; 2*1760*10 + 4*2*8*55 in layers, 2*800*4
    # above; three times that with the backward pass.
    assert found.flops == 20 * 3 * (35_200 + 3_520 + 6_400)
    # Weights and two moments; 50 tokens of 2 layers, each 5*8 + 2*32 numbers and 2*8 + 2*8
    # attended; 20 places times 100 ids, twice, and the gradient of the head. Others come later.
    always, layers, head = 3 * 4 * 3_072, 4 * 2 * 50 * 136, 4 * (2 * 20 * 100 + 800)
    assert found.bytes == always + layers + head


PAPER = ["--plan.rows=12725", ENDLESS]
GPT3 = "--model.init_from=configs/paper/gpt3_175b"


def test_the_papers_175b_sft_is_near_its_compute(tmp_path, capsys):
    """The paper says 4.9 petaflop/s-days; rows that fill the context of 2,048 come to 5.09."""
    asked = ["--config=configs/paper/sft.yaml", GPT3, f"--output={tmp_path}"]
    found = PlanCLI(["plan", *asked, *PAPER]).planned
    # 6 operations a weight and token, of layers alone: 96 * (12 * 12288**2 + 13 * 12288), 1,024 of
    # 2,048 tokens with logits; attention adds 4 * 96 * 12288 a pair.
    layers, rows = 96 * (12 * 12_288**2 + 13 * 12_288) + 2 * 12_288, 16 * 32 * (12_725 // 32)
    pairs = 2_048 * 2_049 / 2
    flops = 2 * layers * 2_048 + 4 * 96 * 12_288 * pairs + 2 * 50_257 * 12_288 * 1_024
    assert found.flops == pytest.approx(rows * 3 * flops, rel=0.01)
    assert found.flops / PF_DAY == pytest.approx(4.9, rel=0.05)
    assert "174,604,259,328 parameters" in capsys.readouterr().out


def test_the_papers_175b_ppo_ptx_is_near_its_compute(tmp_path, capsys):
    """The paper says 60; 8 blocks of 2,048 an episode are 52 of them."""
    found = PlanCLI(
        [
            *("plan", "--config=configs/paper/ppo_ptx.yaml", GPT3, f"--output={tmp_path}"),
            "--model.reward.init_from=configs/paper/gpt3_6b",
            *("--plan.rows=31144", ENDLESS),
        ]
    ).planned
    assert found.flops / PF_DAY == pytest.approx(60, rel=0.1)
    assert "pretraining 51.6" in capsys.readouterr().out
    assert found.steps == 500 * 8


def loops(policy, reward, files):
    ranked = ["--data=ComparisonDataModule", f"--data.train={files['comparisons']}"]
    lora = ["--model.trained=LoRA", "--model.network.gradient_checkpointing=true"]
    return {
        "sft": [
            *("--model=SFTModule", f"--model.init_from={policy}", *lora),
            *("--data=DemonstrationDataModule", f"--data.train={files['demonstrations']}"),
        ],
        "reward": ["--model=RewardModule", f"--model.init_from={policy}", *ranked],
        "dpo": ["--model=PreferenceModule", f"--model.init_from={policy}", *ranked],
        "ppo": [
            *("--model=PPOModule", f"--model.init_from={policy}", "--model.reward=LearnedReward"),
            *(f"--model.reward.init_from={reward}", "--model.batches.rollout_batch_size=4"),
            *("--model.batches.minibatch_size=4", "--data=PromptDataModule"),
            f"--data.train={files['prompts']}",
        ],
    }


@pytest.mark.parametrize("loop", ["sft", "reward", "dpo", "ppo"])
def test_fit_and_plan_say_the_same(loop, policy_artefact, reward_artefact, files, tmp_path):
    """The same rows, the same networks, with weights and without: the same memory and steps."""
    asked = [
        *loops(policy_artefact, reward_artefact, files)[loop],
        *("--trainer.accelerator=cpu", "--trainer.max_epochs=1", "--trainer.logger=false"),
        *("--trainer.enable_progress_bar=false", f"--output={tmp_path}", "--export=false"),
        *("--data.max_prompt_tokens=16", "--data.max_response_tokens=6"),
    ]
    asked += [] if loop == "ppo" else ["--data.batch_size=8"]
    planned = PlanCLI(["plan", *asked]).planned
    trainer = fit_verb(["fit", *asked]).trainer
    (printer,) = (one for one in trainer.callbacks if isinstance(one, PlanPrinter))
    assert printer.memory.bytes == planned.bytes > 0
    assert trainer.global_step == planned.steps > 0


def test_fit_and_plan_say_the_same_of_what_is_spread(
    policy_artefact, reward_artefact, files, tmp_path
):
    """In words, too: what a network comes to, and how much of it is on each of two devices."""
    asked = [
        *loops(policy_artefact, reward_artefact, files)["ppo"],
        *("--trainer.accelerator=cpu", "--trainer.max_epochs=1", "--trainer.logger=false"),
        *("--trainer.enable_progress_bar=false", f"--output={tmp_path}", "--export=false"),
        *("--data.max_prompt_tokens=16", "--data.max_response_tokens=6", "--model.ema_decay=0.5"),
        *("--trainer.devices=2", "--trainer.strategy=fsdp2_sharded"),
    ]
    planned = PlanCLI(["plan", *asked]).planned

    def told():
        trainer = fit_verb(["fit", *asked]).trainer
        (printer,) = (one for one in trainer.callbacks if isinstance(one, PlanPrinter))
        return printer.memory.bytes, printer.memory.lines, trainer.global_step

    for bytes_, lines, steps in run_processes(told, timeout=300):
        assert (bytes_, steps) == (planned.bytes, planned.steps)
        assert lines[:-1] == planned.lines[-len(lines) : -1]  # then Python and libraries
        said = dict(lines)
        assert said["GPT2LMHeadModel"].endswith("MiB of it on each device")
        for name in ("reference", "reward", "average of the policy"):
            assert said[f"{name}, frozen"].endswith("MiB of it on each device")


def test_what_does_not_fit_and_what_would_help(small, capsys):
    need = PlanCLI([*small, ENDLESS]).planned.bytes
    capsys.readouterr()
    PlanCLI([*small, f"--plan.device_memory={need / GIB}"])
    assert "fits into" in capsys.readouterr().out
    PlanCLI([*small, f"--plan.device_memory={0.9 * need / GIB}"])
    said = capsys.readouterr().out
    assert "does not fit" in said
    flags = [line.split()[0] for line in said.splitlines() if line.startswith("    --")]
    known = [f"--{remedy.option}" for remedy in REMEDIES]
    assert flags
    assert [known.index(flag) for flag in flags] == sorted(known.index(flag) for flag in flags)
    assert "with these it fits" in said


@pytest.mark.parametrize("name", [one.name for one in fields(Assumed)])
def test_each_assumption_matters(name, small, capsys):
    values = {"rows": 20, "prompt_tokens": 3, "response_tokens": 2, "device_memory": 40}
    values |= {"responses": 2, "peak": 1, "mfu": 0.1}
    if name == "responses":
        small[1], small[4] = "--model=RewardModule", "--data=ComparisonDataModule"
    said = []
    for more in ([], [f"--plan.{name}={values[name]}"]):
        PlanCLI([*small, *more])
        said.append(capsys.readouterr().out)
    assert said[0] != said[1]


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--model.network.max_tokens=0"], "network.max_tokens must be at least 1 or null"),
        (["--trainer.max_epochs=0"], "--trainer.max_epochs must be"),
        (["--model.dropuot=0"], "dropuot"),
        (["--data=ComparisonDataModule"], "SFTModule needs --data DemonstrationDataModule"),
        (["--plan.mfu=2"], "--plan.mfu must be in (0, 1], got 2"),
        (["--plan.prompt_tokens=7"], "--plan.prompt_tokens must be at most"),
        (["--plan.rows=null"], "such file (to plan without the data, give --plan.rows)\n"),
        (["--plan.rows=null", "--model.tokenizer=a/b/c"], "no such folder: 'a/b/c'\n"),
        (
            ["--model.init_from=runs/real/sft/export"],
            "--model.init_from: must be a folder or a hub id, no such folder: 'runs/real/sft/expor"
            "t'; where an earlier stage writes it, run that first, or plan with a model of its "
            "size: --model.init_from FOLDER_OR_ID\n",
        ),
        (
            ["--model.reward=LearnedReward", "--model.reward.init_from=runs/real/reward/export"],
            "plan with a model of its size: --model.reward.init_from FOLDER_OR_ID\n",
        ),
        (
            ["--config=configs/own_pipeline.yaml"],
            "has the stages of a pipeline: python -m instructgpt pipeline --config configs/own_pip",
        ),
        (["--trainer.strategy=horovod", "--trainer.devices=2"], "--trainer.strategy must be ddp"),
    ],
)
def test_the_mistakes_of_fit_are_refused(more, line, small, capsys):
    assert run([*small, *more]) == 2
    assert line in capsys.readouterr().err


def test_text_is_planned_with_its_own_tokenizer_and_blocks(tmp_path, files, capsys):
    """Which is trained on it, and left nowhere; without the text it is as large as asked for."""
    asked = [
        *("plan", "--config=configs/pretrain.yaml", f"--data.train={files['text']}"),
        *("--data.block_size=16", "--data.bpe.vocab_size=270", f"--output={tmp_path / 'run'}"),
    ]
    for more, rows in (([], "rows, read as by fit"), (["--plan.rows=7"], "7 blocks, 16 tokens")):
        found = PlanCLI([*asked, *more]).planned
        said = capsys.readouterr().out
        assert rows in said
        # two layers of 12 * 128**2 + 13 * 128, the last norm; embeddings of 270 ids, 256 places
        weights = 2 * (12 * 128**2 + 13 * 128) + 2 * 128 + 128 * (270 + 256)
        assert f"{weights:,} parameters" in said
        assert found.steps > 0
    assert not (tmp_path / "run").exists()
