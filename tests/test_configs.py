"""Every shipped YAML goes through the real parser, and but for the paper's through a short run."""

import json
import re
import subprocess
from importlib.util import module_from_spec, spec_from_file_location
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from instructgpt.callbacks.bands import read_bands, setting_of
from instructgpt.cli import StageCLI, main
from instructgpt.commands.functions import FUNCTIONS
from instructgpt.pipeline.document import read_document
from instructgpt.pipeline.spec import read_spec

ROOT = Path(__file__).parents[1]
STARTS = ("pretrain", "sft", "reward")  # what others start from, in this order
PAPER = ("sft", "rl_init", "reward", "ppo", "ppo_ptx")
MINIATURE = ("pretrain", "sft", "reward", "ppo", "dpo")
ALL = sorted(ROOT.glob("configs/**/*.yaml"))
PIPELINES = [path for path in ALL if "stages" in yaml.safe_load(path.read_text())]
RUNS = [path for path in ALL if path not in PIPELINES and path.parent.name != "overlays"]


STAGES = (
    *STARTS,
    *(path.stem for path in RUNS if path.parent.name == "configs" and path.stem not in STARTS),
)


def name(path):
    return str(path.relative_to(ROOT / "configs").with_suffix(""))


class ParsedOnly(StageCLI):
    """The configuration, without building anything."""

    def instantiate_classes(self):
        pass

    def run_verb(self, verb):
        pass


def parse(*args):
    return ParsedOnly(["fit", *args]).config.fit


def uncommented(stage):
    lines = (ROOT / "configs" / f"{stage}.yaml").read_text().splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))


@pytest.fixture(scope="module")
def short_runs(tmp_path_factory):
    """Two batches of every stage, each from the artefact of the one before."""
    folder = tmp_path_factory.mktemp("runs")
    done = {}
    for stage in STAGES:
        args = [f"--output={folder / stage}", "--trainer.fast_dev_run=2", "--export=true"]
        before = "pretrain" if stage == "sft" else "sft"
        if stage != "pretrain":
            args.append(f"--model.init_from={folder / before / 'export'}")
        if "LearnedReward, init_args" in uncommented(stage):
            args.append(f"--model.reward.init_from={folder / 'reward' / 'export'}")
        done[stage] = main(["fit", "--config", f"configs/{stage}.yaml", *args])
    return folder, done


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module", autouse=True)
def _short_runs_in_the_repository():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


