"""Bands of a few phases of PPO: a short run is the beginning of a longer one, and judges it."""

import json

import bands

from instructgpt.cli import main

# Whatever is counted in phases, or goes from one to the next.
RECIPE = """
model:
  class_path: PPOModule
  init_args:
    init_from: {artefact}
    reward: {{class_path: toy_rollout.CountsLetters}}
    algorithm: {{class_path: PPO, init_args: {{epochs: 2, missing_eos_score: null}}}}
    kl: {{class_path: AdaptiveKL, init_args: {{target: 0.01, horizon: 50}}}}
    batches: {{rollout_batch_size: 16, minibatch_size: 8}}
    optimizer: {{class_path: torch.optim.SGD, init_args: {{lr: 0.5}}}}
    schedule: {{class_path: Constant, init_args: {{warmup: 3}}}}
    value: {{lr: 0.1, warmup_phases: 1}}
    pretraining: {{ptx_coef: 0.3, ptx_per_episode: 1}}
    ema_decay: 0.9
data:
  class_path: PromptDataModule
  init_args:
    train: {prompts}
    validation: 0.2
    pretraining: {text}
    pretraining_block_size: 16
    max_prompt_tokens: 24
    max_response_tokens: 6
trainer: {{accelerator: cpu, max_epochs: 2, log_every_n_steps: 1}}
"""


def test_a_few_phases_judge_the_first_ones_of_a_longer_run(tmp_path, files, policy_artefact, capfd):
    recipe = tmp_path / "ppo.yaml"
    recipe.write_text(RECIPE.format(artefact=policy_artefact, **files))

    def run(name, seed, *more):
        folder = tmp_path / name
        args = (f"--config={recipe}", f"--output={folder}", f"--seed_everything={seed}", *more)
        main(["fit", *args])
        return folder

    short = [run("0", 0), run("1", 1)]
    bands.main([*map(str, short), "--recipe", str(recipe)])
    longer = run("longer", 0, "--trainer.max_epochs=4")
    was, now = (bands.read_run(folder) for folder in (short[0], longer))
    assert (was.steps, now.steps) == (8, 16)
    for name in ("ppo/kl", "ppo/score", "loss/value", "loss/ptx", "val/kl", "val/score"):
        assert [point for point in now.curves[name] if point[0] <= 8] == was.curves[name], name
    end = [line for line in capfd.readouterr().out.splitlines() if line.startswith("bands of")]
    assert end[-1].startswith("bands of the first 8 steps of 2 runs: ")
    assert end[-1].endswith("stayed inside")
    watched = json.loads((longer / "metrics.json").read_text())["bands"]["metrics"]
    assert {watched[name]["values"] for name in ("ppo/kl", "val/kl")} == {2}
