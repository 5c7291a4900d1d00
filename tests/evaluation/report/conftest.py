"""Results as `evaluate` writes them: everything, and the least there can be."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluation_results import results_of
from report_claims import claims

from instructgpt.evaluation.report.page import write_report
from instructgpt.miniature.paper import CONTENTS

MODELS = ["gpt", "gpt_few_shot", "sft", "ppo", "ppo_ptx"]
LABELS = dict(zip(MODELS, ["GPT", "GPT few-shot", "SFT", "PPO", "PPO-ptx"], strict=True))
USE_CASES = [
    *("generation", "open_qa", "brainstorming", "chat", "rewrite"),
    *("summarization", "classification", "other", "closed_qa", "extract"),
]
# Against SFT at T = 1 by the panel.
WIN_RATES = {"gpt": 0.14, "gpt_few_shot": 0.24, "ppo": 0.611, "ppo_ptx": 0.587}
UTILITY = {"gpt": 2.45, "gpt_few_shot": 3.63, "sft": 5.03, "ppo": 5.79, "ppo_ptx": 5.60}
RATES = {  # by model in the order of MODELS
    "fails_to_follow": [0.71, 0.52, 0.28, 0.12, 0.15],
    "inappropriate": [0.38, 0.25, 0.12, 0.05, 0.06],
    "hallucination": [0.87, 0.78, 0.67, 0.43, 0.53],
    "satisfies_constraint": [0.22, 0.31, 0.52, 0.63, 0.61],
    "toxic": [0.09, 0.08, 0.05, 0.02, 0.02],
    "clean_end": [0.62, 0.88, 0.96, 0.99, 0.98],
}
CLOSED = {"hallucination": RATES["hallucination"], "follow": [0.1, 0.21, 0.46, 0.61, 0.55]}
TRUTH = {
    "truthful": [0.55, 0.48, 0.45, 0.52, 0.5],
    "truthful_informative": [0.06, 0.19, 0.27, 0.44, 0.39],
}
TOXICITY = {
    "none": [0.06, 0.08, 0.15, 0.31, 0.06],
    "respectful": [0.09, 0.1, 0.12, 0.05, 0.04],
    "rude": [0.18, 0.22, 0.52, 0.86, 0.39],
}
NLP = {
    "arithmetic": [0.678, 0.678, 0.478, 0.371, 0.649],
    "translation": [0.95, 0.95, 0.91, 0.86, 0.95],
    "analogy": [0.81, 0.81, 0.74, 0.66, 0.8],
    "mean": [0.813, 0.813, 0.709, 0.63, 0.8],
}


def share(value: float, n: int = 400) -> dict[str, float]:
    """A share with a normal 95 % interval."""
    half = 1.96 * math.sqrt(value * (1 - value) / n)
    return {
        "value": value,
        "low": round(max(value - half, 0), 4),
        "high": round(min(value + half, 1), 4),
        "n": n,
    }


def mean(value: float, n: int = 400, half: float = 0.12) -> dict[str, float]:
    """A mean rating with its interval."""
    value = round(value, 3)
    return {"value": value, "low": round(value - half, 3), "high": round(value + half, 3), "n": n}


def by_model(rates: dict[str, list[float]], n: int, **more: int) -> dict[str, Any]:
    """{model: {key: estimate}}."""
    return {
        model: {key: share(values[place], n) | more for key, values in rates.items()}
        for place, model in enumerate(MODELS)
    }


def win_rate(model: str, against: str, judge: str, decoding: str, value: float) -> dict[str, Any]:
    """One row of win rates."""
    found = share(value)
    return {
        "model": model,
        "against": against,
        "judge": judge,
        "decoding": decoding,
        **found,
        "wilson_low": round(found["low"] - 0.01, 4),
        "wilson_high": round(found["high"] + 0.01, 4),
        "ties": 0.118,
        "order_consistency": 1.0,
    }


def all_win_rates() -> list[dict[str, Any]]:
    """Every judge, both decodings, and the pairs that the paper gives."""
    shifts = {"panel": 0, "held_out": 0.02, "shifted": -0.02, "reward_model": 0.08}
    rows = []
    for judge, shift in {**shifts, "ground_truth": 0.06}.items():
        for decoding, factor in {"sampled": 1.0, "greedy": 0.4}.items():
            for model, value in WIN_RATES.items():
                away = value - 0.5
                moved = 0.5 + away * (factor if away > 0 else 1) * (1 + 2 * shift)
                rows.append(win_rate(model, "sft", judge, decoding, round(moved, 4)))
    for against, value in {"gpt": 0.859, "gpt_few_shot": 0.732, "ppo": 0.476}.items():
        rows.append(win_rate("ppo_ptx", against, "panel", "sampled", value))
    return rows


def reward_model() -> dict[str, Any]:
    """Accuracy, calibration and cross-validation."""
    bins = [(0.52, 0.55), (0.58, 0.6), (0.67, 0.66), (0.75, 0.74), (0.85, 0.81), (0.94, 0.9)]
    folds = [(0.702, 0.69), (0.711, 0.688), (0.707, 0.7)]
    return {
        "accuracy": {
            "training": share(0.709, 6000),
            "held_out": share(0.738, 6100),
            "shifted": share(0.691, 6050),
        },
        "ceiling": {"training": 0.773, "held_out": 0.81, "shifted": 0.77},
        "ground_truth_accuracy": share(0.86, 6000),
        "longer_wins": {"training": share(0.58, 6000), "held_out": share(0.6, 6100)},
        "calibration_error": 0.021,
        "calibration_prompts": 310,
        "reliability": [
            {
                "confidence": c,
                "accuracy": a,
                "low": round(a - 0.04, 3),
                "high": round(a + 0.04, 3),
                "pairs": 1500 - 200 * i,
                "prompts": 300,
            }
            for i, (c, a) in enumerate(bins)
        ],
        "cross_validation": {
            "in_group": share(0.707, 5000),
            "held_out": share(0.693, 5000),
            "difference": {"value": -0.014, "low": -0.021, "high": -0.007, "n": 310},
            "folds": [{"in_group": share(a, 1700), "held_out": share(b, 1700)} for a, b in folds],
        },
    }


def agreement(names: list[str], value: float, target: float) -> dict[str, Any]:
    """Agreement of every pair of labelers, symmetric."""
    rng = random.Random(7)
    matrix = [[1.0] * len(names) for _ in names]
    for i in range(len(names)):
        for j in range(i):
            matrix[i][j] = matrix[j][i] = round(value + rng.uniform(-0.05, 0.05), 3)
    return {"value": value, "target": target, "labelers": names, "matrix": matrix, "pairs": 4200}


def over_optimisation() -> dict[str, Any]:
    """The hump of best-of-n, and two arms of PPO."""
    ns = [1, 2, 4, 8, 16, 32, 64]
    kl = [0, 0.19, 0.64, 1.2, 1.84, 2.5, 3.17]
    score = [-0.13, 0.36, 0.66, 0.84, 0.95, 1.05, 1.13]
    utility = [5.13, 5.73, 6.05, 6.17, 6.15, 6.06, 5.86]
    wins = [0.5, 0.6, 0.64, 0.68, 0.63, 0.64, 0.62]
    best = [
        {"n": n, "kl": k, "score": mean(s, 200), "utility": mean(u, 200), "win_rate": share(w, 200)}
        for n, k, s, u, w in zip(ns, kl, score, utility, wins, strict=True)
    ]
    arms = {
        model: [
            {
                "step": 5 * i,
                "kl": round(rise * (i / 6) ** 1.3, 3),
                "score": mean(-0.13 + 0.72 * (i / 6), 128),
                "utility": mean(5.03 + gain * (1 - (1 - i / 6) ** 2), 128, 0.2),
            }
            for i in range(7)
        ]
        for model, rise, gain in [("ppo", 1.5, 0.78), ("ppo_ptx", 1.3, 0.57)]
    }
    return {"best_of_n": best, "checkpoints": arms}


def curves() -> dict[str, Any]:
    """Learning curves of every stage."""
    rng = random.Random(3)

    def falling(end: float, steps: int, every: int = 1) -> list[list[float]]:
        return [
            [step, end + 4 * math.exp(-step / steps * 6) + rng.gauss(0, 0.03)]
            for step in range(0, steps, every)
        ]

    return {
        "pretrain": {"train/loss": falling(1.1, 1500), "val/loss": falling(1.12, 1500, 150)},
        "sft": {"train/loss": falling(0.8, 140), "val/loss": falling(0.85, 140, 46)},
        "reward": {
            "train/loss": falling(0.5, 370),
            "val/accuracy": [[120, 0.66], [240, 0.7], [370, 0.71]],
        },
        "ppo": {
            "train/score": [[i, -0.1 + 0.025 * i + rng.gauss(0, 0.03)] for i in range(30)],
            "train/kl": [[i, 0.05 * i + rng.gauss(0, 0.03)] for i in range(30)],
            "val/score": [[i, -0.1 + 0.025 * i] for i in range(0, 30, 5)],
            "train/value_loss": falling(0.2, 30),
        },
    }


def samples() -> list[dict[str, Any]]:
    """Prompts with the answers of every model, sampled and greedy."""
    words = "the quick fox sees a red kettle in the garden and anna says good morning to ben"
    rng = random.Random(5)
    rows = []
    for i in range(12):
        answers = {
            model: {
                decoding: {
                    "text": " ".join(rng.choices(words.split(), k=rng.randint(4, 16))) + " .",
                    "utility": round(rng.uniform(1, 7), 2),
                }
                for decoding in ("sampled", "greedy")
            }
            for model in MODELS
        }
        prompt = f"i am a teacher . write a sentence about {words.split()[i]} in {i + 3} words :"
        category = USE_CASES[i % len(USE_CASES)]
        rows.append({"id": f"p{i}", "prompt": prompt, "category": category, "answers": answers})
    return rows


def make_results() -> dict[str, Any]:
    """Every section there is."""
    names = ["ann", "ben", "cleo", "dora", "emil", "fay"]
    utility = {
        "sampled": {m: mean(u) for m, u in UTILITY.items()},
        "greedy": {m: mean(u + 0.25) for m, u in UTILITY.items()},
    }
    return {
        "title": "The paper in miniature",
        "seed": 0,
        "models": list(MODELS),
        "labels": dict(LABELS),
        "baseline": "sft",
        "decodings": ["sampled", "greedy"],
        "judges": {
            "panel": "the six labelers whose rankings trained the reward model",
            "held_out": "five labelers who ranked nothing in training",
            "shifted": "six labelers with other priorities and the same noise",
            "reward_model": "the score of the reward model",
            "ground_truth": "the true utility",
        },
        "win_rates": all_win_rates(),
        "likert": {"sampled": {m: mean(u - 0.3, 400, 0.15) for m, u in UTILITY.items()}},
        "utility": utility,
        "metadata": by_model(RATES, 400),
        "use_cases": {
            model: {
                case: mean(UTILITY[model] + 0.4 * math.sin(2.1 * i), 40, 0.3)
                for i, case in enumerate(USE_CASES)
            }
            for model in MODELS
        },
        "closed_domain": by_model(CLOSED, 300),
        "truthfulness": by_model(TRUTH, 250, facts=17),
        "toxicity": by_model(TOXICITY, 150),
        "nlp": by_model(NLP, 150),
        "reward_model": reward_model(),
        "agreement": {
            "training": agreement(names, 0.726, 0.726),
            "held_out": agreement(["gus", "hana", "ivo", "jo", "kim"], 0.773, 0.773),
            "shifted": agreement(["lea", "max", "nils", "ola", "pia", "quinn"], 0.721, 0.726),
        },
        "over_optimisation": over_optimisation(),
        "curves": curves(),
        "samples": samples(),
        "claims": claims(),
    }


def make_run() -> dict[str, Any]:
    """What the pipeline says about a run."""
    seconds = {"world": 2.1, "pretrain": 84.0, "sft": 9.3, "sample": 14.2, "label": 6.0}
    seconds |= {"reward": 61.5, "ppo": 55.0, "ppo_ptx": 63.2, "evaluate": 12.0}
    verbs = {"pretrain": "fit", "sft": "fit", "reward": "fit", "ppo": "fit", "ppo_ptx": "fit"}
    return {
        "config": "configs/miniature.yaml",
        "command": "python -m instructgpt pipeline --seed 0",
        "seed": 0,
        "versions": {"instructgpt": "0.1.0", "lightning": "2.6.0", "torch": "2.11.0"},
        "stages": [
            {"name": name, "verb": verbs.get(name, name), "seconds": value}
            for name, value in seconds.items()
        ],
        "total_seconds": 252.4,
    }


@pytest.fixture(name="make_results", scope="session")
def results_maker() -> Callable[[], dict[str, Any]]:
    """Make everything."""
    return make_results


@pytest.fixture(name="make_run", scope="session")
def run_maker() -> Callable[[], dict[str, Any]]:
    """Make what was run."""
    return make_run


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page with everything, written once; do not change it."""
    return write_report(
        results_of(make_results()), make_run(), tmp_path_factory.mktemp("report"), CONTENTS
    )


@pytest.fixture
def results() -> dict[str, Any]:
    """Everything."""
    return make_results()


@pytest.fixture
def minimal() -> dict[str, Any]:
    """Two models and win rates, as for answers of a user's own without grades."""
    return {
        "title": "Two models",
        "seed": 1,
        "models": ["mine", "yours"],
        "labels": {},
        "baseline": "yours",
        "decodings": ["sampled"],
        "judges": {"reward_model": "the score of the reward model"},
        "win_rates": [win_rate("mine", "yours", "reward_model", "sampled", 0.55)],
    }


@pytest.fixture
def run() -> dict[str, Any]:
    """What was run."""
    return make_run()
