# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Streaming state of the time-aligned part: chunks in as they come, the same features out as from the whole clip.

Shape legend: B batch, K chunks of this call, n tokens per chunk, D width.
"""

import torch
from transformers import DynamicCache


class MirasolBlockCausalState:
    """Keys and values that a block-causal stack keeps of earlier chunks, with the chunk of each token.

    With an attention window the oldest chunks are dropped as soon as nobody can see them, so that the state stops
    growing.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self.num_chunks = 0
        self.key_values = DynamicCache()
        self._chunk_ids: torch.Tensor | None = None  # [tokens kept], on the CPU
        self._token_mask: torch.Tensor | None = None  # [B, tokens kept], False at tokens that nobody may see

    @property
    def num_tokens(self) -> int:
        """Tokens whose keys and values are kept."""
        return 0 if self._chunk_ids is None else int(self._chunk_ids.shape[0])

    def attention_mask(
        self, hidden_states: torch.Tensor, token_mask: torch.Tensor | None, tokens_per_chunk: int, window: int | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes the next chunks in and says what they may see.

        Args:
            hidden_states: [B, K·n, D].
            token_mask: [B, K·n], 0 at tokens that nobody may attend to.
            tokens_per_chunk: n.
            window: how many chunks a chunk sees, itself included.

        Returns:
            The chunk of each new token [B, K·n], counted from the start of the stream, and the additive mask
            [B, 1, K·n, kept + K·n].

        Raises:
            ValueError: the batch size changed in the middle of a stream.
        """
        batch, length, _ = hidden_states.shape
        # ids stay on the CPU: what to drop is then known without waiting for the device
        new_ids = torch.arange(length) // tokens_per_chunk + self.num_chunks
        seen = torch.ones(batch, length, dtype=torch.bool, device=hidden_states.device)
        if token_mask is not None:
            seen = token_mask.to(torch.bool)
        ids, mask = new_ids, seen
        if self._chunk_ids is not None and self._token_mask is not None:
            if self._token_mask.shape[0] != batch:
                raise ValueError(f"media_cache holds {self._token_mask.shape[0]} clips, the new chunks {batch}")
            ids, mask = torch.cat((self._chunk_ids, new_ids)), torch.cat((self._token_mask, seen), dim=1)
        distance = new_ids[:, None] - ids[None]
        visible = distance >= 0 if window is None else (distance >= 0) & (distance < window)
        allowed = visible.to(mask.device)[None, None] & mask[:, None, None]
        self._chunk_ids, self._token_mask = ids, mask
        self.num_chunks += length // tokens_per_chunk
        blocked = torch.finfo(hidden_states.dtype).min
        additive = torch.zeros_like(allowed, dtype=hidden_states.dtype).masked_fill(~allowed, blocked)
        return new_ids.to(hidden_states.device).expand(batch, -1), additive

    def drop_unseen(self, window: int | None) -> None:
        """Drops what no later chunk can see. Call it once the stack has run."""
        if window is None or self._chunk_ids is None or self._token_mask is None:
            return
        kept = int((self._chunk_ids > self.num_chunks - window).sum())
        first = self.num_tokens - kept
        # copies: a slice would keep the whole storage alive
        self._chunk_ids, self._token_mask = self._chunk_ids[first:].clone(), self._token_mask[:, first:].clone()
        for layer in self.key_values.layers:
            assert layer.keys is not None and layer.values is not None
            layer.keys, layer.values = layer.keys[:, :, first:].clone(), layer.values[:, :, first:].clone()


class MirasolMemoryState:
    """The memory of a Token Turing Machine between calls: of one size, however long the stream."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self.memory: torch.Tensor | None = None  # [B, memory tokens, D]

    def recall(self, batch: int) -> torch.Tensor | None:
        """The memory of the `batch` clips, `None` at the start of a stream.

        Raises:
            ValueError: the batch size changed in the middle of a stream.
        """
        if self.memory is not None and self.memory.shape[0] != batch:
            raise ValueError(f"media_cache holds {self.memory.shape[0]} clips, the new chunks {batch}")
        return self.memory


class MirasolMediaCache:
    """What `encode_media` keeps of a stream between calls; one object per stream (or batch of streams).

    Example:
        >>> cache = MirasolMediaCache()
        >>> for chunk in chunks:  # each with tensors of one or more chunks
        ...     features = model.encode_media(**chunk, media_cache=cache)

    The features of the calls, concatenated, equal those of one call with all chunks. Memory grows with the stream
    unless `time_config.attention_window` (and, for a causal Combiner, `combiner_config.context_chunks`) bound it; a
    Token Turing Machine needs no bound, as its memory has one size.
    Attention must run as `"eager"` or `"sdpa"`.
    """

    def __init__(self) -> None:
        self.combiner = MirasolBlockCausalState()
        self.memory = MirasolMemoryState()
        self.time_model = MirasolBlockCausalState()

    @property
    def num_chunks(self) -> int:
        """Chunks taken in so far."""
        return self.time_model.num_chunks

    def reset(self) -> None:
        """Starts a new stream."""
        self.combiner.reset()
        self.memory.reset()
        self.time_model.reset()
