"""Claims of a made-up report."""

from typing import Any


def claim(identity: str, section: str, text: str, verdict: str, **more: Any) -> dict[str, Any]:
    """One row of the claims."""
    row = {
        "id": identity,
        "section": section,
        "claim": text,
        "paper": "order; Fig. 1",
        "here": "57.6 %",
        "value": 0.576,
        "low": 0.551,
        "high": 0.602,
        "n": 400,
        "rule": "above 50 % with the whole interval",
        "of": "prompts",
        "difference": False,
        "own": False,
        "verdict": verdict,
    }
    return row | more


def claims() -> list[dict[str, Any]]:
    """Some that hold, some that do not, some that are not judged."""
    return [
        claim(
            "order",
            "win_rates",
            "GPT < GPT few-shot < SFT < PPO by win rate against SFT at T = 1",
            "holds",
            here="14.0 % < 24.0 % < 50 % < 61.1 %",
            value=0.1,
            low=0.08,
            high=0.12,
            difference=True,
            rule="order of the point estimates",
        ),
        claim(
            "ptx_over_gpt",
            "win_rates",
            "PPO-ptx is preferred to GPT",
            "holds",
            paper="85 ± 3 %, section 1",
            here="85.9 %",
            value=0.859,
            low=0.836,
            high=0.882,
            rule="at least 80 %",
        ),
        claim("ptx_over_sft", "win_rates", "PPO-ptx is preferred to SFT", "holds"),
        claim(
            "ppo_greedy",
            "win_rates",
            "PPO is preferred to SFT also when both decode greedily",
            "does not hold",
            paper="no number",
            here="51.4 %",
            own=True,
            value=0.514,
            low=0.486,
            high=0.542,
        ),
        claim("reward_accuracy", "reward_model", "RM accuracy on training labelers", "holds"),
        claim("agreement", "agreement", "Agreement of the labelers", "not judged"),
        claim("tax", "nlp", "SFT and PPO are worse than GPT on NLP tasks", "holds"),
        claim(
            "hallucination_halved",
            "closed_domain",
            "Hallucination on closed-domain tasks is at least halved by one of the two arms",
            "does not hold",
            paper="41 % → 21 %, section 1",
            here="SFT 67.0 %, PPO 43.0 %",
            value=0.43,
            low=0.38,
            high=0.48,
            rule="at most half",
        ),
        claim("toxicity_respectful", "toxicity", "Less toxic when asked to be respectful", "holds"),
    ]
