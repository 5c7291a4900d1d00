"""Tiny runs of every stage, and what can be seen of them, for the test of all options."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import multiprocessing
import random
import shutil
import tempfile
import types
import typing
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, Trainer, seed_everything
from planted import unlisted
from safetensors.torch import load_file

import instructgpt.data.workers
from instructgpt.algorithms.ppo import PPO
from instructgpt.algorithms.schedule import Cosine
from instructgpt.callbacks.plan import plan_of
from instructgpt.callbacks.seed import StepSeed
from instructgpt.data.base import StageData
from instructgpt.data.comparisons import ComparisonDataModule
from instructgpt.data.demonstrations import DemonstrationDataModule
from instructgpt.data.prompts import PromptDataModule
from instructgpt.data.row_format import RowFormat
from instructgpt.data.text import TextDataModule
from instructgpt.models.artefact import read_artefact, save_policy, save_scalar
from instructgpt.models.heads import Heads
from instructgpt.models.load import Network, load_policy, load_scalar
from instructgpt.models.template import get_template
from instructgpt.models.tokenizer import BPE, train_bpe
from instructgpt.modules.base import StageModule
from instructgpt.modules.networks import Value
from instructgpt.modules.optimizer import PaperAdam
from instructgpt.modules.ppo import PPOModule
from instructgpt.modules.preference import PreferenceModule
from instructgpt.modules.reward import RewardModule
from instructgpt.modules.sft import SFTModule
from instructgpt.rewards.rules import CountReward
from instructgpt.rollout.updates import Batches
from instructgpt.types import UserError

GPT2 = {
    "model_type": "gpt2",
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 96,
    "initializer_range": 0.2,
}
WORDS = ["say", "hello", "to", "the", "world", "and", "one", "two", "three", "four", "five"]
TIMES = ("time/", "throughput/")


class Louder(RowFormat):
    """Rows whose texts end with a mark."""

    def convert(self, row: dict[str, Any]) -> dict[str, Any]:
        return {key: f"{value}!" if isinstance(value, str) else value for key, value in row.items()}


class Make(NamedTuple):
    """An object to be made anew for each run."""

    cls: Any
    options: dict[str, Any]

    def build(self) -> Any:
        if self.cls is PaperAdam:
            return partial(PaperAdam, **self.options)
        return self.cls(**{name: built(value) for name, value in self.options.items()})


def built(value: Any) -> Any:
    if isinstance(value, Make):
        return value.build()
    return [built(part) for part in value] if isinstance(value, list) else value


# -- the classes that the command line offers


def offered() -> dict[type, list[str]]:
    """Every class of this package that an option can be, with its own options."""
    found: dict[type, list[str]] = {}

    def visit(cls: type) -> None:
        kinds = [cls, *(k for k in subclasses(cls) if k.__module__.startswith("instructgpt."))]
        for kind in kinds:
            if inspect.isabstract(kind) or kind in found or kind is StageData:
                continue
            found[kind] = options_of(kind)
            hints = kind if dataclasses.is_dataclass(kind) else kind.__init__
            for hint in typing.get_type_hints(hints).values():
                walk(hint)

    def walk(hint: Any) -> None:
        for part in typing.get_args(hint):
            walk(part)
        plain = inspect.isclass(hint) and not isinstance(hint, types.GenericAlias)
        if plain and hint.__module__.startswith("instructgpt."):
            visit(hint)

    visit(StageModule)
    visit(StageData)
    visit(PaperAdam)
    return found


def options_of(kind: type) -> list[str]:
    """Options of a class; those that data modules share are found by the parser."""
    if issubclass(kind, StageData):
        found = ArgumentParser(exit_on_error=False).add_class_arguments(kind)
        return [str(name) for name in found]
    names = inspect.signature(kind.__init__).parameters
    return [name for name in names if name not in ("self", "params")]


def subclasses(cls: type) -> list[type]:
    direct = cls.__subclasses__()
    return [*direct, *(deeper for kind in direct for deeper in subclasses(kind))]


# -- what the runs read


class Inputs:
    """Files and artefacts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = random.Random(3)

        def words(most: int) -> str:
            return " ".join(rng.choice(WORDS) for _ in range(rng.randint(2, most)))

        for name in ("", "_other"):
            self.write(f"demonstrations{name}", [self.pair(words) for _ in range(16)])
            self.write(f"prompts{name}", [{"prompt": f"{words(6)} {i}"} for i in range(16)])
            self.write(f"text{name}", [{"text": words(40)} for _ in range(16)])
            rows = []
            for _ in range(16):
                responses = [f"{words(5)} {k}" for k in range(3)]
                rows.append({"prompt": words(5), "responses": responses, "ranking": [1, 2, 2]})
            self.write(f"comparisons{name}", rows)
        for kind in ("demonstrations", "prompts", "text", "comparisons"):
            good = Path(self.file(kind)).read_text()
            Path(self.file(f"{kind}_bad")).write_text(good + '{"unknown": 1}\n')
            renamed = good.replace('"prompt": ', '"asked": ').replace('"text": ', '"asked": ')
            Path(self.file(f"{kind}_renamed")).write_text(renamed)
        texts = [
            row["text"] for row in map(json.loads, Path(self.file("text")).read_text().splitlines())
        ]
        for name, size in (("", 290), ("_other", 280)):
            tokenizer = train_bpe(texts, BPE(vocab_size=size))
            tokenizer.save_pretrained(folder / f"tokenizer{name}")
        tokenizer = train_bpe(texts, BPE(vocab_size=290))
        own = {"template": get_template("plain"), "parent": None, "config": {}, "metrics": {}}
        for seed, name in ((1, ""), (2, "_other")):
            torch.manual_seed(seed)
            policy = load_policy(None, GPT2, Network(), tokenizer)
            save_policy(policy, tokenizer, folder / f"sft{name}", stage="sft", **own)
            model = load_scalar(self.path("sft"), None, Network(), tokenizer, head="new")
            save_scalar(model, tokenizer, folder / f"reward{name}", stage="reward", **own)
        model.head = Heads.drawn(3, 16)
        save_scalar(model, tokenizer, folder / "reward_heads", stage="reward", **own)
        shutil.copytree(folder / "sft", folder / "bare")  # any Hugging Face folder
        (folder / "bare/instructgpt.json").unlink()
        unlisted(shutil.copytree(folder / "sft", folder / "coded"))  # says that it comes with code
        config = json.loads((folder / "coded/config.json").read_text())
        config |= {"model_type": "unheard_of", "auto_map": {"AutoConfig": "code.Config"}}
        (folder / "coded/config.json").write_text(json.dumps(config))

    @staticmethod
    def pair(words: Any) -> dict[str, str]:
        return {"prompt": words(6), "response": words(6)}

    def write(self, name: str, rows: list[dict[str, Any]]) -> None:
        Path(self.file(name)).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def file(self, name: str) -> str:
        return str(self.folder / f"{name}.jsonl")

    def path(self, name: str) -> str:
        return str(self.folder / name)


