"""PPO on two real processes, by torchrun's agents of two machines and by the variables of Slurm.

Lightning's own launcher: ``tests/test_cli.py::test_ddp_by_popen_from_the_shell``; torchrun on one
machine: ``tests/pipeline/test_launch.py::test_a_stage_by_torchrun``.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from instructgpt.__main__ import main

ROOT = Path(__file__).parents[2]
SLURM = {  # as srun 22.05 sets them: `srun -n 2` on the second machine of a job on two
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NAME": "train",
    "SLURM_NODELIST": "nowhere,127.0.0.1",
    "SLURM_NTASKS": "2",
    "SLURM_NNODES": "1",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "127.0.0.1",
    "SLURM_STEP_NUM_NODES": "1",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_NODEID": "0",
}


def arguments(output, source, prompts):
    return [
        *("fit", "--model=PPOModule", "--data=PromptDataModule", f"--output={output}"),
        *(f"--model.init_from={source}", f"--data.train={prompts}", "--data.validation=null"),
        *("--model.reward.class_path=CountReward", "--model.reward.init_args.text=e"),
        *("--model.batches={rollout_batch_size: 8, minibatch_size: 4}", "--trainer.max_epochs=2"),
        *("--model.optimizer.class_path=torch.optim.SGD", "--model.optimizer.init_args.lr=0.1"),
        *("--data.max_prompt_tokens=20", "--data.max_response_tokens=8"),
        *("--trainer.accelerator=cpu", "--trainer.logger=false"),
    ]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def together(commands):
    """Run commands side by side, each with variables of its own; what they say."""
    usual = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    running = [subprocess.Popen(command, env={**usual, **own}, **how) for command, own in commands]
    try:
        said = [process.communicate(timeout=250)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * len(running), said
    return said


@pytest.mark.slow
def test_by_whatever_its_processes_are_started_a_run_is_the_same(tmp_path, policy_artefact, files):
    """Two agents of torchrun that meet as two machines do; two tasks of Slurm; one process."""
    source, prompts = policy_artefact, files["prompts"]
    alone = tmp_path / "alone"
    assert main(arguments(alone, source, prompts)) == 0

    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1"]
    agent += ["--rdzv_backend=c10d", f"--rdzv_endpoint=127.0.0.1:{free_port()}", "-m"]
    nodes = ["--trainer.strategy=ddp", "--trainer.num_nodes=2", "--trainer.devices=1"]
    torchrun = [*agent, "instructgpt", *arguments(tmp_path / "torchrun", source, prompts), *nodes]
    said = together([(torchrun, {})] * 2)
    assert sum("MEMBER: 2/2" in text for text in said) == 1

    tasks = ["--trainer.strategy=ddp", "--trainer.devices=2"]
    srun = [sys.executable, "-m", "instructgpt", *arguments(tmp_path / "srun", source, prompts)]
    ranks = [{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2)]
    meeting = {"MASTER_PORT": free_port()}
    together([([*srun, *tasks], {**SLURM, **rank, **meeting}) for rank in ranks])

    one, two, other = (
        tmp_path / name / "export" / "model.safetensors" for name in ("alone", "torchrun", "srun")
    )
    assert two.read_bytes() == other.read_bytes()
    assert_close(load_file(two), load_file(one), atol=1e-5, rtol=1e-4)
