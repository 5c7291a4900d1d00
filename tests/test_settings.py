"""Settings with which a run would do nothing, something without meaning, or end in a traceback."""

# ruff: noqa: E501  one case a line reads best

import time

import pytest
import torch
from last_line import last_line
from lightning.pytorch.plugins.environments import (
    LightningEnvironment,
    MPIEnvironment,
    SLURMEnvironment,
)
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from toy_stage import ToyModule, toy_args

from instructgpt.__main__ import main
from instructgpt.errors import user_message
from instructgpt.functional.logprobs import kl_estimate
from instructgpt.modules import zero
from instructgpt.settings import check_options, starter
from instructgpt.types import UserError
from instructgpt.yaml_files import check_aliases

CALLBACK = "--trainer.callbacks"
ONE = torch.ones(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trainer.max_epochs=0"], "--trainer.max_epochs must be >= 1, or -1 for no limit, got 0"),
        (["--trainer.max_steps=0"], "--trainer.max_steps must be >= 1, or -1 for no limit, got 0"),
        (["--trainer.max_time=00:00:00:00"], "--trainer.max_time must be longer than nothing"),
        (["--trainer.limit_train_batches=0"], "--trainer.limit_train_batches must be > 0, got 0"),
        (["--trainer.gradient_clip_val=-1"], "--trainer.gradient_clip_val must be >= 0"),
        (["--trainer.accumulate_grad_batches=0"], "--trainer.accumulate_grad_batches must be >= 1, got 0"),
        (["--trainer.check_val_every_n_epoch=0"], "--trainer.check_val_every_n_epoch must be >= 1"),
        (["--trainer.val_check_interval=0"], "--trainer.val_check_interval must be > 0, got 0"),
        (["--trainer.val_check_interval=1000"], "`val_check_interval` (1000) must be less than or equal to"),
        (["--trainer.num_nodes=0"], "--trainer.num_nodes must be >= 1, got 0"),
        (["--trainer.devices=9999"], "--trainer.devices must be at most "),
        (["--trainer.strategy=deepspeed_stage_3_offload"], "--trainer.strategy must not be deepspeed_stage_3_offload: of DeepSpeed deepspeed_stage_2 and deepspeed_stage_3 alone"),
        (["--trainer.strategy=DeepSpeedStrategy", "--trainer.strategy.stage=2"], "--trainer.strategy must not be "),
        (["--trainer.strategy=deepspeed_stage_1"], "--trainer.strategy must not be deepspeed_stage_1: "),
        (["--trainer.accelerator=tpu"], "Requirement 'torch_xla"),
        (["--trainer.precision=transformer-engine"], "Requirement 'transformer_engine"),
        (["--trainer.logger=CometLogger"], "Requirement 'comet"),
        ([f"{CALLBACK}=EarlyStopping", f"{CALLBACK}.monitor=nokey"], "Early stopping conditioned on metric `nokey`"),
        ([f"{CALLBACK}=Timer", f"{CALLBACK}.duration=foo"], "`Timer(duration='foo')` is not a valid duration"),
        ([f"{CALLBACK}=LearningRateFinder"], "--trainer.callbacks must not be LearningRateFinder, which changes what is trained behind the plan: give --model.optimizer.lr instead"),
        ([f"{CALLBACK}=BatchSizeFinder"], "--trainer.callbacks must not be BatchSizeFinder"),
        ([f"{CALLBACK}=BackboneFinetuning"], "--trainer.callbacks must not be BackboneFinetuning"),
        ([f"{CALLBACK}=GradientAccumulationScheduler", CALLBACK + ".scheduling={0: 2}"], "--trainer.callbacks must not be GradientAccumulationScheduler"),
        ([f"{CALLBACK}=StochasticWeightAveraging", f"{CALLBACK}.swa_lrs=0.01"], "--trainer.callbacks must not be StochasticWeightAveraging"),
        (["--trainer.barebones=true"], "--trainer.barebones must be false: "),
        (["--trainer.sync_batchnorm=true"], "--trainer.sync_batchnorm must be false: "),
        (["--trainer.use_distributed_sampler=true"], "--trainer.use_distributed_sampler must be false: "),
        (["--trainer.reload_dataloaders_every_n_epochs=1"], "--trainer.reload_dataloaders_every_n_epochs must be 0: "),
        (["--trainer.model_registry=mine"], "--trainer.model_registry must be null: "),
        (["--model.optimizer=torch.optim.SparseAdam"], "SparseAdam does not support dense gradients"),
        (["--config=/proc/self/mem"], "/proc/self/mem: "),
        (["--output={tmp}/loop/run"], "--output must be a folder, got "),
        (["--output=/proc/run"], "--output must be a folder to write to, got /proc/run: "),
    ],
)  # fmt: skip
def test_one_line(tmp_path, capsys, options, message):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    options = [option.replace("{tmp}", str(tmp_path)) for option in options]
    assert main(toy_args("--output", str(tmp_path / "run"), *options)) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    last = error.strip().splitlines()[-1]
    assert last.startswith(f"instructgpt: error: {message}"), last


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_is_an_extra(tmp_path, capsys, monkeypatch, stage):
    monkeypatch.setattr(zero, "find_spec", lambda name: None)
    for variable in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(variable, "")  # Lightning sets them: so they are gone afterwards
        monkeypatch.delenv(variable)
    flag = f"--trainer.strategy=deepspeed_stage_{stage}"
    assert main(toy_args("--output", str(tmp_path / "run"), flag)) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    asked = flag.replace("=", " ")
    expected = f'{asked} needs the extra: pip install "instructgpt[deepspeed]"'
    assert last == f"instructgpt: error: {expected}"


TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
BATCH = {"SLURM_JOB_ID": "123456", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}
SRUN = {
    **BATCH,
    "SLURM_JOB_NAME": "train",
    "SLURM_NODELIST": "n[1-2]",
    "SLURM_STEP_ID": "3",
    "SLURM_STEP_NODELIST": "n2",
    "SLURM_STEP_NUM_NODES": "1",
    "SLURM_STEP_NUM_TASKS": "2",
}


@pytest.mark.parametrize(("name", "started"), [("torchrun", TORCHRUN), ("srun", SRUN)])
def test_no_process_that_was_started_trains_alone(tmp_path, capsys, monkeypatch, name, started):
    """They would all write to the same folder: Lightning's default is one process."""
    for variable, value in started.items():
        monkeypatch.setenv(variable, value)
    assert main(toy_args("--output", str(tmp_path))) == 2
    assert last_line(capsys) == (
        "instructgpt: error: --trainer.devices times --trainer.num_nodes must be the 2 processes "
        f"that {name} started, got 1 times 1"
    )
    assert main(["cache"]) == 2
    assert last_line(capsys).endswith(f"{name}: the processes of cache must be 1, got 2")
    monkeypatch.delenv("SLURM_STEP_ID", raising=False)  # a batch script, which has tasks as well
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert main(["cache"]) == 0


def test_in_a_batch_script_of_slurm_lightning_starts_the_processes(tmp_path, capsys, monkeypatch):
    """There and in a step of one task nobody else does, and it would wait for ever."""
    assert starter(None) == []
    for variable, value in BATCH.items():
        monkeypatch.setenv(variable, value)
    assert [type(one) for one in starter(None)] == [LightningEnvironment]
    assert main(toy_args("--output", str(tmp_path), "--trainer.num_nodes=2")) == 2
    assert last_line(capsys) == (
        "instructgpt: error: --trainer.num_nodes must be 1 without srun in front, got 2"
    )
    for variable, value in {**SRUN, "SLURM_STEP_NUM_TASKS": "1"}.items():
        monkeypatch.setenv(variable, value)
    assert [type(one) for one in starter(None)] == [LightningEnvironment]
    mine = MPIEnvironment.__new__(MPIEnvironment)
    assert starter(mine) == starter([mine]) == [mine]


def test_steps_of_one_job_meet_at_places_of_their_own(monkeypatch):
    for variable in ("MASTER_ADDR", "MASTER_PORT", "SLURM_NTASKS_PER_NODE"):
        monkeypatch.setenv(variable, "")  # to be put back
        monkeypatch.delenv(variable)
    for variable, value in SRUN.items():
        monkeypatch.setenv(variable, value)
    (environment,) = starter(None)
    assert isinstance(environment, SLURMEnvironment)
    assert not environment.auto_requeue
    assert (environment.main_address, environment.main_port) == ("n2", 15000 + 6456)
    environment.validate_settings(num_devices=2, num_nodes=1)


def test_a_class_stands_before_its_options():
    early = ["fit", "--data.train", "x", "--model=SFTModule", "--data=TextDataModule"]
    with pytest.raises(UserError, match=r"^--data must stand before --data.train, got it behind$"):
        check_options(early)
    check_options([*early[:1], "--config=x", *early[1:]])  # which may name the class
    check_options([early[0], early[-1], *early[1:]])  # which another one then takes the place of


def test_nothing_is_left_of_what_lightning_refuses(tmp_path):
    output = tmp_path / "run"
    assert main(toy_args("--output", str(output), "--trainer.val_check_interval=1000")) == 2
    assert not output.exists()


@pytest.mark.parametrize("options", [[], ["--trainer.callbacks.duration=00:00:10:00"]])
def test_a_timer_works(tmp_path, options):
    """Its default is a member of an Enum, which goes into config.yaml by its value."""
    args = toy_args("--output", str(tmp_path), "--trainer.callbacks=Timer", *options)
    assert main(args) == 0
    assert "interval: step" in (tmp_path / "config.yaml").read_text()
    assert main(["fit", "--config", str(tmp_path / "config.yaml")]) == 0


def test_a_bug_keeps_its_traceback():
    def bug():
        return 1 / 0

    for wrong in (bug, lambda: torch.zeros(2)[5], lambda: {}["a"]):
        with pytest.raises((ZeroDivisionError, IndexError, KeyError)) as error:
            wrong()
        assert user_message(error.value, UserError) is None


