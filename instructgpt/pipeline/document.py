"""The YAML of a pipeline as written: what it extends, which keys it may have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from instructgpt.errors import collapse, guess
from instructgpt.settings import check_aliases
from instructgpt.types import UserError

KEYS = ("extends", "output", "seed", "jobs", "stages", "rounds")
STAGE_KEYS = ("verb", "config", "options", "cost")
ROUND_KEYS = ("count", "stages")


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, and reads 1e-3 as a number, as the other verbs do."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Look at the keys as written: merging adds those of others to them."""
        node: Any = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key.value, str):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be text (quote what is in braces)", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value} is given twice", key.start_mark
                )
            if key.value != "<<":
                seen.add(key.value)
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def load_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Args:
        path: of the file.

    Raises:
        UserError: it is not there, or does not parse; with line and column.
    """
    try:
        text = path.read_text(encoding="utf-8")
        check_aliases(text, str(path))
        tree = yaml.load(text, Loader=_Loader)
        json.dumps(tree, default=str)  # no anchor in itself, no date as a key
        return tree
    except UserError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise UserError(f"{place}: {error.problem}") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: {collapse(str(error))}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


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
    if tree.get("rounds") is not None:
        _check_rounds(tree["rounds"], f"{path}: rounds")
    stages = tree.setdefault("stages", {})
    if not isinstance(stages, dict):
        raise UserError(f"{path}: stages must be a mapping of names, got {stages!r}")
    for name, stage in stages.items():
        fine = isinstance(name, str) and re.fullmatch(r"[A-Za-z][\w-]*", name)
        if not fine or name == "pipeline":
            raise UserError(
                f"{path}: stages: a name must be letters, digits, _ and -, and not pipeline, "
                f"got {name!r}"
            )
        if stage is not None:
            stages[name] = _checked_stage(stage, path, f"{path}: stages.{name}")
    return tree


def _mapping(value: Any, keys: tuple[str, ...], place: str) -> None:
    if not isinstance(value, dict):
        raise UserError(f"{place} must be a mapping with {', '.join(keys)}, got {value!r}")
    for key in value:
        if key not in keys:
            hint = guess(str(key), list(keys)) or f" (there are {', '.join(keys)})"
            raise UserError(f"{place} unknown key {key!r}{hint}")


def _check_rounds(rounds: Any, place: str) -> None:
    _mapping(rounds, ROUND_KEYS, f"{place}:")
    count, stages = rounds.get("count", 1), rounds.get("stages", [])
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise UserError(f"{place}.count must be an integer >= 1, got {count!r}")
    if not isinstance(stages, list) or not all(isinstance(name, str) for name in stages):
        raise UserError(f"{place}.stages must be a list of names, got {stages!r}")


def _checked_stage(stage: Any, path: Path, place: str) -> dict[str, Any]:
    """A stage with the paths of its config files."""
    _mapping(stage, STAGE_KEYS, f"{place}:")
    stage = dict(stage)
    if "config" in stage:
        names = stage["config"] if isinstance(stage["config"], list) else [stage["config"]]
        if not all(isinstance(name, str) for name in names):
            raise UserError(f"{place}.config must be a file or a list of files, got {names!r}")
        stage["config"] = [str(path.parent / name) for name in names]
        for name in stage["config"]:
            if not Path(name).is_file():
                raise UserError(f"{place}.config must be an existing file, got {name}")
    options = stage.setdefault("options", {})
    if options is None:
        stage["options"] = {}
    elif not isinstance(options, dict):
        raise UserError(f"{place}.options must be a mapping of options, got {options!r}")
    cost = stage.get("cost", 1)
    if not isinstance(cost, int | float) or isinstance(cost, bool) or not cost > 0:
        raise UserError(f"{place}.cost must be a number > 0, got {cost!r}")
    return stage


def _merge(base: dict[str, Any], own: dict[str, Any], path: Path) -> dict[str, Any]:
    """What is said in a file goes before what it extends, stage by stage and option by option."""
    merged = {**base, **{k: v for k, v in own.items() if k not in ("extends", "stages", "rounds")}}
    if "rounds" in own:
        rounds = own["rounds"]
        merged["rounds"] = None if rounds is None else {**(base.get("rounds") or {}), **rounds}
    stages = dict(base.get("stages", {}))
    for name, stage in own["stages"].items():
        old = stages.get(name, {})
        if stage is None and name not in stages:
            raise UserError(
                f"{path}: stages.{name}: has nothing to remove in what the file extends"
            )
        if stage is not None:
            options = {**old.get("options", {}), **stage["options"]}
            stages[name] = {**old, **stage, "options": options}
    order = _order(list(base.get("stages", {})), list(own["stages"]))
    removed = {name for name, stage in own["stages"].items() if stage is None}
    merged["stages"] = {name: stages[name] for name in order if name not in removed}
    return merged


def _order(base: list[str], own: list[str]) -> list[str]:
    """A new stage comes before the one that follows it in its own file.

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
