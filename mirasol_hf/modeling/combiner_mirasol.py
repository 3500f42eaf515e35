# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Combiner: the tokens of both modalities of a chunk become m joint features (paper, section 3.2).

Shape legend: B batch, K chunks, P chunks that exist in the batch, T media tokens per chunk, m outputs, D width.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_outputs import BaseModelOutput
from transformers.processing_utils import Unpack
from transformers.utils.generic import TransformersKwargs, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .attention_mirasol import MirasolAttention, MirasolEncoderLayer, MirasolRotaryEmbedding
from .base_mirasol import MirasolMediaPart, fill_normal
from .configuration_mirasol import MirasolCombinerConfig
from .media_cache_mirasol import MirasolBlockCausalState
from .media_encoding_mirasol import computes_every_chunk


def scatter_chunks(chunks: torch.Tensor, chunk_mask: torch.Tensor | None, shape: tuple[int, int]) -> torch.Tensor:
    """[P, ...] → [B, K, ...]: existing chunks go to where `chunk_mask` [B, K] is set, the others are zero.

    P is their number, or B·K where all were computed, whether they exist or not.
    """
    if chunk_mask is None:
        return chunks.unflatten(0, shape)
    if chunks.shape[0] == shape[0] * shape[1]:
        return chunks.unflatten(0, shape).where(chunk_mask.bool().view(*shape, *[1] * (chunks.ndim - 1)), 0)
    grid = chunks.new_zeros(*shape, *chunks.shape[1:])
    grid[chunk_mask.bool()] = chunks
    return grid


class MirasolCombinerEmbeddings(nn.Module):
    """Marks each token's modality and, with learned outputs, appends the m tokens that are read out."""

    def __init__(self, config: MirasolCombinerConfig) -> None:
        super().__init__()
        self.modality_embedding = nn.Parameter(torch.zeros(2, config.hidden_size))
        appended = config.type == "transformer" and config.output_tokens == "learned"
        count = config.num_output_tokens if appended else 0
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
    main_input_name = "tokens"
    _can_record_outputs = {
        "hidden_states": MirasolEncoderLayer,
        "attentions": OutputRecorder(MirasolAttention, index=1),
    }

    def __init__(self, config: MirasolCombinerConfig) -> None:
        super().__init__(config)
        if config.type != "transformer":
            raise ValueError(f"combiner_config.type={config.type!r} is built by MirasolMemoryCombiner")
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
        state: MirasolBlockCausalState | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        """Combines chunks.

        Args:
            tokens: [P, T, D], those of existing chunks (or of all B·K) in batch order, video tokens before audio
                tokens.
            num_video_tokens: how many of the T are video tokens.
            shape: (B, K).
            token_mask: [P, T], 0 at tokens of a missing modality.
            chunk_mask: [B, K], 0 at chunks that do not exist; `None` when all exist and P = B·K.
            state: what a causal Combiner kept of earlier chunks of a stream.

        Returns:
            `last_hidden_state` [B, K, m, D], zeros for chunks that do not exist.

        Raises:
            ValueError: with `output_tokens="last"`, a chunk with fewer than m tokens.
        """
        hidden_states = self.embeddings(tokens, num_video_tokens)
        if self.config.output_tokens == "last":
            hidden_states, token_mask = present_tokens_last(hidden_states, token_mask, self.config.num_output_tokens)
        if token_mask is not None:
            token_mask = nn.functional.pad(token_mask, (0, hidden_states.shape[1] - tokens.shape[1]), value=1)
        if self.config.context == "chunk":
            combined = self.combine_chunks(hidden_states, shape, token_mask, chunk_mask, **kwargs)
        else:
            combined = self.combine_causally(hidden_states, shape, token_mask, chunk_mask, state, **kwargs)
        return BaseModelOutput(last_hidden_state=combined)

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
        state: MirasolBlockCausalState | None,
        **kwargs: Any,
    ) -> torch.Tensor:
        length = hidden_states.shape[1]
        if token_mask is None and chunk_mask is not None:
            token_mask = hidden_states.new_ones(hidden_states.shape[:2])
        if token_mask is not None:
            token_mask = scatter_chunks(token_mask, chunk_mask, shape).flatten(1)
        joined = scatter_chunks(hidden_states, chunk_mask, shape).flatten(1, 2)
        joined = run_block_causal(self, joined, token_mask, length, self.config.context_chunks, state, **kwargs)
        joined = joined.unflatten(1, (shape[1], length))
        combined = joined[:, :, -self.config.num_output_tokens :]
        if chunk_mask is not None:
            combined = combined * chunk_mask[..., None, None].to(combined.dtype)
        return combined


