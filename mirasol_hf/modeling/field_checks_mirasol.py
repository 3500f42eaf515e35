# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Checks of a configuration's fields that its sections share; each raises ValueError and names section and field."""

import math
from difflib import get_close_matches
from typing import Any

from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from .checkpoint_files_mirasol import shortly
from .strict_config_mirasol import LARGEST_PRODUCT


def require_divisible(config: PreTrainedConfig, section: str, numerator: str, denominator: str) -> None:
    """One field is a multiple of another, both above 0."""
    top, bottom = getattr(config, numerator), getattr(config, denominator)
    if bottom < 1 or top < 1 or top % bottom != 0:
        raise ValueError(
            f"{section}.{numerator}={top} must be a positive multiple of {section}.{denominator}={bottom}"
        )


def require_positive(config: PreTrainedConfig, section: str, *names: str) -> None:
    """Whole numbers are at least 1."""
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{section}.{name}={getattr(config, name)} must be at least 1")


def require_even_heads(config: PreTrainedConfig, section: str, head_dim: int) -> None:
    """Rotary positions turn pairs of channels: the width of a head must be even."""
    if head_dim < 2 or head_dim % 2:
        raise ValueError(
            f"{section}: heads of width {head_dim} (hidden_size={config.hidden_size}, num_attention_heads="
            f"{config.num_attention_heads}, head_dim if it is given); rotary positions need an even width"
        )


def require_rotary(config: PreTrainedConfig, section: str, head_dim: int) -> None:
    """Positions by rotation need heads of an even width, a known kind, and numbers that can be computed with."""
    require_even_heads(config, section, head_dim)
    given = config.rope_parameters or {}
    for name, value in given.items():
        where = f"{section}.rope_parameters[{name!r}]={shortly(value)}"
        if name == "rope_type":
            if value != "default" and value not in ROPE_INIT_FUNCTIONS:
                raise ValueError(f"{where} must be 'default' or one of {', '.join(ROPE_INIT_FUNCTIONS)}")
        elif not isinstance(value, (bool, type(None))):
            numbers = value if isinstance(value, (list, tuple)) else [value]
            if not all(isinstance(number, (int, float)) and 0 < number < math.inf for number in numbers):
                raise ValueError(f"{where} must be finite and above 0")


def require_product(config: PreTrainedConfig, section: str, what: str, product: int) -> None:
    """Sizes that are allowed one by one do not multiply to what no model has."""
    if product > LARGEST_PRODUCT:
        raise ValueError(f"{section}: {what} give {product} values or tokens, expected at most {LARGEST_PRODUCT}")


def are_integers(values: Any, count: int) -> bool:
    """Whether a field holds `count` whole numbers; the library checks types no deeper than the field itself."""
    return isinstance(values, (list, tuple)) and len(values) == count and all(type(value) is int for value in values)


def require_share(config: PreTrainedConfig, section: str, *names: str) -> None:
    """Shares are at least 0 and below 1."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{section}.{name}={getattr(config, name)} must lie in [0, 1)")


def require_layers(config: PreTrainedConfig, section: str, epsilon: str) -> None:
    """What the layers of every part share: an activation that exists, and numbers that may not be negative."""
    if config.hidden_act not in ACT2FN:
        known = get_close_matches(config.hidden_act, ACT2FN) or ["gelu", "silu"]
        raise ValueError(
            f"{section}.hidden_act={shortly(config.hidden_act)} must be an activation of transformers, such as "
            f"{', '.join(known)}"
        )
    for name in (epsilon, "initializer_range"):
        if not 0 <= getattr(config, name) < math.inf:
            raise ValueError(f"{section}.{name}={getattr(config, name)} must be finite and not negative")
    require_share(config, section, "dropout", "attention_dropout")


def tube_tokens(video: Any) -> list[int]:
    """Tokens that each tube gives for a full chunk (valid windows, as TubeViT counts them)."""
    extent = (video.num_frames, video.image_size, video.image_size)
    counts = []
    for kernel, stride, offset in zip(video.tube_kernels, video.tube_strides, video.tube_offsets, strict=True):
        count = 1
        for axis in range(3):
            count *= (extent[axis] - offset[axis] - kernel[axis]) // stride[axis] + 1
        counts.append(count)
    return counts


def patch_tokens(audio: Any) -> int:
    """Tokens of a chunk's spectrogram."""
    return (audio.num_steps // audio.patch_size[0]) * (audio.num_mel_bins // audio.patch_size[1])
