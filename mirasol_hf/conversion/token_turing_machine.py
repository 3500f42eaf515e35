# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Token Turing Machines of google-research/scenic: official Flax arrays in, and back out.

One table names each tensor on both sides and says how its layout differs; both directions read it.

Shape legend: C width, H heads, D head width.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from mirasol_hf.modeling.configuration_mirasol import MirasolCombinerConfig
from mirasol_hf.modeling.token_turing_machine_mirasol import LATENT_QUERY_HEADS, MirasolTokenTuringMachine

PREFIXES = ("params/", "unit_function/")
OFFICIAL_MODES = {"TL": "tl", "TL-MHA": "tl_mha", "TL-AddErase": "tl_add_erase"}


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


def summary_keys(memory_mode: str, index: int, torch_name: str) -> list[Key]:
    """The summariser that reads (`index` 0) or writes (1)."""
    if memory_mode == "tl_mha":
        name = f"TokenLearnerMHA_{index}"
        return [
            Key(f"{name}/tokens", f"{torch_name}.queries"),
            *attention_keys(f"{name}/attn", torch_name, LATENT_QUERY_HEADS),
        ]
    name = f"TokenLearnerModuleV11_{index}"
    return [
        *norm_keys(f"{name}/LayerNorm_0", f"{torch_name}.norm"),
        *mlp_keys(f"{name}/token_masking", f"{torch_name}.mlp"),
    ]


def add_erase_keys() -> list[Key]:
    """The erasing and adding writer."""
    flax = "TokenAddEraseWrite_0"
    norms = ("memory_norm", "erase_norm", "add_norm")
    mlps = ("slot_mlp", "erase_token_mlp", "erase_channel_mlp", "add_token_mlp", "add_channel_mlp")
    return [
        *(key for i, name in enumerate(norms) for key in norm_keys(f"{flax}/LayerNorm_{i}", f"write.{name}")),
        *(key for i, name in enumerate(mlps) for key in mlp_keys(f"{flax}/MlpBlock_{i}", f"write.{name}")),
    ]


def transformer_keys(num_layers: int, heads: int) -> list[Key]:
    """The processing unit `"transformer"`."""
    keys = [
        Key("Encoder_0/posembed_input/pos_embedding", "process.positions"),
        *norm_keys("Encoder_0/encoder_norm", "process.norm"),
    ]
    for i in range(num_layers):
        flax, layer = f"Encoder_0/encoderblock_{i}", f"process.layers.{i}"
        keys += norm_keys(f"{flax}/LayerNorm_0", f"{layer}.input_layernorm")
        keys += attention_keys(f"{flax}/MultiHeadDotProductAttention_0", f"{layer}.self_attn", heads)
        keys += norm_keys(f"{flax}/LayerNorm_1", f"{layer}.post_attention_layernorm")
        keys += mlp_keys(f"{flax}/MlpBlock_0", f"{layer}.mlp")
    return keys


def mixer_keys(num_layers: int) -> list[Key]:
    """The processing unit `"mixer"`."""
    keys = norm_keys("LayerNorm_0", "process.norm")
    for i in range(num_layers):
        flax, block = f"MixerBlock_{i}", f"process.blocks.{i}"
        keys += norm_keys(f"{flax}/LayerNorm_0", f"{block}.token_norm")
        keys += mlp_keys(f"{flax}/token_mixing", f"{block}.token_mlp")
        keys += norm_keys(f"{flax}/LayerNorm_1", f"{block}.channel_norm")
        keys += mlp_keys(f"{flax}/channel_mixing", f"{block}.channel_mlp")
    return keys


def mlp_unit_keys(num_layers: int) -> list[Key]:
    """The processing unit `"mlp"`."""
    keys = norm_keys(f"LayerNorm_{num_layers}", "process.norm")
    for i in range(num_layers):
        keys += norm_keys(f"LayerNorm_{i}", f"process.norms.{i}")
        keys += mlp_keys(f"MlpBlock_{i}", f"process.mlps.{i}")
    return keys


