"""The whole of the miniature with toy sizes: it runs, repeats itself, and survives being killed."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
QUICK = "configs/miniature_quick.yaml"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
SECTIONS = [
    *("claims", "win_rates", "trained", "ratings", "metadata", "use_cases", "closed_domain"),
    *(
        "truthfulness",
        "toxicity",
        "nlp",
        "reward_model",
        "agreement",
        "over_optimisation",
        "curves",
        "samples",
    ),
    "run",
]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def call(folder, *options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "instructgpt", "pipeline", "--config", QUICK]
    return subprocess.Popen(
        [*command, "--output", str(folder), *options],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(folder, *options):
    process = call(folder, *options)
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said[-3000:]
    return said


def results(folder):
    return (folder / "evaluate" / "results.json").read_bytes()


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    folder = tmp_path_factory.mktemp("miniature") / "quick"
    said = finish(folder)
    return folder, said


def test_every_stage_ran_and_the_report_is_there(quick):
    folder, said = quick
    record = json.loads((folder / "pipeline.json").read_text())
    assert record["status"] == "finished"
    assert all(stage["seconds"] > 0 for stage in record["stages"])
    assert f"report: {folder}/evaluate/report.html" in said
    found = json.loads(results(folder))
    assert found["models"] == ["gpt", "gpt_few_shot", "sft", "ppo", "ppo_ptx"]
    assert len(found["claims"]) == 21
    # toy sizes judge nothing
    assert {claim["verdict"] for claim in found["claims"]} == {"not judged"}
    assert "wall" not in results(folder).decode()
    assert str(folder) not in results(folder).decode()
    logs = [path.read_text() for path in folder.glob("*.log")]
    assert len(logs) == len(record["stages"])
    assert not [text for text in logs if "doctor: " in text], "toy sizes, but all learn"
    said = {path: json.loads(path.read_text())["doctor"] for path in folder.glob("*/metrics.json")}
    assert {path.parent.name for path in said} >= {"pretrain", "sft", "reward", "ppo", "ppo_ptx"}
    assert not any(said.values()), said


def test_finished_stages_are_skipped(quick):
    folder, _ = quick
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/stage.json")}
    said = finish(folder)
    assert "finished earlier" in said
    assert "start " not in said
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/stage.json")} == before


def test_the_same_seed_gives_the_same_results_and_another_does_not(quick, tmp_path):
    folder, _ = quick
    finish(tmp_path / "again")
    assert results(tmp_path / "again") == results(folder)
    other = tmp_path / "other"
    finish(other, "--seed", "1", "--only", "world")
    assert (other / "world/text.jsonl").read_bytes() != (folder / "world/text.jsonl").read_bytes()


def test_killed_again_and_again_it_ends_with_the_same_results(quick, tmp_path):
    folder, _ = quick
    rng, killed = random.Random(3), 0
    for _ in range(5):
        process = call(tmp_path / "killed")
        time.sleep(rng.uniform(3, 12))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed >= 3
    finish(tmp_path / "killed")
    assert results(tmp_path / "killed") == results(folder)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_browser_shows_all_sections(quick, tmp_path):
    folder, _ = quick
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    report = f"file://{folder}/evaluate/report.html"
    page = subprocess.run(
        [CHROMIUM, *flags.split(), f"--user-data-dir={tmp_path}", "--dump-dom", report],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    places = [page.find(f'id="{name}"') for name in SECTIONS]
    assert -1 not in places
    assert places == sorted(places)
    assert page.count("not judged") >= 19
    assert "<svg" in page
    assert "<script" not in page
