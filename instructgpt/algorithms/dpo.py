"""Direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290)."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import ClassVar, Literal, get_args

from torch import Tensor
from torch.nn.functional import logsigmoid

from instructgpt.algorithms.preference import Candidates, PreferenceAlgorithm, ResponseLogprobs
from instructgpt.functional.losses import mean_over_pairs, plackett_luce_loss
from instructgpt.types import require

Model = Literal["pairs", "ranking"]


@dataclass(frozen=True)
class DPO(PreferenceAlgorithm):
    """DPO (arXiv:2305.18290, eq. 7) on rankings of K responses, with ties.

    The score of a response is beta * log(policy / reference), summed over its tokens as in the
    paper, its authors' code and TRL. These learn from one pair a row; here a prompt is one element
    whatever its K, and its decided pairs are averaged, as in eq. 1 of InstructGPT: for K = 2 this
    is the textbook loss. Ties say nothing.

    Args:
        beta: weight of the KL to the reference. The paper: 0.1 (0.5 for summaries).
        model: what is the likelihood of: all decided pairs (pairs, Bradley-Terry), or the whole
            ranking (ranking, Plackett-Luce, appendix A.3); with ties a response is drawn from
            itself and those ranked below it.
        label_smoothing: share of pairs that are thought to be labeled the wrong way round
            (conservative DPO, Mitchell 2023, ericmitchell.ai/cdpo.pdf; eps in the authors' code).
    """

    uses_reference: ClassVar[bool] = True

    beta: float = 0.1
    model: Model = "pairs"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Check the fields."""
        require(0 < self.beta < inf, "beta", "> 0", self.beta)
        models = get_args(Model)
        require(self.model in models, "model", f"one of {', '.join(models)}", self.model)
        smoothing, whole = self.label_smoothing, self.model == "ranking"
        require(0 <= smoothing < 0.5, "label_smoothing", "in [0, 0.5)", smoothing)
        require(not (whole and smoothing), "label_smoothing", "0 with model ranking", smoothing)

    def scores(self, responses: ResponseLogprobs) -> Tensor:
        """The implicit rewards, beta * log(policy / reference), [S].

        Args:
            responses: of all prompts of a micro-batch.
        """
        return self.beta * responses.log_ratios

    def loss(self, candidates: Candidates) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The negative log-likelihood, summed over prompts, and the number of prompts.

        Args:
            candidates: of the prompts of a micro-batch.
        """
        if self.model == "ranking":
            scores, ranking, mask = candidates.scores, candidates.ranking, candidates.mask
            return *plackett_luce_loss(scores, ranking, mask), {}
        right, wrong = logsigmoid(candidates.margins), logsigmoid(-candidates.margins)
        losses = -(1 - self.label_smoothing) * right - self.label_smoothing * wrong
        return *mean_over_pairs(losses, candidates.pairs), {}
