# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Losses on the media features: prediction of the next chunk (paper, section 3.5).

Shape legend: B batch, K chunks, m features per chunk, D width, F frames, S spectrogram steps, M mel bins.
"""

import math
from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from .distributed_mirasol import no_part_of


class MirasolLossHeads(nn.Module):
    """Heads that predict chunk t+1 from the time model's outputs at chunk t.

    A head whose loss weight is 0 does not exist. Reconstruction heads share the target among the m features: each of
    them predicts one m-th of it, which keeps the heads small.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.latent_loss = config.latent_loss
        width, slots = config.time_config.hidden_size, config.combiner_config.num_output_tokens
        video, audio = config.video_config, config.audio_config
        self.latent_head = self.video_head = self.audio_head = None
        if config.latent_loss_weight > 0:
            self.latent_head = nn.Linear(width, config.combiner_config.hidden_size)
        if config.video_reconstruction_loss_weight > 0:
            frames, height, columns = video.reconstruction_size
            self.video_size = (frames, height, columns)
            values = video.num_channels * math.prod(self.video_size)
            self.video_head = nn.Linear(width, math.ceil(values / slots))
        if audio is not None and config.audio_reconstruction_loss_weight > 0:
            self.audio_size = tuple(audio.reconstruction_size)
            self.audio_head = nn.Linear(width, math.ceil(math.prod(self.audio_size) / slots))

    def forward(
        self,
        states: torch.Tensor,
        combined_features: torch.Tensor,
        pixel_values_videos: torch.Tensor | None,
        input_features: torch.Tensor | None,
        counted: dict[str, torch.Tensor],
        num_chunks_in_batch: dict[str, torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Computes each loss by name, in float32, as a mean over the next chunks that exist.

        Args:
            states: [B, K, m, D], outputs of the time model.
            combined_features: [B, K, m, combiner width], the latent targets (taken without gradient).
            pixel_values_videos: [B, K, F, C, H, W].
            input_features: [B, K, S, M].
            counted: which of the K−1 predictions each loss counts, from `predicted_chunks`.
            num_chunks_in_batch: how many it counts in all micro-batches of an accumulated step; by default those
                counted here.

        Returns:
            `latent_loss`, `video_reconstruction_loss`, `audio_reconstruction_loss`, as far as they apply.
        """
        errors: dict[str, torch.Tensor] = {}
        known = states[:, :-1]
        if self.latent_head is not None:
            target = combined_features[:, 1:].detach()
            errors["latent_loss"] = latent_error(self.latent_head(known), target, self.latent_loss)
        if self.video_head is not None and pixel_values_videos is not None:
            name = "video_reconstruction_loss"
            target = downsized_video(pixel_values_videos[:, 1:], self.video_size)
            errors[name] = reconstruction_error(self.video_head(known), target, counted[name])
        if self.audio_head is not None and input_features is not None:
            name = "audio_reconstruction_loss"
            target = nn.functional.adaptive_avg_pool2d(input_features[:, 1:].float(), self.audio_size).flatten(2)
            errors[name] = reconstruction_error(self.audio_head(known), target, counted[name])
        totals = num_chunks_in_batch or {}
        return {name: masked_mean(error, counted[name], totals.get(name)) for name, error in errors.items()}

    def run_unused(self, states: torch.Tensor, losses: Collection[str]) -> torch.Tensor:
        """0, by which the heads of losses that a batch does not have get zeros as gradients.

        Args:
            states: [B, N, D], outputs of the time model.
            losses: names of those that it has.
        """
        heads = {
            "latent_loss": self.latent_head,
            "video_reconstruction_loss": self.video_head,
            "audio_reconstruction_loss": self.audio_head,
        }
        zero = states.new_zeros((), dtype=torch.float32)
        for name, head in heads.items():
            if head is not None and name not in losses:
                zero = zero + no_part_of(head(states[:, :1])).float()
        return zero


def predicted_chunks(video_mask: torch.Tensor, audio_mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Which predictions of chunk t+1 from chunk t each loss counts.

    Args:
        video_mask, audio_mask: [B, K], what is present.

    Returns:
        Bool [B, K−1] by the name of the loss: chunk t exists, and so does what is predicted of chunk t+1.
    """
    video, audio = video_mask.bool(), audio_mask.bool()
    exists = video | audio
    known = exists[:, :-1]
    return {
        "latent_loss": known & exists[:, 1:],
        "video_reconstruction_loss": known & video[:, 1:],
        "audio_reconstruction_loss": known & audio[:, 1:],
    }


def latent_error(predicted: torch.Tensor, target: torch.Tensor, kind: str) -> torch.Tensor:
    """[B, K−1, m, D] twice → [B, K−1]: 1 − cosine similarity, or the squared error, averaged over the features."""
    predicted, target = predicted.float(), target.float()
    if kind == "cosine":
        return (1 - nn.functional.cosine_similarity(predicted, target, dim=-1)).mean(-1)
    return (predicted - target).pow(2).mean((-1, -2))


def reconstruction_error(predicted: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[B, K−1, m, part] against [B, K−1, size] → squared error [B, K−1], to be counted where `mask` [B, K−1] is set.

    What stands in an absent chunk may be anything: a NaN there would reach the gradients even though its error is not
    counted.
    """
    flat = predicted.float().flatten(2)[..., : target.shape[-1]]
    target = target.where(mask[..., None], 0)
    return (flat - target).pow(2).mean(-1)


def downsized_video(pixel_values_videos: torch.Tensor, size: tuple[int, int, int]) -> torch.Tensor:
    """[B, K, F, C, H, W] → [B, K, C·f·h·w] by averaging over the cells of a grid of (f, h, w)."""
    batch, chunks = pixel_values_videos.shape[:2]
    video = pixel_values_videos.float().flatten(0, 1).transpose(1, 2)
    return nn.functional.adaptive_avg_pool3d(video, size).flatten(1).unflatten(0, (batch, chunks))


def masked_mean(error: torch.Tensor, mask: torch.Tensor, total: torch.Tensor | None = None) -> torch.Tensor:
    """Sum of `error` [B, K−1] where `mask` is set, by `total` or by how many are set; 0 where none is."""
    return error.where(mask, 0).sum() / (mask.sum() if total is None else total).clamp(min=1)
