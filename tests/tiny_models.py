"""Tiny networks of the tests, the same at every start."""

import torch

from instructgpt.functional.layout import Layout
from instructgpt.models.forward import network_inputs
from instructgpt.models.load import Network, load_policy, load_scalar
from instructgpt.types import FlatRows


def policy_of(architecture, tokenizer):
    torch.manual_seed(0)
    return load_policy(None, architecture, Network(), tokenizer).eval()


def scalar_of(architecture, tokenizer):
    torch.manual_seed(0)
    return load_scalar(None, architecture, Network(), tokenizer, head="new").eval()


def disturb(model):
    """Make an adapter matter."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora" in name or "prompt_encoder" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    return model


def flat(tokens, mask=None):
    """Rows [N, T] as flat ones, without what pads them."""
    mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    return FlatRows(tokens[mask], Layout.of(mask.sum(1)))


def padded_scores(model, tokens, mask=None):
    """What a reward or value model says of padded rows [N, T] at each place: flat ones must too."""
    mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    network, inputs = network_inputs(model.trunk, tokens, mask)
    return model.head(network(**inputs).last_hidden_state).squeeze(-1) - model.offset
