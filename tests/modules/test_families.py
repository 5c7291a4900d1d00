"""The stages on architectures that differ in attention, cache, widths and vocabulary."""

import pytest
import torch
from small_ppo import Watch, make
from tiny_models import flat

from instructgpt.models.artefact import read_artefact
from instructgpt.models.load import Network, load_policy, load_scalar
from instructgpt.modules.networks import Value
from instructgpt.modules.reward import RewardModule
from instructgpt.modules.sft import SFTModule
from instructgpt.rewards.learned import LearnedReward

LLAMA = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
FAMILIES = {
    "gemma2": {**LLAMA, "head_dim": 8, "sliding_window": 8, "final_logit_softcapping": 5.0},
    "mamba": {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},
    "opt": {
        "hidden_size": 16,
        "ffn_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "word_embed_proj_dim": 8,
        "max_position_embeddings": 64,
        "init_std": 0.2,
        "layerdrop": 0.5,
    },
    "qwen2": {**LLAMA, "vocab_size": 320},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FAMILIES)
def test_all_stages(
    fit, demonstration_data, comparison_data, prompt_data, tiny_tokenizer, tmp_path, name
):
    """SFT, reward model and PPO, each from the export before it; the first ratio is 1."""
    attention = "eager" if name in {"gemma2", "mamba"} else "sdpa"
    sft = SFTModule(
        architecture={"model_type": name, **FAMILIES[name]},
        validation_prompts=0,
    )
    fit(sft, demonstration_data(), max_steps=1)
    policy = str(tmp_path / "sft")
    sft.export(tmp_path / "sft", {}, {})
    assert read_artefact(policy).attention == attention
    reward = RewardModule(init_from=policy)
    fit(reward, comparison_data(), max_steps=1)
    reward.export(tmp_path / "rm", {}, {})
    learned = LearnedReward(str(tmp_path / "rm"))
    for value in ("separate", "shared"):
        watch, module = Watch(), make(policy, reward=learned, value=Value(value))
        fit(module, prompt_data(), max_epochs=2, callbacks=[watch])
        for phase in watch.phases:
            assert phase["ppo/first_ratio_error"] < 1e-5
        assert watch.phases[0]["ppo/kl"] == pytest.approx(0, abs=1e-4)
        assert learned.model.config._attn_implementation == attention
        rollout = module.phase.buffer.experience.rollout
        assert rollout.responses[rollout.response_mask].max() < len(tiny_tokenizer)
    module = make(policy, reward=learned)
    fit(module, prompt_data(), max_epochs=1)
    module.export(tmp_path / "ppo", {}, {})
    assert read_artefact(tmp_path / "ppo").attention == attention
    tokens = torch.arange(2, 9)[None]
    load_policy(str(tmp_path / "ppo"), None, Network(), tiny_tokenizer)
    critic = load_scalar(str(tmp_path / "ppo" / "value"), None, Network(), tiny_tokenizer, "stored")
    assert critic.score(flat(tokens)).isfinite().all()
