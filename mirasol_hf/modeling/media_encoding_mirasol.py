# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""From clips to the features that the text attends to: towers, Combiner and time model put together.

Shape legend: B batch, K chunks, F frames per chunk, C, H, W image, S spectrogram steps, M mel bins,
P existing chunks, T tokens per chunk, m Combiner outputs, D width.
"""

from typing import Any

import torch
from torch import nn

from .distributed_mirasol import chunk_of_zeros, gathers_weights, no_part_of, runs_every_part
from .input_checks_mirasol import check_media, check_streaming, usable_sound
from .media_cache_mirasol import MirasolMediaCache
from .outputs_mirasol import MirasolMediaOutput


class MirasolMediaEncoding:
    """`encode_media` of the modules that own these parts."""

    config: Any
    video_tower: nn.Module
    video_projection: nn.Linear
    audio_tower: nn.Module | None
    audio_projection: nn.Linear | None
    combiner: nn.Module
    time_model: nn.Module

    @gathers_weights
    def encode_media(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        video_mask: torch.Tensor | None = None,
        audio_mask: torch.Tensor | None = None,
        media_cache: MirasolMediaCache | None = None,
        chunk_seconds: torch.Tensor | None = None,
        video_timestamps: torch.Tensor | None = None,
    ) -> MirasolMediaOutput:
        """Encodes clips into the features that the text attends to.

        Chunks that do not exist (both masks 0) and modalities that are missing are not computed, and never change
        the result of what is present.

        Args:
            pixel_values_videos: [B, K, F, C, H, W], normalised frames; F may be 1 for still images.
            input_features: [B, K, S, M], log-mel spectrograms; not used beside pictures where the model has no audio
                tower.
            video_mask, audio_mask: [B, K], 1 where the chunk has that modality; `None` for everywhere.
            media_cache: state of a stream; the chunks follow those that it has seen, and it takes them in.
            chunk_seconds, video_timestamps: not used: the model counts chunks. They may be given because
                `processor.iter_chunks` yields them with the tensors.

        Returns:
            `media_hidden_states` [B, K·m, D], `media_attention_mask` [B, K·m], `combined_features` [B, K, m, D].

        Raises:
            ValueError, TypeError: tensors that do not fit the configuration or each other, or a `media_cache` that
                holds other clips, belongs to another model, or does not go with the model's settings.
        """
        return self.encode_clips(pixel_values_videos, input_features, video_mask, audio_mask, media_cache)

    def encode_clips(
        self,
        pixel_values_videos: torch.Tensor | None,
        input_features: torch.Tensor | None,
        video_mask: torch.Tensor | None,
        audio_mask: torch.Tensor | None,
        media_cache: MirasolMediaCache | None = None,
    ) -> MirasolMediaOutput:
        """`encode_media` as a part of `forward`."""
        input_features, audio_mask = usable_sound(self.config, pixel_values_videos, input_features, audio_mask)
        shape = check_media(self.config, pixel_values_videos, input_features, video_mask, audio_mask)
        if media_cache is not None:
            check_streaming(media_cache, MirasolMediaCache, self.combiner, self.time_model)
            media_cache.continue_with(shape[0], self.video_projection.weight.dtype, self.config)
        # that of the media: weights may be kept elsewhere (offloaded, on meta)
        device = next(media.device for media in (pixel_values_videos, input_features) if media is not None)
        video_mask = partial_mask(pixel_values_videos, video_mask, shape, device)
        audio_mask = partial_mask(input_features, audio_mask, shape, device)
        chunk_mask = None if video_mask is None or audio_mask is None else video_mask | audio_mask
        if chunk_mask is not None and not computes_every_chunk() and not chunk_mask.any():
            return self.encode_nothing(shape, device, media_cache)
        video, audio = (self.video_tower, self.video_projection), (self.audio_tower, self.audio_projection)
        video_tokens = self.encode_modality(*video, pixel_values_videos, video_mask, device)
        audio_tokens = self.encode_modality(*audio, input_features, audio_mask, device)
        tokens, token_mask = self.join_modalities(
            (video_tokens, video_mask), (audio_tokens, audio_mask), chunk_mask, shape
        )
        cache, has_memory = media_cache, self.config.combiner_config.type == "ttm"
        state = None if cache is None else cache.memory if has_memory else cache.combiner
        combined = self.combiner(tokens, video_tokens.shape[1], shape, token_mask, chunk_mask, state).last_hidden_state
        states = self.time_model(combined, chunk_mask, cache.time_model if cache else None).last_hidden_state
        features_per_chunk = combined.shape[2]
        present = (
            torch.ones(shape, device=states.device, dtype=torch.long) if chunk_mask is None else chunk_mask.long()
        )
        return MirasolMediaOutput(
            media_hidden_states=states,
            media_attention_mask=present.repeat_interleave(features_per_chunk, dim=1),
            combined_features=combined,
        )

    def encode_nothing(
        self, shape: tuple[int, int], device: torch.device, cache: MirasolMediaCache | None
    ) -> MirasolMediaOutput:
        """Features where no chunk exists: zeros that the mask hides. A stream only moves on in time."""
        (batch, chunks), slots = shape, self.config.combiner_config.num_output_tokens
        if cache is not None:
            cache.combiner.skip(chunks, self.config.combiner_config.context_chunks)
            cache.time_model.skip(chunks, self.config.time_config.attention_window)
        kind: dict[str, Any] = {"device": device, "dtype": self.video_projection.weight.dtype}
        states = torch.zeros(batch, chunks * slots, self.config.time_config.hidden_size, **kind)
        if runs_every_part(self):
            states = states + self.run_unused(device).to(states)
        return MirasolMediaOutput(
            media_hidden_states=states,
            media_attention_mask=torch.zeros(batch, chunks * slots, dtype=torch.long, device=device),
            combined_features=torch.zeros(batch, chunks, slots, self.config.combiner_config.hidden_size, **kind),
        )

    def run_unused(self, device: torch.device) -> torch.Tensor:
        """Runs every part on a chunk of zeros; returns 0, by which the weights get zeros as gradients."""
        towers = (self.video_tower, self.audio_tower)
        video, audio = (None if tower is None else chunk_of_zeros(tower, device)[None] for tower in towers)
        states = self.encode_clips(video, audio, None, None).media_hidden_states
        assert states is not None
        return no_part_of(states)

    def encode_modality(
        self,
        tower: nn.Module | None,
        projection: nn.Module | None,
        media: torch.Tensor | None,
        mask: torch.Tensor | None,
        device: torch.device,
    ) -> torch.Tensor:
        """Encodes the chunks that have the modality: [B, K, …] → [existing, T, D]; [1, 0, D] without the modality."""
        if tower is None or projection is None:
            width, dtype = self.config.combiner_config.hidden_size, self.video_projection.weight.dtype
            return torch.empty(1, 0, width, device=device, dtype=dtype)
        if media is None:
            if not runs_every_part(self):
                return self.encode_modality(None, None, None, None, device)
            return projection(tower(chunk_of_zeros(tower, device)).last_hidden_state)[:, :0]
        if mask is not None and computes_every_chunk():
            # zeros, as what stands in an absent chunk may be anything
            media, mask = media.where(mask.view(*mask.shape, *[1] * (media.ndim - 2)), 0), None
        chunks = media.flatten(0, 1) if mask is None else media[mask]
        if chunks.shape[0] == 0:
            return self.encode_modality(tower, projection, None, None, device)
        return projection(tower(chunks).last_hidden_state)

    def join_modalities(
        self,
        video: tuple[torch.Tensor, torch.Tensor | None],
        audio: tuple[torch.Tensor, torch.Tensor | None],
        chunk_mask: torch.Tensor | None,
        shape: tuple[int, int],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Lines up both modalities by existing chunk: tokens [P, T, D] and their mask [P, T] (`None`: all present)."""
        everything = computes_every_chunk()
        total = shape[0] * shape[1] if chunk_mask is None or everything else int(chunk_mask.sum())
        tokens, masks, is_complete = [], [], True
        for states, mask in (video, audio):
            if states.shape[1] == 0:
                tokens.append(states.expand(total, -1, -1))
                continue
            if mask is None or (states.shape[0] == total and not everything):
                tokens.append(states)
                masks.append(torch.ones(states.shape[:2], device=states.device, dtype=torch.bool))
                continue
            is_complete = False
            rows = mask.flatten() if chunk_mask is None or everything else mask[chunk_mask]
            if everything:
                padded = states.where(rows[:, None, None], 0)
            else:
                padded = states.new_zeros(total, *states.shape[1:])
                padded[rows] = states
            tokens.append(padded)
            masks.append(rows[:, None].expand(-1, states.shape[1]))
        return torch.cat(tokens, dim=1), None if is_complete else torch.cat(masks, dim=1)