# -- the runs

MODULES = {
    DemonstrationDataModule: SFTModule,
    TextDataModule: SFTModule,
    ComparisonDataModule: RewardModule,
    PromptDataModule: PPOModule,
}
DATA = {
    SFTModule: DemonstrationDataModule,
    RewardModule: ComparisonDataModule,
    PreferenceModule: ComparisonDataModule,
    PPOModule: PromptDataModule,
}
FILES = {
    DemonstrationDataModule: "demonstrations",
    TextDataModule: "text",
    ComparisonDataModule: "comparisons",
    PromptDataModule: "prompts",
}


def defaults(data: type, inputs: Inputs, module: Any = None) -> dict[str, Any]:
    """Settings of the smallest run that trains on some data, with a stage that is not its first."""
    module = module or MODULES[data]
    model: dict[str, Any] = {
        "init_from": inputs.path("sft"),
        "optimizer": Make(PaperAdam, {"lr": 0.01}),
    }
    rows: dict[str, Any] = {"train": inputs.file(FILES[data]), "validation": 0.3}
    rows |= {"max_prompt_tokens": 24, "max_response_tokens": 8}
    if module is SFTModule:
        model |= {"validation_prompts": 2, "dropout": 0.0}
        rows["batch_size"] = 4
    elif module is RewardModule:
        rows["batch_size"] = 4
    elif module is PreferenceModule:
        model |= {"validation_prompts": 2, "schedule": Cosine()}
        rows["batch_size"] = 4
    else:
        algorithm = Make(PPO, {"missing_eos_score": None})
        model |= {"reward": Make(CountReward, {"text": "e"}), "algorithm": algorithm}
        model |= {"batches": Batches(4, 2), "value": Value(lr=0.01)}
    if data is TextDataModule:
        rows |= {"block_size": 16, "max_prompt_tokens": 4, "max_response_tokens": 4}
    return {"model": model, "data": rows, "trainer": {}, "module": module}


