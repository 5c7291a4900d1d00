"""The page by its structure: sections, claims, escaping, nothing from outside, the same twice."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser

import pytest
from evaluation_results import results_of

from instructgpt.evaluation.report import page as report_page
from instructgpt.evaluation.report.layout import tied
from instructgpt.miniature.claims_section import summary
from instructgpt.miniature.paper import CONTENTS

VOID = {"meta", "col", "path", "use", "rect"}
SECTIONS = [
    *("claims", "win_rates", "trained", "ratings", "metadata", "use_cases", "closed_domain"),
    *(
        "truthfulness",
        "toxicity",
        "nlp",
        "reward_model",
        "agreement",
        "over_optimisation",
        "curves",
        "samples",
    ),
    "run",
]
FIGURES = "instructgpt.evaluation.report.page.make_figures"
HOSTILE = """<script>alert("1")</script>&amp;' "x" $y_{ $ </pre></details> --> <img src=http://x>"""


def write_report(results, run, folder):
    return report_page.write_report(results_of(results), run, folder, CONTENTS)


class Page(HTMLParser):
    """Elements with their attributes and the text inside, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def ids(self, tag: str) -> list[str]:
        return [
            attributes["id"]
            for name, attributes in self.elements
            if name == tag and "id" in attributes
        ]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).replace("\u00a0", " ").split())


def test_every_section_is_there_in_order_and_is_linked(full):
    page = Page(full.read_text("utf-8"))
    assert page.open == []
    assert page.ids("section") == SECTIONS
    links = [a["href"] for tag, a in page.elements if tag == "a"]
    assert links[2 : 2 + len(SECTIONS)] == [f"#{name}" for name in SECTIONS]  # after two misses
    everywhere = [a["id"] for _, a in page.elements if "id" in a]
    assert [name for name, n in Counter(everywhere).items() if n > 1] == []
    assert {link[1:] for link in links} <= set(everywhere)


def test_the_page_needs_nothing_from_outside(full):
    text = full.read_text("utf-8")
    page = Page(text)
    names = {"src", "href", "xlink:href", "action", "data", "poster", "srcset"}
    targets = [value for _, a in page.elements for name, value in a.items() if name in names]
    assert targets
    assert all(target.startswith("#") for target in targets)
    assert not {tag for tag, _ in page.elements} & {"script", "link", "img", "iframe", "object"}
    assert not any(name.startswith("on") for _, a in page.elements for name in a)
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\((.*?)\)", text))
    policy = [a["content"] for _, a in page.elements if "http-equiv" in a]
    assert policy[0].startswith("default-src 'none';")


def test_ids_inside_figures_are_found(full):
    page = Page(full.read_text("utf-8"))
    ids = {a["id"] for _, a in page.elements if "id" in a}
    used = {a["xlink:href"][1:] for _, a in page.elements if "xlink:href" in a}
    used |= set(re.findall(r"url\(#(.*?)\)", full.read_text("utf-8")))
    assert used
    assert used <= ids


def test_one_row_for_each_claim_with_its_verdict(full, make_results):
    claims = make_results()["claims"]
    page = Page(full.read_text("utf-8"))
    assert page.ids("tr") == [f"claim-{claim['id']}" for claim in claims]
    table = full.read_text("utf-8").split('<table class="claims">')[1].split("</table>")[0]
    rows = table.split("<tr ")[1:]
    signs = {"holds": "✓ holds", "does not hold": "✗ does not hold", "not judged": "○ not judged"}
    for row, claim in zip(rows, claims, strict=True):
        assert signs[claim["verdict"]] in row
        assert ('class="fails"' in row) == (claim["verdict"] == "does not hold")
    assert "Of 8 claims judged (7 of them the paper's), 6 hold here and 2 do not." in page.text
    own = "PPO is preferred to SFT also when both decode greedily (our own check, not in the paper)"
    assert page.text.count(own) == 3  # in the first paragraph, the table and its section
    assert "1 more is shown without a verdict." in page.text
    for claim in claims:
        if claim["verdict"] == "does not hold":  # named in the first paragraph
            assert claim["claim"] in page.text.split("Claims")[0]


@pytest.mark.parametrize(
    ("verdicts", "text"),
    [
        (["holds"], "Of 1 claims judged (1 of them the paper&#x27;s), 1 holds here and 0 do not."),
        (["does not hold", "holds"], "1 holds here and 1 does not."),
        (["not judged"] * 2, "2 claims are shown; none was judged in this run."),
        (["holds", "not judged"] * 2, "2 more are shown without a verdict."),
    ],
)
def test_summary_in_words(verdicts, text, make_results):
    some = make_results()["claims"]
    claims = [claim | {"verdict": verdict} for claim, verdict in zip(some, verdicts, strict=False)]
    assert text in (summary(results_of({"claims": claims})) or "")
    assert summary(results_of({})) is None


def test_numbers_stand_with_unit_interval_and_n(full):
    text = Page(full.read_text("utf-8")).text
    # 0.859 of 400 prompts: 1.96 * sqrt(.859 * .141 / 400) = 0.0341
    assert "85.9 % [82.5, 89.3] n = 400" in text
    assert "6.0 % [3.1, 8.9]" in text  # truthful and informative, GPT; n stands in the heading
    assert "truthful and informative ↑ n = 250" in text
    assert "n = 250 prompts about 17 facts" in text
    assert "5.79 [5.67, 5.91]" in text
    assert "expected calibration error 2.1 points" in text
    # the interval of a claim is in the unit of what was measured
    assert "PPO 43.0 % [38.0, 48.0] % n = 400 prompts" in text
    assert "85.9 % [83.6, 88.2] % n = 400 prompts" in text
    # 1500 + 1300 + 1100 + 900 + 700 + 500
    assert "n = 310 prompts with 6,000 pairs" in text
    minus = "\N{MINUS SIGN}"
    assert f"{minus}1.4 points [{minus}2.1, {minus}0.7], n = 310 prompts" in text


def test_pairs_without_the_baseline_stand_alone(full):
    """Three such pairs by the first judge; n stands once where it is the same for all."""
    section = full.read_text("utf-8").split('id="win_rates"')[1].split("</section>")[0]
    direct, every = (part.split("</tbody>")[0] for part in section.split("<tbody>")[1:])
    assert direct.count("<tr>") == 3
    assert "SFT" not in direct
    assert every.count("<tr>") == 43
    truth = full.read_text("utf-8").split('id="truthfulness"')[1].split("</section>")[0]
    assert truth.split("<table>")[1].count("250") == 2


def test_the_interval_of_a_difference_stands_with_its_value(tmp_path, results):
    row = {"here": "GPT 9.0 %, PPO-ptx 4.0 %", "value": -0.05, "low": -0.08, "high": -0.02}
    row |= {"difference": True, "of": "items"}
    results = {"title": "t", "claims": [results["claims"][0] | row]}
    text = Page(write_report(results, {}, tmp_path).read_text("utf-8")).text
    text = text.replace("\N{MINUS SIGN}", "-")
    assert "PPO-ptx 4.0 % -5.0 [-8.0, -2.0] points n = 400 items" in text


@pytest.mark.parametrize(
    ("part", "section"),
    [
        *((part, part) for part in SECTIONS[4:-2] if part != "over_optimisation"),
        ("claims", "claims"),
        ("win_rates", "win_rates"),
        ("samples", "samples"),
    ],
)
def test_a_section_without_numbers_is_absent(part, section, tmp_path, results, monkeypatch):
    monkeypatch.setattr(FIGURES, lambda results, drawers: {})
    del results[part]
    page = Page(write_report(results, {}, tmp_path).read_text("utf-8"))
    assert page.ids("section") == [name for name in SECTIONS if name != section]


def test_without_checkpoints_nothing_is_said_of_training(tmp_path, results, monkeypatch):
    monkeypatch.setattr(FIGURES, lambda results, drawers: {})
    del results["over_optimisation"]["checkpoints"]
    page = Page(write_report(results, {}, tmp_path / "best_of_n").read_text("utf-8"))
    assert page.ids("section") == [name for name in SECTIONS if name != "trained"]
    del results["over_optimisation"]
    page = Page(write_report(results, {}, tmp_path / "nothing").read_text("utf-8"))
    left = [name for name in SECTIONS if name not in ("trained", "over_optimisation")]
    assert page.ids("section") == left


def test_every_arm_stands_with_its_preference_utility_and_distance(tmp_path, results, monkeypatch):
    """RLOO is in the results of everything; of DPO there are a validation's KL and no score."""
    monkeypatch.setattr(FIGURES, lambda results, drawers: {})
    for arm, won in {"rloo": 0.6, "dpo": 0.55}.items():
        results["models"].append(arm)
        row = next(row for row in results["win_rates"] if row["model"] == "ppo")
        results["win_rates"].append(row | {"model": arm, "value": won})
        results["utility"]["sampled"][arm] = results["utility"]["sampled"]["ppo"] | {"value": 4.5}
    end = results["over_optimisation"]["checkpoints"]["ppo"][-1]
    results["over_optimisation"]["checkpoints"] |= {
        "rloo": [end, end | {"kl": 2.25}],
        "dpo": [{"step": 9, "kl": 3.5, "utility": end["utility"]}],
    }
    page = write_report(results, {}, tmp_path).read_text("utf-8")
    section = page.split('id="trained"')[1].split("</section>")[0]
    rows = section.split("<tbody>")[1].split("</tbody>")[0].split("<tr>")[1:]
    rows = [" ".join(re.sub("<.*?>", " ", row).replace("\u00a0", " ").split()) for row in rows]
    assert [row.split()[0] for row in rows] == ["PPO", "PPO-ptx", "rloo", "dpo"]
    assert "60.0 %" in rows[2]
    assert "4.50" in rows[2]
    assert rows[2].endswith("2.25")
    assert rows[3].endswith("\N{EN DASH} 3.50")  # no score


