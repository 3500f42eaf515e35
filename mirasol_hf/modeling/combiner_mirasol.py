# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Combiner: the tokens of both modalities of a chunk become m joint features (paper, section 3.2).

Shape legend: B batch, K chunks, P chunks that exist in the batch, T media tokens per chunk, m outputs, D width.
"""

from typing import Any

import torch
from torch import nn
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .attention_mirasol import MirasolAttention, MirasolEncoderLayer, MirasolRotaryEmbedding
from .base_mirasol import MirasolMediaPart, fill_normal
from .configuration_mirasol import MirasolCombinerConfig


def scatter_chunks(chunks: torch.Tensor, chunk_mask: torch.Tensor | None, shape: tuple[int, int]) -> torch.Tensor:
    """[P, ...] → [B, K, ...]: existing chunks go to where `chunk_mask` [B, K] is set, the others are zero."""
    if chunk_mask is None:
        return chunks.unflatten(0, shape)
    grid = chunks.new_zeros(*shape, *chunks.shape[1:])
    grid[chunk_mask.bool()] = chunks
    return grid


class MirasolCombinerEmbeddings(nn.Module):
    """Marks each token's modality and, with learned outputs, appends the m tokens that are read out."""

    def __init__(self, config: MirasolCombinerConfig) -> None:
        super().__init__()
        self.modality_embedding = nn.Parameter(torch.zeros(2, config.hidden_size))
        count = config.num_output_tokens if config.output_tokens == "learned" else 0
        self.output_tokens = nn.Parameter(torch.zeros(count, config.hidden_size)) if count else None

    def init_own_tensors(self, std: float) -> None:
        fill_normal(self.modality_embedding, std)
        if self.output_tokens is not None:
            fill_normal(self.output_tokens, std)

    def forward(self, tokens: torch.Tensor, num_video_tokens: int) -> torch.Tensor:
        """[P, T, D], the video tokens first → [P, T (+ m), D]."""
        video, audio = tokens.split([num_video_tokens, tokens.shape[1] - num_video_tokens], dim=1)
        parts = [video + self.modality_embedding[0], audio + self.modality_embedding[1]]
        if self.output_tokens is not None:
            parts.append(self.output_tokens.to(tokens.dtype).expand(tokens.shape[0], -1, -1))
        return torch.cat(parts, dim=1)


class MirasolCombiner(MirasolMediaPart):
    """Transformer Combiner: all tokens in, the last m outputs kept.

    With `context="chunk"` every chunk is combined by itself and chunks that do not exist cost nothing; with
    `context="causal"` a chunk's tokens also attend to those of earlier chunks, with rotary positions by chunk.
    """

    config: MirasolCombinerConfig
    base_model_prefix = "combiner"
    _can_record_outputs = {
        "hidden_states": MirasolEncoderLayer,
        "attentions": OutputRecorder(MirasolAttention, index=1),
    }

    def __init__(self, config: MirasolCombinerConfig) -> None:
        super().__init__(config)
        if config.type != "transformer":
            raise ValueError(
                f"combiner_config.type={config.type!r} is not built in this version; expected 'transformer'"
            )
        self.embeddings = MirasolCombinerEmbeddings(config)
        self.rotary_emb = MirasolRotaryEmbedding(config) if config.context == "causal" else None
        self.build_stack(config)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        tokens: torch.Tensor,
        num_video_tokens: int,
        shape: tuple[int, int],
        token_mask: torch.Tensor | None = None,
        chunk_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Combines chunks.

        Args:
            tokens: [P, T, D], those of existing chunks in batch order, video tokens before audio tokens.
            num_video_tokens: how many of the T are video tokens.
            shape: (B, K).
            token_mask: [P, T], 0 at tokens of a missing modality.
            chunk_mask: [B, K], 0 at chunks that do not exist; `None` when all exist and P = B·K.

        Returns:
            `last_hidden_state` [B, K, m, D], zeros for chunks that do not exist.
        """
        hidden_states = self.embeddings(tokens, num_video_tokens)
        if token_mask is not None:
            token_mask = nn.functional.pad(token_mask, (0, hidden_states.shape[1] - tokens.shape[1]), value=1)
        combine = self.combine_chunks if self.config.context == "chunk" else self.combine_causally
        return BaseModelOutput(last_hidden_state=combine(hidden_states, shape, token_mask, chunk_mask, **kwargs))

    def combine_chunks(
        self,
        hidden_states: torch.Tensor,
        shape: tuple[int, int],
        token_mask: torch.Tensor | None,
        chunk_mask: torch.Tensor | None,
        **kwargs: Any,
    ) -> torch.Tensor:
        mask = create_bidirectional_mask(self.config, hidden_states, token_mask)
        combined = self.run_stack(hidden_states, mask, num_outputs=self.config.num_output_tokens, **kwargs)
        return scatter_chunks(combined, chunk_mask, shape)

    def combine_causally(
        self,
        hidden_states: torch.Tensor,
        shape: tuple[int, int],
        token_mask: torch.Tensor | None,
        chunk_mask: torch.Tensor | None,
        **kwargs: Any,
    ) -> torch.Tensor:
        length = hidden_states.shape[1]
        if token_mask is None and chunk_mask is not None:
            token_mask = hidden_states.new_ones(hidden_states.shape[:2])
        if token_mask is not None:
            token_mask = scatter_chunks(token_mask, chunk_mask, shape).flatten(1)
        joined = scatter_chunks(hidden_states, chunk_mask, shape).flatten(1, 2)
        mask, rotary = block_causal_context(self, joined, token_mask, length, self.config.context_chunks)
        joined = self.run_stack(joined, mask, rotary, **kwargs).unflatten(1, (shape[1], length))
        combined = joined[:, :, -self.config.num_output_tokens :]
        if chunk_mask is not None:
            combined = combined * chunk_mask[..., None, None].to(combined.dtype)
        return combined


def block_causal_context(
    part: Any, hidden_states: torch.Tensor, token_mask: torch.Tensor | None, tokens_per_chunk: int, window: int | None
) -> tuple[Any, tuple[torch.Tensor, torch.Tensor]]:
    """Mask and rotary tables for a part that is block-causal by chunk.

    Tokens of one chunk see each other and those of earlier chunks, at most `window` chunks in all; rotary positions
    count chunks.

    Args:
        part: the model part, with `config` and `rotary_emb`.
        hidden_states: [B, K·n, D].
        token_mask: [B, K·n], 0 at tokens that nobody may attend to.
        tokens_per_chunk: n.
    """
    batch, length, _ = hidden_states.shape
    chunk_ids = (torch.arange(length, device=hidden_states.device) // tokens_per_chunk).expand(batch, -1)

    def within_window(batch_idx: Any, head_idx: Any, q_idx: Any, kv_idx: Any) -> Any:
        return q_idx // tokens_per_chunk - kv_idx // tokens_per_chunk < window

    mask = create_causal_mask(
        part.config,
        hidden_states,
        None if token_mask is None else token_mask.to(torch.long),
        past_key_values=None,
        block_sequence_ids=chunk_ids,
        and_mask_function=None if window is None else within_window,
    )
    return mask, part.rotary_emb(hidden_states, chunk_ids)
