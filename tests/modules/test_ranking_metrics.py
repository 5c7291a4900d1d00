"""What stages with rankings log of them."""

import torch

from instructgpt.modules.ranking_metrics import reliability_figure


def test_figure_is_drawn_for_few_pairs(tmp_path):
    figure = reliability_figure(torch.tensor([0.3, -0.2, 9.0]))
    figure.savefig(tmp_path / "figure.png")
    assert "n = 3 pairs" in figure.axes[0].get_title()
