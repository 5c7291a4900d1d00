"""The two processes of other tests."""

import os
import time

import pytest
import torch
import torch.distributed as dist
from harness import run_processes


def test_the_processes_form_a_group_and_answer_by_rank():
    def child(base):
        dist.init_process_group("gloo")
        value = torch.tensor([base + dist.get_rank()])
        dist.all_reduce(value)
        return dist.get_rank(), int(value)

    assert run_processes(child, 10) == [(0, 21), (1, 21)]  # 10 + 11


def test_what_a_child_raises_is_shown():
    def child():
        if os.environ["RANK"] == "1":
            raise ValueError("on purpose")

    with pytest.raises(AssertionError, match=r"(?s)rank 1: .*on purpose"):
        run_processes(child)


def test_a_child_that_dies_or_hangs_ends_the_test():
    start = time.monotonic()
    with pytest.raises(AssertionError, match=r"no answer from ranks \[0\].*7"):
        run_processes(lambda: os._exit(7) if os.environ["RANK"] == "0" else None)
    with pytest.raises(AssertionError, match=r"no answer from ranks \[0, 1\]"):
        run_processes(lambda: time.sleep(60), timeout=0.5)
    assert time.monotonic() - start < 15
