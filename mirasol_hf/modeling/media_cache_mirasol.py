# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Streaming state of the time-aligned part: chunks in as they come, the same features out as from the whole clip.

Shape legend: B batch, K chunks of this call, n tokens per chunk, D width.
"""

from typing import Any

import torch
from transformers import DynamicCache

from .outputs_mirasol import MirasolMediaOutput


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
        """
        batch, length, _ = hidden_states.shape
        # ids stay on the CPU: what to drop is then known without waiting for the device
        new_ids = torch.arange(length) // tokens_per_chunk + self.num_chunks
        seen = torch.ones(batch, length, dtype=torch.bool, device=hidden_states.device)
        if token_mask is not None:
            seen = token_mask.to(torch.bool)
        ids, mask = new_ids, seen
        if self._chunk_ids is not None and self._token_mask is not None:
            ids, mask = torch.cat((self._chunk_ids, new_ids)), torch.cat((self._token_mask, seen), dim=1)
        distance = new_ids[:, None] - ids[None]
        visible = distance >= 0 if window is None else (distance >= 0) & (distance < window)
        allowed = visible.to(mask.device)[None, None] & mask[:, None, None]
        self._chunk_ids, self._token_mask = ids, mask
        self.num_chunks += length // tokens_per_chunk
        blocked = torch.finfo(hidden_states.dtype).min
        additive = torch.zeros_like(allowed, dtype=hidden_states.dtype).masked_fill(~allowed, blocked)
        return new_ids.to(hidden_states.device).expand(batch, -1), additive

    def skip(self, chunks: int, window: int | None) -> None:
        """Moves on by chunks in which no clip has anything."""
        self.num_chunks += chunks
        self.drop_unseen(window)

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
        self.memory: torch.Tensor | None = None  # [B, memory tokens, D], `None` at the start of a stream


class MirasolMediaCache:
    """What `encode_media` keeps of a stream between calls; one object per stream (or batch of streams).

    Example:
        >>> cache = MirasolMediaCache()
        >>> for chunk in processor.iter_chunks("clip.mp4"):  # tensors of one chunk; more at a time are as good
        ...     with torch.inference_mode():
        ...         features = model.encode_media(**chunk, media_cache=cache)

    The features of the calls, concatenated, equal those of one call with all chunks. Memory grows with the stream
    unless `time_config.attention_window` (and, for a causal Combiner, `combiner_config.context_chunks`) bound it; a
    Token Turing Machine needs no bound, as its memory has one size. What the text attends to is not kept here but in
    a `MirasolMediaFeatures`.
    Attention must run as `"eager"` or `"sdpa"`. With gradients enabled the state keeps what backward needs of all
    chunks, and grows; streams are encoded under `torch.inference_mode()` or `torch.no_grad()`.
    """

    def __init__(self) -> None:
        self.combiner = MirasolBlockCausalState()
        self.memory = MirasolMemoryState()
        self.time_model = MirasolBlockCausalState()
        self._stream: dict[str, Any] = {}

    @property
    def num_chunks(self) -> int:
        """Chunks taken in so far."""
        return self.time_model.num_chunks

    def continue_with(self, clips: int, dtype: torch.dtype, config: Any) -> None:
        """Checks that chunks continue the stream, before anything of the state changes.

        Args:
            clips: B of the chunks.
            dtype: that of the model's weights.
            config: the model's `MirasolConfig`.

        Raises:
            ValueError: the clips are not as many as before, or the model is another one.
        """
        if self._stream and self._stream["clips"] != clips:
            raise ValueError(f"media_cache holds {self._stream['clips']} clips, the new chunks {clips}")
        fields = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_output_tokens", "type", "context")
        sections = {"combiner_config": config.combiner_config, "time_config": config.time_config}
        stream = {
            "clips": clips,
            "dtype": dtype,
            **{f"{name}.{field}": getattr(part, field, None) for name, part in sections.items() for field in fields},
        }
        for name, value in self._stream.items():
            if stream[name] != value:
                raise ValueError(
                    f"media_cache holds a stream of a model with {name}={value}, this model has {stream[name]}; give "
                    f"every model a cache of its own, or call reset() to start a new stream"
                )
        self._stream = stream

    def reset(self) -> None:
        """Starts a new stream."""
        self._stream = {}
        self.combiner.reset()
        self.memory.reset()
        self.time_model.reset()


