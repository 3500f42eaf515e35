# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""The named sizes of `MirasolConfig.from_preset`: what differs from the defaults, which are the 3B model."""

from typing import Any

# at these widths 1/sqrt(width) starts learning sooner than the customary 0.02
_TINY_WIDTH = {"hidden_size": 128, "intermediate_size": 384, "num_attention_heads": 4, "initializer_range": 0.088}
_BASE_WIDTH = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "initializer_range": 0.088,
        "video_config": {
            **_TINY_WIDTH,
            "image_size": 64,
            "num_frames": 8,
            "tube_kernels": ((1, 24, 24), (8, 8, 8)),
            "tube_strides": ((4, 13, 13), (8, 16, 16)),
            "tube_offsets": ((0, 0, 0), (0, 4, 4)),
            "num_hidden_layers": 3,
            "reconstruction_size": (2, 8, 8),
        },
        "audio_config": {
            **_TINY_WIDTH,
            "num_steps": 32,
            "num_mel_bins": 64,
            "patch_size": (8, 16),
            "num_hidden_layers": 2,
            "reconstruction_size": (8, 16),
        },
        "combiner_config": {**_TINY_WIDTH, "num_output_tokens": 4, "num_hidden_layers": 2, "memory_size": 16},
        "time_config": {**_TINY_WIDTH, "num_hidden_layers": 3},
        "text_config": {
            **_TINY_WIDTH,
            "vocab_size": 512,
            "num_key_value_heads": 2,
            "num_hidden_layers": 3,
            "max_position_embeddings": 256,
        },
    },
    "base": {
        "video_config": {**_BASE_WIDTH, "num_hidden_layers": 12},
        "audio_config": {**_BASE_WIDTH, "num_hidden_layers": 12},
        "combiner_config": {**_BASE_WIDTH, "num_output_tokens": 16, "num_hidden_layers": 4, "memory_size": 64},
        "time_config": {**_BASE_WIDTH, "num_hidden_layers": 8},
        "text_config": {
            "hidden_size": 768,
            "intermediate_size": 2048,
            "num_attention_heads": 12,
            "num_key_value_heads": 4,
            "num_hidden_layers": 8,
            "vocab_size": 32_000,
            "max_position_embeddings": 2048,
        },
    },
    "3b": {},
}
