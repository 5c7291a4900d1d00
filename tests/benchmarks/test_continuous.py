"""benchmarks/continuous.py: the three ways do the same work; only ours keeps to names of noise."""

import json

import continuous
import speed_rows
from speed_data import prepare
from transformers import AutoModelForCausalLM


def test_all_ways_draw_as_many_tokens(tmp_path):
    row = next(row for row in speed_rows.TABLE if row.name == "rollout").tiny()
    folder = prepare(tmp_path, row.shape, row.dtype, row.rows)
    model = AutoModelForCausalLM.from_pretrained(folder / "policy").eval()
    made = json.loads((folder / "ids.json").read_text())
    prompts, most = [one["prompt"] for one in made], row.rows.response.most
    found = continuous.measure(model, prompts, most, repeats=1)
    assert {way["tokens"] for way in found.values()} == {sum(one["answer"] for one in made)}
    assert found["slots"]["same_without_the_others"] == 1
