# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Token Turing Machines of google-research/scenic: official Flax arrays in, and back out.

One table names each tensor on both sides and says how its layout differs; both directions read it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mirasol_hf.conversion.flax_keys import (
    Key,
    attention_keys,
    block_keys,
    check_present,
    load_arrays,
    mlp_keys,
    named_arrays,
    norm_keys,
    to_flax,
)
from mirasol_hf.modeling.configuration_mirasol import MirasolCombinerConfig
from mirasol_hf.modeling.token_turing_machine_mirasol import LATENT_QUERY_HEADS, MirasolTokenTuringMachine

OFFICIAL_MODES = {"TL": "tl", "TL-MHA": "tl_mha", "TL-AddErase": "tl_add_erase"}


def own_mode(memory_mode: str) -> str:
    """A mode's name here, from either spelling; case, hyphens and underscores do not matter.

    Raises:
        ValueError: the mode is not known. The official code would run it, summarising nothing.
    """
    for official, own in OFFICIAL_MODES.items():
        if letters(memory_mode) == letters(official):
            return own
    known = ", ".join(map(repr, (*OFFICIAL_MODES.values(), *OFFICIAL_MODES)))
    raise ValueError(f"memory_mode={memory_mode!r}; expected one of {known}")


def letters(name: str) -> str:
    """A name in small letters alone."""
    return name.lower().replace("-", "").replace("_", "")


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
    positions = Key("Encoder_0/posembed_input/pos_embedding", "process.positions")
    return [positions, *block_keys("Encoder_0", "process.", num_layers, heads)]


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
        arrays: `{name: array}` with official names, with or without `params/` and `unit_function/` before them; NumPy
            arrays, torch tensors or what NumPy takes as arrays.
        memory_size, process_size, processing_unit, num_layers, num_heads, mlp_dim, use_positional_embedding: the
            official arguments.
        memory_mode: `"tl"`, `"tl_mha"` or `"tl_add_erase"`, or the official `"TL"`, `"TL-MHA"`, `"TL-AddErase"`.

    Returns:
        The module that the Combiner uses, in evaluation mode.

    Raises:
        ValueError: names that are missing or unexpected, an array whose shape does not fit the arguments, or arguments
            that no Combiner can have.
    """
    named, mode = named_arrays(arrays), own_mode(memory_mode)
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


def token_turing_machine_to_flax(machine: MirasolTokenTuringMachine, prefix: str = "params/") -> dict[str, np.ndarray]:
    """The arrays of a machine under their official names, each with `prefix` before it."""
    return to_flax(machine, key_table(machine.config), prefix)
