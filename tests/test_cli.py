"""The command line as a whole, with a toy stage: one folder per run, and the verbs."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch
import yaml
from harness import run_processes
from last_line import last_line
from lightning.pytorch.callbacks import EarlyStopping
from rows import read_rows
from toy_stage import ToyData, ToyModule, fit, toy_args

from instructgpt.__main__ import find_own_modules
from instructgpt.__main__ import main as run
from instructgpt.cli import main
from instructgpt.modules.base import StageModule
from instructgpt.types import UserError
from instructgpt.verbs import VERBS


def test_help_is_fast_lists_every_verb_and_imports_no_torch():
    code = "import sys; from instructgpt.__main__ import main; main(['--help']); "
    code += "print('torch' in sys.modules)"
    seconds = []
    for _ in range(3):  # the machine may be busy once
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        seconds.append(time.monotonic() - start)
    assert min(seconds) < 1.0
    assert done.stdout.rstrip().endswith("False")
    for verb in ("fit", "validate", "test", "predict", "generate", "export"):
        assert f"\n  {verb} " in done.stdout
        assert verb in VERBS


def test_fit_puts_all_of_a_run_into_one_folder(tmp_path):
    out = tmp_path / "run"
    fit(out)
    names = {path.name for path in out.iterdir()}
    assert {"config.yaml", "checkpoints", "samples.jsonl", "metrics.json", "export"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert {p.name for p in (out / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


def test_the_saved_config_repeats_the_run_and_does_not_resume(tmp_path):
    first = fit(tmp_path / "a", "--model.optimizer.lr", "0.03")
    saved = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())
    assert saved["output"] == str(tmp_path / "a")
    assert saved["ckpt_path"] is None
    second = main(
        ["fit", "--config", str(tmp_path / "a" / "config.yaml"), "--output", str(tmp_path / "b")]
    )
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_output_comes_from_the_config_else_from_the_stage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = toy_args("--trainer.fast_dev_run", "true")
    assert main(args).config.fit.output == "runs/toy"
    (tmp_path / "c.yaml").write_text("output: elsewhere\n")
    cli = main([args[0], "--config", "c.yaml", *args[1:]])
    assert cli.config.fit.output == "elsewhere"
    assert cli.trainer.default_root_dir == "elsewhere"


def test_trainer_defaults(tmp_path):
    trainer = fit(tmp_path, "--trainer.fast_dev_run", "true").config.fit.trainer
    assert trainer.use_distributed_sampler is False
    assert trainer.inference_mode is False
    assert trainer.num_sanity_val_steps == 0


def test_fast_dev_run_leaves_nothing_unless_asked(tmp_path):
    fit(tmp_path / "a", "--trainer.fast_dev_run", "true")
    assert not (tmp_path / "a").exists()
    fit(tmp_path / "b", "--trainer.fast_dev_run", "true", "--export", "true")
    assert (tmp_path / "b" / "export" / "weights.pt").is_file()


def test_model_and_data_share_tokenizer_and_seed(tmp_path):
    dry = ("--trainer.fast_dev_run", "true", "--seed_everything", "7")
    cli = fit(tmp_path, *dry, "--model.init_from", "nowhere")
    assert (cli.datamodule.tokenizer_name, cli.datamodule.seed, cli.model.seed) == ("nowhere", 7, 7)
    cli = fit(tmp_path, *dry, "--model.init_from=nowhere", "--model.tokenizer=b")
    assert cli.datamodule.tokenizer_name == "b"
    assert cli.config_dump["data"]["init_args"].items() >= {"tokenizer": "b", "seed": 7}.items()


def test_a_contradiction_between_shared_values_is_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"--data.seed follows from --seed_everything \(0\).* got 3"
    ):
        fit(tmp_path, "--data.seed", "3")
    with pytest.raises(UserError, match=r"--data.tokenizer follows from --model.tokenizer"):
        fit(tmp_path, "--model.tokenizer", "b", "--data.tokenizer", "c")
    fit(tmp_path, "--data.seed", "3", "--seed_everything", "3", "--trainer.fast_dev_run", "true")


def test_callbacks_of_the_user_are_kept_beside_ours(tmp_path):
    cli = fit(
        tmp_path,
        "--trainer.fast_dev_run=true",
        "--trainer.callbacks+=EarlyStopping",
        "--trainer.callbacks.monitor=val/loss",
        "--trainer.callbacks+=instructgpt.callbacks.checkpoint.StageCheckpoint",
        "--trainer.callbacks.every_n_steps=3",
    )
    kinds = [type(callback).__name__ for callback in cli.trainer.callbacks]
    assert any(isinstance(callback, EarlyStopping) for callback in cli.trainer.callbacks)
    assert kinds.count("StageCheckpoint") == 1
    assert "StepSeed" in kinds


def test_checkpointing_logging_and_progress_can_be_switched_off(tmp_path):
    cli = fit(
        tmp_path,
        "--trainer.enable_checkpointing=false",
        "--trainer.logger=false",
        "--trainer.enable_progress_bar=false",
    )
    kinds = {type(callback).__name__ for callback in cli.trainer.callbacks}
    assert kinds.isdisjoint({"StageCheckpoint", "LearningRateMonitor", "StageProgress"})
    assert (tmp_path / "export").is_dir()


def test_validate_draws_beside_the_fit_and_uses_the_best_checkpoint(tmp_path):
    fit(tmp_path)
    samples = (tmp_path / "samples.jsonl").read_text()
    before = sorted(p.name for p in tmp_path.iterdir())
    config = str(tmp_path / "config.yaml")
    cli = main(["validate", "--config", config, "--ckpt_path", "best"])
    assert sorted({p.name for p in tmp_path.iterdir()} - set(before)) == ["validate"]
    assert (tmp_path / "samples.jsonl").read_text() == samples
    assert len((tmp_path / "validate" / "samples.jsonl").read_text().splitlines()) == 5
    exported = json.loads((tmp_path / "metrics.json").read_text())["exported"]
    assert float(cli.trainer.callback_metrics["val/loss"]) == pytest.approx(exported["val/loss"])


def test_predict_writes_the_rows_in_order_on_one_and_two_ranks(tmp_path):
    args = ["predict", *toy_args()[1:], "--data.rows", "7", "--output"]
    main([*args, str(tmp_path / "one")])
    ranks = ["--trainer.strategy", "ddp", "--trainer.devices", "2"]
    run_processes(lambda: main([*args, str(tmp_path / "two"), *ranks]).subcommand)
    one, two = ((tmp_path / n / "predictions.jsonl").read_text() for n in ("one", "two"))
    assert one == two
    assert len(one.splitlines()) == 5  # all validation rows, no blank ones


def test_two_ranks_write_one_run(tmp_path):
    ranks = ["--trainer.strategy", "ddp", "--trainer.devices", "2"]
    steps = run_processes(lambda: fit(tmp_path, *ranks).trainer.global_step)
    assert steps == [6, 6]  # 2 epochs x 12 rows / (2 rows x 2 ranks)
    rows = read_rows(tmp_path / "samples.jsonl")
    assert len(rows) == 2 * 6  # two validations of 5 rows and a blank one


def test_exit_codes(tmp_path, capsys):
    assert run([]) == 0
    assert run(["--help"]) == 0
    assert run(["fitt"]) == 2
    assert "did you mean fit?" in capsys.readouterr().err
    assert run(toy_args("--output", str(tmp_path), "--trainer.fast_dev_run", "true")) == 0
    assert run(["fit", "--help"]) == 0
    capsys.readouterr()
    assert run(["fit", "--model.help", "SFTModule"]) == 0
    assert capsys.readouterr().out.startswith("usage: python -m instructgpt VERB ")


def test_an_unexpected_error_keeps_its_traceback(tmp_path, monkeypatch):
    def broken(self, batch, batch_idx):
        raise ValueError("a bug")

    monkeypatch.setattr(ToyModule, "training_step", broken)
    with pytest.raises(ValueError, match="a bug"):
        run(toy_args("--output", str(tmp_path)))
    assert not (tmp_path / "export").exists()
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_bug_in_a_constructor_keeps_its_traceback(tmp_path, monkeypatch):
    def broken(self, *values):
        raise TypeError("a bug")

    monkeypatch.setattr(StageModule, "__init__", broken)
    with pytest.raises(Exception, match="a bug") as raised:
        run(toy_args("--output", str(tmp_path)))
    assert not isinstance(raised.value, UserError)


def test_a_user_error_from_deep_inside_is_one_line(tmp_path, monkeypatch, capsys):
    def refuse(self, batch, batch_idx):
        raise UserError("row 3: too long") from KeyError("x")

    monkeypatch.setattr(ToyModule, "training_step", refuse)
    assert run(toy_args("--output", str(tmp_path))) == 2
    assert last_line(capsys) == "instructgpt: error: row 3: too long"


@pytest.mark.slow
def test_ddp_by_popen_from_the_shell(tmp_path):
    """Lightning starts the whole command line again for the second rank; one prepares the rows."""
    command = [sys.executable, "-m", "instructgpt", "fit", "--config", "configs/pretrain.yaml"]
    command += ["--config", "configs/overlays/debug.yaml"]
    ranks = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
    cache = tmp_path / "cache"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(cache)}
    batch = {
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": "0",
    }  # in a script for sbatch
    written = []
    for run_of in ("cold", "warm"):
        done = subprocess.run(
            [*command, "--output", str(tmp_path / run_of), *ranks],
            env=environment | batch if run_of == "warm" else environment,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
        said = done.stdout + done.stderr  # by rank 0 alone
        kept = cache.glob("instructgpt/data/*/rows.arrow")
        written.append({path: path.stat().st_mtime_ns for path in kept})
    assert written[0]
    assert written[0] == written[1]
    assert said.count("from the cache") == len(written[1])  # in the cold run, if rank 1 was faster
    cold, warm = (
        (tmp_path / n / "export/model.safetensors").read_bytes() for n in ("cold", "warm")
    )
    assert cold == warm


def pretrain(folder, words, *options):
    """A language model with its own tokenizer, of a few words."""
    (folder / "t.jsonl").write_text(json.dumps({"text": words}) + "\n")
    args = ["fit", "--model=SFTModule", "--data=TextDataModule", f"--data.train={folder}/t.jsonl"]
    args += ["--model.architecture={model_type: gpt2, n_layer: 1, n_embd: 8, n_head: 2}"]
    args += ["--data.bpe.vocab_size=270", "--data.validation=null", "--data.block_size=16"]
    args += ["--trainer.accelerator=cpu", "--trainer.max_epochs=1", "--output", str(folder / "run")]
    return run([*args, *options])


def test_the_tokenizer_of_a_run_outlives_trials_and_checkpoints_need_it(tmp_path, capsys):
    assert pretrain(tmp_path, "the cat says meow") == 0
    tokenizer = tmp_path / "run" / "tokenizer"
    files = {path.name: path.read_bytes() for path in tokenizer.iterdir()}
    resume = ["--ckpt_path=last", "--trainer.max_epochs=2"]
    assert pretrain(tmp_path, "the cat says meow", *resume, "--trainer.fast_dev_run=true") == 0
    assert pretrain(tmp_path, "the dog says woof", "--trainer.fast_dev_run=true") == 0
    for trial in ([], ["--trainer.fast_dev_run=true"]):
        capsys.readouterr()
        assert pretrain(tmp_path, "the dog says woof", *resume, *trial) == 2
        error = last_line(capsys)
        assert "--data.train and --data.bpe must be those that the tokenizer" in error
    assert {path.name: path.read_bytes() for path in tokenizer.iterdir()} == files
    assert [path.name for path in (tmp_path / "run").glob("tokenizer*")] == ["tokenizer"]
    assert pretrain(tmp_path, "the cat says meow", *resume) == 0


def test_cleaning_up_stays_in_the_run(tmp_path, monkeypatch):
    def data(self, stage):  # another run begins below meanwhile
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "events.out.tfevents.1").touch()
        raise UserError("x.jsonl:1: bad")

    monkeypatch.setattr(ToyData, "setup", data)
    with pytest.raises(UserError, match=r"x.jsonl:1: bad"):
        fit(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["other", "events.out.tfevents.1"]


def test_class_paths_find_files_of_the_current_directory_behind_all_others(tmp_path, monkeypatch):
    script = ["/usr/bin", "/lib/python"]  # where the console script lies, as Python puts it first
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*script])
    find_own_modules()
    find_own_modules()
    assert sys.path == [*script, str(tmp_path)]
    monkeypatch.setattr(sys, "path", [""])  # as with python -c: it is there
    find_own_modules()
    assert sys.path == [""]
