"""The benchmark on several seeds keeps what it measured when a later seed fails."""

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "miniature.py"


def test_each_seed_is_written_when_it_is_done(tmp_path, monkeypatch):
    pytest.importorskip("psutil")
    place = spec_from_file_location("miniature_seeds", FILE)
    module = module_from_spec(place)
    place.loader.exec_module(module)

    def run(config, seed, folder):
        if seed == 2:
            raise SystemExit("seed 2: the pipeline ended with code 1")
        folder.mkdir(parents=True)
        (folder / "pipeline.json").write_text('{"stages": [{"name": "a", "seconds": 1.0}]}')
        return 3.0, 2**20

    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(module, "findings", lambda folder: {"claims": []})
    results = tmp_path / "results.json"
    options = ["--seeds", "1", "2", "--runs", str(tmp_path / "runs"), "--results", str(results)]
    monkeypatch.setattr(sys, "argv", ["miniature.py", *options])
    with pytest.raises(SystemExit):
        module.main()
    assert list(json.loads(results.read_text())["runs"]) == ["1"]
