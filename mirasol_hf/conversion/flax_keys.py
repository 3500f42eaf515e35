# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Key tables between Flax arrays and torch tensors: both names of each tensor, and how its layout differs.

Shape legend: C width, H heads, D head width.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

# of scenic and big_vision, of old optimiser states, of the picture half of big_vision's two-tower models
PREFIXES = ("opt/target/", "params/", "unit_function/", "img/")


class Key(NamedTuple):
    """A tensor's names and its layout: `same`, `dense`, `heads_in`, `heads_out` or `heads_bias`."""

    flax: str
    torch: str
    layout: str = "same"
    heads: int = 1


def norm_keys(flax: str, torch_name: str) -> list[Key]:
    """A LayerNorm."""
    return [Key(f"{flax}/scale", f"{torch_name}.weight"), Key(f"{flax}/bias", f"{torch_name}.bias")]


def mlp_keys(flax: str, torch_name: str) -> list[Key]:
    """Two dense layers."""
    return [
        key
        for dense, linear in (("Dense_0", "up_proj"), ("Dense_1", "down_proj"))
        for key in (
            Key(f"{flax}/{dense}/kernel", f"{torch_name}.{linear}.weight", "dense"),
            Key(f"{flax}/{dense}/bias", f"{torch_name}.{linear}.bias"),
        )
    ]


def attention_keys(flax: str, torch_name: str, heads: int) -> list[Key]:
    """The four projections of multi-head attention."""
    keys = [
        Key(f"{flax}/out/kernel", f"{torch_name}.o_proj.weight", "heads_out", heads),
        Key(f"{flax}/out/bias", f"{torch_name}.o_proj.bias"),
    ]
    for name in ("query", "key", "value"):
        keys += [
            Key(f"{flax}/{name}/kernel", f"{torch_name}.{name[0]}_proj.weight", "heads_in", heads),
            Key(f"{flax}/{name}/bias", f"{torch_name}.{name[0]}_proj.bias", "heads_bias", heads),
        ]
    return keys


def to_torch_layout(array: np.ndarray, key: Key) -> np.ndarray:
    """A Flax array in the layout of its torch tensor."""
    if key.layout == "dense":  # [in, out] → [out, in]
        return array.T
    if key.layout == "heads_in":  # [C, H, D] → [H·D, C]
        return array.reshape(array.shape[0], -1).T
    if key.layout == "heads_out":  # [H, D, C] → [C, H·D]
        return array.reshape(-1, array.shape[-1]).T
    if key.layout == "heads_bias":  # [H, D] → [H·D]
        return array.reshape(-1)
    return array


def to_flax_layout(array: np.ndarray, key: Key) -> np.ndarray:
    """The inverse of `to_torch_layout`."""
    if key.layout == "dense":
        return array.T
    if key.layout == "heads_in":
        return array.T.reshape(array.shape[1], key.heads, -1)
    if key.layout == "heads_out":
        return array.T.reshape(key.heads, -1, array.shape[0])
    if key.layout == "heads_bias":
        return array.reshape(key.heads, -1)
    return array


def without_prefixes(name: str) -> str:
    """A name without what checkpoints put before it."""
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def named_arrays(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays or torch tensors by their names without prefixes."""
    return {without_prefixes(name): to_array(array) for name, array in arrays.items()}


def to_array(array: Any) -> np.ndarray:
    """A NumPy array of what may be a torch tensor, of any dtype and on any device."""
    return array.detach().float().cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)


def check_present(named: dict[str, np.ndarray], expected: list[str]) -> None:
    """Raises ValueError that names what is missing."""
    missing = [name for name in expected if name not in named]
    if missing:
        raise ValueError(f"missing arrays: {', '.join(missing)}")


def load_arrays(module: torch.nn.Module, table: list[Key], named: dict[str, np.ndarray]) -> None:
    """Fills all tensors of a table; raises ValueError for a shape that does not fit."""
    tensors = module.state_dict()
    for key in table:
        array, target = named[key.flax], tensors[key.torch]
        wanted = to_flax_layout(to_array(target), key).shape
        if array.shape != wanted:
            raise ValueError(f"{key.flax} has shape {array.shape}; the sizes of the module make it {wanted}")
        tensors[key.torch] = torch.tensor(to_torch_layout(array.astype(np.float32), key).copy())
    module.load_state_dict(tensors)


def to_flax(module: torch.nn.Module, table: list[Key], prefix: str) -> dict[str, np.ndarray]:
    """The inverse of `load_arrays`: float32 arrays by their Flax names, each with `prefix` before it."""
    tensors = module.state_dict()
    return {prefix + key.flax: to_flax_layout(to_array(tensors[key.torch]), key).copy() for key in table}


# first norm, attention, second norm, MLP of a block, each class numbered by itself
CLASS_NUMBERS = ("LayerNorm_0", "MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")


def block_keys(
    source: str, target: str, num_layers: int, num_heads: int, names: tuple[str, str, str, str] = CLASS_NUMBERS
) -> list[Key]:
    """All tensors of pre-norm encoder blocks and of the norm behind them.

    Args:
        source: Flax module that holds them.
        target: prefix of our names, with its dot.
        num_layers: blocks.
        num_heads: of their attention.
        names: of a block's first norm, attention, second norm and MLP.
    """
    keys = norm_keys(f"{source}/encoder_norm", f"{target}norm")
    first_norm, attention, second_norm, mlp = names
    for i in range(num_layers):
        flax, layer = f"{source}/encoderblock_{i}", f"{target}layers.{i}"
        keys += norm_keys(f"{flax}/{first_norm}", f"{layer}.input_layernorm")
        keys += attention_keys(f"{flax}/{attention}", f"{layer}.self_attn", num_heads)
        keys += norm_keys(f"{flax}/{second_norm}", f"{layer}.post_attention_layernorm")
        keys += mlp_keys(f"{flax}/{mlp}", f"{layer}.mlp")
    return keys