def test_likert_without_utility_and_the_other_way_round(tmp_path, results):
    for part, other in (("likert", "utility"), ("utility", "likert")):
        page = write_report({"title": "t", part: results[part]}, {}, tmp_path / part)
        assert Page(page.read_text("utf-8")).ids("figure") == [f"figure-{part}"]
        assert not (tmp_path / part / "figures" / f"{other}.png").exists()


def test_minimal_results(tmp_path, minimal):
    page = Page(write_report(minimal, {}, tmp_path).read_text("utf-8"))
    assert page.ids("section") == ["win_rates", "run"]
    assert "55.0 %" in page.text
    assert "None" not in page.text
    assert "nan" not in page.text
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["win_rates_sampled.png"]


def hostile(value):
    """Every text in the results turned against the page, but for names that other parts use."""
    kept = {"holds", "does not hold", "not judged", "sampled", "greedy", "panel"}
    if isinstance(value, dict):
        return {key: hostile(item) for key, item in value.items()}
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return f"{value} {HOSTILE}" if isinstance(value, str) and value not in kept else value


def test_texts_are_escaped(tmp_path, results, run):
    texts = {key: hostile(results[key]) for key in ("title", "labels", "judges", "claims")}
    samples = [row | {"prompt": HOSTILE, "category": HOSTILE} for row in results["samples"][:2]]
    samples[0]["answers"] = {"sft": {"sampled": {"text": HOSTILE, "utility": 1.0}}}
    stages = {HOSTILE: results["curves"]["sft"]}
    groups = {HOSTILE: results["agreement"]["training"] | {"labelers": [HOSTILE] * 6}}
    bad = results | texts | {"samples": samples, "curves": stages, "agreement": groups}
    for part in (
        "likert",
        "utility",
        "metadata",
        "use_cases",
        "closed_domain",
        "over_optimisation",
    ):
        del bad[part]
    path = write_report(bad, hostile(run), tmp_path)
    page = Page(path.read_text("utf-8"))
    assert page.open == []
    assert not {tag for tag, _ in page.elements} & {"script", "img"}
    everywhere = [a["id"] for _, a in page.elements if "id" in a]
    assert max(Counter(everywhere).values()) == 1
    shown = page.text
    assert " ".join(HOSTILE.split()) in shown
    assert all(png.parent == tmp_path / "figures" for png in tmp_path.rglob("*.png"))


