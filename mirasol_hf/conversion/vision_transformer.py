# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""ViT checkpoints of Google's public code (`.npz`): their Transformer blocks into a tower, and out of it.

AugReg files number all submodules of a block in order; big_vision, scenic and newer vit_jax files number each class by
itself. big_vision's scanned models stack the arrays of all blocks. Epsilon 1e-6 and the tanh form of GELU, this
package's defaults, are theirs too.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mirasol_hf.conversion.flax_keys import (
    CLASS_NUMBERS,
    Key,
    block_keys,
    check_present,
    load_arrays,
    named_arrays,
    to_flax,
)
from mirasol_hf.modeling.base_mirasol import MirasolMediaPart

ENCODER = "Transformer"
# first norm, attention, second norm, MLP of a block, all numbered together
AUGREG_NUMBERS = ("LayerNorm_0", "MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")


def load_vision_transformer_blocks(part: MirasolMediaPart, arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Fills the blocks and the final norm of a tower from a public ViT checkpoint.

    Args:
        part: the tower; its configuration gives layers and heads.
        arrays: `{name: array}` of the checkpoint, with or without `params/`, `opt/target/` or `params/img/` before the
            names.

    Returns:
        What is left, by name: patch kernel, positions, class token and head, for which a tower has no place, as it
        has tubes (or spectrogram patches) of its own and fixed positions.

    Raises:
        ValueError: blocks that are missing or that the tower does not have, or shapes that do not fit.
    """
    named = unstacked(named_arrays(arrays))
    numbers_all = any("/MlpBlock_3/" in name for name in named)
    names = AUGREG_NUMBERS if numbers_all else CLASS_NUMBERS
    table = tower_keys(part, names)
    check_present(named, [key.flax for key in table])
    left = {name: array for name, array in named.items() if name not in {key.flax for key in table}}
    surplus = sorted(name for name in left if name.startswith(f"{ENCODER}/encoderblock"))
    if surplus:
        raise ValueError(f"unexpected arrays for a tower of {part.config.num_hidden_layers} layers: {surplus}")
    load_arrays(part, table, named)
    return left


def unstacked(named: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays by block where big_vision stacks those of all blocks on a leading axis."""
    scanned = f"{ENCODER}/encoderblock/"
    separate = {name: array for name, array in named.items() if not name.startswith(scanned)}
    for name in named.keys() - separate.keys():
        for i, array in enumerate(named[name]):
            separate[f"{ENCODER}/encoderblock_{i}/{name.removeprefix(scanned)}"] = array
    return separate


def vision_transformer_blocks_to_flax(part: MirasolMediaPart, prefix: str = "params/") -> dict[str, np.ndarray]:
    """The blocks and the final norm of a tower under the names of big_vision, each with `prefix` before it."""
    return to_flax(part, tower_keys(part, CLASS_NUMBERS), prefix)


def tower_keys(part: MirasolMediaPart, names: tuple[str, str, str, str]) -> list[Key]:
    """All tensors of a tower's blocks, by the names of a block's norms, attention and MLP."""
    return block_keys(ENCODER, "", part.config.num_hidden_layers, part.config.num_attention_heads, names)


def resize_position_table(table: Any, grid: tuple[int, int]) -> np.ndarray:
    """Resizes a public checkpoint's learned position table for pictures of another size, as vit_jax does.

    Args:
        table: [1, N, D] with N a square, or [1, 1 + N, D] with the class token's row first, which is kept as it is.
        grid: rows and columns of the new patches.

    Returns:
        float32 [1, (1 +) rows · columns, D], bilinear between the centres of the outermost patches.

    Raises:
        ValueError: the table's patches are no square.
    """
    given = torch.as_tensor(np.asarray(table, dtype=np.float32))
    count = given.shape[1] if given.ndim == 3 else 0
    side, class_rows = math.isqrt(count), 0
    if count < 1 or side * side != count:
        side, class_rows = math.isqrt(max(count - 1, 0)), 1
    if side < 1 or side * side + class_rows != count:
        raise ValueError(
            f"a position table of shape {tuple(given.shape)} holds no square of patches; expected [1, N, D]"
        )
    kept, patches = given[:, :class_rows], given[:, class_rows:]
    image = patches.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(image, size=grid, mode="bilinear", align_corners=True)
    return torch.cat((kept, resized.permute(0, 2, 3, 1).flatten(1, 2)), dim=1).numpy()
