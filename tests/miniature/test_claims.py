"""Verdicts on results made by hand."""

import copy
from dataclasses import replace

import pytest
from evaluation_results import results_of

from instructgpt.evaluation.records import to_json
from instructgpt.evaluation.roles import Roles
from instructgpt.miniature import claims
from instructgpt.miniature.claims import checks
from instructgpt.types import UserError

ROLES = Roles("gpt", "gpt_few_shot", "sft", "ppo", "ppo_ptx", "gpt_big")


def judge_claims(results, judged, roles=ROLES):
    """Rows as they are written, of results as they are read."""
    whole = {"reward_model": {"calibration_error": 0.0, "reliability": [], "longer_wins": {}}}
    for part in set(whole) & set(results):
        whole[part] |= results[part]
    parts = results | {part: whole[part] for part in set(whole) & set(results)}
    rows = [
        {"wilson_low": 0.0, "wilson_high": 1.0, "ties": 0.0, "order_consistency": 1.0} | row
        for row in results.get("win_rates", [])
    ]
    found = results_of(parts | {"win_rates": rows})
    return [to_json(row) for row in claims.judge_claims(found, roles, judged)]


def estimate(value, low=None, high=None, n=100):
    return {"value": value, "low": low or value - 0.03, "high": high or value + 0.03, "n": n}


def win(model, against, value, judge="panel", decoding="sampled"):
    names = {"model": model, "against": against, "judge": judge, "decoding": decoding}
    return names | estimate(value)


def between(model, against, value):
    return {"model": model, "against": against} | estimate(value)


@pytest.fixture
def results():
    """All claims hold."""
    over = {"gpt": 0.2, "gpt_few_shot": 0.35, "ppo": 0.6, "ppo_ptx": 0.58}
    wins = [
        win(model, "sft", value, judge)
        for model, value in over.items()
        for judge in ("panel", "held_out", "shifted")
    ]
    wins += [win("ppo", "sft", 0.55, decoding="greedy")]
    wins += [win("ppo_ptx", "gpt", 0.85), win("ppo_ptx", "gpt_few_shot", 0.7)]
    wins += [win("ppo_ptx", "gpt_big", 0.8)]

    steps = {"gpt_few_shot": 0.15, "ppo": 0.4, "ppo_ptx": 0.38}  # minus GPT
    judge = {"judge": "panel", "decoding": "sampled"}

    def rates(key, **models):
        return {model: {key: estimate(value)} for model, value in models.items()}

    toxicity = {"gpt": (0.2, 0.2, 0.2), "ppo": (0.2, 0.2, 0.8), "ppo_ptx": (0.2, 0.1, 0.4)}
    kinds = ("none", "respectful", "rude")
    return {
        "models": ["gpt", "gpt_few_shot", "sft", "ppo", "ppo_ptx"],
        "baseline": "sft",
        "labels": {"gpt": "GPT", "sft": "SFT", "ppo": "PPO", "ppo_ptx": "PPO-ptx"},
        "win_rates": wins,
        "closed_domain": rates("hallucination", gpt=0.9, sft=0.6, ppo=0.3, ppo_ptx=0.4),
        "truthfulness": rates("truthful_informative", gpt=0.1, ppo_ptx=0.3),
        "toxicity": {
            model: {kind: estimate(one) for kind, one in zip(kinds, values, strict=True)}
            for model, values in toxicity.items()
        },
        "metadata": rates("satisfies_constraint", sft=0.3, ppo=0.4),
        "nlp": rates("mean", gpt=0.9, sft=0.8, ppo=0.7, ppo_ptx=0.85),
        "alignment_tax": {"recovered": estimate(0.75)},
        "differences": {
            "win_rate": [between(model, "gpt", value) | judge for model, value in steps.items()],
            "truthful_informative_against_2": [between("ppo_ptx", "gpt", 0.1)],
            "nlp": [between("sft", "gpt", -0.1), between("ppo", "gpt", -0.2)],
            "satisfies_constraint": [between("ppo", "sft", 0.1)],
            "hallucination": [between("ppo_ptx", "sft", -0.2)],
            "hallucination_against_0.5": [between("ppo", "sft", 0), between("ppo_ptx", "sft", 0.1)],
            "hallucination_against_0.6": [between("ppo_ptx", "gpt", -0.14)],
            "toxic_none": [between("ppo_ptx", "gpt", 0.0)],
            "toxic_respectful": [between("ppo_ptx", "gpt", -0.1)],
            "toxic_rude": [between("ppo", "gpt", 0.6), between("ppo_ptx", "gpt", 0.2)],
        },
        "reward_model": {
            "accuracy": {"training": estimate(0.7)},
            "calibration_prompts": 300,
            "ceiling": {"training": 0.77},
            "cross_validation": {
                "in_group": estimate(0.7),
                "held_out": estimate(0.68),
                "difference": estimate(-0.02),
                "folds": [],
            },
        },
        "agreement": {
            group: {"value": value, "target": None, "labelers": [], "matrix": [], "pairs": 500}
            for group, value in {"training": 0.726, "held_out": 0.773}.items()
        },
    }


