"""Modules that libraries load when they are imported, and that a run hardly ever needs.

``torch._dynamo`` (of ``torch.compile``), the symbolic shapes of ``torch.fx`` (and sympy with them),
the plots of torchmetrics (and matplotlib), signals and optimizers of scipy, where it is installed,
are half of what would be loaded before a run starts.
Lightning and transformers want little of them: a class to ask ``isinstance`` of, decorators, names
for annotations. ``defer`` lets stand-ins take their place, for these libraries alone. Anything else
that is asked of such a module, or by anyone else, loads the real one as usual; stand-ins are
then replaced wherever they lie in a module, and functions among them hand on wherever they are.

Only our command line calls ``defer``, before it imports Lightning: ``import instructgpt`` changes
nothing in a program. ``tests/test_deferred.py`` holds all of it against the libraries.
"""

from __future__ import annotations

import functools
import gc
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

DYNAMO = "torch._dynamo"
SCANS = "transformers.utils.import_utils"
"""Looks through all files of transformers for their names, twice."""
LIBRARIES = {"torch", "torchmetrics", "lightning", "transformers"}
"""Who gets stand-ins: it is known what they do with them."""
LOADED: set[str] = set()
"""Deferred modules whose real ones have been loaded since."""

_decorated: list[tuple[str, Any]] = []  # by decorators of dynamo, which is to know of them


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import without what is hardly ever needed, and without looking for garbage meanwhile."""
    collects = gc.isenabled()
    gc.disable()
    defer()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def defer() -> None:
    """Let modules that are imported from now on do without those of ``STAND_INS``."""
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)


class _Finder(MetaPathFinder, Loader):
    """Finds stand-ins, unless what they stand for is needed."""

    def __init__(self) -> None:
        self.needed: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in STAND_INS and fullname not in self.needed:
            return ModuleSpec(fullname, self, is_package=True)  # any name may be a module in it
        if fullname == SCANS and (spec := PathFinder.find_spec(fullname, path)) is not None:
            spec.loader = _ScansOnce(fullname, str(spec.origin))
            return spec
        package = fullname.rpartition(".")[0]
        if path != [] or package not in STAND_INS:
            return None
        path = _real(package).__path__  # the import system had found the stand-in
        if fullname in sys.modules:  # which the real one has brought along
            return ModuleSpec(fullname, _Given(sys.modules.pop(fullname)))
        return PathFinder.find_spec(fullname, path)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Deferred(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing, which is the point."""


class _ScansOnce(SourceFileLoader):
    """Loads what looks through files, and has it remember what it found."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        scan = module.create_import_structure_from_path  # type: ignore[attr-defined]
        module.create_import_structure_from_path = functools.cache(scan)  # type: ignore[attr-defined]


class _Given(Loader):
    """Loads a module that has been loaded."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not self.spec:  # else it does not let itself be changed
            module.__spec__ = self.spec


