"""A stage behind a launcher, or as a job: the same stage, with the same results."""

import os
import signal
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from called_pipeline import Call, all_gone, pids, wait_for

from instructgpt.commands.functions import FUNCTIONS
from instructgpt.pipeline.call import run_pipeline
from instructgpt.pipeline.jobs import exit_code, follow
from instructgpt.pipeline.launch import call_of
from instructgpt.pipeline.program import Program
from instructgpt.pipeline.spec import read_spec
from instructgpt.types import UserError

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
BEHIND = f"env PYTHONPATH={HERE}{os.pathsep}{ROOT}"
JOB = "{cluster: local, timeout_min: 5}"
PAIR = """
stages:
  a: {verb: fit, options: {steps: 3}%s}
  b: {verb: fit, options: {x: "{a}", steps: 2}%s}
"""


def pair(how=""):
    return PAIR % (how, how)


@pytest.mark.parametrize(
    ("launch", "command"),
    [
        ("torchrun --nproc_per_node 2", "torchrun --nproc_per_node 2 -m instructgpt fit"),
        ("srun -N 2", f"srun -N 2 {sys.executable} -m instructgpt fit"),
        (
            "srun -N 2 /bin/torchrun --nnodes 2",
            "srun -N 2 /bin/torchrun --nnodes 2 -m instructgpt fit",
        ),
        (
            "python -m torch.distributed.run",
            "python -m torch.distributed.run -m instructgpt fit",
        ),
        ('["nice", "-n 5"]', f"nice '-n 5' {sys.executable} -m instructgpt fit"),
        ("", "python -m instructgpt fit"),
    ],
)
def test_what_stands_in_front_of_a_stage(toy, launch, command):
    """torchrun starts Python itself; anything else starts a program."""
    toy.write(f"stages: {{a: {{verb: fit, launch: {launch or []}}}}}")
    spec = read_spec(toy.folder / "toy.yaml", FUNCTIONS)
    program = Program("instructgpt.__main__:main", FUNCTIONS)
    stage = spec.stages["a"]
    assert call_of(program, stage.launch, stage.job, Path("j"), ["fit"]).shown == command


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("launch: 5", "stages.a.launch must be a command or a list of its words, got 5"),
        ('launch: "a \'b"', 'stages.a.launch must be a command, got "a \'b": No closing'),
        ("launch: nowhere -n 2", "stages.a.launch must begin with a program that is there, got"),
        ("slurm: gpu", "stages.a.slurm must be a mapping with timeout_min and others, got 'gpu'"),
        ("slurm: {nodes: 2}", "stages.a.slurm must have timeout_min, the limit in minutes"),
        ("slurm: {timeout_min: -1}", "stages.a.slurm.timeout_min must be minutes > 0, got -1"),
        ("slurm: {timeout_min: 9}", "stages.a.slurm needs "),
    ],
)
def test_what_cannot_be_started_is_told_before_anything_runs(toy, stage, message):
    with pytest.raises(UserError) as error:
        toy.run(f"stages: {{first: {{verb: fit}}, a: {{verb: fit, {stage}}}}}")
    assert message in str(error.value)
    assert toy.began() == []


def test_a_launched_stage_does_the_same_and_is_not_run_again(toy):
    toy.run(pair())
    plain = toy.results()
    toy.diary()
    toy.run(pair(f", launch: {BEHIND}"))
    assert toy.began() == [], "how it is started is no part of what it does"
    toy.run(first="a")
    assert toy.began() == ["a", "b"]
    assert toy.results() == plain
    log = (toy.output / "b.log").read_text()
    assert f"$ {BEHIND} {sys.executable} -m toy_verbs fit --output {toy.output}/b" in log
    assert "fit 2/2" in log


def test_an_input_of_the_pipeline_may_launch_it(toy):
    """The same file on a laptop and on a cluster."""
    text = 'inputs: {how: ""}\nstages: {a: {verb: fit, launch: "{how}"}}'
    toy.run(text)
    toy.run(first="a", inputs={"how": f"env A=5 {BEHIND}"})
    log = (toy.output / "a.log").read_text()
    assert "$ python -m instructgpt fit" in log
    assert "$ env A=5" in log


def test_a_dry_run_says_what_would_be_run(toy, capsys):
    toy.run(pair(f", launch: {BEHIND}"), only="a")
    toy.diary()
    capsys.readouterr()
    toy.run(dry_run=True)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "a: finished"
    assert second.startswith(f"b: {BEHIND} {sys.executable} -m toy_verbs fit --output")
    assert toy.began() == []


def test_what_a_process_of_torchrun_says_is_the_error(toy):
    """It ends with 1, whatever its processes say."""
    say = f'options: {{say: "instructgpt: error: lr must be > 0", code: 1}}, launch: {BEHIND}'
    with pytest.raises(UserError) as error:
        toy.run(f"stages: {{a: {{verb: fit, {say}}}}}")
    assert str(error.value) == f"a: lr must be > 0 (log: {toy.output}/a.log)"


def test_a_launcher_is_asked_to_stop_and_leaves_nothing(toy):
    """Also what is in a group of its own, as the processes of torchrun are."""
    text = pair(f", launch: setsid --wait {BEHIND}").replace("steps: 3", "steps: 500, child: 1")
    toy.write(f"output: {toy.output}\n{text}")
    call = Call(toy)
    wait_for(toy, "a begin")
    call.process.send_signal(signal.SIGINT)
    output = call.rest()
    assert call.process.returncode == 130, output
    assert "stopped   a" in output
    assert all_gone(pids(toy))


