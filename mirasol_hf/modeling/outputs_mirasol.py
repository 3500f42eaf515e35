# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Outputs of the models, with shapes.

Shape legend: B batch, K chunks, m Combiner outputs per chunk, D width, L text length, V vocabulary.
"""

from dataclasses import dataclass

import torch
from transformers import Cache
from transformers.utils import ModelOutput


@dataclass
class MirasolMediaOutput(ModelOutput):
    """What `encode_media` returns."""

    media_hidden_states: torch.Tensor | None = None  # [B, K·m, D], what the text attends to
    media_attention_mask: torch.Tensor | None = None  # [B, K·m], 0 at chunks that do not exist
    combined_features: torch.Tensor | None = None  # [B, K, m, combiner width]


@dataclass
class MirasolModelOutput(ModelOutput):
    """Output of `MirasolModel`."""

    last_hidden_state: torch.Tensor | None = None  # [B, L, D of the text decoder]
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None  # each [B, L, D]
    attentions: tuple[torch.Tensor, ...] | None = None  # each [B, heads, L, L]
    cross_attentions: tuple[torch.Tensor, ...] | None = None  # each [B, heads, L, K·m]
    media_hidden_states: torch.Tensor | None = None
    media_attention_mask: torch.Tensor | None = None
    combined_features: torch.Tensor | None = None


@dataclass
class MirasolConditionalGenerationOutput(ModelOutput):
    """Output of `MirasolForConditionalGeneration`; `loss` is the weighted sum of the named losses."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None  # [B, L, V]
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    cross_attentions: tuple[torch.Tensor, ...] | None = None
    media_hidden_states: torch.Tensor | None = None
    media_attention_mask: torch.Tensor | None = None
    combined_features: torch.Tensor | None = None
    text_loss: torch.Tensor | None = None
    latent_loss: torch.Tensor | None = None
    video_reconstruction_loss: torch.Tensor | None = None
    audio_reconstruction_loss: torch.Tensor | None = None
