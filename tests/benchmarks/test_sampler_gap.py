"""benchmarks/sampler_gap.py: sampling and training passes of one policy, in two number formats."""

import pytest
import sampler_gap
import torch

from instructgpt.models.artefact import save_policy
from instructgpt.models.load import Network, load_policy
from instructgpt.models.template import get_template


@pytest.mark.parametrize(("dtype", "most"), [("float32", 2e-6), ("bfloat16", 0.1)])
def test_both_passes_agree_as_far_as_the_format_goes(
    tiny_architecture, tiny_tokenizer, tmp_path, dtype, most
):
    torch.manual_seed(0)
    model = load_policy(None, tiny_architecture, Network(), tiny_tokenizer)
    about = {"stage": "sft", "template": get_template("plain"), "parent": None}
    save_policy(model, tiny_tokenizer, tmp_path, **about, config={}, metrics={})
    found = sampler_gap.measure(str(tmp_path), dtype, tokens=6)
    assert found["tokens"] > 16
    assert found["most"] < most
    assert found["outside_of_the_clip_range"] == 0
    assert (found["most"] > 1e-4) == (dtype == "bfloat16")
