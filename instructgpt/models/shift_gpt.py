"""ShiftGPT: a small language model that learns to copy from its context within minutes on a CPU.

Ready architectures do not learn it in a budget of about a million tokens. Three things do it: keys
that look one token back, queries and keys that start equal (arXiv:2305.09828), and embeddings of
norm one; rotating only half of the dimensions (arXiv:2104.09864) halves the steps. Importing this
module registers it with transformers: from then on it saves, loads, caches and generates like any
other model. Padding must not stand between real tokens: a key would see it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Cache,
    DynamicCache,
    GenerationMixin,
    PreTrainedConfig,
    initialization,
)
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import (
    GenericForSequenceClassification,
    GradientCheckpointingLayer,
)
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward

from instructgpt.models.flat_attention import FlatMask
from instructgpt.models.half_rotary import Rotation, rotated, rotation_of
from instructgpt.models.slot_attention import call_of
from instructgpt.models.transformers_private import OpenPreTrainedModel, attention_name

VALUE_TO_OUTPUT = 0.7
"""Scale of the output projection, which starts as the transpose of the value projection."""


@strict
class ShiftGPTConfig(PreTrainedConfig):
    """Sizes of a ShiftGPT."""

    model_type = "shift_gpt"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012  # as transformers has it

    vocab_size: int = 512
    hidden_size: int = 96
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    max_position_embeddings: int = 256
    rope_theta: float = 1000.0
    resid_pdrop: float = 0.0
    layer_norm_eps: float = 1e-5
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    tie_word_embeddings: bool = True

    def validate_architecture(self) -> None:
        """Check that heads divide the width, and rotated pairs half a head."""
        if self.hidden_size % (4 * self.num_attention_heads):
            raise ValueError(
                f"hidden_size must be a multiple of 4 * num_attention_heads "
                f"({4 * self.num_attention_heads}), got {self.hidden_size}"
            )


class Before(NamedTuple):
    """The token before each."""

    exists: Tensor  # [N, T, 1], 0 at the first token of a document
    places: Tensor | None  # [T] in flat rows; None: the place before, as in padded ones


class ShiftNorm(nn.LayerNorm):
    """A layer norm whose gradient does not depend on the number of threads.

    torch has each thread add up the gradient of the weights over rows of its own. What is left are
    matrix products, whose library may do so too; at the miniature's sizes it did not.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """As any; one thread computes the gradient."""
        output, threads = super().forward(inputs), torch.get_num_threads()
        if threads > 1 and output.grad_fn is not None and output.device.type == "cpu":
            output.grad_fn.register_prehook(lambda _: torch.set_num_threads(1))
            output.grad_fn.register_hook(lambda *_: torch.set_num_threads(threads))
        return output


