# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Time model: an autoregressive Transformer over the Combiner features of all chunks (paper, section 3.3).

Shape legend: B batch, K chunks, m features per chunk, D width.
"""

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput
from transformers.processing_utils import Unpack
from transformers.utils.generic import TransformersKwargs, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .attention_mirasol import MirasolAttention, MirasolEncoderLayer, MirasolRotaryEmbedding, sincos_positions
from .base_mirasol import MirasolMediaPart, fill_normal
from .combiner_mirasol import run_block_causal
from .configuration_mirasol import MirasolCombinerConfig, MirasolTimeConfig
from .media_cache_mirasol import MirasolBlockCausalState


class MirasolTimeEmbeddings(nn.Module):
    """Projects Combiner features to the time model's width and marks slot and chunk; masks at random in training."""

    def __init__(self, config: MirasolTimeConfig, combiner_config: MirasolCombinerConfig) -> None:
        super().__init__()
        self.config = config
        self.projection = nn.Linear(combiner_config.hidden_size, config.hidden_size)
        self.slot_embedding = nn.Parameter(torch.zeros(combiner_config.num_output_tokens, config.hidden_size))
        self.mask_token = nn.Parameter(torch.zeros(config.hidden_size)) if config.mask_ratio > 0 else None

    def init_own_tensors(self, std: float) -> None:
        fill_normal(self.slot_embedding, std)
        if self.mask_token is not None:
            fill_normal(self.mask_token, std)

    def forward(self, combined_features: torch.Tensor, first_chunk: int = 0) -> torch.Tensor:
        """[B, K, m, combiner width] → [B, K·m, D]; `first_chunk` is the first one's place in the stream."""
        hidden_states = self.projection(combined_features)
        if self.training and self.mask_token is not None:
            masked = torch.rand(hidden_states.shape[:-1], device=hidden_states.device) < self.config.mask_ratio
            hidden_states = torch.where(masked[..., None], self.mask_token.to(hidden_states), hidden_states)
        count = hidden_states.shape[1]
        chunks = torch.arange(first_chunk, first_chunk + count, dtype=torch.float32, device=hidden_states.device)
        positions = sincos_positions(chunks[:, None], self.config.hidden_size)
        return (hidden_states + self.slot_embedding + positions[:, None].to(hidden_states)).flatten(1, 2)


class MirasolTimeModel(MirasolMediaPart):
    """Transformer over K·m features, block-causal by chunk: a chunk sees itself and earlier chunks."""

    config: MirasolTimeConfig
    base_model_prefix = "time_model"
    main_input_name = "combined_features"
    _input_embed_layer = "projection"
    _can_record_outputs = {
        "hidden_states": MirasolEncoderLayer,
        "attentions": OutputRecorder(MirasolAttention, index=1),
    }

    def __init__(self, config: MirasolTimeConfig, combiner_config: MirasolCombinerConfig) -> None:
        super().__init__(config)
        self.embeddings = MirasolTimeEmbeddings(config, combiner_config)
        self.rotary_emb = MirasolRotaryEmbedding(config)
        self.build_stack(config)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        combined_features: torch.Tensor,
        chunk_mask: torch.Tensor | None = None,
        state: MirasolBlockCausalState | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        """Relates chunks in time.

        Args:
            combined_features: [B, K, m, combiner width].
            chunk_mask: [B, K], 0 at chunks that do not exist; nobody attends to them.
            state: what was kept of earlier chunks of a stream.

        Returns:
            `last_hidden_state` [B, K·m, D], zeros for chunks that do not exist.
        """
        features_per_chunk = combined_features.shape[2]
        hidden_states = self.embeddings(combined_features, 0 if state is None else state.num_chunks)
        token_mask = None if chunk_mask is None else chunk_mask.repeat_interleave(features_per_chunk, dim=1)
        window = self.config.attention_window
        states = run_block_causal(self, hidden_states, token_mask, features_per_chunk, window, state, **kwargs)
        if token_mask is not None:
            states = states.where(token_mask[..., None].bool(), 0)
        return BaseModelOutput(last_hidden_state=states)
