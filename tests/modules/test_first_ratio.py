"""The first ratio of PPO's updates is 1, and sampling says what training says."""

import math
import warnings

import pytest
from descent import half_precision
from small_ppo import Watch, in_pieces, make

from instructgpt.algorithms.raft import RAFT
from instructgpt.algorithms.rloo import RLOO
from instructgpt.models.load import Network
from instructgpt.modules.networks import Value
from instructgpt.rollout.drawing import Sampling
from instructgpt.rollout.updates import Batches


def how(precision):
    """Options of the trainer: on a CPU Lightning takes bfloat16 where float16 is asked for."""
    mixed = precision == "16-mixed"
    return {"plugins": [half_precision()]} if mixed else {"precision": precision}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "16-mixed"])
@pytest.mark.parametrize("value", ["separate", "shared"])
def test_first_ratio_is_exactly_one(fit, prompt_data, policy_artefact, value, precision):
    """With a temperature, dropout in the model's configuration, and rows of all lengths.

    Not almost: the first pass of the updates computes the micro-batches that were scored.
    """
    watch = Watch()
    module = in_pieces(policy_artefact, value)
    fit(module, prompt_data(), max_epochs=2, callbacks=[watch], **how(precision))
    for phase in watch.phases:
        assert phase["ppo/first_ratio_error"] == 0
        assert phase["ppo/first_ratio"] == 1
    assert watch.phases[0]["ppo/kl"] == pytest.approx(0, abs=1e-5)  # the policy is the reference


@pytest.mark.parametrize("algorithm", [RLOO(responses_per_prompt=2), RAFT(responses_per_prompt=2)])
def test_first_ratio_is_exactly_one_where_some_rows_are_learned_from(
    fit, prompt_data, policy_artefact, algorithm
):
    """The best of each prompt are known only once they are scored; prompts are shared."""
    watch, rows = Watch(), 16 // 2 * algorithm.trained_per_prompt
    module = make(
        policy_artefact,
        algorithm=algorithm,
        batches=Batches(16, rows // 2),
        network=Network(max_tokens=48),
    )
    fit(module, prompt_data(), max_epochs=2, callbacks=[watch])
    assert [phase["ppo/first_ratio_error"] for phase in watch.phases] == [0, 0]


@pytest.mark.parametrize(
    ("precision", "bound"),
    [("32-true", 4e-6), ("bf16-mixed", 0.1), ("bf16-true", 0.1), ("16-mixed", 0.01)],
)
@pytest.mark.parametrize("value", ["separate", "shared"])
def test_recorded_logprobs_are_almost_those_of_training(
    fit, prompt_data, policy_artefact, value, precision, bound
):
    """The first ratio is 1 within rounding; the entropy is estimated; the KL is still measured."""
    phases = {}
    for reuse in (False, True):
        watch = Watch()
        module = make(policy_artefact, value=Value(value, lr=0.1), reuse_logprobs=reuse)
        fit(module, prompt_data(), max_epochs=1, callbacks=[watch], **how(precision))
        phases[reuse] = watch.phases[0]
    assert 0 < phases[True]["ppo/first_ratio_error"] < bound
    assert phases[True]["ppo/score"] == phases[False]["ppo/score"]
    for phase in phases.values():
        assert 0 <= phase["ppo/sampler_kl"] < bound**2
    recorded = module.phase.buffer.experience.rollout
    surprise = -recorded.logprobs[recorded.response_mask].mean()
    assert phases[True]["ppo/entropy"] == pytest.approx(float(surprise), rel=1e-5)


def test_first_ratio_is_exactly_one_under_the_support_of_the_sampler(
    fit, prompt_data, policy_artefact
):
    """The update is on-policy, so nothing is warned of."""
    watch, sampling = Watch(), Sampling(top_k=4, top_p=0.9, own_support=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "model.sampling.top_p and top_k")
        module = make(policy_artefact, sampling=sampling)
        fit(module, prompt_data(), max_epochs=2, callbacks=[watch], limit_val_batches=None)
    for phase in watch.phases:
        assert phase["ppo/first_ratio_error"] == 0
        assert phase["ppo/sampler_kl"] < 1e-10
        assert phase["ppo/entropy"] < math.log(4)
    with pytest.warns(UserWarning, match="own_support makes them of what is left"):
        fit(make(policy_artefact, sampling=Sampling(top_k=4)), prompt_data(), max_epochs=1)