class MirasolMediaEncoder(MirasolMediaEncoding, nn.Module):
    """`encode_media` as a module of its own, for exporters and compilers, which take modules.

    It shares the parts of the model that encode media, and has no others.

    Args:
        model: a `MirasolModel`.
    """

    def __init__(self, model: MirasolMediaEncoding) -> None:
        super().__init__()
        self.config = model.config
        self.video_tower, self.video_projection = model.video_tower, model.video_projection
        self.audio_tower, self.audio_projection = model.audio_tower, model.audio_projection
        self.combiner, self.time_model = model.combiner, model.time_model

    def forward(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        video_mask: torch.Tensor | None = None,
        audio_mask: torch.Tensor | None = None,
    ) -> MirasolMediaOutput:
        """See `encode_media`."""
        return self.encode_media(pixel_values_videos, input_features, video_mask, audio_mask)


def computes_every_chunk() -> bool:
    """Whether chunks that do not exist are computed like the others and their results set to zero.

    Which chunks exist is a matter of the data. A compiled or exported program is of one shape for all data, so it
    cannot leave chunks out.
    """
    return torch.compiler.is_compiling()


def partial_mask(
    media: torch.Tensor | None, mask: torch.Tensor | None, shape: tuple[int, int], device: torch.device
) -> torch.Tensor | None:
    """A bool [B, K] mask of what is present, or `None` where everything is (then nothing needs to be gathered)."""
    if media is None:
        return torch.zeros(shape, dtype=torch.bool, device=device)
    if mask is None:
        return None
    mask = mask.to(device=device, dtype=torch.bool)
    return None if not computes_every_chunk() and bool(mask.all()) else mask