def test_same_results_same_bytes(full, tmp_path, make_results, make_run):
    again = json.loads(json.dumps(make_results()))
    other = write_report(again, make_run(), tmp_path)
    assert other.read_bytes() == full.read_bytes()
    ours = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    theirs = {path.name: path.read_bytes() for path in (full.parent / "figures").iterdir()}
    assert ours
    assert ours == theirs
    assert all(png.startswith(b"\x89PNG") for png in ours.values())


def test_a_long_configuration_is_folded(tmp_path, minimal):
    config = "\n".join(f"key_{i}: {i}" for i in range(40))
    text = write_report(minimal, {"config": config}, tmp_path).read_text("utf-8")
    assert "<details><summary>All 40 lines</summary><pre>key_0: 0" in text


def test_stages_that_have_not_ended(tmp_path, minimal):
    stages = [{"name": "a", "verb": "fit", "seconds": 90.0}, {"name": "b", "seconds": None}]
    run = {"stages": stages, "versions": {"torch": "2"}}
    page = Page(write_report(minimal, run, tmp_path).read_text("utf-8"))
    assert "a fit 1 min 30 s" in page.text
    assert "b \N{EN DASH} Versions" in page.text


def test_numbers_keep_their_unit_on_the_line():
    assert tied("85 % (n = 3)") == "85\u00a0% (n\u00a0=\u00a03)"
