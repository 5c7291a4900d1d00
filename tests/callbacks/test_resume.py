"""What a resume may change is obeyed and printed; all else is refused by name in one line."""

import pytest
import torch
import yaml
from toy_stage import ToyModule, fit

from instructgpt.callbacks.resume import Change, compare_configs
from instructgpt.types import UserError


def last(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def test_a_rate_of_zero_changes_no_weight_from_there_on(tmp_path, caplog):
    fit(tmp_path, "--trainer.max_epochs=1")
    before = last(tmp_path)
    fit(tmp_path, "--ckpt_path=last", "--model.optimizer.lr=0")
    after = last(tmp_path)
    assert (before["global_step"], after["global_step"]) == (6, 12)
    for name, weight in before["state_dict"].items():
        assert torch.equal(weight, after["state_dict"][name])
    assert "resume: model.optimizer.lr 0.05 → 0.0" in caplog.text
    assert "resume: trainer.max_epochs 1 → 2" in caplog.text


ADAM = (
    "--model.optimizer=PaperAdam",
    "--model.optimizer.lr=0.01",
    "--trainer.gradient_clip_val=1",
)


def test_options_of_the_optimizer_are_the_new_ones(tmp_path, caplog):
    fit(tmp_path, *ADAM, "--trainer.max_epochs=1")
    asked = (
        "--model.optimizer.lr=0.02",
        "--model.optimizer.betas=[0.5, 0.6]",
        "--model.optimizer.eps=1e-3",
        "--model.optimizer.weight_decay=0.1",
        "--model.schedule.warmup=24",  # 12 steps done of 24: half way from a tenth to 1
        "--trainer.gradient_clip_val=0.5",
    )
    cli = fit(tmp_path, *ADAM, *asked, "--ckpt_path=last")
    group = cli.trainer.optimizers[0].param_groups[0]
    assert [group[name] for name in ("betas", "eps", "weight_decay")] == [(0.5, 0.6), 1e-3, 0.1]
    assert group["lr"] == pytest.approx(0.02 * (0.1 + 0.9 * 12 / 24))
    said = [record.message for record in caplog.records if record.message.startswith("resume:")]
    assert len(said) == len(asked) + 1
    assert "resume: model.optimizer.betas [0.9, 0.95] → [0.5, 0.6]" in said


def test_the_configuration_says_what_was_changed_and_when(tmp_path):
    fit(tmp_path, "--trainer.max_epochs=1")
    fit(tmp_path, "--ckpt_path=last", "--model.optimizer.lr=0.01")
    fit(tmp_path, "--ckpt_path=last", "--model.optimizer.lr=0.02", "--trainer.max_epochs=3")
    text = (tmp_path / "config.yaml").read_text()
    assert yaml.safe_load(text)["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.02
    assert [line for line in text.splitlines() if line.startswith("# from")] == [
        "# from step 6 on: trainer.max_epochs 1 → 2",
        "# from step 6 on: model.optimizer.lr 0.05 → 0.01",
        "# from step 12 on: trainer.max_epochs 2 → 3",
        "# from step 12 on: model.optimizer.lr 0.01 → 0.02",
    ]


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ("--seed_everything=1", "seed_everything 1 (was 0)"),
        ("--data.rows=20", "data.rows 20 (was 12)"),
        ("--trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches 2 (was 1)"),
        ("--trainer.limit_train_batches=0.5", "trainer.limit_train_batches 0.5 (was null)"),
        ("--trainer.overfit_batches=0.5", "trainer.overfit_batches 0.5 (was 0.0)"),
        ("--trainer.precision=bf16-mixed", "trainer.precision bf16-mixed (was null)"),
        ("--model.optimizer=PaperAdam", "model.optimizer PaperAdam (was SGD)"),
        ("--model.wrong=2", "model.wrong 2.0 (was 1.0)"),
        ("--model.network.dtype=bfloat16", "model.network.dtype bfloat16 (was float32)"),
    ],
)
def test_what_would_mix_two_runs_is_refused(tmp_path, module_run, asked, named):
    before = {path: path.read_bytes() for path in module_run.rglob("*") if path.is_file()}
    with pytest.raises(UserError) as error:
        fit(module_run, "--ckpt_path=last", "--trainer.max_epochs=3", asked)
    assert str(error.value) == (
        f"--ckpt_path {module_run}/checkpoints/last.ckpt cannot go on with {named}: leave it as it "
        "was, or start anew with --model.init_from and without --ckpt_path"
    )
    assert {p: p.read_bytes() for p in module_run.rglob("*") if p.is_file()} == before


