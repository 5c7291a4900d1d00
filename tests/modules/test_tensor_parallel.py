"""Processes that cut layers between them do what one does, and hold half of each."""

import re

import pytest
import torch
from harness import run_processes
from spread_stages import fit_rankings, ppo_ptx_stage, ranking_stage, sft_stage
from transformers import AutoConfig, AutoModel

from instructgpt.models.artefact import save_policy, save_scalar
from instructgpt.models.load import Network, load_policy, load_scalar
from instructgpt.models.shards import local, whole
from instructgpt.models.template import get_template
from instructgpt.models.tensor_parallel import plan_of_layers
from instructgpt.models.trained import LoRA
from instructgpt.modules.sft import SFTModule
from instructgpt.modules.sharding import FSDP2Strategy
from instructgpt.types import UserError


@pytest.fixture(scope="session")
def llama():
    """Two query heads share each of two keys; twice as many processes cannot cut it."""
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return {"model_type": "llama", **sizes, **heads, "initializer_range": 0.2}


@pytest.fixture(scope="session")
def policy(tmp_path_factory, tiny_tokenizer, llama):
    """The export of an SFT stage."""
    torch.manual_seed(11)
    path = tmp_path_factory.mktemp("llama") / "export"
    model, own = load_policy(None, llama, Network(), tiny_tokenizer), {"config": {}, "metrics": {}}
    about = {"stage": "sft", "parent": None, "template": get_template("plain")}
    save_policy(model, tiny_tokenizer, path, **about, **own)
    return str(path)


def like_one(train, processes, tensor):
    """Train on one process and on several, and compare weights and metrics."""
    alone, metrics, _ = train(1, None)
    found = run_processes(
        lambda: train(processes // tensor, FSDP2Strategy(tensor_parallel_size=tensor)),
        processes=processes,
        timeout=300,
    )
    for cut, cut_metrics, _ in found:
        torch.testing.assert_close(torch.tensor(cut), torch.tensor(alone), atol=1e-5, rtol=1e-5)
        assert cut_metrics.keys() == metrics.keys()
        for name, value in metrics.items():
            assert cut_metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    return found


def on(strategy, processes):
    several = {} if strategy is None else {"strategy": strategy, "devices": processes}
    return {"limit_val_batches": 1.0, "gradient_clip_val": 0.5, **several}


def result(module, trainer, names=("val/", "train/", "gradient_norm/")):
    metrics = {n: float(v) for n, v in trainer.callback_metrics.items() if n.startswith(names)}
    sizes = {n: (local(p).numel(), p.numel()) for n, p in module.named_parameters()}
    weights = torch.cat([whole(p.detach()).flatten() for p in module.parameters()])
    return weights.tolist(), metrics, sizes


def test_sft(fit, demonstration_data, policy):
    processes = 2

    def train(shares, strategy):
        module = sft_stage(policy, Network(max_tokens=30 if strategy else None))
        data = demonstration_data(batch_size=8 // shares, tokenizer=policy)
        trainer = fit(module, data, max_epochs=2, limit_train_batches=2, **on(strategy, processes))
        return result(module, trainer)

    for _, _, sizes in like_one(train, processes, 2):
        for name, (own, everything) in sizes.items():
            cut = "_proj" in name
            assert own == everything // (processes if cut else processes // 2), name


@pytest.fixture(scope="session")
def judge(tmp_path_factory, tiny_tokenizer, policy):
    """The export of a reward stage on it."""
    torch.manual_seed(12)
    path = tmp_path_factory.mktemp("llama") / "reward"
    model = load_scalar(policy, None, Network(), tiny_tokenizer, head="new")
    about = {"stage": "reward", "parent": policy, "template": get_template("plain")}
    save_scalar(model, tiny_tokenizer, path, **about, config={}, metrics={})
    return str(path)


@pytest.mark.parametrize("kind", ["reward", "preference"])
def test_rankings(fit, comparison_data, policy, files, kind):
    def train(shares, strategy):
        network = Network(max_tokens=60 if strategy else None)
        module = ranking_stage(kind, policy, network)
        own = {"demonstrations": files["demonstrations"]} if kind == "reward" else {}
        data = comparison_data(batch_size=8 // shares, **own)
        trainer = fit_rankings(fit, module, data, **on(strategy, 2))
        return result(module, trainer)

    like_one(train, 2, 2)


@pytest.mark.parametrize(("value", "processes"), [("separate", 4), ("shared", 2)])
def test_ppo(fit, prompt_data, policy, judge, files, value, processes):
    """With pretraining, an average, and networks that are whole in one of two."""

    def train(shares, strategy):
        if strategy is not None:
            strategy.shard_frozen = value == "separate"
        network = Network(max_tokens=37 if strategy else None)
        module = ppo_ptx_stage(policy, judge, value, network)
        own = {"pretraining": files["text"], "pretraining_block_size": 16}
        trainer = fit(
            module, prompt_data(tokenizer=policy, **own), max_epochs=2, **on(strategy, processes)
        )
        weights, metrics, sizes = result(module, trainer)
        average = torch.cat([one.flatten() for one in module.phase.average.whole().values()])
        own = {n: v for n, v in module.phase.metrics.items() if not n.startswith(("time", "thro"))}
        return weights + average.tolist(), {**metrics, **own}, sizes

    like_one(train, processes, 2)


@pytest.mark.parametrize(
    ("change", "size", "line"),
    [
        ({}, 4, "a divisor of the 2 num_key_value_heads of 'llama', got 4"),
        ({"intermediate_size": 25}, 2, "a divisor of the width 25 of 'layers.0.mlp.gate_proj'"),
        ({"model_type": "gpt2"}, 2, "1 for 'gpt2': transformers has no plan to cut it"),
        ({"model_type": "qwen3"}, 2, "its plan has more than colwise and rowwise (layers.*.self"),
    ],
)
def test_what_cannot_be_cut_is_said(llama, change, size, line):
    config = AutoConfig.for_model(**llama | change)
    with torch.device("meta"):
        decoder = AutoModel.from_config(config)
    with pytest.raises(UserError, match=re.escape(line)):
        plan_of_layers(decoder, size)


def test_an_adapter_is_not_cut(fit, demonstration_data, policy):
    def train():
        module = SFTModule(init_from=policy, trained=LoRA(rank=2), validation_prompts=0)
        data = demonstration_data(tokenizer=policy)
        with pytest.raises(UserError, match=r"size must be 1 with --model.trained, got 2"):
            fit(module, data, max_epochs=1, **on(FSDP2Strategy(tensor_parallel_size=2), 2))
        with pytest.raises(UserError, match=r"size must be a divisor of the 2 processes, got 3"):
            fit(module, data, max_epochs=1, **on(FSDP2Strategy(tensor_parallel_size=3), 2))

    run_processes(train)
