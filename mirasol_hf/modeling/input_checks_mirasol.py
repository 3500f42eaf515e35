# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Checks of the tensors that enter the model; every error names the argument, what came and what was expected.

Shape legend: B batch, K chunks, F frames per chunk, C, H, W image, S spectrogram steps, M mel bins.
"""

from collections.abc import Collection
from typing import Any

import torch
from torch import nn
from transformers.utils import logging
from transformers.utils.generic import TransformersKwargs

from .strict_config_mirasol import with_hints

logger = logging.get_logger(__name__)

# What the library passes to any model; what it hands through generate(); what its continuous batching and its loss
# function take.
_PASSED_ON = frozenset(TransformersKwargs.__annotations__) | {
    "assistant_tokenizer",
    "block_table",
    "ignore_index",
    "logits_indices",
    "logits_processor_args",
    "read_index",
    "return_dict",
    "shift_labels",
    "tokenizer",
    "write_index",
}


def _expect(condition: bool, name: str, tensor: torch.Tensor, expected: str) -> None:
    if not condition:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; expected {expected}")


def check_arguments(given: Collection[str], known: Collection[str]) -> None:
    """Raises TypeError for a keyword argument that neither `forward` nor the library knows; it would do nothing."""
    unknown = sorted(name for name in given if name not in _PASSED_ON)
    if unknown:
        raise TypeError(f"forward() got an unexpected keyword argument {with_hints(unknown, known)}")


def check_labels(
    labels: torch.Tensor | None, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None
) -> None:
    """Labels need a text of their own shape."""
    if labels is None:
        return
    name, text = ("input_ids", input_ids) if input_ids is not None else ("inputs_embeds", inputs_embeds)
    if text is None:
        raise ValueError(
            f"labels {tuple(labels.shape)} were given without text; expected input_ids of the same shape [B, L], or "
            f"inputs_embeds [B, L, D], for them to be the labels of"
        )
    _expect(labels.shape == text.shape[:2], "labels", labels, f"[B, L] = {list(text.shape[:2])} of {name}")


def check_input_ids(input_ids: torch.Tensor) -> None:
    """Tokens are integers [B, L], L at least 1."""
    _expect(input_ids.ndim == 2 and input_ids.shape[1] > 0, "input_ids", input_ids, "[B, L] with at least 1 token")
    if input_ids.is_floating_point():
        raise TypeError(f"input_ids has dtype {input_ids.dtype}; expected integers")


def embed_tokens(table: nn.Module, input_ids: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """[B, L] → [B, L, D] by the embedding table.

    Raises:
        ValueError: a token that is no row of the table. Where no look-up can fail (on a GPU, in a compiled program)
            nothing is raised here, as in the library's own models.
    """
    try:
        return table(input_ids)
    except IndexError as error:
        wrong = input_ids[(input_ids < 0) | (input_ids >= vocab_size)].unique().tolist()
        raise ValueError(
            f"input_ids holds {wrong}; expected 0 to {vocab_size - 1} by text_config.vocab_size"
        ) from error


def check_pixel_values(pixels: torch.Tensor, config: Any) -> None:
    """[B, K, F, C, H, W] floating point, F the configured frames per chunk or 1 (a still image)."""
    size, frames = config.image_size, config.num_frames
    expected = f"[B, K, {frames} (or 1 for images), {config.num_channels}, {size}, {size}] by video_config"
    _expect(pixels.ndim == 6 and pixels.shape[2] in (1, frames), "pixel_values_videos", pixels, expected)
    _expect(tuple(pixels.shape[3:]) == (config.num_channels, size, size), "pixel_values_videos", pixels, expected)
    if not pixels.is_floating_point():
        raise TypeError(f"pixel_values_videos has dtype {pixels.dtype}; expected floating point, normalised frames")


def check_input_features(features: torch.Tensor, config: Any) -> None:
    """[B, K, S, M] floating point."""
    if config is None:
        raise ValueError(
            "input_features was given without pixel_values_videos, but this model has no audio tower (audio_config is "
            "None)"
        )
    expected = f"[B, K, {config.num_steps}, {config.num_mel_bins}] by audio_config"
    matches = features.ndim == 4 and tuple(features.shape[2:]) == (config.num_steps, config.num_mel_bins)
    _expect(matches, "input_features", features, expected)
    if not features.is_floating_point():
        raise TypeError(f"input_features has dtype {features.dtype}; expected floating point, log-mel values")


def usable_sound(
    config: Any,
    pixel_values_videos: torch.Tensor | None,
    input_features: torch.Tensor | None,
    audio_mask: torch.Tensor | None,
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """The sound and its mask; neither where the model has no audio tower but pictures to read."""
    if config.audio_config is not None or pixel_values_videos is None:
        return input_features, audio_mask
    if input_features is not None and not torch.compiler.is_compiling():
        logger.warning_once("this model has no audio tower (audio_config is None); it reads the pictures alone")
    return None, None


def check_media(
    config: Any,
    pixel_values_videos: torch.Tensor | None,
    input_features: torch.Tensor | None,
    video_mask: torch.Tensor | None,
    audio_mask: torch.Tensor | None,
) -> tuple[int, int]:
    """Checks all media tensors against the configuration and each other; a mask whose tensor is missing means nothing.

    Returns:
        (B, K).

    Raises:
        ValueError: no media, a wrong shape, or tensors that disagree.
        TypeError: a tensor of integers where floating point is expected.
    """
    if pixel_values_videos is None and input_features is None:
        raise ValueError("no media: give pixel_values_videos [B, K, F, C, H, W] or input_features [B, K, S, M]")
    if pixel_values_videos is not None:
        check_pixel_values(pixel_values_videos, config.video_config)
    if input_features is not None:
        check_input_features(input_features, config.audio_config)
    first = pixel_values_videos if pixel_values_videos is not None else input_features
    assert first is not None
    batch, chunks = first.shape[:2]
    if batch == 0 or chunks == 0:
        name = "input_features" if pixel_values_videos is None else "pixel_values_videos"
        raise ValueError(f"{name} holds {batch} clips of {chunks} chunks; expected at least one of each")
    if input_features is not None and tuple(input_features.shape[:2]) != (batch, chunks):
        raise ValueError(
            f"pixel_values_videos holds {batch} clips of {chunks} chunks, input_features "
            f"{input_features.shape[0]} of {input_features.shape[1]}; both must hold the same chunks"
        )
    for name, mask, owner in (
        ("video_mask", video_mask, pixel_values_videos),
        ("audio_mask", audio_mask, input_features),
    ):
        if mask is not None and owner is not None:
            _expect(tuple(mask.shape) == (batch, chunks), name, mask, f"[B, K] = [{batch}, {chunks}]")
    return batch, chunks


def check_streaming(cache: Any, cache_type: type, *parts: Any) -> None:
    """Raises for what is no `MirasolMediaCache`, and for settings of the model that no stream can be encoded with.

    Args:
        cache: what came as `media_cache`.
        cache_type: `MirasolMediaCache`.
        parts: the parts of the model that read it.
    """
    if not isinstance(cache, cache_type):
        raise TypeError(f"media_cache is {cache!r}; expected a {cache_type.__name__} object")
    for part in parts:
        if part.config._attn_implementation == "flex_attention":
            raise ValueError(
                "media_cache does not go with attn_implementation='flex_attention', which would compile anew for "
                "every length of the past; expected 'sdpa' or 'eager' (model.set_attn_implementation)"
            )
        if part.training and part.gradient_checkpointing and torch.is_grad_enabled():
            raise ValueError(
                "media_cache does not go with activation checkpointing, which runs a chunk again in backward and "
                "would put it into the cache twice; expected torch.no_grad(), model.eval(), or no checkpointing"
            )


def check_text_against_media(
    text: torch.Tensor, media: torch.Tensor, media_mask: torch.Tensor | None, width: int, indexed: bool
) -> None:
    """The encoded media must have the model's width and, unless `media_index` picks rows, one row for each text."""
    _expect(media.ndim == 3 and media.shape[2] == width, "media_hidden_states", media, f"[B, K·m, {width}]")
    if media_mask is not None:
        rows, length = media.shape[:2]
        _expect(tuple(media_mask.shape) == (rows, length), "media_attention_mask", media_mask, f"[{rows}, {length}]")
    if not indexed and media.shape[0] != text.shape[0]:
        raise ValueError(
            f"input_ids holds {text.shape[0]} rows but the media {media.shape[0]} clips; give media_index "
            f"[{text.shape[0]}] to say which clip each row is about"
        )


def check_text_length(length: int, config: Any) -> None:
    """The text must fit the decoder's positions, unless these are scaled to reach beyond."""
    limit = config.max_position_embeddings
    if length > limit and config.rope_parameters["rope_type"] == "default":
        raise ValueError(f"input_ids holds {length} tokens; text_config.max_position_embeddings allows {limit}")