class _Deferred(ModuleType):
    """In the place of a module that nobody has needed yet."""

    def __getattr__(self, name: str) -> Any:
        known = STAND_INS[self.__name__]
        if name in known and self.__name__ not in LOADED and _asks_a_library():
            return known[name]
        if f"{self.__name__}.{name}" in STAND_INS:
            return import_module(f"{self.__name__}.{name}")
        if name.startswith("__"):  # inspect and others ask all modules for names of this kind
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(_real(self.__name__), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("__") or self.__name__ not in _FINDER.needed:
            super().__setattr__(name, value)  # such as a stand-in within this one
        else:
            setattr(_real(self.__name__), name, value)


def _asks_a_library() -> bool:
    """Whether it is one of ``LIBRARIES`` that a module is asked by."""
    frame = inspect.currentframe()
    while frame is not None:
        asks = frame.f_globals.get("__name__", "")
        if asks not in (__name__, "importlib._bootstrap"):
            return asks.partition(".")[0] in LIBRARIES
        frame = frame.f_back
    return False


def _real(name: str) -> ModuleType:
    """Load what stood aside.

    No lock but those of the import system, with which another could lock up.
    """
    if name not in _FINDER.needed:
        package = name.rpartition(".")[0]
        if package in STAND_INS:
            _real(package)  # and all of its modules
            return import_module(name)
        names = [one for one in STAND_INS if one == name or one.startswith(f"{name}.")]
        _FINDER.needed.update(names)
        for one in names:
            if isinstance(sys.modules.get(one), _Deferred):
                del sys.modules[one]
        for one in names:
            module = import_module(one)
            LOADED.add(one)
            _replace_stand_ins(one, module)
    return import_module(name)


def _replace_stand_ins(name: str, module: ModuleType) -> None:
    real = {
        id(value): getattr(module, key, value)
        for key, value in STAND_INS[name].items()
        if getattr(value, "__module__", None) == __name__  # made here
    }
    for other in list(sys.modules.values()):
        if isinstance(other, ModuleType) and other.__name__ != __name__:
            names = vars(other)
            names.update({key: real[id(v)] for key, v in list(names.items()) if id(v) in real})
    while name == DYNAMO and _decorated:
        decorator, function = _decorated.pop()
        getattr(module, decorator)(function)


def _late(module: str, name: str) -> Callable[..., Any]:
    """A function, or a class that is only called, which loads its module when it is called."""

    def late(*args: Any, **kwargs: Any) -> Any:
        return getattr(_real(module), name)(*args, **kwargs)

    return late


def _noted(name: str) -> Callable[[Any], Any]:
    """A decorator of dynamo that only makes something known to it."""

    def note(function: Any) -> Any:
        if DYNAMO in LOADED:
            return getattr(_real(DYNAMO), name)(function)
        _decorated.append((name, function))
        return function

    return note


class _NeverError(Exception):
    """Stands for an exception that only the deferred module raises."""


class _OptimizedModule:
    """Of what ``torch.compile`` makes; nothing is compiled before there is a compiler."""


def _disable(function: Any = None, recursive: bool = True, **options: Any) -> Any:
    """Keep the compiler off a function; as long as there is none, it is called as it is."""
    if function is None:
        return functools.partial(_disable, recursive=recursive, **options)

    @functools.wraps(function)
    def undisturbed(*args: Any, **kwargs: Any) -> Any:
        if DYNAMO not in LOADED:
            return function(*args, **kwargs)
        return _real(DYNAMO).disable(function, recursive, **options)(*args, **kwargs)

    undisturbed._torchdynamo_disable = True  # type: ignore[attr-defined]  # so that it looks away
    return undisturbed


def _graph_break(message: str = "") -> None:
    """Interrupt the compiler, of which there is none."""


_SHAPES, _PLOT = "torch.fx.experimental.symbolic_shapes", "torchmetrics.utilities.plot"
_SIGNAL, _OPTIMIZE = "scipy.signal", "scipy.optimize"
_TRACE = f"{DYNAMO}._trace_wrapped_higher_order_op"
STAND_INS: dict[str, dict[str, Any]] = {
    DYNAMO: {
        "OptimizedModule": _OptimizedModule,
        "disable": _disable,
        "graph_break": _graph_break,
        "allow_in_graph": _noted("allow_in_graph"),
        "assume_constant_result": _noted("assume_constant_result"),
    },
    f"{DYNAMO}.eval_frame": {"OptimizedModule": _OptimizedModule},
    _TRACE: {"TransformGetItemToIndex": _late(_TRACE, "TransformGetItemToIndex")},
    _SHAPES: {
        "GuardOnDataDependentSymNode": _NeverError,
        **{name: _late(_SHAPES, name) for name in ("guard_or_false", "statically_known_true")},
    },
    _PLOT: {
        **dict.fromkeys(("_AX_TYPE", "_CMAP_TYPE", "_PLOT_OUT_TYPE"), object),
        **{
            name: _late(_PLOT, name)
            for name in ("plot_curve", "plot_confusion_matrix", "plot_single_or_multi_val")
        },
    },
    # torchmetrics gives it a name that it had once, wherever scipy is installed
    _SIGNAL: {"hamming": _late(f"{_SIGNAL}.windows", "hamming")},
    # of the losses of transformers that match boxes
    _OPTIMIZE: {"linear_sum_assignment": _late(_OPTIMIZE, "linear_sum_assignment")},
}
"""What others want of the modules when they are imported."""

_FINDER = _Finder()
