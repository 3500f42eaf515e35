# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Outputs of the models, with shapes.

Shape legend: B batch, K chunks, m Combiner outputs per chunk, D width, L text length, V vocabulary.
"""

from dataclasses import dataclass

import torch
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions, CausalLMOutputWithCrossAttentions
from transformers.utils import ModelOutput


@dataclass
class MirasolMediaOutput(ModelOutput):
    """What `encode_media` returns."""

    media_hidden_states: torch.Tensor | None = None  # [B, K·m, D], what the text attends to
    media_attention_mask: torch.Tensor | None = None  # [B, K·m], 0 at chunks that do not exist
    combined_features: torch.Tensor | None = None  # [B, K, m, combiner width]


@dataclass
class MirasolModelOutput(BaseModelOutputWithPastAndCrossAttentions):
    """Output of `MirasolModel`: the media below, and of the text decoder

    - `last_hidden_state` [B, L, D], and the cache as `cache` (`past_key_values` in Transformers before 5.24);
    - `hidden_states`, each [B, L, D]; `attentions`, each [B, heads, L, L];
    - `cross_attentions`, each [B, heads, L, K·m].
    """

    media_hidden_states: torch.Tensor | None = None
    media_attention_mask: torch.Tensor | None = None
    combined_features: torch.Tensor | None = None


@dataclass
class MirasolConditionalGenerationOutput(CausalLMOutputWithCrossAttentions):
    """Output of `MirasolForConditionalGeneration`: `logits` [B, L, V], the fields of `MirasolModelOutput` except
    `last_hidden_state`, and `loss`, the weighted sum of the named losses."""

    media_hidden_states: torch.Tensor | None = None
    media_attention_mask: torch.Tensor | None = None
    combined_features: torch.Tensor | None = None
    text_loss: torch.Tensor | None = None
    latent_loss: torch.Tensor | None = None
    video_reconstruction_loss: torch.Tensor | None = None
    audio_reconstruction_loss: torch.Tensor | None = None
