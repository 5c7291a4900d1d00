"""Linear layers of attention and MLP that are cut over processes (Megatron, arXiv:1909.08053)."""

from __future__ import annotations

import logging
from fnmatch import fnmatch
from typing import Any

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from transformers import PreTrainedModel

from instructgpt.models.heads import ScalarModel
from instructgpt.models.peft_private import is_adapted
from instructgpt.types import UserError, require

OPTION = "--trainer.strategy.tensor_parallel_size"
STYLES = {"colwise": ColwiseParallel, "rowwise": RowwiseParallel}
"""Of transformers' plans: what an input meets first is cut by its outputs, the next by inputs."""


def cut_layers(network: nn.Module, mesh: DeviceMesh) -> None:
    """Keep this process's part of each linear layer that the plan of the architecture names.

    A layer that is cut by its outputs says a part of the heads or of the inner width, and one that
    is cut by its inputs adds up what all processes have. So its inputs and what it says are the
    same on all of them, as is all that is not cut: embeddings, norms, heads.

    Args:
        network: a causal language model or a ScalarModel, not spread yet, the same on every
            process; changed in place. A head alone stays as it is.
        mesh: of the processes that cut it.

    Raises:
        UserError: it has no plan, or one that cannot be followed.
    """
    parallel = {name: STYLES[style]() for name, style in cuts_of(network, mesh.size()).items()}
    # torch says again and again that weights that are cut twice are gathered in two steps
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)
    if parallel:
        trunk: Any = network.trunk if isinstance(network, ScalarModel) else network
        parallelize_module(trunk.base_model, mesh, parallel, src_data_rank=None)


def cuts_of(network: nn.Module, size: int) -> dict[str, str]:
    """Which linear layers of a network are cut, by their names below its head, and how.

    Args:
        network: a causal language model or a ScalarModel; of a head alone none is.
        size: processes that cut it.

    Raises:
        UserError: it has no plan, or one that cannot be followed.
    """
    trunk = network.trunk if isinstance(network, ScalarModel) else network
    learns = {p.requires_grad for p in trunk.parameters()}
    if is_adapted(trunk) or len(learns) > 1:
        raise UserError(f"{OPTION} must be 1 with --model.trained, got {size}")
    if not isinstance(trunk, PreTrainedModel):
        return {}
    decoder: Any = trunk.base_model
    return plan_of_layers(decoder, size)


def plan_of_layers(decoder: PreTrainedModel, size: int) -> dict[str, str]:
    """Which linear layers are cut, by name, and how.

    Args:
        decoder: below the head.
        size: processes that cut it.

    Raises:
        UserError: it has no plan, or one that cannot be followed.
    """
    config = decoder.config
    kind, plan = config.model_type, getattr(config, "base_model_tp_plan", None)
    if not plan:
        raise UserError(f"{OPTION} must be 1 for '{kind}': transformers has no plan to cut it")
    if others := [f"{name}: {style}" for name, style in plan.items() if style not in STYLES]:
        rule = f"its plan has more than {' and '.join(STYLES)} ({others[0]})"
        raise UserError(f"{OPTION} must be 1 for '{kind}': {rule}")
    if getattr(config, "kv_lora_rank", None):
        raise UserError(f"{OPTION} must be 1 for '{kind}': its keys are made of what is not cut")
    for name in ("num_attention_heads", "num_key_value_heads"):
        heads = getattr(config, name, None)
        divides = heads is None or heads % size == 0
        require(divides, OPTION, f"a divisor of the {heads} {name} of '{kind}'", size)
    named = {
        name: style
        for name, _ in decoder.named_modules()
        for pattern, style in plan.items()
        if fnmatch(name, pattern)
    }
    for name, style in named.items():
        layer = decoder.get_submodule(name)
        if not isinstance(layer, nn.Linear):
            raise UserError(
                f"{OPTION} must be 1 where '{name}' is {type(layer).__name__}: linear layers alone "
                "are cut"
            )
        width = layer.out_features if style == "colwise" else layer.in_features
        require(width % size == 0, OPTION, f"a divisor of the width {width} of '{name}'", size)
    return named