class ShiftAttention(nn.Module):
    """Causal attention whose keys are made of a token's input mixed with that of the one before.

    The cache must remember that input. It is kept beside the values, twice as wide as they are, so
    that whatever reorders, repeats or crops a cache treats it right.

    Args:
        config: sizes.
        layer_idx: number of the layer in the cache.
    """

    def __init__(self, config: ShiftGPTConfig, layer_idx: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.config, self.layer_idx = config, layer_idx
        self.heads, self.head_dim = config.num_attention_heads, width // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.num_key_value_groups, self.is_causal = 1, True
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(width, width) for _ in range(4)
        )
        self.shift = nn.Parameter(torch.empty(width))  # share of the token before, by channel

    def forward(
        self,
        inputs: Tensor,
        rotation: Rotation,
        before: Before,
        attention_mask: Tensor | None,
        cache: Cache | None,
    ) -> Tensor:
        """Attend.

        Args:
            inputs: [N, T, d].
            rotation: by the positions.
            before: of each token.
            attention_mask: as ``create_causal_mask`` makes it.
            cache: of the tokens before, which is extended.
        """
        call = call_of(attention_mask)
        if call is None:
            previous = self._previous(inputs, cache, before.places)
        else:
            previous = call.previous(self, inputs[0])[None]
        previous = previous * before.exists
        query = self._turned(self.q_proj(inputs), rotation)
        key = self._turned(self.k_proj(inputs + self.shift * (previous - inputs)), rotation)
        value = self._split(self.v_proj(inputs))
        if cache is not None:
            kept = torch.cat([value, self._split(inputs)], -1)
            key, kept = cache.update(key, kept, self.layer_idx)
            value = kept[..., : self.head_dim]
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            attention_name(self.config), eager_attention_forward
        )
        mixed, _ = attend(
            self, query, key, value, attention_mask, dropout=0.0, scaling=self.scaling
        )
        output: Tensor = self.o_proj(mixed.reshape(inputs.shape))
        return output

    def _split(self, tensor: Tensor) -> Tensor:
        heads: Tensor = tensor.unflatten(-1, (self.heads, self.head_dim))
        return heads.transpose(1, 2)

    def _turned(self, tensor: Tensor, rotation: Rotation) -> Tensor:
        heads = tensor.unflatten(-1, (self.heads, self.head_dim))
        return rotated(heads, rotation).transpose(1, 2)

    def _previous(self, inputs: Tensor, cache: Cache | None, places: Tensor | None) -> Tensor:
        """The input of the token before each; the last one of the cache is in front."""
        if places is not None:
            return inputs[0].index_select(0, places)[None]
        past = cache.get_seq_length(self.layer_idx) if cache is not None else 0
        if cache is None or past == 0:
            return nn.functional.pad(inputs, (0, 0, 1, -1))
        stored: Any = cache.layers[self.layer_idx]
        last = stored.values[:, :, past - 1 : past, self.head_dim :]
        last = last.transpose(1, 2).flatten(2).to(inputs.dtype)
        return torch.cat([last, inputs[:, :-1]], 1)