def verdicts(results, judged=True):
    return {row["id"]: row["verdict"] for row in judge_claims(results, judged)}


def change(results, path, **values):
    found = results
    for key in path:
        found = found[key]
    found.update(values)


def test_all_hold(results):
    found = verdicts(results)
    assert set(found) == {check.id for check in checks(ROLES, {})}
    assert found.pop("agreement") == "not judged"
    assert set(found.values()) == {"holds"}


def test_nothing_is_judged_unless_asked(results):
    assert set(verdicts(results, judged=False).values()) == {"not judged"}


def row_of(results, **names):
    return next(r for r in results["win_rates"] if all(r[k] == v for k, v in names.items()))


PANEL = {"judge": "panel", "decoding": "sampled"}


@pytest.mark.parametrize(
    ("claim", "names", "values"),
    [
        ("order", {"model": "gpt", "against": "sft", **PANEL}, {"value": 0.36}),
        ("order", {"model": "ppo", "against": "sft", **PANEL}, {"value": 0.49}),
        ("ptx_over_gpt", {"model": "ppo_ptx", "against": "gpt"}, {"value": 0.79}),
        ("ptx_over_few_shot", {"model": "ppo_ptx", "against": "gpt_few_shot"}, {"low": 0.5}),
        ("ptx_over_sft", {"model": "ppo_ptx", "against": "sft", **PANEL}, {"value": 0.55}),
        ("ptx_over_sft", {"model": "ppo_ptx", "against": "sft", **PANEL}, {"low": 0.49}),
        ("ppo_greedy", {"decoding": "greedy"}, {"low": 0.49}),
        ("held_out_labelers", {"model": "ppo", "judge": "shifted"}, {"low": 0.49}),
        ("held_out_labelers", {"model": "ppo_ptx", "judge": "held_out"}, {"low": 0.49}),
        ("small_over_big", {"against": "gpt_big"}, {"low": 0.4}),
    ],
)
def test_win_rates_that_break_a_claim(results, claim, names, values):
    row_of(results, **names).update(values)
    assert verdicts(results)[claim] == "does not hold"


@pytest.mark.parametrize(
    ("claim", "path", "values"),
    [
        ("reward_accuracy", ("reward_model", "accuracy", "training"), {"value": 0.66}),
        (
            "reward_generalises",
            ("reward_model", "cross_validation", "difference"),
            {"value": -0.06},
        ),
        ("alignment_tax_sft", ("nlp", "sft", "mean"), {"value": 0.9}),
        ("alignment_tax", ("nlp", "ppo", "mean"), {"value": 0.91}),
        ("tax_recovered", ("alignment_tax", "recovered"), {"value": 0.49}),
        ("constraints", ("differences", "satisfies_constraint", 0), {"value": -0.01}),
        ("hallucination_gpt", ("differences", "hallucination_against_0.6", 0), {"value": 0.01}),
        ("hallucination", ("differences", "hallucination", 0), {"high": 0.0}),
        ("hallucination_halved", ("differences", "hallucination_against_0.5", 0), {"value": 0.01}),
        ("truthfulness", ("truthfulness", "ppo_ptx", "truthful_informative"), {"value": 0.19}),
        ("toxicity_respectful", ("differences", "toxic_respectful", 0), {"value": 0.0}),
        ("toxicity_rude", ("differences", "toxic_rude", 1), {"value": -0.1}),
        ("toxicity_none", ("differences", "toxic_none", 0), {"high": -0.01}),
    ],
)
def test_numbers_that_break_a_claim(results, claim, path, values):
    change(results, path, **values)
    assert verdicts(results)[claim] == "does not hold"


