"""No option without an effect: each of every class is flipped, and the run is another."""

from __future__ import annotations

import json
from typing import Any

import pytest
from option_runs import DATA, Inputs, Make, defaults, observe, offered, run
from option_table import HOSTS, KINDS, MIX, TABLE, Place

import instructgpt.cli  # noqa: F401  # loads every class
from instructgpt.data.prompts import PromptDataModule
from instructgpt.data.text import TextDataModule
from instructgpt.models.tokenizer import BPE
from instructgpt.modules.sft import SFTModule

CASES = [(cls, name) for cls, flips in TABLE.items() for name in flips]


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    return Inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="session")
def seen(inputs):
    """Observations by settings: many options are compared with the same run."""
    known: dict[str, Any] = {}

    def look(data: type, settings: dict[str, Any], see: str) -> dict[str, Any]:
        kind = KINDS.get(see)
        key = f"{data.__name__} {settings} {kind}"
        if key not in known:
            known[key] = observe(data, settings, kind)
        return known[key]

    return look


def settings_of(cls, flip, name, flipped, inputs):
    """All settings of the run with an option, or without it."""
    host = HOSTS.get(cls)
    data = host.data if host else cls if cls in set(DATA.values()) | {TextDataModule} else DATA[cls]
    module = host.module if host else cls if cls in DATA else None
    settings = defaults(data, inputs, module)
    own = {**(host.own if host else {}), **flip.own, **({name: flip.value} if flipped else {})}
    settings["model"] |= (host.model if host else {}) | flip.model
    settings["data"] |= flip.data
    settings["trainer"] |= flip.trainer
    if host and host.argument == "callbacks":
        settings["callbacks"] = [Make(cls, own)]
        settings["trainer"]["enable_checkpointing"] = True
    elif host:
        side = "data" if cls is BPE else "model"
        settings[side][host.argument] = Make(cls, own)
        if cls is BPE:
            settings["data"]["tokenizer"] = None
    else:
        settings["data" if cls is data else "model"] |= own
    return data, placed(settings, inputs)


def placed(value, inputs):
    """Settings with the paths of this session."""
    if isinstance(value, Place):
        return value.find(inputs)
    if isinstance(value, Make):
        return Make(value.cls, placed(value.options, inputs))
    if isinstance(value, dict):
        return {name: placed(part, inputs) for name, part in value.items()}
    return [placed(part, inputs) for part in value] if isinstance(value, list) else value


def test_every_option_is_in_the_table():
    expected = {(cls.__name__, name) for cls, names in offered().items() for name in names}
    expected |= {("StageCheckpoint", name) for name in ("every_n_steps", "every_minutes")}
    expected |= {("Doctor", "overfit")}
    assert {(cls.__name__, name) for cls, name in CASES} == expected


@pytest.mark.parametrize(
    ("cls", "name"), CASES, ids=[f"{cls.__name__}.{name}" for cls, name in CASES]
)
def test_an_option_has_an_effect(cls, name, inputs, seen):
    flip = TABLE[cls][name]
    without, having = (
        seen(*settings_of(cls, flip, name, flipped, inputs), flip.see) for flipped in (False, True)
    )
    if flip.see == "refused":
        assert without.get("refused") != having.get("refused")
        return
    assert "refused" not in without, without
    assert "refused" not in having, having
    assert without[flip.see] != having[flip.see], json.dumps(having, default=str)[:2000]


@pytest.mark.parametrize(
    ("module", "data"),
    [*DATA.items(), (SFTModule, TextDataModule)],
    ids=lambda c: c.__name__,
)
def test_the_same_settings_are_seen_the_same(module, data, inputs):
    settings = defaults(data, inputs, module)
    assert observe(data, settings, "export") == observe(data, settings, "export")


def test_what_another_option_switches_off_is_said(inputs, tmp_path):
    settings = defaults(PromptDataModule, inputs)
    settings["data"] |= placed(MIX, inputs)
    with pytest.warns(
        UserWarning, match=r"data.pretraining is not used: model.pretraining.ptx_coef is 0"
    ):
        run(PromptDataModule, settings, None, tmp_path)
