# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Text decoder: Llama-style layers (RMSNorm, rotary positions, grouped heads, SwiGLU) with cross-attention to media.

Shape legend: B batch, L text length, N media features (K·m), D text width, H heads.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import Cache, EncoderDecoderCache
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils.generic import TransformersKwargs, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .attention_mirasol import MirasolRotaryEmbedding, Rotary, eager_attention_forward, rotate
from .base_mirasol import MirasolPreTrainedModel
from .configuration_mirasol import MirasolTextConfig
from .input_checks_mirasol import check_input_ids, embed_tokens
from .text_cache_mirasol import MirasolDynamicCache, has_media, keep_media, media_part, one_cache


class MirasolRMSNorm(nn.Module):
    """Root-mean-square norm, computed in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        normed = hidden_states.float()
        normed = normed * torch.rsqrt(normed.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * normed.to(hidden_states.dtype)


class MirasolTextAttention(nn.Module):
    """Grouped-query attention of the text to itself, or, with `memory_width`, to the media features."""

    def __init__(self, config: MirasolTextConfig, layer_idx: int, memory_width: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim: int = config.head_dim  # type: ignore[assignment]
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_dropout
        self.is_causal = memory_width is None
        source, bias = memory_width or config.hidden_size, config.attention_bias
        self.q_proj = nn.Linear(config.hidden_size, config.num_attention_heads * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(source, config.num_key_value_heads * self.head_dim, bias=bias)
        self.v_proj = nn.Linear(source, config.num_key_value_heads * self.head_dim, bias=bias)
        self.o_proj = nn.Linear(config.num_attention_heads * self.head_dim, config.hidden_size, bias=bias)

    def heads(self, projection: nn.Linear, states: torch.Tensor) -> torch.Tensor:
        """[B, N, …] → [B, heads, N, head]; the head count is left open so that tensor parallelism can split it."""
        return projection(states).view(*states.shape[:-1], -1, self.head_dim).transpose(1, 2)

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, weights = attention(
            self,
            query,
            key,
            value,
            mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.o_proj(output.reshape(query.shape[0], query.shape[2], -1)), weights


class MirasolSelfAttention(MirasolTextAttention):
    """Causal self-attention with rotary positions and a key-value cache."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        rotary: Rotary,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        query = rotate(self.heads(self.q_proj, hidden_states), rotary)
        key = rotate(self.heads(self.k_proj, hidden_states), rotary)
        value = self.heads(self.v_proj, hidden_states)
        if isinstance(cache, EncoderDecoderCache):
            cache = cache.self_attention_cache
        if cache is not None:
            # continuous batching's cache reads and completes what the attention function is given
            key, value = cache.update(key, value, self.layer_idx, kwargs=kwargs)
        return self.attend(query, key, value, attention_mask, **kwargs)


