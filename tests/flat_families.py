"""Small models of every kind of architecture, and rows that share prompts."""

import warnings

import torch

from instructgpt.functional.layout import Layout
from instructgpt.models.load import Network, load_policy
from instructgpt.types import FlatRows

GPT = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64}
LLAMA = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GROUPED = {**LLAMA, "num_key_value_heads": 2}
OPT = {**LLAMA, "ffn_dim": 32, "word_embed_proj_dim": 8, "do_layer_norm_before": False}
del OPT["intermediate_size"]
SLIDING = {**GROUPED, "sliding_window": 4}
FLAT = {
    "gpt2": GPT,
    "gpt_bigcode": GPT,
    "gpt_neox": LLAMA,
    "opt": OPT,
    "phi": GROUPED,
    "llama": GROUPED,
    "mistral": SLIDING,
    "qwen2": {**SLIDING, "use_sliding_window": True, "max_window_layers": 1},
    "qwen3": {**GROUPED, "head_dim": 4},
    "gemma2": {**SLIDING, "head_dim": 4, "final_logit_softcapping": 2.0},
    "gemma3_text": {**SLIDING, "head_dim": 4},
    "granite": {**GROUPED, "logits_scaling": 3.0},
    "cohere": {**GROUPED, "logit_scale": 0.3},
    "olmo2": GROUPED,
    "smollm3": GROUPED,
    "mixtral": {**GROUPED, "num_local_experts": 4},
    "gpt_oss": {**SLIDING, "head_dim": 4, "num_local_experts": 4, "num_experts_per_tok": 2},
    "llama4_text": {  # sees chunks
        **GROUPED,
        "head_dim": 4,
        "attention_chunk_size": 4,
        "intermediate_size_mlp": 32,
        "num_local_experts": 2,
    },
    "shift_gpt": {"hidden_size": 16, "num_hidden_layers": 2},
}
PADDED = {
    "openai-gpt": GPT,
    "gptj": {**GPT, "rotary_dim": 4},
    "codegen": {**GPT, "rotary_dim": 4},
    "gpt_neo": {
        "hidden_size": 16,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 4,
        "max_position_embeddings": 64,
    },
    "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 4},
    "falcon": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "alibi": True,
    },
    "mpt": {"d_model": 16, "n_layers": 2, "n_heads": 4, "max_seq_len": 64},
    "xglm": {"d_model": 16, "ffn_dim": 32, "num_layers": 2, "attention_heads": 4},
    "mamba": {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},
    "lfm2": {**GROUPED, "layer_types": ["conv", "full_attention"]},
}
FAMILIES = {**FLAT, **PADDED}


def build(name, tokenizer, network=Network()):
    """Wide weights, so that a mistake shows."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        architecture = {"model_type": name, **FAMILIES[name]}
        model = load_policy(None, architecture, network, tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
    return model.eval()


def flat_rows():
    """More tokens than the models have positions: no row has as many."""
    layout = Layout.shared([7, 3, 25, 9], [[9, 2, 4], [], [1, 20], [3]])
    generator = torch.Generator().manual_seed(1)
    return FlatRows(torch.randint(2, 280, (layout.tokens,), generator=generator), layout)
