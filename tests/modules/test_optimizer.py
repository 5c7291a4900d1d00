"""The paper's Adam in one kernel: the numbers of torch's, and checkpoints either can read."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from instructgpt.modules import optimizer as module
from instructgpt.modules.optimizer import PaperAdam

OPTIONS = {"lr": 0.01, "betas": (0.9, 0.95), "weight_decay": 0.1}


def network():
    torch.manual_seed(0)
    return nn.Linear(7, 5)


def steps(model, optimizer, first, last):
    for index in range(first, last):
        optimizer.zero_grad()
        inputs = torch.randn(3, 7, generator=torch.Generator().manual_seed(index))
        model(inputs).square().sum().backward()
        optimizer.step()


def test_steps_are_those_of_torch_to_rounding():
    ours, theirs = network(), network()
    optimizer = PaperAdam(ours.parameters(), lr=0.01, weight_decay=0.1)
    assert all(group["fused"] for group in optimizer.param_groups)
    steps(ours, optimizer, 0, 20)
    steps(theirs, AdamW(theirs.parameters(), **OPTIONS, foreach=False), 0, 20)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_resumed_run_has_the_same_bits():
    whole, cut = network(), network()
    steps(whole, PaperAdam(whole.parameters(), lr=0.01), 0, 6)
    optimizer = PaperAdam(cut.parameters(), lr=0.01)
    steps(cut, optimizer, 0, 3)
    state = copy.deepcopy(optimizer.state_dict())
    optimizer = PaperAdam(cut.parameters(), lr=0.5)
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 0.01
    steps(cut, optimizer, 3, 6)
    assert all(map(torch.equal, whole.parameters(), cut.parameters()))


@pytest.mark.parametrize("forwards", [True, False])
def test_checkpoints_go_from_one_kernel_to_the_other(forwards, monkeypatch):
    """As from a processor to a device that has no such kernel, and back."""

    def make(model, fused):
        monkeypatch.setattr(module, "FUSED", {"cpu"} if fused else set())
        return PaperAdam(model.parameters(), lr=0.01)

    model, expected = network(), network()
    first = make(model, forwards)
    steps(model, first, 0, 3)
    second = make(model, not forwards)
    second.load_state_dict(first.state_dict())
    assert [bool(group["fused"]) for group in second.param_groups] == [not forwards]
    steps(model, second, 3, 6)
    steps(expected, make(expected, forwards), 0, 6)
    for a, b in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_group_that_comes_later_has_the_same_kernel():
    model = network()
    optimizer = PaperAdam([model.weight], lr=0.01)
    optimizer.add_param_group({"params": [model.bias]})
    assert [group["fused"] for group in optimizer.param_groups] == [True, True]


def test_a_scaler_still_unscales_before_gradients_are_clipped():
    optimizer = PaperAdam(network().parameters())
    assert not getattr(optimizer, "_step_supports_amp_scaling", False)