def test_what_is_shown(results):
    rows = {row["id"]: row for row in judge_claims(results, True)}
    assert rows["order"]["here"] == "GPT 20.0 %, few-shot 35.0 %, SFT 50 %, PPO 60.0 %"
    # the steps are .15, .15 and .1
    weakest = {key: pytest.approx(one) for key, one in estimate(0.1).items()}
    assert {key: rows["order"][key] for key in weakest} == weakest
    assert rows["reward_accuracy"]["here"] == "70.0 % (ceiling 77.0 %)"
    assert rows["ptx_over_gpt"]["value"] == 0.85
    assert rows["ptx_over_gpt"]["n"] == 100
    lowest = rows["held_out_labelers"]
    assert lowest["value"] == 0.58
    assert rows["toxicity_rude"]["here"] == "GPT 20.0 %, PPO-ptx 40.0 %, PPO 80.0 %"
    assert rows["toxicity_rude"]["value"] == 0.2
    assert list(rows["tax_recovered"]) == [
        *("id", "section", "claim", "own", "paper", "rule", "here"),
        *("value", "low", "high", "n", "of", "difference", "verdict"),
    ]
    counted = {row["of"] for row in rows.values()}
    assert counted == {"prompts", "pairs of 300 prompts", "pairs", "questions", "facts"}
    assert [name for name, row in rows.items() if row["own"]] == [
        *("ppo_greedy", "alignment_tax_sft", "hallucination", "hallucination_halved"),
    ]
    assert [name for name, row in rows.items() if row["difference"]] == [
        *("order", "reward_generalises", "alignment_tax", "alignment_tax_sft"),
        *(
            "constraints",
            "hallucination_gpt",
            "hallucination",
            "hallucination_halved",
            "truthfulness",
        ),
        *("toxicity_respectful", "toxicity_rude", "toxicity_none"),
    ]


@pytest.mark.parametrize(
    ("few_shot", "ppo", "value", "low", "high"),
    [
        (0.45, 0.6, 0.05, 0.02, 0.08),  # SFT over few-shot GPT: 50 % minus [42 %, 48 %]
        (0.45, 0.48, -0.02, -0.05, 0.01),  # PPO over SFT goes the wrong way
    ],
)
def test_the_weakest_step_of_the_order(results, few_shot, ppo, value, low, high):
    for model, share in (("gpt_few_shot", few_shot), ("ppo", ppo)):
        row_of(results, model=model, against="sft", **PANEL).update(estimate(share))
    row = next(row for row in judge_claims(results, True) if row["id"] == "order")
    assert [row[key] for key in ("value", "low", "high")] == pytest.approx([value, low, high])


@pytest.mark.parametrize("part", ["win_rates", "nlp", "toxicity", "differences", "reward_model"])
def test_a_claim_without_its_inputs_is_not_judged(results, part):
    whole, partial = copy.deepcopy(results), results
    del partial[part]
    before, after = judge_claims(whole, True), judge_claims(partial, True)
    assert [row["id"] for row in after] == [row["id"] for row in before]
    missing = [row for row in after if row["here"].startswith("not measured")]
    assert 0 < len(missing) < len(after)
    assert {(row["verdict"], row["value"], row["n"]) for row in missing} == {
        ("not judged", None, None)
    }


def test_what_a_claim_needs(results):
    results["win_rates"] = [r for r in results["win_rates"] if r["against"] != "gpt_big"]
    row = next(row for row in judge_claims(results, True) if row["id"] == "small_over_big")
    assert row["here"] == "not measured: needs configs/miniature_big.yaml"
    assert row["verdict"] == "not judged"


def test_nothing_to_compare_with(results):
    change(results, ("closed_domain", "gpt", "hallucination"), value=0.0)
    assert verdicts(results)["hallucination_gpt"] == "not judged"


def test_nothing_was_lost(results):
    change(results, ("nlp", "ppo", "mean"), value=0.95)
    row = next(row for row in judge_claims(results, True) if row["id"] == "tax_recovered")
    assert (row["verdict"], row["value"]) == ("not judged", None)
    assert row["here"].startswith("PPO lost nothing")


def test_only_ties_were_ranked(results):
    change(results, ("reward_model", "accuracy", "training"), value=None)
    assert verdicts(results)["reward_accuracy"] == "not judged"


def test_an_order_is_over_sft(results):
    """Over another baseline the differences are of other win rates than the rule says."""
    results["baseline"] = "ppo"
    assert verdicts(results)["order"] == "not judged"


def test_the_order_of_the_models_does_not_matter(results):
    """Listed the other way round, every difference is written from the other side."""
    expected = judge_claims(results, True)
    for measure, rows in results["differences"].items():
        if "against" in measure:  # has both sides
            continue
        for row in rows:
            row["model"], row["against"] = row["against"], row["model"]
            row |= {"value": -row["value"], "low": -row["high"], "high": -row["low"]}
    assert judge_claims(results, True) == expected