@pytest.fixture(scope="module")
def module_run(tmp_path_factory):
    """A finished run that no test changes."""
    folder = tmp_path_factory.mktemp("run")
    fit(folder)
    return folder


def test_all_that_is_refused_stands_in_one_line(module_run):
    with pytest.raises(UserError, match=r"seed_everything 1 .*, data.rows 20 .*: leave") as e:
        fit(module_run, "--ckpt_path=last", "--seed_everything=1", "--data.rows=20")
    assert "\n" not in str(e.value)


def test_what_does_not_touch_the_weights_changes_freely(tmp_path, caplog):
    fit(tmp_path, "--trainer.max_epochs=1")
    moved = tmp_path.with_name("moved")
    tmp_path.rename(moved)
    free = ("--checkpoint.every_n_steps=3", "--trainer.enable_progress_bar=false")
    cli = fit(moved, "--ckpt_path=last", *free)
    assert cli.trainer.global_step == 12
    said = [record.message for record in caplog.records if record.message.startswith("resume:")]
    assert said == ["resume: trainer.max_epochs 1 → 2"]


@pytest.mark.parametrize("devices", ["1", "auto"])
def test_batches_of_all_processes_together_stay_as_large(module_run, devices):
    # 4 rows of one process could be 2 of two, also where both times all devices were asked for.
    other = (f"--trainer.devices={devices}", "--data.batch_size=4")
    rule = r"data.batch_size x processes must stay 2, got 4"
    with pytest.raises(UserError, match=rule):
        fit(module_run, "--ckpt_path=last", "--trainer.max_epochs=3", *other)


def test_where_the_numbers_of_processes_changed_batches_may_be_others():
    def batches(rows):
        return {"trainer": {"devices": "auto"}, "data": {"batch_size": rows}}

    assert list(map(str, compare_configs(batches(4), batches(2), "x"))) == ["data.batch_size 4 → 2"]


def test_fewer_epochs_than_were_done_are_refused(module_run):
    rule = r"--trainer.max_epochs must be at least the 2 epochs that .* has done, got 1"
    with pytest.raises(UserError, match=rule):
        fit(module_run, "--ckpt_path=last", "--trainer.max_epochs=1")


@pytest.mark.parametrize("name", ["last", "best"])
def test_a_run_that_was_moved_is_to_be_named(tmp_path, name):
    with pytest.raises(UserError, match=r"got .*/old/checkpoints/.*; .* must be its new folder"):
        fit(tmp_path / "old", f"--ckpt_path={name}")
    assert not list(tmp_path.iterdir())


def test_an_empty_name_of_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(UserError, match="--ckpt_path must be an existing checkpoint, got"):
        fit(tmp_path, "--ckpt_path=")


