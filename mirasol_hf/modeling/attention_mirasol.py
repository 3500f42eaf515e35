# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Building blocks of every part: attention through the library's interface, the pre-norm ViT block, positions.

Shape legend: B batch, N tokens, H heads, D width.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import Cache
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, dynamic_rope_update
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

Rotary = tuple[torch.Tensor, torch.Tensor]


def repeat_key_value_heads(states: torch.Tensor, copies: int) -> torch.Tensor:
    """[B, key-value heads, N, head] → [B, heads, N, head] for grouped attention."""
    return states if copies == 1 else states.repeat_interleave(copies, dim=1)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain attention, which also returns its weights; the softmax is taken in float32."""
    groups: int = module.num_key_value_groups  # type: ignore[assignment]
    scores = query @ repeat_key_value_heads(key, groups).transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    output = weights @ repeat_key_value_heads(value, groups)
    return output.transpose(1, 2).contiguous(), weights


def rotate(states: torch.Tensor, rotary: Rotary) -> torch.Tensor:
    """Rotary position embedding (RoFormer, half-split layout of the Llama family) of [B, H, N, head].

    Where the tables are narrower than the heads, the channels beyond them are left as they are.
    """
    cos, sin = (table.unsqueeze(1) for table in rotary)
    turned, kept = states.split([cos.shape[-1], states.shape[-1] - cos.shape[-1]], dim=-1)
    first, second = turned.chunk(2, dim=-1)
    turned = turned * cos + torch.cat((-second, first), dim=-1) * sin
    return torch.cat((turned, kept), dim=-1) if kept.shape[-1] else turned


class MirasolRotaryEmbedding(nn.Module):
    """Cosine and sine tables for integer positions; the frequencies follow `config.rope_parameters`."""

    inv_freq: torch.Tensor
    original_inv_freq: torch.Tensor

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.max_seq_len_cached = self.original_max_seq_len = config.max_position_embeddings
        self.rope_type = config.rope_parameters["rope_type"]
        known: dict[str, Callable] = {**ROPE_INIT_FUNCTIONS, "default": self.compute_default_rope_parameters}
        inv_freq, self.attention_scaling = known[self.rope_type](config)
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        self.register_buffer("original_inv_freq", inv_freq.clone(), persistent=False)

    @staticmethod
    def compute_default_rope_parameters(config: Any, **kwargs: Any) -> tuple[torch.Tensor, float]:
        """Inverse frequencies of RoFormer without scaling, and the factor on the tables, 1."""
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        width = int(head_dim * config.rope_parameters.get("partial_rotary_factor", 1.0))
        exponents = torch.arange(0, width, 2, dtype=torch.float32) / width
        return config.rope_parameters["rope_theta"] ** -exponents, 1.0

    @torch.no_grad()
    @dynamic_rope_update
    def forward(self, hidden_states: torch.Tensor, position_ids: torch.Tensor) -> Rotary:
        """`position_ids` [B, N] → cosine and sine, each [B, N, head], in the dtype of `hidden_states`."""
        angles = position_ids[..., None].float() * self.inv_freq.float()
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = (table * self.attention_scaling for table in (angles.cos(), angles.sin()))
        return cos.to(hidden_states.dtype), sin.to(hidden_states.dtype)


class MirasolAttention(nn.Module):
    """Multi-head self-attention of the towers, the Combiner and the time model."""

    def __init__(self, config: Any, layer_idx: int = 0) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.num_key_value_groups = 1
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_dropout
        # what may be seen is said by the mask alone; a missing attribute would read as causal to SDPA
        self.is_causal = False
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        rotary: Rotary | None = None,
        cache: Cache | None = None,
        num_queries: int | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """[B, N, D] → outputs of the last `num_queries` tokens (all by default) and the attention weights."""
        batch = hidden_states.shape[0]
        asking = hidden_states if num_queries is None else hidden_states[:, -num_queries:]
        query, key, value = (
            projection(states).view(batch, states.shape[1], -1, self.head_dim).transpose(1, 2)
            for projection, states in (
                (self.q_proj, asking),
                (self.k_proj, hidden_states),
                (self.v_proj, hidden_states),
            )
        )
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, weights = attention(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.o_proj(output.reshape(batch, asking.shape[1], -1)), weights


class MirasolMLP(nn.Module):
    """Two linear layers with the activation between, as in ViT."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.up_proj(hidden_states)))


class MirasolEncoderLayer(GradientCheckpointingLayer):
    """Pre-norm Transformer block (ViT, arXiv 2010.11929)."""

    def __init__(self, config: Any, layer_idx: int = 0) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = MirasolAttention(config, layer_idx)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MirasolMLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        rotary: Rotary | None = None,
        cache: Cache | None = None,
        num_queries: int | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """[B, N, D] → [B, N, D], or only the last `num_queries` tokens where nobody reads the others."""
        attended, _ = self.self_attn(
            self.input_layernorm(hidden_states), attention_mask, rotary, cache, num_queries, **kwargs
        )
        if num_queries is not None:
            hidden_states = hidden_states[:, -num_queries:]
        hidden_states = hidden_states + self.dropout(attended)
        return hidden_states + self.dropout(self.mlp(self.post_attention_layernorm(hidden_states)))


def sincos_positions(centres: torch.Tensor, width: int, frequency_base: float = 10_000.0) -> torch.Tensor:
    """Fixed sin/cos embedding of points, interleaved by frequency (TubeViT, arXiv 2212.03229, equations 3–7).

    Channels `2a·j … 2a·j + 2a − 1` hold sine and cosine of each of the *a* axes at frequency *j*. As printed, the
    paper's frequency is τ^(−j); this takes the usual reading τ^(−j / J) with J frequencies.

    Args:
        centres: [N, axes] positions, in frames and pixels for tubes.
        width: channels; those beyond a multiple of twice the number of axes stay zero.
        frequency_base: τ.

    Returns:
        float32 [N, width].
    """
    num_tokens, axes = centres.shape
    count = width // (2 * axes)
    exponents = torch.arange(count, dtype=torch.float32, device=centres.device) / max(count, 1)
    angles = centres.float()[:, None, :] * (frequency_base**-exponents)[None, :, None]
    table = torch.stack((angles.sin(), angles.cos()), dim=-1).reshape(num_tokens, -1)
    return nn.functional.pad(table, (0, width - table.shape[1]))
