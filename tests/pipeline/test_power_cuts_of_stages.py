"""Power cuts of a whole pipeline, stages side by side: it ends as if there had been none."""

import json
import os
import random
from multiprocessing import forkserver
from pathlib import Path

import pytest
from interrupted import state
from power_cut import cut, run_until

from instructgpt.pipeline.call import run_pipeline
from instructgpt.pipeline.program import Program

CHAIN = """
jobs: 2
stages:
  a: {verb: fit}
  b: {verb: predict, options: {x: "{a}"}}
  c: {verb: fit, options: {x: "{a}"}}
  d: {verb: predict, options: {x: "{b}", y: "{c}"}}
"""
CUTS = 4
FIT = """
jobs: 1
stages:
  a:
    verb: fit
    options:
      {model: ToyModule, data: ToyData, data.train: x, trainer.accelerator: cpu,
       trainer.max_epochs: 3, trainer.logger: false, trainer.enable_progress_bar: false,
       checkpoint.every_n_steps: 2}
  b: {verb: predict, options: {x: "{a}"}}
"""


def called(folder, moment):
    """Call a pipeline until all of its processes are killed; how many changes it makes."""
    root, kept = folder / "root", folder / "kept"

    def call():
        forkserver._forkserver.__init__()  # that of other tests is no child of this process
        os.environ["POWER_CUT"] = json.dumps([str(root), str(kept), moment])
        program = Program("cut_verbs:main", {})
        run_pipeline(str(folder / "toy.yaml"), program, str(root / "out"))
        return 0

    return run_until(call, root, kept, moment)


def results(folder):
    return {p.parent.name: p.read_text() for p in (folder / "root").rglob("result.txt")}


@pytest.mark.parametrize("way", ["lost", "names", "mixed"])
def test_the_same_call_ends_with_the_same(tmp_path, monkeypatch, way):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    alone, again = tmp_path / "alone", tmp_path / "again"
    for folder in (alone, again):
        (folder / "root").mkdir(parents=True)
        (folder / "toy.yaml").write_text(CHAIN)
    changes = called(alone, None)
    rng = random.Random(way)
    moments = [rng.randrange(changes * n // CUTS, changes * (n + 1) // CUTS) for n in range(CUTS)]
    cuts = 0
    for number, moment in enumerate([*moments, None]):
        ended = called(again, moment)
        cut(again / "root", again / "kept", way, number)
        for file in (again / "root").rglob("stage.json"):
            if '"finished"' in file.read_text():
                name = file.parent.name
                assert results(again)[name] == results(alone)[name], moments
        cuts += ended is None
    assert cuts >= 2
    assert set(results(again)) == set("abcd")
    assert results(again) == results(alone), moments


def test_a_fit_goes_on_from_what_was_saved(tmp_path, monkeypatch):
    """Cut when about half of its changes are made, of which most are those of checkpoints."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    alone, again = tmp_path / "alone", tmp_path / "again"
    for folder in (alone, again):
        (folder / "root").mkdir(parents=True)
        (folder / "toy.yaml").write_text(FIT)
    changes = called(alone, None)
    assert called(again, changes // 2) is None
    cut(again / "root", again / "kept", "lost")
    out = again / "root" / "out"
    assert (out / "a" / "checkpoints" / "last.ckpt").exists()
    assert not results(again)
    rest = called(again, None)
    assert rest < 0.8 * changes, "it began anew"
    assert results(again) == results(alone)
    assert state(out / "a") == state(alone / "root" / "out" / "a")
