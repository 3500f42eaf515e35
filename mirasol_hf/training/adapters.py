"""Adapters (LoRA, DoRA, IA3) for parts of the model, by PEFT: which modules each preset names, and safe loading.

The table below is the only place that says what a preset reaches. Its patterns match module names with
`re.fullmatch`, the rule of PEFT's `target_modules`, in the bare model, in the model with its head and inside a PEFT
wrapper alike. The heads of the media losses and `lm_head` are in no preset: the former serve training alone, the
latter is tied to the embedding; either can go into `modules_to_save`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import torch
from peft import IA3Config, LoraConfig, PeftConfig, PeftModel, TaskType
from peft.utils.constants import (
    TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING,
    TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
    TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
)

from mirasol_hf.modeling.configuration_mirasol import MirasolConfig
from mirasol_hf.modeling.loading_mirasol import check_adapter

# where the layers of each part lie; a preset is one part, several parts, or one kind of module of a part
_TEXT = r"language_model\.layers\.\d+\."
_TIME = r"time_model\."
_COMBINER = r"combiner\."
_TOWERS = r"(?:video|audio)_tower\."
_ANYWHERE = r"(?:.*\.)?"

# preset -> patterns of the linear layers it reaches
LINEAR_LAYERS: dict[str, tuple[str, ...]] = {
    "text": (_TEXT + r"(?:self_attn|cross_attn|mlp)\.\w+_proj",),
    "cross_attention": (_TEXT + r"cross_attn\.[qkvo]_proj",),
    "time": (_TIME + r"embeddings\.projection", _TIME + r"layers\.\d+\.(?:self_attn|mlp)\.\w+_proj"),
    "combiner": (r"(?:video|audio)_projection", _COMBINER + r".*\w+_proj"),
}
LINEAR_LAYERS["all-linear"] = (
    *(pattern for preset in ("text", "time", "combiner") for pattern in LINEAR_LAYERS[preset]),
    _TOWERS + r"(?:embeddings\.projection|layers\.\d+\.(?:self_attn|mlp)\.\w+_proj)",
)
PRESETS = tuple(LINEAR_LAYERS)
METHODS = ("lora", "dora", "ia3")

# IA3 (arXiv 2205.05638) rescales keys, values and the inner activations of MLPs, that is, what `down_proj` reads.
_IA3_ATTENTION = r"[kv]_proj"
_IA3_MLP = "down_proj"


def target_modules(preset: str | Sequence[str]) -> str:
    """Return the `target_modules` pattern of a preset, or of several together.

    Args:
        preset: `"text"` (the whole decoder), `"cross_attention"` (its attention to the media), `"time"` (the time
            model), `"combiner"` (the Combiner and the projections into it) or `"all-linear"` (all of these and both
            towers); or a sequence of them.

    Raises:
        ValueError: a preset is not known, or none is given.
    """
    return _ANYWHERE + _either(_patterns(preset))


def adapter_config(preset: str | Sequence[str] = "text", method: str = "lora", **options: Any) -> PeftConfig:
    """Return the PEFT configuration of an adapter, for `peft.get_peft_model` or `model.add_adapter`.

    Args:
        preset: see `target_modules`.
        method: `"lora"`, `"dora"` (LoRA with the magnitude learned apart, arXiv 2402.09353) or `"ia3"`.
        options: any field of `LoraConfig` or `IA3Config`, for example `r` (8 by default), `lora_alpha`,
            `modules_to_save=["loss_heads"]`.

    Raises:
        ValueError: preset or method is not known, or `target_modules` is given beside the preset.
        TypeError: an option that the configuration of this method does not have.
    """
    if method not in METHODS:
        raise ValueError(f"unknown adapter method {method!r}; expected one of {', '.join(METHODS)}")
    if "target_modules" in options:
        raise ValueError(f"target_modules is given beside the preset {preset!r}, which says the same: give one")
    options = {"task_type": TaskType.CAUSAL_LM, **options}
    if method == "ia3":
        return IA3Config(**_ia3_modules(preset), **options)
    if options.get("modules_to_save"):
        # Embedding and head are one tensor: without this, saving one of them would part them silently.
        options.setdefault("ensure_weight_tying", True)
    return LoraConfig(target_modules=target_modules(preset), use_dora=method == "dora", **options)


def load_adapter(model: Any, folder: str | os.PathLike[str], **options: Any) -> PeftModel:
    """Put an adapter from a folder on a model, after checking that it was made for a model like this one.

    Args:
        model: a Mirasol model, or the `PeftModel` to which another adapter shall be added.
        folder: what `save_pretrained` of a `PeftModel` wrote.
        options: `adapter_name`, `is_trainable` and the other keywords of `PeftModel.from_pretrained`.

    Raises:
        ValueError: the adapter was made for a model of other sizes or parts, or its file is damaged.
        FileNotFoundError: the folder holds no adapter.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    check_adapter(base, folder)
    if isinstance(model, PeftModel):
        name = options.pop("adapter_name", "default")
        if name in model.peft_config:
            raise ValueError(f"the model has an adapter named {name!r} already; give adapter_name=")
        model.load_adapter(str(folder), adapter_name=name, **options)
        return model
    return PeftModel.from_pretrained(model, str(folder), **options)


def adapted_modules(model: torch.nn.Module, preset: str | Sequence[str]) -> list[str]:
    """Return the names of the modules of `model` that a preset reaches, in the model's order."""
    pattern = re.compile(target_modules(preset))
    return [name for name, _ in model.named_modules() if pattern.fullmatch(name)]


def register_defaults() -> None:
    """Tell PEFT which modules to adapt in Mirasol where a configuration names none: those of `"text"`."""
    name = MirasolConfig.model_type
    TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING[name] = target_modules("text")
    ia3 = _ia3_modules("text")
    TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING[name] = ia3["target_modules"]
    TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING[name] = ia3["feedforward_modules"]


def _patterns(preset: str | Sequence[str]) -> list[str]:
    presets = [preset] if isinstance(preset, str) else list(preset)
    unknown = [name for name in presets if name not in LINEAR_LAYERS]
    if unknown or not presets:
        raise ValueError(f"unknown adapter preset {unknown or presets!r}; expected one of {', '.join(PRESETS)}")
    return list(dict.fromkeys(pattern for name in presets for pattern in LINEAR_LAYERS[name]))


def _ia3_modules(preset: str | Sequence[str]) -> dict[str, str]:
    """The modules of a preset that IA3 rescales: a lookahead picks them from the linear layers."""
    layers = _either(_patterns(preset))
    chosen = rf"(?=.*(?:{_IA3_ATTENTION}|{_IA3_MLP})$)"
    return {
        "target_modules": chosen + _ANYWHERE + layers,
        "feedforward_modules": rf"(?=.*{_IA3_MLP}$)" + _ANYWHERE + layers,
    }


def _either(patterns: Sequence[str]) -> str:
    return f"(?:{'|'.join(patterns)})"


register_defaults()