def test_a_checkpoint_without_a_configuration_says_so(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(
            "instructgpt.callbacks.config.ConfigWriter.on_save_checkpoint", lambda *_: None
        )
        fit(tmp_path, "--trainer.max_epochs=1")
    with pytest.warns(UserWarning, match="last.ckpt holds no configuration: what is asked now is"):
        fit(tmp_path, "--ckpt_path=last")


def lora(**options):
    return {"class_path": "instructgpt.models.trained.LoRA", "init_args": options}


BASE = {"output": "a", "model": {"class_path": "instructgpt.X", "init_args": {"trained": None}}}


def with_model(**options):
    return {**BASE, "model": {"class_path": "instructgpt.X", "init_args": options}}


@pytest.mark.parametrize(
    ("was", "now", "named"),
    [
        ({"trained": None}, {"trained": lora(rank=8)}, "model.trained LoRA (was null)"),
        ({"trained": lora(rank=8)}, {"trained": None}, "model.trained null (was LoRA)"),
        ({"trained": lora(rank=8)}, {"trained": lora(rank=4)}, "model.trained.rank 4 (was 8)"),
        ({"value": "separate"}, {"value": "shared"}, "model.value shared (was separate)"),
        (
            {"architecture": {"n_layer": 2}},
            {"architecture": {"n_layer": 2, "n_head": 4}},
            "model.architecture {'n_head': 4} (was {})",
        ),
        (
            {"architecture": {"a": "x" * 60, "n_layer": 2}},
            {"architecture": {"a": "x" * 60, "n_layer": 3}},
            "model.architecture {'n_layer': 3} (was {'n_layer': 2})",
        ),
        (
            {"reward": {"class_path": "instructgpt.M", "init_args": {"weights": [1.0, 2.0]}}},
            {"reward": {"class_path": "instructgpt.M", "init_args": {"weights": [1.0, 3.0]}}},
            "model.reward.weights [1.0, 3.0] (was [1.0, 2.0])",
        ),
        (
            {"rewards": [{"class_path": "a.B", "init_args": {}}]},
            {"rewards": [{"class_path": "a.B", "init_args": {}}] * 2},
            "model.rewards 2 of them (was 1 of them)",
        ),
    ],
)
def test_classes_are_compared_before_their_options(was, now, named):
    with pytest.raises(UserError) as error:
        compare_configs(with_model(**was), with_model(**now), "x")
    assert str(error.value).startswith(f"--ckpt_path x cannot go on with {named}: ")


def test_keys_that_only_one_version_knows_are_no_change():
    assert compare_configs(with_model(old=1, lr=1), with_model(new=2, lr=1), "x") == []


def test_a_fraction_to_hold_out_is_no_name_of_a_file():
    def data(value):
        return {"data": {"class_path": "a.B", "init_args": {"validation": value}}}

    assert compare_configs(data("old.jsonl"), data("new.jsonl"), "x") == []
    for was, now in ((0.1, 0.2), (0.1, "new.jsonl"), (0.1, None)):
        with pytest.raises(UserError, match=r"data.validation .* \(was 0.1\)"):
            compare_configs(data(was), data(now), "x")


def test_a_schedule_may_be_another():
    was, now = (
        with_model(schedule={"class_path": f"instructgpt.s.{name}", "init_args": options})
        for name, options in (("Cosine", {"floor": 0.1}), ("Constant", {"floor": 0.2}))
    )
    assert list(map(str, compare_configs(was, now, "x"))) == ["model.schedule Cosine → Constant"]
    assert str(Change("a", None, "b" * 100)) == f"a null → {'b' * 60}…"


def test_the_run_is_not_built_before_it_is_refused(module_run, monkeypatch):
    def build(self):
        raise AssertionError("built")

    monkeypatch.setattr(ToyModule, "build", build)
    with pytest.raises(UserError, match="seed_everything 1"):
        fit(module_run, "--ckpt_path=last", "--seed_everything=1")


def test_a_format_is_known_by_the_rows_it_makes():
    def data(form):
        return {"data": {"class_path": "Data", "init_args": {"format": form}}}

    one = {"class_path": "mine.One", "init_args": {"key": 1}}
    for other in (None, {"class_path": "mine.Two"}, {**one, "init_args": {"key": 2}}):
        assert compare_configs(data(one), data(other), "last.ckpt") == []
