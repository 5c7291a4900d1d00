"""What we take from the inside of other libraries: in one file each, and still there."""

import ast
import importlib
import inspect
import multiprocessing
import pkgutil
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from datatrove.executor import LocalPipelineExecutor
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.trainer.connectors import checkpoint_connector
from peft import PrefixTuningConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedModel, PreTrainedTokenizerFast

import instructgpt
from instructgpt.models.shift_gpt import ShiftGPTConfig

PACKAGE = Path(__file__).parents[1] / "instructgpt"
PRIVATE = {
    "lightning": "instructgpt.callbacks.lightning_private",
    "transformers": "instructgpt.models.transformers_private",
    "peft": "instructgpt.models.peft_private",
    "jsonargparse": "instructgpt.jsonargparse_private",
    "datatrove": "instructgpt.hygiene.datatrove_private",
    "torch": "instructgpt.deferred_private",
    "python": "instructgpt.data.futures_private",
}
"""Libraries, and the one file each that may reach inside."""
OF_NAMED_TUPLES = {"_asdict", "_replace", "_fields", "_make", "_field_defaults"}
DOCUMENTED = {"_exit"}  # of os, which documents it
OF_METACLASSES = {"_abc_impl", "_backward_cls"}  # which they give to every class
IMPORTED_WITH_EFFECTS = {"instructgpt.pipeline.server", "instructgpt.pipeline.preload"}


def trainer():
    return Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", barebones=True)


def network():
    return AutoModelForCausalLM.from_config(ShiftGPTConfig(vocab_size=8, hidden_size=16))


def prefixed():
    config = GPT2Config(vocab_size=8, n_embd=4, n_layer=1, n_head=1, n_positions=8)
    small = AutoModelForCausalLM.from_config(config)
    return get_peft_model(small, PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=1))


def undisturbed():
    from torch import _dynamo  # half a second that only this needs

    return _dynamo.disable(lambda: None)


class Member(NamedTuple):
    """One private name that we use."""

    library: str
    name: str
    owner: object  # that has it, or a function that makes one
    breaks: str  # without it


MEMBERS = [
    Member("datatrove", "_run_for_rank", LocalPipelineExecutor, "prepare"),
    Member("lightning", "_restarting", lambda: trainer().fit_loop, "exact resume"),
    Member("lightning", "_load_combined_loader_states", lambda: trainer().fit_loop, "exact resume"),
    Member(
        "lightning",
        "_batches_that_stepped",
        lambda: trainer().fit_loop.epoch_loop,
        "the step that resumed runs log at",
    ),
    Member("lightning", "_logger_connector", trainer, "logging no more than is read"),
    Member("lightning", "_val_check_time_interval", trainer, "saving before a validation"),
    Member("lightning", "_data_fetcher", lambda: trainer().fit_loop, "saving before a validation"),
    Member(
        "lightning",
        "_should_check_val_fx",
        lambda: trainer().fit_loop.epoch_loop,
        "saving before a validation",
    ),
    Member("lightning", "_save_topk_checkpoint", ModelCheckpoint, "saving the best weights"),
    Member("lightning", "_save_last_checkpoint", ModelCheckpoint, "saving the state of a run"),
    Member("lightning", "_monitor_candidates", ModelCheckpoint, "saving"),
    Member("lightning", "_parse_ckpt_path", LightningCLI, "options of a resumed run being obeyed"),
    Member("lightning", "_dump_config", LightningCLI, "a start that is not slow"),
    Member("lightning", "_instantiate_trainer", LightningCLI, "logger and callbacks of every run"),
    Member("lightning", "_run_subcommand", LightningCLI, "one-line errors and locked folders"),
    Member("lightning", "_signal_connector", trainer, "signals before and after training"),
    Member("lightning", "_prepare_subcommand_kwargs", LightningCLI, "predict in little memory"),
    Member("lightning", "_parser", LightningCLI, "the configuration that a run writes down"),
    Member("transformers", "_attn_implementation", lambda: network().config, "attention"),
    Member("transformers", "_supports_sdpa", PreTrainedModel, "the choice of attention"),
    Member("transformers", "_supports_attention_backend", PreTrainedModel, "attention of ShiftGPT"),
    Member("transformers", "_is_stateful", PreTrainedModel, "flat rows"),
    Member("transformers", "_supports_attention_backend", PreTrainedModel, "flat rows"),
    Member("transformers", "_init_weights", PreTrainedModel, "the first weights of ShiftGPT"),
    Member("transformers", "_tied_weights_keys", PreTrainedModel, "the tied head of ShiftGPT"),
    Member("transformers", "_keep_in_fp32_modules", PreTrainedModel, "starts on the meta device"),
    Member("transformers", "_keep_in_fp32_modules_strict", PreTrainedModel, "the same"),
    Member("transformers", "_encode_plus", PreTrainedTokenizerFast, "encoding without the places"),
    Member("peft", "_disable_adapters", BaseTunerLayer, "the reference of LoRA"),
    Member("peft", "_adapters_disabled", prefixed, "the reference of a prefix"),
    Member("torch", "_torchdynamo_disable", undisturbed, "keeping the compiler off functions"),
    Member("python", "_processes", lambda: ProcessPoolExecutor(1), "preparing rows"),
    Member("python", "_call_queue", lambda: ProcessPoolExecutor(1), "preparing rows"),
    Member("python", "_reader", lambda: multiprocessing.SimpleQueue(), "the same"),
    Member("jsonargparse", "_actions", ArgumentParser, "guessing what a misspelt option meant"),
]