class Watch(Callback):
    """Notes what a run shows while it goes on."""

    def __init__(self) -> None:
        self.plan: list[Any] = []
        self.samples: list[Any] = []
        self.saved: list[int] = []
        self.phases: list[Any] = []
        self.workers = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        # without what else this process has in memory
        steps, memory = plan_of(pl_module, trainer.strategy)
        self.plan = steps + memory.lines[:-1]

    def on_train_batch_start(self, *_: Any) -> None:
        self.workers = max(self.workers, len(multiprocessing.active_children()))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.samples += pl_module.samples

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.phases.append(
            timeless(pl_module.phase.metrics if isinstance(pl_module, PPOModule) else {})
        )

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:
        self.saved.append(trainer.global_step)


def timeless(metrics: Any) -> dict[str, float]:
    return {n: float(v) for n, v in metrics.items() if not n.startswith(TIMES)}


def observe(data: type, settings: dict[str, Any], see: str | None) -> dict[str, Any]:
    """Run, and return what can be seen of it; a refusal is seen as its message."""
    folder = Path(tempfile.mkdtemp())
    work: Counter[str] = Counter()
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, *_: work.update([type(module).__name__])
    )
    sdpa = torch.nn.functional.scaled_dot_product_attention

    def counted(*args: Any, **options: Any) -> torch.Tensor:
        work.update(["sdpa"])
        return sdpa(*args, **options)

    class Workers(ProcessPoolExecutor):
        def __init__(self, *args: Any) -> None:
            work.update(["workers"])
            super().__init__(*args)

    try:
        with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
            patch.setattr(instructgpt.data.workers, "ProcessPoolExecutor", Workers)
            patch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
            warnings.simplefilter("ignore")
            seen = run(data, settings, see, folder)
            work["kept"] = len(list(folder.glob("cache/instructgpt/data/*/rows.arrow")))
            return {**seen, "work": work}
    except UserError as error:
        return {"refused": str(error)}
    finally:
        hook.remove()
        shutil.rmtree(folder)


def run(data: type, settings: Any, see: str | None, folder: Path) -> dict[str, Any]:
    """What ``fit`` does, without reading a command line."""
    seed_everything(settings.get("seed", 0), verbose=False)
    model = {name: built(value) for name, value in settings["model"].items()}
    rows = {name: built(value) for name, value in settings["data"].items()}
    if "tokenizer" not in rows:
        rows["tokenizer"] = model.get("tokenizer") or model.get("init_from")
    module, rows_module = settings["module"](**model), data(**rows)
    watch = Watch()
    trainer = Trainer(
        **{
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "use_distributed_sampler": False,
            "num_sanity_val_steps": 0,
            "limit_val_batches": int(see in ("validation", "export")),
            "default_root_dir": folder,
            "inference_mode": False,
            "max_epochs": 2 if settings["module"] is PPOModule else 1,
            "callbacks": [StepSeed(0), watch, *map(built, settings.get("callbacks", []))],
            **settings["trainer"],
        }
    )
    if see == "predictions":
        return {"predictions": trainer.predict(module, rows_module)}
    trainer.fit(module, rows_module)
    seen = {
        "weights": digest(module.state_dict()),
        "metrics": timeless(trainer.callback_metrics),
        "phases": watch.phases,
        "plan": [list(line) for line in watch.plan],
        "samples": watch.samples,
        "summary": rows_module.summary,
        "saved": watch.saved,
        "workers": watch.workers,
    }
    if see == "export":
        module.finalize()
        module.export(folder / "export", config={}, metrics={})
        files = sorted((folder / "export").rglob("*.safetensors"))
        seen["export"] = {str(f.relative_to(folder)): digest(load_file(f)) for f in files}
        seen["artefact"] = read_artefact(folder / "export")._replace(path="")
    return seen


def digest(tensors: dict[str, torch.Tensor]) -> str:
    whole = hashlib.sha256()
    for name in sorted(tensors):
        whole.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        whole.update(tensors[name].detach().float().numpy().tobytes())
    return whole.hexdigest()


def the_shorter(prompt, first, second):
    """A judge of answers."""
    return float(len(first) < len(second))
