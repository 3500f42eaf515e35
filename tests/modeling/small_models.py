"""A model of a few thousand parameters with every part of the real one."""

from typing import Any

import torch

from mirasol_hf.modeling.configuration_mirasol import MirasolConfig
from mirasol_hf.modeling.modeling_mirasol import MirasolForConditionalGeneration

WIDTH = {"hidden_size": 24, "intermediate_size": 48, "num_attention_heads": 2, "initializer_range": 0.2}
SMALL: dict[str, dict[str, Any]] = {
    "video_config": {
        **WIDTH,
        "image_size": 16,
        "num_frames": 4,
        "tube_kernels": ((1, 8, 8), (4, 4, 4)),
        "tube_strides": ((2, 8, 8), (4, 8, 8)),
        "tube_offsets": ((0, 0, 0), (0, 2, 2)),
        "num_hidden_layers": 2,
        "reconstruction_size": (2, 4, 4),
    },
    "audio_config": {
        **WIDTH,
        "num_steps": 8,
        "num_mel_bins": 16,
        "patch_size": (4, 8),
        "num_hidden_layers": 1,
        "reconstruction_size": (4, 4),
    },
    "combiner_config": {**WIDTH, "num_output_tokens": 3, "num_hidden_layers": 2, "memory_size": 4},
    "time_config": {**WIDTH, "num_hidden_layers": 2},
    "text_config": {
        **WIDTH,
        "vocab_size": 64,
        "num_key_value_heads": 1,
        "num_hidden_layers": 2,
        "max_position_embeddings": 64,
    },
}


def small_config(**sections: Any) -> MirasolConfig:
    """The small configuration; a dict for a section patches it."""
    fields: dict[str, Any] = {key: dict(value) for key, value in SMALL.items()}
    for key, value in sections.items():
        fields[key] = {**fields[key], **value} if key in fields and isinstance(value, dict) else value
    return MirasolConfig(**fields)


def build(**sections: Any) -> MirasolForConditionalGeneration:
    torch.manual_seed(0)
    return MirasolForConditionalGeneration(small_config(**sections)).eval()
