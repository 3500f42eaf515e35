# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints in and out: key tables that work both ways."""

from mirasol_hf.conversion.token_turing_machine import (
    token_turing_machine_from_flax,
    token_turing_machine_to_flax,
)
from mirasol_hf.conversion.vision_transformer import (
    load_vision_transformer_blocks,
    resize_position_table,
    vision_transformer_blocks_to_flax,
)

__all__ = [
    "load_vision_transformer_blocks",
    "resize_position_table",
    "token_turing_machine_from_flax",
    "token_turing_machine_to_flax",
    "vision_transformer_blocks_to_flax",
]