@pytest.mark.parametrize(
    ("name", "bug"),
    [
        ("training_step", lambda self, *_: self.log("x", "text")),
        ("training_step", lambda *_: {"no": "loss"}),
        ("on_fit_start", lambda self: self.log("x", 1.0)),
    ],
)
def test_what_lightning_says_of_our_code_is_no_fault_of_settings(tmp_path, monkeypatch, name, bug):
    monkeypatch.setattr(ToyModule, name, bug)
    with pytest.raises((ValueError, MisconfigurationException)):
        main(toy_args("--output", str(tmp_path)))


def test_a_bug_while_the_trainer_is_built(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "instructgpt.cli.check_callbacks", lambda given: kl_estimate(ONE, ONE, "k9")
    )
    with pytest.raises(ValueError, match="kind must be k1, k2 or k3") as error:
        main(toy_args("--output", str(tmp_path)))
    assert not isinstance(error.value, UserError)


DEEP = "[" * 50_000 + "]" * 50_000
BLOCKS = "\n".join(" " * i + "a:" for i in range(1500)) + " 1\n"


@pytest.mark.parametrize(
    ("args", "place"),
    [
        (["fit", "--config", "deep.yaml"], "deep.yaml: brackets"),
        (["fit", "--model.optimizer", "deep.json"], "deep.json: brackets"),
        (["fit", "--model.architecture", DEEP], "[[["),
        (["generate", f"--responses={DEEP}"], "--responses=[[["),
        (["generate", "--config=blocks.yaml"], "blocks.yaml: must not be nested"),
    ],
)
def test_brackets_in_brackets(tmp_path, monkeypatch, capsys, args, place):
    """Parsers written in C do not survive them."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("deep.yaml", DEEP), ("deep.json", DEEP), ("blocks.yaml", BLOCKS)):
        (tmp_path / name).write_text(text)
    assert main(args) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"instructgpt: error: {place}")
    assert line.count("\n") == 1


def test_data_is_not_taken_for_a_configuration(tmp_path):
    """A large file of JSON with & and * in its texts would take a YAML parser minutes."""
    (tmp_path / "data.json").write_text("a: &a [*a]\n")
    check_options(["fit", "--data.train", str(tmp_path / "data.json")])
    with pytest.raises(UserError, match=r"data\.json: aliases must not form a circle"):
        check_options(["fit", "--config", str(tmp_path / "data.json")])


def bomb(levels, merge=False):
    lines = ["a0: &a0 {k: v}" if merge else "a0: &a0 [x, x, x, x]"]
    for i in range(1, levels):
        body = ", ".join([f"*a{i - 1}"] * 9)
        lines.append(f"a{i}: &a{i} {{<<: [{body}]}}" if merge else f"a{i}: &a{i} [{body}]")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("verb", ["fit", "pipeline"])
@pytest.mark.parametrize("merge", [False, True])
def test_aliases_that_repeat_each_other(tmp_path, capsys, verb, merge):
    (tmp_path / "c.yaml").write_text(bomb(12, merge))
    began = time.monotonic()
    assert main([verb, "--config", str(tmp_path / "c.yaml")]) == 2
    assert time.monotonic() - began < 5
    assert "c.yaml: aliases must not repeat each other to " in capsys.readouterr().err


def test_aliases_in_an_option_and_in_a_circle(tmp_path, capsys):
    inline = "{" + bomb(8).strip().replace("\n", ", ") + "}"
    assert main(toy_args("--model.architecture", inline)) == 2
    assert "aliases must not repeat each other" in capsys.readouterr().err
    (tmp_path / "c.yaml").write_text("model: &a {class_path: SFTModule, init_args: *a}\n")
    assert main(["fit", f"--config={tmp_path / 'c.yaml'}"]) == 2
    assert "c.yaml: aliases must not form a circle" in capsys.readouterr().err
    check_aliases("a: &a {lr: 1.0}\nb: *a\nc: *a\n", "an honest file")


def broken(path, kind):
    good = path.read_bytes()
    if kind == "cut":
        path.write_bytes(good[: len(good) // 2])
        return
    checkpoint = torch.load(path, weights_only=True)
    if kind == "shape":
        checkpoint["state_dict"]["layer.0.weight"] = torch.zeros(7, 7)
    elif kind == "step":
        del checkpoint["global_step"]
    else:
        checkpoint["loops"] = {}
    torch.save(checkpoint, path)


@pytest.mark.parametrize("kind", ["cut", "shape", "step", "loops"])
def test_a_broken_best_checkpoint(tmp_path, capsys, kind):
    assert main(toy_args("--output", str(tmp_path))) == 0
    broken(tmp_path / "checkpoints" / "best.ckpt", kind)
    config = ["--config", str(tmp_path / "config.yaml")]
    for args in (
        ["validate", *config, "--ckpt_path=best"],
        ["export", "--run", str(tmp_path)],
    ):
        capsys.readouterr()
        assert main(args) == 2
        last = last_line(capsys)
        assert last.startswith("instructgpt: error: --ckpt_path ")
        assert "best.ckpt" in last
