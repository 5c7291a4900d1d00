"""The YAML of a pipeline as written: what it extends, which keys it may have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from instructgpt.errors import guess
from instructgpt.pipeline.inputs import check_inputs
from instructgpt.pipeline.matrix import CARRIED, check_name, overlaid
from instructgpt.types import UserError
from instructgpt.yaml_files import load_yaml

KEYS = ("extends", "output", "seed", "jobs", "inputs", "matrix", "stages")
STAGE_KEYS = ("verb", "config", "options", "cost", "threads", "needs", "launch", "slurm")


def read_document(path: Path) -> dict[str, Any]:
    """A pipeline with all that it extends merged into it.

    Args:
        path: of the YAML file.

    Returns:
        Its keys, checked; each stage's ``config`` is a list of paths.
    """
    document: dict[str, Any] = {}
    for file in reversed(_chain(path)):
        document = _merge(document, _checked(file), file)
    return document


def _chain(path: Path) -> list[Path]:
    """The file, the one it extends, the one that extends, and so on."""
    chain = [path]
    while True:
        tree = load_yaml(chain[-1])
        base = tree.get("extends") if isinstance(tree, dict) else None
        if base is None:
            return chain
        if not isinstance(base, str):
            raise UserError(f"{chain[-1]}: extends must name a file, got {base!r}")
        parent = chain[-1].parent / base
        if not parent.is_file():
            raise UserError(f"{chain[-1]}: extends must be an existing file, got {parent}")
        if parent.resolve() in [file.resolve() for file in chain]:
            raise UserError(f"{chain[-1]}: extends must not lead in a circle, got {parent}")
        chain.append(parent)


def _checked(path: Path) -> dict[str, Any]:
    """One file with known keys of the right types."""
    tree = load_yaml(path)
    _mapping(tree, KEYS, f"{path}:")
    for name, kind in {"output": str, "seed": int, "jobs": int}.items():
        if name in tree and (not isinstance(tree[name], kind) or isinstance(tree[name], bool)):
            raise UserError(f"{path}: {name} must be {kind.__name__}, got {tree[name]!r}")
    if "output" in tree and not tree["output"].strip():
        raise UserError(f"{path}: output must name a folder, got {tree['output']!r}")
    tree["inputs"] = check_inputs(tree.get("inputs") or {}, path)
    tree["matrix"] = _checked_matrix(tree.get("matrix"), path)
    stages = tree.setdefault("stages", {})
    if not isinstance(stages, dict):
        raise UserError(f"{path}: stages must be a mapping of names, got {stages!r}")
    for name, stage in stages.items():
        check_name(name, f"{path}: stages")
        if stage is not None:
            place = f"{path}: stages.{name}"
            _mapping(stage, STAGE_KEYS, f"{place}:")
            stages[name] = _checked_stage(stage, path, place)
    return tree


def _mapping(value: Any, keys: tuple[str, ...], place: str) -> None:
    if not isinstance(value, dict):
        raise UserError(f"{place} must be a mapping with {', '.join(keys)}, got {value!r}")
    for key in value:
        if key not in keys:
            hint = guess(str(key), list(keys)) or f" (there are {', '.join(keys)})"
            raise UserError(f"{place} unknown key {key!r}{hint}")


def _checked_matrix(matrix: Any, path: Path) -> dict[str, Any]:
    """Axes with their values; None in place of one that is removed."""
    place = f"{path}: matrix"
    if not isinstance(matrix, dict | None):
        raise UserError(f"{place} must be a mapping of axes, got {matrix!r}")
    axes: dict[str, Any] = {}
    for name, values in (matrix or {}).items():
        check_name(name, place)
        axes[name] = None if values is None else _checked_axis(values, path, f"{place}.{name}")
    return axes


def _checked_axis(values: Any, path: Path, place: str) -> dict[str, Any]:
    """Values with what they carry; a list is short for values that carry nothing."""
    if not isinstance(values, list | dict):
        raise UserError(f"{place} must be a list or a mapping of values, got {values!r}")
    axis: dict[str, Any] = {}
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise UserError(f"{place}: a value must be text, got {value!r}")
        if str(value) in axis:
            raise UserError(f"{place}: {value} is given twice")
        carried = values[value] if isinstance(values, dict) else {}
        if carried is not None:
            _check_carried(carried, f"{place}.{value}")
            carried = _checked_stage(carried, path, f"{place}.{value}")
        axis[str(value)] = carried
    return axis


def _check_carried(carried: Any, place: str) -> None:
    """What a stage has, and texts of any name, but none that looks like what a stage has."""
    if not isinstance(carried, dict):
        raise UserError(
            f"{place} must be a mapping with {', '.join(CARRIED)} or texts, got {carried!r}"
        )
    for key, text in carried.items():
        hint = guess(str(key), list(CARRIED))
        if key not in CARRIED and (hint or not isinstance(text, str | int | float)):
            raise UserError(f"{place}: unknown key {key!r}{hint or '; a text must be in quotes'}")


def _checked_stage(stage: Any, path: Path, place: str) -> dict[str, Any]:
    """A stage, or what a value of an axis carries, with the paths of its config files."""
    stage = dict(stage)
    if "config" in stage:
        names = stage["config"] if isinstance(stage["config"], list) else [stage["config"]]
        if not all(isinstance(name, str) for name in names):
            raise UserError(f"{place}.config must be a file or a list of files, got {names!r}")
        stage["config"] = [str(path.parent / name) for name in names]
    options = stage.setdefault("options", {})
    if options is None:
        stage["options"] = {}
    elif not isinstance(options, dict):
        raise UserError(f"{place}.options must be a mapping of options, got {options!r}")
    cost = stage.get("cost", 1)
    if not isinstance(cost, int | float) or isinstance(cost, bool) or not cost > 0:
        raise UserError(f"{place}.cost must be a number > 0, got {cost!r}")
    threads = stage.get("threads", 1)
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise UserError(f"{place}.threads must be a whole number >= 1, got {threads!r}")
    return stage


def _merge(base: dict[str, Any], own: dict[str, Any], path: Path) -> dict[str, Any]:
    """What is said in a file goes before what it extends, entry by entry and option by option."""
    merged = {**base, **{k: v for k, v in own.items() if k != "extends"}}
    merged["inputs"] = base.get("inputs", {}) | own["inputs"]
    for key, depth in {"matrix": 2, "stages": 1}.items():
        merged[key] = _merge_entries(base.get(key, {}), own[key], f"{path}: {key}", depth)
    return merged


def _merge_entries(
    base: dict[str, Any], own: dict[str, Any], place: str, depth: int
) -> dict[str, Any]:
    """Entries of two mappings; null removes one.

    Args:
        base: of what the file extends.
        own: of the file.
        place: for messages.
        depth: 1 for stages and values, 2 for axes, whose values are merged one by one.
    """
    entries = dict(base)
    for name, entry in own.items():
        if entry is None and name not in base:
            raise UserError(
                f"{place}.{name} must not be null, which removes it from what the file extends, "
                "where it is not; {} is an empty one"
            )
        if entry is not None and depth > 1:
            entries[name] = _merge_entries(base.get(name, {}), entry, f"{place}.{name}", depth - 1)
        elif entry is not None:
            entries[name] = overlaid(base.get(name, {}), entry)
    return {
        name: entries[name]
        for name in _order(list(base), list(own))
        if own.get(name, 0) is not None
    }


def _order(base: list[str], own: list[str]) -> list[str]:
    """A new name comes before the one that follows it in its own file.

    Examples:
        >>> _order(["a", "b", "report"], ["more", "report", "last"])
        ['a', 'b', 'more', 'report', 'last']
    """
    order, following = list(base), len(base)
    for name in reversed(own):
        if name in order:
            following = order.index(name)
        else:
            order.insert(following, name)
    return order