@pytest.mark.parametrize("path", ALL, ids=name)
def test_a_config_is_short_and_says_what_it_is(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 30 or path in PIPELINES
    assert lines[0].startswith("# ")
    assert any("#" in line for line in lines[1:])


@pytest.mark.parametrize("path", sorted((ROOT / "configs/real").glob("*.yaml")), ids=name)
def test_a_number_for_a_real_model_has_its_reason(path):
    """Behind it, or in a comment above; a stage of the pipeline says what it is for."""
    settings, *_ = path.read_text().split("\nstages:\n")
    for above, line in pairwise(settings.splitlines()):
        reason = "#" in line or above.lstrip().startswith("#")
        assert reason or not re.search(r"[:{] *[0-9]", line), line


@pytest.mark.parametrize("path", RUNS, ids=name)
def test_a_config_is_understood(path):
    assert parse("--config", str(path)).trainer.max_epochs >= 1


@pytest.mark.parametrize("stage", MINIATURE)
def test_a_stage_of_the_miniature_runs_by_hand(stage):
    """Without the pipeline, it reads what the pipeline's default folder holds."""
    config = parse("--config", f"configs/miniature/{stage}.yaml")
    assert config.trainer.accelerator == "cpu"
    sources = [config.data.init_args.train, config.model.init_args.init_from]
    assert all(s.startswith("runs/miniature/") for s in sources if s)


@pytest.mark.parametrize(
    "path", [path for path in RUNS if "bands" in yaml.safe_load(path.read_text())], ids=name
)
def test_the_bands_of_a_recipe_are_of_its_settings(path):
    """Where this fails a recipe has changed: benchmarks/bands.py makes its bands anew."""
    config = ParsedOnly(["fit", "--config", str(path)]).run_config
    bands = read_bands(config["bands"])
    setting = setting_of(config, {}, {"rows": bands.rows}, bands.weights)
    others = bands.others(setting, bands.steps[0], {})
    if path.parts[-2:] == ("real", "ppo.yaml"):  # of a slice (docs/real_model.md): judge nothing
        assert any("max_prompt_tokens" in one or "more options" in one for one in others)
    else:
        assert others == []
    assert len(bands.options) > 10


@pytest.mark.parametrize("path", PIPELINES, ids=name)
def test_a_pipeline_is_understood(path, tmp_path):
    """All references, configurations and options, down to what fit would be called with."""
    inputs = read_document(path)["inputs"]
    given = {name: "given" for name, default in inputs.items() if default in (None, [], {})}
    spec = read_spec(path, FUNCTIONS, tmp_path, inputs=given)
    for stage in spec.stages.values():
        verb, *args = spec.arguments(stage)
        if verb == "fit":
            assert parse(*args).output == str(tmp_path / stage.name)


def test_an_algorithm_of_the_miniature_is_a_line(tmp_path):
    """Trained, asked, graded, compared and drawn because its name stands in the matrix."""
    more = "matrix: {algorithm: {again: {label: PPO again, options: {model.kl.kl_coef: 0.5}}}}"
    path = tmp_path / "more.yaml"
    path.write_text(f"extends: {ROOT}/configs/miniature.yaml\n{more}\n")
    spec = read_spec(path, FUNCTIONS, tmp_path)
    usual = read_spec(ROOT / "configs" / "miniature.yaml", FUNCTIONS, tmp_path)
    added = ["again", "again_sampled", "again_greedy", "again_nlp"]
    assert set(spec.stages) - set(usual.stages) == set(added)
    given = spec.stages["evaluate"].options
    for option in ("labels", "answers", "greedy", "nlp", "checkpoints", "runs"):
        assert "again" in given[option], option
    assert (
        parse(*spec.arguments(spec.stages["again"])[1:]).model.init_args.kl.init_args.kl_coef == 0.5
    )


def test_the_pipeline_of_the_ablations_is_understood(tmp_path):
    place = spec_from_file_location("ablations", ROOT / "benchmarks" / "miniature_ablations.py")
    ablations = module_from_spec(place)
    place.loader.exec_module(ablations)
    (tmp_path / "ablations.yaml").write_text(yaml.safe_dump(ablations.pipeline(), sort_keys=False))
    spec = read_spec(tmp_path / "ablations.yaml", FUNCTIONS, tmp_path)
    stages = spec.stages
    assert stages["ptx_3"].options["model.pretraining.ptx_coef"] == 0.3
    assert stages["kl_0"].options["model.kl.kl_coef"] == 0.0
    assert "evaluate" not in stages
    assert parse(*spec.arguments(stages["kl_0"])[1:]).trainer.max_epochs == 65


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_and_hands_over(short_runs, stage):
    folder, done = short_runs
    assert done[stage].trainer.global_step > 0
    assert (folder / stage / "export" / "instructgpt.json").is_file()
    assert json.loads((folder / stage / "metrics.json").read_text())["doctor"] == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_as_it_is_from_the_stage_before(stage):
    config = parse("--config", f"configs/{stage}.yaml")
    assert config.output == f"runs/{stage}"
    before = config.model.init_args.init_from
    assert before is None or before in ("runs/pretrain/export", "runs/sft/export")


@pytest.mark.parametrize("overlay", ["cpu", "lora", "debug"])
@pytest.mark.parametrize("stage", ["sft", "reward", "ppo"])
def test_an_overlay_runs_on_top_of_a_stage(short_runs, tmp_path, stage, overlay):
    folder, _ = short_runs
    before = "pretrain" if stage == "sft" else "sft"
    args = [f"--output={tmp_path}", "--trainer.fast_dev_run=1"]
    args += [f"--model.init_from={folder / before / 'export'}"]
    if stage == "ppo":
        args += [f"--model.reward.init_from={folder / 'reward' / 'export'}"]
    configs = ["--config", f"configs/{stage}.yaml", "--config", f"configs/overlays/{overlay}.yaml"]
    cli = main(["fit", *configs, *args])
    trained = cli.config.fit.model.init_args.trained
    assert (trained is not None) == (overlay == "lora")


def test_the_gpu_overlay_parses():
    config = parse("--config=configs/sft.yaml", "--config=configs/overlays/gpu.yaml")
    assert (config.trainer.accelerator, config.trainer.precision) == ("gpu", "bf16-mixed")
    assert config.trainer.max_epochs == 6


LOOPS = ("sft", "reward", "dpo", "ppo")
CLUSTER = {
    "ddp": ("ddp", 1, 2),
    "fsdp2": ("fsdp2", 1, 2),
    "deepspeed3": ("deepspeed_stage_3", 1, 2),
    "torchrun": ("auto", 1, 2),
    "slurm": ("auto", 2, 8),
}


@pytest.mark.parametrize("overlay", CLUSTER)
@pytest.mark.parametrize("loop", LOOPS)
def test_an_overlay_of_a_cluster_lies_on_any_stage(loop, overlay):
    plain = parse(f"--config=configs/{loop}.yaml")
    config = parse(f"--config=configs/{loop}.yaml", f"--config=configs/overlays/{overlay}.yaml")
    trainer = config.trainer
    assert (trainer.strategy, trainer.num_nodes, trainer.devices) == CLUSTER[overlay]
    assert (config.model, config.data) == (plain.model, plain.data)


@pytest.mark.parametrize("overlay", CLUSTER)
def test_the_command_of_an_overlay_is_understood(overlay):
    """As its comments write it, for as many processes as they start."""
    lines = (ROOT / f"configs/overlays/{overlay}.yaml").read_text().splitlines()
    commands = [line.partition("-m instructgpt fit ") for line in lines]
    commands = [(start, rest) for start, found, rest in commands if found]
    assert commands
    for start, rest in commands:
        trainer = parse(*rest.partition(" $(")[0].split()).trainer  # not what the shell fills in
        assert f"configs/overlays/{overlay}.yaml" in rest
        if "torchrun" in start:
            nodes = int((start.partition("--nnodes ")[2] or "1").split()[0])
            assert trainer.num_nodes == nodes
            assert f"--nproc_per_node {trainer.devices} " in start


@pytest.mark.parametrize(
    ("code", "saves", "restarts", "ended", "said"),
    [
        (143, True, "9", 0, "fit\nqueued 7\n"),  # it goes on, however often it did
        (143, False, "2", 0, "fit\nqueued 7\n"),  # rows are prepared now, perhaps
        (143, False, "3", 1, "fit\nnot queued again: stopped before the first step, after 3 "),
        (0, True, "0", 0, "fit\n"),
        (2, False, "0", 2, "fit\n"),
    ],
)
def test_a_job_of_slurm_is_queued_again_while_it_gets_on(
    tmp_path, code, saves, restarts, ended, said
):
    text = (ROOT / "configs/overlays/slurm.yaml").read_text()
    lines = [line[4:] for line in text.splitlines() if line.startswith("#   ")]
    last = tmp_path / "runs/sft/checkpoints/last.ckpt"
    last.parent.mkdir(parents=True)
    last.touch()
    stubs = {"srun": f"echo fit; {f'echo > {last};' if saves else ''} exit {code}"}
    stubs["scontrol"] = 'echo queued "$2"'
    for name, line in stubs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    job = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7"}
    found = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        cwd=tmp_path,
        env={**job, "SLURM_RESTART_COUNT": restarts},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert (found.returncode, found.stdout[: len(said)]) == (ended, said)


def test_the_commands_of_the_table_of_hardware_are_understood():
    lines = (ROOT / "docs/hardware.md").read_text().splitlines()
    found = [
        line.split("`python -m instructgpt fit ")[1].split("`")[0]
        for line in lines
        if "`python -m instructgpt fit --config" in line
    ]
    assert len(found) == 7
    for command in found:
        assert parse(*command.split()).trainer.max_epochs >= 1


# arXiv:2203.02155: section 3.5 and appendix C; the policy's rate in PPO is the best of figure 38
PAPER_VALUES = {
    "sft": {"optimizer.init_args.lr": 9.65e-6, "dropout": 0.2},
    "rl_init": {"optimizer.init_args.lr": 5e-6},
    "reward": {"optimizer.init_args.lr": 9e-6},
    "ppo": {
        "optimizer.init_args.lr": 3.74e-6,
        "value.lr": 9e-6,
        "kl.init_args.kl_coef": 0.02,
        "algorithm.init_args.clip_range": 0.2,
        "algorithm.init_args.gamma": 1.0,
        "algorithm.init_args.epochs": 1,
        "schedule.init_args.warmup": 10,
        "schedule.init_args.start": 0.1,
        "batches.rollout_batch_size": 512,
        "batches.minibatch_size": 64,
        "ema_decay": 0.992,
        "pretraining.ptx_coef": 0.0,
        "sampling.temperature": 1.0,
    },
    "ppo_ptx": {
        "optimizer.init_args.lr": 1.18e-5,
        "pretraining.ptx_coef": 27.8,
        "pretraining.ptx_per_episode": 8,
        "kl.init_args.kl_coef": 0.02,
        "ema_decay": 0.992,
    },
}
EPOCHS = {"sft": 16, "rl_init": 2, "reward": 1, "ppo": 500, "ppo_ptx": 500}
BATCH = {"sft": 32, "rl_init": 32, "reward": 64}


@pytest.mark.parametrize("stage", PAPER)
def test_the_papers_values(stage):
    config = parse("--config", f"configs/paper/{stage}.yaml")
    model, data = config.model.init_args, config.data.init_args
    assert {key: model[key] for key in PAPER_VALUES[stage]} == PAPER_VALUES[stage]
    assert tuple(model["optimizer.init_args.betas"]) == (0.9, 0.95)
    assert config.trainer.max_epochs == EPOCHS[stage]
    if stage in BATCH:
        assert model["schedule.class_path"].endswith(".Cosine")
        assert model["schedule.init_args.floor"] == 0.1
        assert data.batch_size * config.trainer.accumulate_grad_batches == BATCH[stage]
    assert (data.max_prompt_tokens, data.max_response_tokens) == (1024, 1024)
