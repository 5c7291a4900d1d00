"""``export`` of a checkpoint, and of an adapter."""

import json

import pytest
import torch
from toy_stage import ToyModule, fit

from instructgpt.__main__ import main as run
from instructgpt.models.artefact import save_policy
from instructgpt.models.load import Network, load_policy
from instructgpt.models.template import get_template
from instructgpt.models.tokenizer import BPE, train_bpe
from instructgpt.models.trained import LoRA, attach


def test_a_checkpoint_of_a_run(tmp_path, monkeypatch):
    fit(tmp_path / "run", "--model.optimizer.lr=0.03")
    out = tmp_path / "out"
    args = ["--run", str(tmp_path / "run"), "--output", str(out), "--ckpt_path=last"]
    metrics = (tmp_path / "run" / "metrics.json").read_text()
    assert run(["export", *args]) == 0
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    weights = torch.load(out / "weights.pt", weights_only=True)
    assert torch.equal(weights["0.weight"], last["state_dict"]["layer.0.weight"])
    about = json.loads((out / "instructgpt.json").read_text())
    assert about["config"]["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.03
    assert (tmp_path / "run" / "metrics.json").read_text() == metrics  # not about this folder
    metrics = json.loads(metrics)
    assert about["metrics"]["val/loss"] == pytest.approx(metrics["final"]["val/loss"])


def test_the_default_place_is_in_the_run(tmp_path):
    fit(tmp_path, "--export=false")
    assert run(["export", "--run", str(tmp_path), "--ckpt_path=best"]) == 0
    assert (tmp_path / "export" / "weights.pt").is_file()


def test_the_best_checkpoint_is_exported_unless_asked_and_metrics_say_which(tmp_path, monkeypatch):
    losses = iter([1.0, 3.0, 1.0, 3.0, 3.0])  # two validations of the fit, three exports
    monkeypatch.setattr(
        ToyModule, "on_validation_epoch_end", lambda self: self.log("val/loss", next(losses))
    )
    monkeypatch.setattr(ToyModule, "validation_step", lambda self, batch, batch_idx: None)
    fit(tmp_path)
    best = (tmp_path / "export" / "weights.pt").read_bytes()
    written = json.loads((tmp_path / "metrics.json").read_text())
    for options, step, loss in (([], 6, 1.0), (["--ckpt_path=last"], 12, 3.0)):
        assert run(["export", "--run", str(tmp_path), *options]) == 0
        assert ((tmp_path / "export" / "weights.pt").read_bytes() == best) == (step == 6)
        metrics = json.loads((tmp_path / "metrics.json").read_text())
        assert metrics["exported"] == {"step": step, "val/loss": loss}
        about = json.loads((tmp_path / "export" / "instructgpt.json").read_text())
        assert about["metrics"] == metrics["exported"]
        assert metrics["validations"] == written["validations"]
    (tmp_path / "checkpoints" / "best.ckpt").unlink()
    assert run(["export", "--run", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["exported"]["step"] == 12


def test_an_adapter_is_merged_with_its_base(tmp_path, capsys):
    tokenizer = train_bpe(["the cat says meow"], BPE(vocab_size=260))
    architecture = {"model_type": "gpt2", "n_layer": 1, "n_embd": 16, "n_head": 2}
    about = {"stage": "sft", "template": get_template("plain"), "config": {}, "metrics": {}}
    base = load_policy(None, architecture, Network(), tokenizer)
    save_policy(base, tokenizer, tmp_path / "base", parent=None, **about)
    policy = attach(load_policy(str(tmp_path / "base"), None, Network(), tokenizer), LoRA(rank=2))
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    base_folder = str(tmp_path / "base")
    about |= {"stage": "ppo", "template": get_template("hh"), "metrics": {"val/score": 0.5}}
    about |= {"config": {"output": "runs/ppo"}, "parent": base_folder}
    save_policy(policy, tokenizer, tmp_path / "lora", **about)
    adapter, out = str(tmp_path / "lora" / "adapter"), str(tmp_path / "merged")
    assert run(["export", "--adapter", adapter, "--output", out]) == 0
    tokens = torch.arange(10)[None]
    merged = load_policy(out, None, Network(), tokenizer).eval()
    torch.testing.assert_close(merged(tokens).logits, policy.eval()(tokens).logits)
    assert not torch.allclose(merged(tokens).logits, base.eval()(tokens).logits)
    facts = json.loads((tmp_path / "merged" / "instructgpt.json").read_text())
    trained = json.loads((tmp_path / "lora" / "instructgpt.json").read_text())
    assert facts.pop("files").keys() == trained.pop("files").keys()
    assert facts == trained
    # Alone, an adapter knows nothing: a folder of this machine is not written into it.
    (tmp_path / "lora" / "instructgpt.json").unlink()
    config = (tmp_path / "lora" / "adapter" / "adapter_config.json").read_text()
    assert json.loads(config)["base_model_name_or_path"] is None
    assert str(tmp_path) not in config
    assert run(["export", "--adapter", adapter, "--output", out]) == 2
    assert "--base must be given" in capsys.readouterr().err
    assert run(["export", "--adapter", adapter, "--base", base_folder, "--output", out]) == 0
    facts = json.loads((tmp_path / "merged" / "instructgpt.json").read_text())
    assert (facts["stage"], facts["template"], facts["parent"]) == ("sft", "plain", base_folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--run or --adapter must be given, and not both, got run=None, adapter=None"),
        (["--run=nowhere"], "--run must be the folder of a run, got nowhere"),
        (["--adapter=nowhere"], "--output must be given with --adapter"),
        (["--adapter=nowhere", "--output=x"], "--adapter must be the folder of a peft adapter"),
        (["--runn=x"], "unknown option --runn; did you mean run?"),
    ],
)
def test_wrong_input(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    assert run(["export", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