def key_table(config: MirasolCombinerConfig) -> list[Key]:
    """All tensors of a machine, with their official and their own names."""
    keys = summary_keys(config.memory_mode, 0, "read")
    keys += add_erase_keys() if config.memory_mode == "tl_add_erase" else summary_keys(config.memory_mode, 1, "write")
    layers = config.num_hidden_layers
    keys += {
        "transformer": lambda: transformer_keys(layers, config.num_attention_heads),
        "mixer": lambda: mixer_keys(layers),
        "mlp": lambda: mlp_unit_keys(layers),
    }[config.processing_unit]()
    if config.use_positional_embedding:
        keys += [Key(f"{name}_pos_embed/pos_embedding", f"{name}_positions") for name in ("read", "write")]
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


def token_turing_machine_from_flax(
    arrays: Mapping[str, Any],
    *,
    memory_size: int,
    process_size: int,
    memory_mode: str,
    processing_unit: str,
    num_layers: int,
    num_heads: int,
    mlp_dim: int,
    use_positional_embedding: bool,
) -> MirasolTokenTuringMachine:
    """Builds a Token Turing Machine from the arrays of an official checkpoint.

    Args:
        arrays: `{name: array}` with official names, with or without `params/` and `unit_function/` before them.
        memory_size, process_size, processing_unit, num_layers, num_heads, mlp_dim, use_positional_embedding: the
            official arguments.
        memory_mode: `"tl"`, `"tl_mha"` or `"tl_add_erase"`, or the official spelling of these.

    Returns:
        The module that the Combiner uses, in evaluation mode.

    Raises:
        ValueError: names that are missing or unexpected, or an array whose shape does not fit the arguments.
    """
    named = {without_prefixes(name): np.asarray(array) for name, array in arrays.items()}
    mode = OFFICIAL_MODES.get(memory_mode, memory_mode)
    width_key = "TokenLearnerMHA_0/tokens" if mode == "tl_mha" else "TokenLearnerModuleV11_0/LayerNorm_0/scale"
    check_present(named, [width_key])
    config = MirasolCombinerConfig(
        type="ttm",
        memory_size=memory_size,
        num_output_tokens=process_size,
        memory_mode=mode,
        processing_unit=processing_unit,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        intermediate_size=mlp_dim,
        hidden_size=named[width_key].shape[-1],
        use_positional_embedding=use_positional_embedding,
        attn_implementation="sdpa",
    )
    table = key_table(config)
    expected = [key.flax for key in table]
    check_present(named, expected)
    unexpected = sorted(set(named) - set(expected))
    if unexpected:
        raise ValueError(f"unexpected arrays for this Token Turing Machine: {', '.join(unexpected)}")
    inputs = named["read_pos_embed/pos_embedding"].shape[1] - memory_size if use_positional_embedding else None
    machine = MirasolTokenTuringMachine(config, inputs)
    load_arrays(machine, table, named)
    return machine.eval()


def without_prefixes(name: str) -> str:
    """A name without `params/` and `unit_function/`."""
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def check_present(named: dict[str, np.ndarray], expected: list[str]) -> None:
    """Raises ValueError that names what is missing."""
    missing = [name for name in expected if name not in named]
    if missing:
        raise ValueError(f"missing arrays for this Token Turing Machine: {', '.join(missing)}")


def load_arrays(machine: MirasolTokenTuringMachine, table: list[Key], named: dict[str, np.ndarray]) -> None:
    """Fills all tensors of the machine; raises ValueError for a shape that does not fit."""
    tensors = machine.state_dict()
    for key in table:
        array, target = named[key.flax], tensors[key.torch]
        wanted = to_flax_layout(target.numpy(), key).shape
        if array.shape != wanted:
            raise ValueError(f"{key.flax} has shape {array.shape}; the given sizes make it {wanted}")
        tensors[key.torch] = torch.tensor(to_torch_layout(array.astype(np.float32), key).copy())
    machine.load_state_dict(tensors)


def token_turing_machine_to_flax(machine: MirasolTokenTuringMachine, prefix: str = "params/") -> dict[str, np.ndarray]:
    """The arrays of a machine under their official names, each with `prefix` before it."""
    tensors = machine.state_dict()
    return {
        prefix + key.flax: to_flax_layout(tensors[key.torch].float().cpu().numpy(), key).copy()
        for key in key_table(machine.config)
    }
