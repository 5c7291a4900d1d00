"""Random numbers as a function of names."""

import pytest
import torch

from instructgpt.seeds import seed_everywhere


@pytest.mark.parametrize("seed", [0, 7, 2**63 - 1])
def test_all_devices_are_seeded_as_torch_does(seed):
    torch.manual_seed(seed)
    expected = torch.rand(3)
    torch.rand(5)
    seed_everywhere(seed)
    assert torch.equal(torch.rand(3), expected)