class MirasolCrossAttention(MirasolTextAttention):
    """Attention to the media features; their keys and values are projected once and live in the cache."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        media_hidden_states: torch.Tensor | None,
        media_mask: torch.Tensor | None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        kept = media_part(cache)
        if kept is not None and kept.is_updated.get(self.layer_idx):
            layer = kept.cross_attention_cache.layers[self.layer_idx]
            key, value = layer.keys, layer.values
        else:
            assert media_hidden_states is not None  # the layer skips cross-attention without media and cache
            key, value = self.heads(self.k_proj, media_hidden_states), self.heads(self.v_proj, media_hidden_states)
            if kept is not None:
                key, value = kept.cross_attention_cache.update(key, value, self.layer_idx)
                kept.is_updated[self.layer_idx] = True
        return self.attend(self.heads(self.q_proj, hidden_states), key, value, media_mask, **kwargs)


class MirasolTextMLP(nn.Module):
    """SwiGLU."""

    def __init__(self, config: MirasolTextConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(hidden_states)) * self.up_proj(hidden_states))


class MirasolTextLayer(GradientCheckpointingLayer):
    """Self-attention, cross-attention to the media (in every n-th layer), MLP; each pre-norm and residual."""

    def __init__(self, config: MirasolTextConfig, layer_idx: int, memory_width: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.input_layernorm = MirasolRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = MirasolSelfAttention(config, layer_idx)
        self.has_cross_attention = (config.num_hidden_layers - 1 - layer_idx) % config.cross_attention_every == 0
        if self.has_cross_attention:
            self.cross_attn_layernorm = MirasolRMSNorm(config.hidden_size, config.rms_norm_eps)
            self.cross_attn = MirasolCrossAttention(config, layer_idx, memory_width)
            self.cross_attn_gate = nn.Parameter(torch.zeros(1)) if config.cross_attention_gate else None
        self.post_attention_layernorm = MirasolRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MirasolTextMLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def init_own_tensors(self, std: float) -> None:
        if self.has_cross_attention and self.cross_attn_gate is not None:
            init.zeros_(self.cross_attn_gate)

    def forward(
        self,
        hidden_states: torch.Tensor,
        media_hidden_states: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        media_mask: torch.Tensor | None,
        media_rows: torch.Tensor | None,
        rotary: Rotary,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        normed = self.input_layernorm(hidden_states)
        attended, _ = self.self_attn(normed, attention_mask, rotary, cache, **kwargs)
        hidden_states = hidden_states + self.dropout(attended)
        if self.has_cross_attention and self.sees_media(media_hidden_states, cache):
            normed = self.cross_attn_layernorm(hidden_states)
            attended, _ = self.cross_attn(normed, media_hidden_states, media_mask, cache, **kwargs)
            if media_rows is not None:  # a row without media must not see the average of masked features
                attended = attended * media_rows.to(attended.dtype)
            if self.cross_attn_gate is not None:
                attended = attended * self.cross_attn_gate.tanh()
            hidden_states = hidden_states + self.dropout(attended)
        return hidden_states + self.dropout(self.mlp(self.post_attention_layernorm(hidden_states)))

    def sees_media(self, media_hidden_states: torch.Tensor | None, cache: Cache | None) -> bool:
        part = media_part(cache)
        return media_hidden_states is not None or (part is not None and bool(part.is_updated.get(self.layer_idx)))


class MirasolTextModel(MirasolPreTrainedModel):
    """The decoder without its language-modelling head."""

    config: MirasolTextConfig
    base_model_prefix = "language_model"
    input_modalities = ("text",)
    _can_record_outputs = {
        "hidden_states": MirasolTextLayer,
        "attentions": OutputRecorder(MirasolSelfAttention, index=1, layer_name="self_attn"),
        "cross_attentions": OutputRecorder(MirasolCrossAttention, index=1, layer_name="cross_attn"),
    }

    def __init__(self, config: MirasolTextConfig, memory_width: int | None = None) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        width = memory_width or config.hidden_size
        self.layers = nn.ModuleList(
            MirasolTextLayer(config, index, width) for index in range(config.num_hidden_layers)
        )
        self.norm = MirasolRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = MirasolRotaryEmbedding(config)
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        media_hidden_states: torch.Tensor | None = None,
        media_attention_mask: torch.Tensor | None = None,
        use_cache: bool | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Decodes text.

        Args:
            input_ids: [B, L] (or `inputs_embeds` [B, L, D]).
            attention_mask: [B, past + L], 0 at padding.
            position_ids: [B, L]; by default counted from the cache's length.
            media_hidden_states: [B, N, memory width].
            media_attention_mask: [B, N], 0 at features that may not be seen.
            cache: a cache of the library, or an `EncoderDecoderCache`; once it holds the media, these may be left
                out, and are ignored where given.
            past_key_values: the older name of `cache`.

        Returns:
            `last_hidden_state` [B, L, D] and the cache.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if input_ids is not None:
            check_input_ids(input_ids)
            inputs_embeds = embed_tokens(self.embed_tokens, input_ids, self.config.vocab_size)
        assert inputs_embeds is not None
        cache = one_cache(cache, past_key_values)
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            cache = None  # a layer that runs again in backward would put its keys into it twice
        elif use_cache and cache is None:
            cache = MirasolDynamicCache(config=self.config)
        media_attention_mask = self.remember_media(cache, media_hidden_states, media_attention_mask)
        if position_ids is None:
            past = cache.get_seq_length() if cache is not None else 0
            position_ids = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device)[None] + past
        self_cache = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
        causal_mask = create_causal_mask(self.config, inputs_embeds, attention_mask, self_cache, position_ids)
        media_mask, media_rows = self.media_masks(inputs_embeds, media_hidden_states, media_attention_mask)
        rotary = self.rotary_emb(inputs_embeds, position_ids)
        hidden_states = inputs_embeds
        for layer in self.layers[: self.config.num_hidden_layers]:  # fewer while a draft exits early
            hidden_states = layer(
                hidden_states,
                media_hidden_states,
                causal_mask,
                media_mask,
                media_rows,
                rotary,
                cache,
                **kwargs,
            )
        # by position, as the second field is `past_key_values` in Transformers before 5.24 and `cache` since
        return BaseModelOutputWithPastAndCrossAttentions(self.norm(hidden_states), cache)

    def remember_media(
        self,
        cache: Cache | None,
        media_hidden_states: torch.Tensor | None,
        media_attention_mask: torch.Tensor | None,
    ) -> torch.Tensor | None:
        """Makes room for new media in the cache; returns the mask [B, N] of these, or of those that it holds."""
        if has_media(cache):
            return (
                getattr(cache, "media_attention_mask", None) if media_attention_mask is None else media_attention_mask
            )
        if cache is not None and media_hidden_states is not None:
            if not torch.compiler.is_compiling():  # there, generate() has made room before
                keep_media(cache, self.config, media_hidden_states.shape[1])
            part = media_part(cache)
            if part is not None:
                part.media_attention_mask = media_attention_mask
        return media_attention_mask

    def media_masks(
        self,
        inputs_embeds: torch.Tensor,
        media_hidden_states: torch.Tensor | None,
        media_attention_mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Cross-attention mask for the attention backend, and [B, 1, 1] with 0 at rows without any media."""
        if media_attention_mask is None:
            return None, None
        memory = media_hidden_states
        if memory is None:  # decoding from the cache alone: only the shape matters
            memory = inputs_embeds.new_empty(*media_attention_mask.shape, 0)
        mask = create_bidirectional_mask(
            self.config, inputs_embeds, media_attention_mask.to(torch.long), encoder_hidden_states=memory
        )
        return mask, media_attention_mask.any(dim=1)[:, None, None]
