"""What is on each device: worked numbers by strategy."""

import pytest

from instructgpt.modules.held import Held
from instructgpt.modules.memory import Need, peak_bytes
from instructgpt.modules.placement import placement_of, tensor_parallel_of
from instructgpt.modules.sharding import FSDP2Strategy
from instructgpt.types import UserError

NETWORK = Held(parameters=100, trained=100, weights=400, gradients=400, block=70, rest=40)
FROZEN = {"reference": 400, "average of the policy": 400}
NEEDS = [Need("sampling", "KV cache", 90), Need("update", "activations", 1000)]
CUT = FSDP2Strategy(tensor_parallel_size=2)


@pytest.mark.parametrize(
    ("strategy", "devices", "expected"),
    [
        # weights, moments, what is frozen; activations, while gradients come
        ("auto", 1, 400 + 800 + 800 + 1000),
        # the second copy of gradients, through which they are exchanged
        ("ddp", 4, 400 + 800 + 800 + 400 + 1000),
        # a quarter of everything; weights and gradients of two layers and of what is in none
        ("fsdp2", 4, (400 + 800 + 800) // 4 + 2 * (2 * 70 + 40) + 1000),
        # all weights, a quarter of moments and of a copy of the weights; gradients come as parts
        ("deepspeed_stage_2", 4, 400 + (800 + 400) // 4 + 800 + 1000),
        # layers, 360 of 400, are cut by two, and then all is spread over two
        (CUT, 4, (220 + 440 + 440) // 2 + 2 * (2 * 35 + 40) + 1000),
    ],
)
def test_what_is_on_each_device(strategy, devices, expected):
    placement = placement_of(strategy, devices)
    assert peak_bytes([NETWORK], FROZEN, NEEDS, False, placement) == expected


@pytest.mark.parametrize(
    ("strategy", "kept"),
    [("auto", 400), ("fsdp2", 100)],
)
def test_gradients_of_pieces_before(strategy, kept):
    """Of several pieces."""
    placement = placement_of(strategy, 1 if strategy == "auto" else 4)
    several, one = (peak_bytes([NETWORK], FROZEN, NEEDS, k, placement) for k in (True, False))
    assert several - one == kept


def test_what_is_gathered_whole():
    """With fsdp2 the policy where it answers prompts, and then a reward model."""
    placement = placement_of("fsdp2", 4)
    needs = [Need("sampling", "KV cache", 5000)]
    assert peak_bytes([NETWORK], FROZEN, needs, False, placement, True) == 500 + 400 + 5000
    assert peak_bytes([NETWORK], FROZEN, [], False, placement, True) == 500 + 400
    assert peak_bytes([NETWORK], FROZEN | {"reward": 4000}, [], False, placement) == 1500 + 4000


def test_what_no_run_would_take_is_refused_on_one_device_too():
    with pytest.raises(UserError, match=r"must be ddp, fsdp2, .* got fsdp3"):
        placement_of("fsdp3", 1)
    with pytest.raises(UserError, match="tensor_parallel_size must be >= 1, got 0"):
        tensor_parallel_of(FSDP2Strategy(tensor_parallel_size=0))
    assert placement_of("single_device", 1) == placement_of("auto", 1)