class MirasolMediaFeatures:
    """What the text attends to of a stream: the features of its chunks, joined as they come.

    With `text_config.media_window` only those of the latest chunks are kept, so that the state stops growing;
    without it, it grows by `num_output_tokens` features with each chunk. Chunks in which no clip has anything are not
    kept, as no text attends to them; only where nothing has come yet, they stand for it.

    Args:
        config: the model's `MirasolConfig`.

    Example:
        >>> features = MirasolMediaFeatures(model.config)
        >>> for chunk in chunks:
        ...     features.add(model.encode_media(**chunk, media_cache=cache))
        >>> model.generate(input_ids, **features.joined())
    """

    def __init__(self, config: Any) -> None:
        self.limit = feature_limit(config)
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._states: list[torch.Tensor] = []
        self._masks: list[torch.Tensor] = []

    @property
    def num_features(self) -> int:
        """Features kept of each clip."""
        return sum(mask.shape[1] for mask in self._masks)

    def add(self, encoded: MirasolMediaOutput) -> None:
        """Takes in what `encode_media` returned for the next chunks."""
        assert encoded.media_hidden_states is not None and encoded.media_attention_mask is not None
        states, mask = encoded.media_hidden_states, encoded.media_attention_mask
        exists = mask.any(0).cpu()
        if not exists.all():
            if not exists.any() and self._states:
                return
            kept = exists if exists.any() else slice(1)
            states, mask = states[:, kept], mask[:, kept]
        self._states.append(states)
        self._masks.append(mask)
        if self.limit is not None and self.num_features > self.limit:
            self.joined()

    def joined(self) -> dict[str, torch.Tensor]:
        """`media_hidden_states` [B, N, D] and `media_attention_mask` [B, N], for `forward` and `generate`.

        Raises:
            ValueError: no chunk has come yet.
        """
        if not self._states:
            raise ValueError("no chunk has come yet: call add() with what encode_media() returned first")
        states, mask = torch.cat(self._states, dim=1), torch.cat(self._masks, dim=1)
        if self.limit is not None:
            states, mask = latest_features(states, mask, self.limit)
        self._states, self._masks = [states], [mask]  # in place of the parts, so that nothing is held twice
        return {"media_hidden_states": states, "media_attention_mask": mask}


def feature_limit(config: Any) -> int | None:
    """How many features of a clip the text attends to, by `text_config.media_window`; `None` for all."""
    window = config.text_config.media_window
    return None if window is None else window * config.combiner_config.num_output_tokens


def latest_features(states: Any, mask: Any, limit: int) -> tuple[Any, Any]:
    """Keeps the last features of each clip, of those that exist.

    Args:
        states: [B, N, D], or `None` where only the mask is at hand.
        mask: [B, N], 0 at features that do not exist, or `None` when all do.
        limit: how many are kept.

    Returns:
        `states` [B, min(N, limit), D] and `mask` [B, min(N, limit)] in the order of time, absent ones first.
    """
    if mask is None:
        # a copy: a slice would keep the whole storage alive
        return (states if states is None or states.shape[1] <= limit else states[:, -limit:].clone()), None
    if mask.shape[1] <= limit:
        return states, mask
    order = mask.long().argsort(dim=1, stable=True)[:, -limit:]
    if states is not None:
        states = states.gather(1, order[..., None].expand(-1, -1, states.shape[2]))
    return states, mask.gather(1, order)
