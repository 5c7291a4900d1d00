"""What a run must not load before it starts, and that the real modules come when they are needed.

Each test is a process of its own: nothing is imported a second time in one.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOT_LOADED = (
    "torch._dynamo.utils",  # torch.compile
    "torch._inductor",
    "sympy",
    "matplotlib",
    "peft",  # without an adapter
    "pandas",  # which pyarrow would import to make an array
    "datasets",  # without a set from the hub
    "datatrove",
    "scipy.signal._signaltools",  # where scipy is installed
    "scipy.optimize._optimize",
    "scipy.stats",
    "sklearn",
    "nltk",
)
DEFERRED = """
import sys
from instructgpt.deferred_private import LOADED, quick_imports
with quick_imports():
    import instructgpt.cli
import torch
assert not LOADED
"""
"""What stands before a use of a deferred module."""


def run(code, *args):
    done = subprocess.run(
        [sys.executable, "-c", code, *args], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_run_loads_only_what_it_needs_up_to_its_first_step_and_ends_at_once(tmp_path):
    code = """
import atexit, gc, sys
atexit.register(lambda: print("LEFT", len(gc.get_objects()) < gc.get_freeze_count()))
from instructgpt.__main__ import main
from instructgpt.deferred_private import quick_imports
with quick_imports():
    from instructgpt.modules.sft import SFTModule
def look(*args):
    print("LOADED", [name for name in sys.argv[1].split() if name in sys.modules])
SFTModule.on_train_batch_end = look
sys.exit(main(sys.argv[2:]))
"""
    pretrain = ["fit", "--config", "configs/pretrain.yaml", "--trainer.fast_dev_run=True"]
    out = run(code, " ".join(NOT_LOADED), *pretrain, f"--output={tmp_path / 'run'}")
    assert [line for line in out.splitlines() if line.startswith("LOADED")] == ["LOADED []"]
    assert out.splitlines()[-1] == "LEFT True"  # nearly nothing is searched for garbage


def test_the_files_of_transformers_are_looked_through_once():
    code = """
import sys
opened = []
def note(event, args):
    if event == "open" and str(args[0]).endswith("modeling_xlnet.py"):
        opened.append(args[0])
sys.addaudithook(note)
from instructgpt.deferred_private import quick_imports
with quick_imports():
    import transformers
    import transformers.models
    assert transformers.models.XLNetConfig is transformers.XLNetConfig
    assert issubclass(transformers.XLNetModel, transformers.PreTrainedModel)
print(len(opened))
"""
    assert run(code).split() == ["2"]  # for its names, and as a module


def test_importing_the_package_in_a_program_changes_nothing():
    code = """
import sys
before = list(sys.meta_path)
import instructgpt
instructgpt.SFTModule
import torch._dynamo
assert [type(f).__name__ for f in sys.meta_path if "instructgpt" in type(f).__module__] == []
assert torch._dynamo.eval_frame.OptimizedModule.__module__ == "torch._dynamo.eval_frame"
"""
    run(code)


USES = {
    "compile": """
from lightning.pytorch.utilities import compile as lightnings
assert not isinstance(torch.nn.Linear(2, 2), lightnings.OptimizedModule) and not LOADED
net = torch.compile(torch.nn.Linear(2, 2), backend="eager")
assert net(torch.ones(1, 2)).shape == (1, 2)
assert isinstance(net, lightnings.OptimizedModule)
assert lightnings.OptimizedModule is torch._dynamo.OptimizedModule
""",
    "code of the user": """
from torch._dynamo import OptimizedModule, disable
class Mine(OptimizedModule):
    pass
assert OptimizedModule.__module__ == "torch._dynamo.eval_frame"
assert disable.__module__ == "torch._dynamo.decorators"
assert isinstance(torch.compile(torch.nn.Linear(2, 2), backend="eager"), OptimizedModule)
""",
    "an attribute, by the user": """
assert issubclass(torch._dynamo.OptimizedModule, torch.nn.Module)
""",
    "an exception of shapes, by the user": """
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode as error
from torch.distributed.tensor import _decompositions
assert issubclass(error, RuntimeError) and _decompositions.GuardOnDataDependentSymNode is error
""",
    "optimizer": """
weight = torch.nn.Parameter(torch.ones(2))
optimizer = torch.optim.SGD([weight], lr=1.0)  # its methods are kept from the compiler
weight.sum().backward()
optimizer.step()
optimizer.zero_grad()
assert weight.tolist() == [0, 0] and not LOADED
torch._dynamo.reset()
assert LOADED
weight.sum().backward()
optimizer.step()
optimizer.zero_grad()
assert weight.tolist() == [-1, -1] and weight.grad is None
""",
    "disabled functions": """
import torch.compiler
seen = []
@torch.compiler.disable(reason="for the test")
def outside(x):
    "A docstring."
    seen.append(torch.compiler.is_compiling())
    return x + 1
assert outside.__doc__ == "A docstring."
assert outside(1) == 2 and not LOADED
assert torch.compile(lambda x: outside(x * 2), backend="eager")(torch.ones(1)).item() == 3
assert LOADED and seen == [False, False]
""",
    "a module of the package": """
import torch._dynamo.config as config
assert torch._dynamo.config is config is sys.modules["torch._dynamo.config"]
assert config.__spec__.name == "torch._dynamo.config"
import torch._dynamo.debug_utils as more
assert torch._dynamo.debug_utils is more
from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex
assert isinstance(TransformGetItemToIndex, type)
import transformers.masking_utils as masks
assert masks.TransformGetItemToIndex is TransformGetItemToIndex
""",
    "symbolic shapes": """
import torch.distributed.tensor._collective_utils as collective
assert collective.guard_or_false(True) is True and LOADED
from torch.fx.experimental import symbolic_shapes
assert collective.guard_or_false is symbolic_shapes.guard_or_false
""",
    "what dynamo was to know": """
calls = []
@torch.compiler.allow_in_graph
def known(x):
    return x + 1
assert not LOADED
from torch._dynamo import trace_rules
assert id(known) in trace_rules._allowed_callable_ids
""",
    "a matching": """
from transformers.loss import loss_for_object_detection as detection
assert not LOADED
rows, columns = detection.linear_sum_assignment([[2, 1], [1, 2]])
assert (list(rows), list(columns)) == ([0, 1], [1, 0])
import scipy.optimize
assert detection.linear_sum_assignment is scipy.optimize.linear_sum_assignment
""",
    "a plot": """
from torchmetrics import MeanMetric
metric = MeanMetric()
metric.update(1.0)
figure, axes = metric.plot()
assert type(figure).__module__.startswith("matplotlib")
""",
}


@pytest.mark.parametrize("use", USES)
def test_the_real_module_comes_when_it_is_needed(use):
    run(DEFERRED + USES[use])