def test_of_a_killed_pipeline_no_launcher_is_left(toy):
    text = pair(f", launch: {BEHIND}").replace("steps: 3", "steps: 500, child: 1")
    toy.write(f"output: {toy.output}\n{text}")
    call = Call(toy)
    wait_for(toy, "a pid")
    call.process.kill()
    call.process.communicate()
    assert all_gone(pids(toy), patience=40)


# -- jobs


@pytest.fixture
def queue(toy, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE / "stub_slurm"))
    monkeypatch.delitem(sys.modules, "submitit", raising=False)
    return toy


def test_a_job_does_the_same_and_its_output_is_the_log(queue):
    queue.run(pair())
    plain = queue.results()
    queue.run(pair(f", launch: {BEHIND}, slurm: {JOB}"), first="a")
    assert queue.results() == plain
    log = (queue.output / "a.log").read_text().splitlines()
    start = next(i for i, line in enumerate(log) if line.startswith("$ [job] env "))
    assert log[start + 1].startswith("job 77: submitted; its files are in ")
    assert log[start + 2] == "job 77: PENDING"
    assert log[-1] == "fit 3/3  [bold]not markup[/bold]"


def check_errors(toy):
    """What goes wrong in a job, and before there is one, is said as of any stage."""
    say = '{say: "instructgpt: error: lr must be > 0", code: 2}'
    job = f"launch: {BEHIND}, slurm: {JOB}"
    with pytest.raises(UserError, match="c: lr must be > 0"):
        toy.run(f"stages: {{c: {{verb: fit, options: {say}, {job}}}}}")
    wrong = f"launch: {BEHIND}, slurm: {{cluster: local, timeout_min: 5, noodles: 2}}"
    with pytest.raises(UserError, match=r"d: slurm: .*noodles"):
        toy.run(f"stages: {{d: {{verb: fit, {wrong}}}}}")


def test_the_code_of_a_job_is_that_of_the_stage(queue):
    check_errors(queue)


def test_where_slurm_keeps_no_accounts_squeue_says_that_a_job_is_over(
    tmp_path, monkeypatch, capsys
):
    """sacct fails there, so that submitit knows no state and would wait for ever."""
    (tmp_path / "squeue").write_text("#!/bin/sh\nexit 0\n")  # 22.05: of what is over, nothing
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    paths = SimpleNamespace(stdout=tmp_path / "77_0_log.out")
    done = {"done": lambda force_check=False: False}
    job = SimpleNamespace(job_id="77", state="UNKNOWN", paths=paths, **done)
    follow(job, lambda: False)
    assert exit_code(job) == 1
    said = capsys.readouterr()
    assert said.out == "job 77: no longer queued\n"
    assert said.err == "job 77: no longer queued, and has left no result\n"


@pytest.mark.parametrize("when", ["submitted", "a begin"])
def test_ctrl_c_cancels_a_job(queue, when):
    """In the queue as when it runs."""
    text = pair(f", launch: {BEHIND}, slurm: {JOB}").replace("steps: 3", "steps: 500")
    queue.write(f"output: {queue.output}\n{text}")
    call = Call(queue, paths=[HERE / "stub_slurm"])
    log = queue.output / "a.log"
    while not log.exists() or "submitted" not in log.read_text():
        time.sleep(0.05)
    if when == "a begin":
        wait_for(queue, when)
    call.process.send_signal(signal.SIGINT)
    output = call.rest()
    assert call.process.returncode == 130, output
    assert "job 77: cancelled" in log.read_text()
    assert all_gone(pids(queue))


@pytest.mark.skipif(find_spec("submitit") is None, reason="the extra slurm is not installed")
def test_submitit_itself_runs_a_job(toy):
    """On this machine, by its executor for that."""
    toy.run(pair())
    plain = toy.results()
    toy.run(pair(f", launch: {BEHIND}, slurm: {JOB}"), first="a")
    assert toy.results() == plain
    log = (toy.output / "a.log").read_text()
    assert "Starting with JobEnvironment" in log
    assert "fit 3/3" in log
    check_errors(toy)


@pytest.mark.slow
def test_a_stage_by_torchrun(toy, monkeypatch):
    """The real ones: two ranks train, and what the pipeline hands over is there."""
    monkeypatch.chdir(ROOT)
    options = "trainer.accelerator: cpu, trainer.strategy: ddp, trainer.devices: 2"
    configs = f"[{ROOT}/configs/pretrain.yaml, {ROOT}/configs/overlays/debug.yaml]"
    torchrun = f"{sys.executable} -m torch.distributed.run --nproc_per_node 2"
    toy.write(
        f"output: {toy.output}\nstages: {{a: {{verb: fit, config: {configs}, "
        f'options: {{{options}}}, launch: "{torchrun}"}}}}'
    )
    program = Program("instructgpt.__main__:main", FUNCTIONS)
    run_pipeline(str(toy.folder / "toy.yaml"), program, board=toy.board)
    assert (toy.output / "a/export/model.safetensors").is_file()
    log = (toy.output / "a.log").read_text()
    assert "MEMBER: 2/2" in log
    assert f"$ {torchrun} -m instructgpt fit " in log