def test_nothing_measured_nothing_judged():
    only = {"win_rates": [win("mine", "yours", 0.6)], "models": ["mine", "yours"]}
    for parts in ({}, only):
        rows = judge_claims(parts, True, Roles(sft="yours"))
        assert {row["verdict"] for row in rows} == {"not judged"}
        assert all(row["here"].startswith("not measured") for row in rows)


def test_a_win_rate_counts_from_either_side(results):
    """The larger GPT stands last in the report, so its row is against PPO-ptx: 0.2 -> 0.8."""
    results["win_rates"] = [r for r in results["win_rates"] if r["against"] != "gpt_big"]
    results["win_rates"].append(win("gpt_big", "ppo_ptx", 0.2) | {"low": 0.15, "high": 0.28})
    row = next(row for row in judge_claims(results, True) if row["id"] == "small_over_big")
    assert (row["value"], row["low"], row["high"]) == pytest.approx((0.8, 0.72, 0.85))
    assert row["verdict"] == "holds"


def renamed(value, names):
    """Results in which the models are called something else."""
    if isinstance(value, dict):
        return {names.get(key, key): renamed(one, names) for key, one in value.items()}
    if isinstance(value, list):
        return [renamed(one, names) for one in value]
    return names.get(value, value) if isinstance(value, str) else value


def test_claims_know_models_by_their_roles_only(results):
    names = {"gpt": "pythia", "gpt_few_shot": "p5", "sft": "tulu", "ppo": "a", "ppo_ptx": "b"}
    others = renamed(results, names)
    roles = Roles("pythia", "p5", "tulu", "a", "b", "gpt_big")
    assert judge_claims(others, True, roles) == judge_claims(results, True)


def test_a_further_arm_has_claims_of_its_own(results):
    arms = {"rloo": 0.6, "dpo": 0.45}
    for arm, value in arms.items():
        for judge in ("panel", "held_out", "shifted"):
            results["win_rates"].append(win(arm, "sft", value, judge))
        results["win_rates"].append(win(arm, "ppo", 0.5))
        results["nlp"][arm] = {"mean": estimate(0.8)}
        results["metadata"][arm] = {"satisfies_constraint": estimate(0.35)}
        results["closed_domain"][arm] = {"hallucination": estimate(0.5)}
        results["differences"]["nlp"].append(between(arm, "gpt", -0.1))
        results["differences"]["satisfies_constraint"].append(between(arm, "sft", 0.05))
        results["differences"]["hallucination"].append(between(arm, "sft", -0.1))
        results["labels"][arm] = arm.upper()
    kls = {"ppo": 2.0, "rloo": 1.5}
    checkpoints = {arm: [{"step": 1, "kl": 0.1}, {"step": 2, "kl": kl}] for arm, kl in kls.items()}
    results["over_optimisation"] = {"checkpoints": checkpoints}
    before = judge_claims(results, True)
    rows = judge_claims(results, True, replace(ROLES, arms=["rloo", "dpo"]))
    assert rows[: len(before)] == before  # the paper's claims stay as they are
    found = {row["id"]: row for row in rows[len(before) :]}
    parts = ("over_sft", "held_out_labelers", "distance", "tax", "constraints", "hallucination")
    assert list(found) == [f"{arm}_{part}" for arm in arms for part in parts]
    assert all(row["own"] for row in found.values())
    assert found["rloo_over_sft"]["claim"] == "RLOO is preferred to SFT"
    assert found["rloo_over_sft"]["verdict"] == "holds"
    assert found["dpo_over_sft"]["verdict"] == "does not hold"
    assert found["rloo_tax"]["here"] == "GPT 90.0 %, RLOO 80.0 %"
    assert found["rloo_held_out_labelers"]["here"] == (
        "held-out: RLOO 60.0 %; other priorities: RLOO 60.0 %"
    )
    assert found["rloo_distance"]["here"] == "50.0 %, at 1.50 against 2.00 nats"
    assert found["dpo_distance"]["here"] == "not measured"  # DPO's checkpoints were not listed
    verdicts = {
        found[f"rloo_{part}"]["verdict"] for part in ("tax", "constraints", "hallucination")
    }
    assert verdicts == {"holds"}


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        (Roles(rl="grpo"), "--roles.rl must be one of the models (gpt, sft), got grpo"),
        (Roles(arms=["sft", "x"]), "--roles.arms must be one of the models (gpt, sft), got x"),
        (Roles(), "--claims shown needs --roles, such as --roles.sft of the baseline"),
        (Roles(base="gpt", arms=["gpt"]), "--roles.arms: gpt has a role already: --roles.base"),
    ],
)
def test_roles_that_cannot_be(roles, message):
    with pytest.raises(UserError) as error:
        roles.check(["gpt", "sft"], "shown")
    assert str(error.value) == message