@pytest.mark.parametrize("member", MEMBERS, ids=lambda m: f"{m.library}.{m.name}")
def test_the_library_still_has_the_member(member):
    owner = member.owner
    if inspect.isclass(owner) and owner is ArgumentParser:
        owner = ArgumentParser()
    elif inspect.isfunction(owner):
        owner = owner()
    assert hasattr(owner, member.name), (
        f"this version of {member.library} has no {owner!r}.{member.name} any more: it breaks "
        f"{member.breaks}; mend {PRIVATE[member.library]}"
    )


def test_a_configuration_tells_where_it_was_loaded_from_by_a_private_key():
    config = ShiftGPTConfig(name_or_path="here")
    assert config.to_dict().get("_name_or_path") == "here", (
        "transformers.to_dict() names the place otherwise: unfinished predictions of a network "
        f"that was moved would not be found again; mend {PRIVATE['transformers']}"
    )


def test_checkpoints_are_restored_by_functions_of_that_name_in_that_file():
    assert Path(checkpoint_connector.__file__).name == "checkpoint_connector.py"
    names = vars(checkpoint_connector._CheckpointConnector)
    assert {"restore", "restore_training_state", "restore_optimizers"} <= set(names), (
        "lightning restores checkpoints elsewhere: a --ckpt_path that does not fit would end in a "
        f"traceback; mend {PRIVATE['lightning']}"
    )


# -- nothing private is used anywhere else


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_private(name):
    public = OF_NAMED_TUPLES | DOCUMENTED
    return name.startswith("_") and not name.endswith("__") and name not in public


def defined(tree):
    """Private names that a module gives to something."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield from [node.attr] if ast.unparse(node.value) in {"self", "cls"} else []


def foreign(tree, ours):
    """Private names of others that a module uses: attributes, imports, and names in strings.

    Args:
        tree: of the module.
        ours: private names that any module of the package defines, which ``self`` may inherit.
    """
    own = set(defined(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            known = ours if ast.unparse(node.value) in {"self", "cls", "super()"} else own
            if node.attr not in known | own:
                yield node.attr
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield from filter(is_private, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".")
            if parts[0] not in {"instructgpt", "__future__"}:
                names = [*parts, *(alias.name for alias in node.names)]
                yield from filter(is_private, names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"getattr", "setattr"}:
            name = node.args[1]
            if isinstance(name, ast.Constant) and is_private(str(name.value)):
                yield name.value


TREES = {module_name(p): ast.parse(p.read_text()) for p in sorted(PACKAGE.rglob("*.py"))}
OURS = {
    name
    for module, tree in TREES.items()
    if module not in PRIVATE.values()
    for name in defined(tree)
    if is_private(name)
}


@pytest.mark.parametrize("module", TREES)
def test_private_members_of_others_are_used_in_one_file_a_library(module):
    found = set(foreign(TREES[module], OURS))
    known = {m.name for m in MEMBERS if PRIVATE[m.library] == module}
    assert found <= known, (
        f"{module} uses {sorted(found - known)}: find something public, or put it into one of "
        f"{sorted(PRIVATE.values())} with its reason, and into MEMBERS here"
    )


def test_no_class_overrides_a_private_member_elsewhere():
    """A method that happens to have the name of a private one would change what it does."""
    names = [m.name for m in pkgutil.walk_packages(instructgpt.__path__, "instructgpt.")]
    for name in sorted(set(names) - IMPORTED_WITH_EFFECTS - set(PRIVATE.values())):
        for kind in vars(importlib.import_module(name)).values():
            if not inspect.isclass(kind) or kind.__module__ != name:
                continue
            for base in kind.__mro__[1:]:
                if base.__module__.split(".")[0] in PRIVATE:
                    same = {n for n in vars(kind).keys() & vars(base).keys() if is_private(n)}
                    same -= OF_METACLASSES
                    assert not same, f"{name}.{kind.__name__} overrides {same}"


def test_every_member_that_is_tested_is_used():
    used = Counter()
    for library, module in PRIVATE.items():
        tree = TREES[module]
        text = {n for n in defined(tree) if is_private(n)} | set(foreign(tree, OURS))
        used.update((library, name) for name in text)
    unused = {(m.library, m.name) for m in MEMBERS} - set(used)
    assert not unused


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("self._a", ["_a"]),
        ("self._ours", []),
        ("class A:\n  def f(self): self._a = 1; return self._a", []),
        ("other._ours", ["_ours"]),
        ("def _ours(): ...\nother._ours", []),
        ("row._replace(a=1)", []),
        ("import a._b", ["_b"]),
        ("from a._b import c", ["_b"]),
        ("from a import _c", ["_c"]),
        ("from a import _c as c", ["_c"]),
        ("from instructgpt.a import b", []),
        ("getattr(x, '_b', None)", ["_b"]),
        ("super()._a()", ["_a"]),
        ("x.__class__", []),
    ],
)
def test_the_reader_of_private_names(source, found):
    assert list(foreign(ast.parse(source), {"_ours"})) == found