def present_tokens_last(
    tokens: torch.Tensor, token_mask: torch.Tensor | None, num_outputs: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Moves tokens of a missing modality before those that are present, so that the last ones are always present.

    The Combiner has no positions within a chunk: the order of its tokens only says which outputs are kept.

    Args:
        tokens: [P, T, D].
        token_mask: [P, T], 0 at tokens of a missing modality.
        num_outputs: m.

    Returns:
        Tokens and mask in the new order.

    Raises:
        ValueError: a chunk has fewer than m tokens. A compiled program cannot look at its data; there only the number
            of tokens that a chunk can have is checked.
    """
    counts = None if token_mask is None or computes_every_chunk() else token_mask.sum(dim=1)
    fewest = tokens.shape[1] if counts is None else int(counts.min())
    if fewest < num_outputs:
        raise ValueError(
            f"combiner_config.output_tokens='last' keeps combiner_config.num_output_tokens={num_outputs} tokens, but "
            f"a chunk has only {fewest} (a modality is missing, or a still image); 'learned' has no such limit"
        )
    if token_mask is None:
        return tokens, None
    order = token_mask.long().argsort(dim=1, stable=True)
    return tokens.gather(1, order[..., None].expand_as(tokens)), token_mask.gather(1, order)


def run_block_causal(
    part: MirasolMediaPart,
    hidden_states: torch.Tensor,
    token_mask: torch.Tensor | None,
    tokens_per_chunk: int,
    window: int | None,
    state: MirasolBlockCausalState | None,
    **kwargs: Any,
) -> torch.Tensor:
    """Runs a stack that is block-causal by chunk, with rotary positions that count chunks.

    Tokens of one chunk see each other and those of earlier chunks, at most `window` chunks in all. Where
    `runs_as_rectangle` allows it, clips of a ragged batch run by length, without their padding; its outputs are zeros.

    Args:
        part: the model part, with `config`, `rotary_emb` and its stack.
        hidden_states: [B, K·n, D].
        token_mask: [B, K·n], 0 at tokens that nobody may attend to.
        tokens_per_chunk: n.
        window: chunks that a chunk sees, itself included; `None` for all.
        state: what is kept of earlier chunks of a stream; `None` for a whole clip.
    """
    rotary_emb: Any = part.rotary_emb
    if state is not None:
        chunk_ids, mask = state.attention_mask(hidden_states, token_mask, tokens_per_chunk, window)
        rotary = rotary_emb(hidden_states, chunk_ids)
        output = part.run_stack(hidden_states, mask, rotary, state.key_values, **kwargs)
        state.drop_unseen(window)
        return output

    def run_clips(clips: torch.Tensor, clip_mask: torch.Tensor | None) -> torch.Tensor:
        chunk_ids, mask = whole_clip_mask(part, clips, clip_mask, tokens_per_chunk, window)
        return part.run_stack(clips, mask, rotary_emb(clips, chunk_ids), **kwargs)

    if token_mask is None or runs_as_rectangle(part, kwargs):
        return run_clips(hidden_states, token_mask)
    output = torch.zeros_like(hidden_states)
    for rows, length in clips_by_length(token_mask, tokens_per_chunk):
        output[rows, :length] = run_clips(hidden_states[rows, :length], token_mask[rows, :length])
    return output


def runs_as_rectangle(part: MirasolMediaPart, kwargs: dict[str, Any]) -> bool:
    """Whether a ragged batch must go through the layers in one call, padding and all."""
    records = ("output_hidden_states", "output_attentions")
    if any(kwargs.get(name) or getattr(part.config, name) for name in records):
        return True
    # with several processes all must call the layers equally often, or sharded parameters wait for each other
    return part.training or torch.distributed.is_initialized() or computes_every_chunk()


def clips_by_length(token_mask: torch.Tensor, tokens_per_chunk: int) -> Iterator[tuple[torch.Tensor, int]]:
    """Rows of clips that are equally long, and their tokens up to the end of the last chunk that exists.

    Args:
        token_mask: [B, K·n], 0 at padding.
        tokens_per_chunk: n.
    """
    exists = token_mask.bool().unflatten(1, (-1, tokens_per_chunk)).any(dim=2).cpu()
    chunks = (exists * torch.arange(1, exists.shape[1] + 1)).amax(dim=1)
    for count in chunks.unique().tolist():
        if count:
            yield (chunks == count).nonzero().flatten().to(token_mask.device), count * tokens_per_chunk


def whole_clip_mask(
    part: MirasolMediaPart,
    hidden_states: torch.Tensor,
    token_mask: torch.Tensor | None,
    tokens_per_chunk: int,
    window: int | None,
) -> tuple[torch.Tensor, Any]:
    """The chunk of each token [B, K·n], and the block-causal mask in the form the attention backend wants."""
    batch, length, _ = hidden_states.shape
    chunk_ids = (torch.arange(length, device=hidden_states.device) // tokens_per_chunk).expand(batch, -1)

    def within_window(batch_idx: Any, head_idx: Any, q_idx: Any, kv_idx: Any) -> Any:
        return q_idx // tokens_per_chunk - kv_idx // tokens_per_chunk < window

    mask = create_causal_mask(
        part.config,
        hidden_states,
        None if token_mask is None else token_mask.to(torch.long),
        None,  # no cache
        block_sequence_ids=chunk_ids,
        and_mask_function=None if window is None else within_window,
    )
    return chunk_ids, mask