class ShiftBlock(GradientCheckpointingLayer):
    """Attention and a feed-forward network, each on normalised inputs."""

    def __init__(self, config: ShiftGPTConfig, layer_idx: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.attention_norm = ShiftNorm(width, eps=config.layer_norm_eps)
        self.attention = ShiftAttention(config, layer_idx)
        self.mlp_norm = ShiftNorm(width, eps=config.layer_norm_eps)
        self.up_proj, self.down_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        # Starts small, for a residual stream as deep as this. Said here because transformers never
        # asks to initialise a block, which has no weights of its own.
        self.down_proj.initial_std = 0.02 * (2 * config.num_hidden_layers) ** -0.5
        self.dropout = nn.Dropout(config.resid_pdrop)

    def forward(
        self,
        hidden: Tensor,
        rotation: Rotation,
        before: Before,
        attention_mask: Tensor | None,
        cache: Cache | None,
    ) -> Tensor:
        """Add what both say to the residual stream; arguments as for ``ShiftAttention``."""
        inputs = self.attention_norm(hidden)
        attended = self.attention(inputs, rotation, before, attention_mask, cache)
        hidden = hidden + self.dropout(attended)
        inner = nn.functional.gelu(self.up_proj(self.mlp_norm(hidden)), approximate="tanh")
        output: Tensor = hidden + self.dropout(self.down_proj(inner))
        return output


class ShiftGPTPreTrainedModel(OpenPreTrainedModel):
    """What all ShiftGPTs share: how they start."""

    config: ShiftGPTConfig
    config_class = ShiftGPTConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    takes_prefix = False  # learned keys and values, but no inputs, could stand in front

    @torch.no_grad()
    def start(self, module: nn.Module) -> None:
        """Start a module; attention, which comes after its layers, starts as "match and copy"."""
        width = self.config.hidden_size
        if isinstance(module, nn.Linear):
            std = getattr(module, "initial_std", 0.5 * module.in_features**-0.5)
            initialization.normal_(module.weight, std=std)
            if module.bias is not None:
                initialization.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            initialization.normal_(module.weight, std=width**-0.5)
        elif isinstance(module, nn.LayerNorm):
            initialization.ones_(module.weight)
            initialization.zeros_(module.bias)
        elif isinstance(module, ShiftAttention):
            initialization.constant_(module.shift, 0.5)
            initialization.normal_(module.k_proj.weight, std=width**-0.5)
            initialization.copy_(module.q_proj.weight, module.k_proj.weight)
            copied = VALUE_TO_OUTPUT * module.v_proj.weight.T
            initialization.copy_(module.o_proj.weight, copied)


class ShiftGPTModel(ShiftGPTPreTrainedModel):
    """The trunk: tokens to hidden states."""

    def __init__(self, config: ShiftGPTConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.dropout = nn.Dropout(config.resid_pdrop)
        self.layers = nn.ModuleList(
            ShiftBlock(config, index) for index in range(config.num_hidden_layers)
        )
        self.norm = ShiftNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.gradient_checkpointing = False
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast | tuple[Any, ...]:
        """The hidden states [N, T, d]; arguments as everywhere in transformers.

        Position 0 is the first token of a document: its key sees nothing before it.
        """
        if kwargs.get("output_hidden_states") or kwargs.get("output_attentions"):
            raise ValueError("ShiftGPT does not return the hidden states or attentions of layers")
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("exactly one of input_ids and inputs_embeds must be given")
        hidden = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if past_key_values is None and use_cache and not self.training:
            past_key_values = DynamicCache(config=self.config)
        cache = past_key_values
        if position_ids is None:
            position_ids = self._positions(hidden, attention_mask, cache)
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=hidden,
            attention_mask=attention_mask,
            past_key_values=cache,
            position_ids=position_ids,
        )
        heads = self.config.num_attention_heads
        shape = heads, self.config.hidden_size // heads
        rotation = rotation_of(position_ids, *shape, self.config.rope_theta, hidden.dtype)
        before = Before(
            (position_ids > 0).to(hidden.dtype)[..., None],
            attention_mask.previous if isinstance(attention_mask, FlatMask) else None,
        )
        hidden = self.dropout(hidden)
        for layer in self.layers:
            hidden = layer(hidden, rotation, before, mask, cache)
        output = BaseModelOutputWithPast(
            last_hidden_state=self.norm(hidden), past_key_values=cache if use_cache else None
        )
        return output if return_dict is not False else output.to_tuple()

    def _positions(self, hidden: Tensor, mask: Tensor | None, cache: Cache | None) -> Tensor:
        length = hidden.shape[1]
        if mask is not None and mask.ndim == 2:
            return (mask.long().cumsum(-1) - 1).clamp_min(0)[:, -length:]
        past = cache.get_seq_length() if cache is not None else 0
        return torch.arange(past, past + length, device=hidden.device)[None]


class ShiftGPTForCausalLM(ShiftGPTPreTrainedModel, GenerationMixin):
    """The language model."""

    tied_weights = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: ShiftGPTConfig) -> None:
        super().__init__(config)
        self.model = ShiftGPTModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """The logits [N, kept, V]; arguments as everywhere in transformers."""
        outputs = self.model(
            input_ids,
            attention_mask,
            position_ids,
            past_key_values,
            inputs_embeds,
            use_cache,
            **kwargs,
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, keep])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **kwargs)
        output = CausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=outputs.past_key_values
        )
        return output if return_dict is not False else output.to_tuple()


class ShiftGPTForSequenceClassification(GenericForSequenceClassification, ShiftGPTPreTrainedModel):
    """The trunk with a score for the last token."""


AutoConfig.register("shift_gpt", ShiftGPTConfig)
AutoModel.register(ShiftGPTConfig, ShiftGPTModel)
AutoModelForCausalLM.register(ShiftGPTConfig, ShiftGPTForCausalLM)
AutoModelForSequenceClassification.register(ShiftGPTConfig, ShiftGPTForSequenceClassification)
