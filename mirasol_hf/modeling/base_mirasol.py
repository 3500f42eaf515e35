# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""What all Mirasol models share: library flags and weight initialisation."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init

from .attention_mirasol import MirasolEncoderLayer
from .loading_mirasol import TRAINING_WEIGHTS, MirasolCheckpointMixin
from .strict_config_mirasol import MirasolStrictConfig


class MirasolPreTrainedModel(MirasolCheckpointMixin, PreTrainedModel):
    """Base of the whole model and of every part."""

    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ["MirasolEncoderLayer", "MirasolTextLayer"]
    _skip_keys_device_placement = ["cache", "past_key_values"]
    _supports_sdpa = True
    _supports_flex_attn = True
    # FlashAttention drops the block-causal masks of the time model and the Combiner silently
    _supports_flash_attn = False
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _keys_to_ignore_on_load_unexpected = list(TRAINING_WEIGHTS)

    def __init__(self, config: MirasolStrictConfig, *inputs: Any, **kwargs: Any) -> None:
        config.check()  # again: fields may have been set one by one since it was made
        super().__init__(config, *inputs, **kwargs)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # modules with parameters or buffers of their own say how to fill them, as those are created on meta
        fill = getattr(module, "init_own_tensors", None)
        if fill is not None:
            fill(getattr(self.config, "initializer_range", 0.02))


class MirasolMediaPart(MirasolPreTrainedModel):
    """A part of the time-aligned half: a stack of ViT blocks and a final LayerNorm."""

    main_input_name = "hidden_states"
    _fsdp_plan = {"layers.*": "free_full_weight"}
    _can_record_outputs: dict[str, Any] = {"hidden_states": MirasolEncoderLayer}
    # what checkpointed layers of frozen towers need: `enable_input_require_grads` lets gradients start here
    _input_embed_layer = "embeddings"

    def build_stack(self, config: Any) -> None:
        """Adds `layers` and `norm`; called by the constructors before `post_init()`."""
        self.layers = nn.ModuleList(MirasolEncoderLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.gradient_checkpointing = False

    def run_stack(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        rotary: tuple[torch.Tensor, torch.Tensor] | None = None,
        cache: Any = None,
        num_outputs: int | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """[B, N, D] through all layers and the final norm → [B, N, D], or the last `num_outputs` tokens of it.

        The last layer computes no more tokens than are returned. `attention_mask` must then hold for every query
        alike (a mask of keys only).
        """
        # the block mask of FlexAttention cannot be cut to fewer queries
        cuts_queries = attention_mask is None or isinstance(attention_mask, torch.Tensor)
        for index, layer in enumerate(self.layers):
            kept = num_outputs if index == len(self.layers) - 1 and cuts_queries else None
            if kept is not None and attention_mask is not None and attention_mask.shape[-2] > 1:
                attention_mask = attention_mask[..., -kept:, :]
            hidden_states = layer(hidden_states, attention_mask, rotary, cache, kept, **kwargs)
        return self.norm(hidden_states if num_outputs is None else hidden_states[:, -num_outputs:])


def fill_normal(parameter: nn.Parameter, std: float) -> None:
    """Normal values unless a checkpoint has filled the parameter already."""
    init.normal_(parameter, mean=0.0, std=std)
