# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints in and out: what does not fit is an error, and what is written appears only when it is whole.

The library logs a table where weights are missing or left over and goes on with random ones. Whoever asks questions of
such a model gets nonsense without knowing why, so here it is an error; who wants the library's behaviour asks for the
report (`output_loading_info=True`) or says `ignore_mismatched_sizes=True`.
"""

import os
import re
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .checkpoint_files_mirasol import (
    ADAPTER_WEIGHTS,
    check_index,
    check_json,
    check_shapes,
    cut,
    damaged_file,
    find_file,
    no_safetensors,
    read_shapes,
)
from .distributed_mirasol import several_processes
from .model_saving_mirasol import remove_other_weights, whole_folder

# how many names an error lists before it only counts
_LISTED = 2
# names of weights that serve training only: a checkpoint may hold others than the configuration asks for
TRAINING_WEIGHTS = (r"loss_heads\.", r"mask_token$")


class MirasolCheckpointMixin:
    """`from_pretrained` that refuses what does not fit, `save_pretrained` that leaves nothing half-written."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """Loads a model; see `PreTrainedModel.from_pretrained` for the arguments.

        Weights are read from safetensors files alone.

        Raises:
            ValueError: the checkpoint lacks weights of the model or holds others, one of its files is damaged or a
                pickle, or its configuration asks for another or a much larger model than its weights are.
                Not raised for the first with `output_loading_info=True` (look into the report), with
                `ignore_mismatched_sizes=True`, or where the caller gives the weights (`state_dict=`).
            OSError: there is no such checkpoint.
        """
        wants_report = kwargs.pop("output_loading_info", False)
        lenient = wants_report or kwargs.get("ignore_mismatched_sizes") or kwargs.get("state_dict") is not None
        source = pretrained_model_name_or_path
        if kwargs.setdefault("use_safetensors", True) is False:
            raise ValueError("use_safetensors=False asks for a pickle; weights are read from safetensors files alone")
        if source is not None:  # else the caller gives the weights
            check_json(source, kwargs)
            check_index(source, kwargs)
        try:
            loaded = super().from_pretrained(  # type: ignore[misc]
                source, *model_args, output_loading_info=True, **kwargs
            )
        except SafetensorError as error:
            raise ValueError(damaged_file(source, error)) from error
        except OSError as error:
            raise no_safetensors(source, error) from error
        model, report = loaded
        if not lenient:
            check_report(model, source, report)
        return (model, report) if wants_report else model

    @classmethod
    def _load_pretrained_model(
        cls, model: Any, state_dict: Any, checkpoint_files: Any, load_config: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Where the library has built the model on the meta device and knows the files, but has allocated nothing.

        There is no public name for this place. An adapter's files, which name the keys they expect, are checked in
        `load_adapter`; those of a quantized model hold other tensors than the model.
        """
        if state_dict is None and checkpoint_files and load_config.hf_quantizer is None and not (args or kwargs):
            check_shapes(model, checkpoint_files, bool(load_config.ignore_mismatched_sizes))
        return super()._load_pretrained_model(  # type: ignore[misc]
            model, state_dict, checkpoint_files, load_config, *args, **kwargs
        )

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Saves the model; see `PreTrainedModel.save_pretrained` for the arguments.

        Files are written in a temporary folder inside `save_directory` and appear when all are whole, so that a run
        that is broken off leaves what was there before. `distributed_checkpoint=True`, where every process writes
        files of its own, writes in place.

        Raises:
            ValueError: `save_directory` is a file.
        """
        if kwargs.get("distributed_checkpoint"):
            super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
            return
        if kwargs.get("push_to_hub"):
            kwargs.setdefault("repo_id", os.path.basename(os.path.normpath(save_directory)))
        with whole_folder(save_directory) as stage:
            super().save_pretrained(stage, *args, **kwargs)  # type: ignore[misc]
            remove_other_weights(save_directory, stage)
        if several_processes() and self.is_distributed_loading_by_transformers:  # type: ignore[attr-defined]
            torch.distributed.barrier()  # all have called; none goes on before the first has moved the files

    def load_adapter(self, peft_model_id: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Loads an adapter; see the library's method for the arguments.

        Raises:
            ValueError: the adapter was made for a model of other sizes or parts, or its file is damaged or a pickle.
        """
        if peft_model_id is not None and kwargs.get("adapter_state_dict") is None:
            path = find_file(peft_model_id, ADAPTER_WEIGHTS, kwargs.get("adapter_kwargs") or kwargs)
            folder = peft_model_id if path is None else os.path.dirname(path)
            check_adapter(self, folder)
            magnitudes = adapter_with_magnitudes(folder)
            if magnitudes is not None:
                kwargs["adapter_state_dict"] = magnitudes
        return super().load_adapter(peft_model_id, *args, **kwargs)  # type: ignore[misc]


def check_report(model: Any, source: Any, report: dict[str, Any]) -> None:
    """Raises ValueError for weights that a loading report calls missing or unexpected.

    The heads of the media losses and the mask token may be missing: nothing but training needs them, and it begins
    with new ones.
    """
    missing = [
        key for key in report.get("missing_keys") or () if not any(re.search(name, key) for name in TRAINING_WEIGHTS)
    ]
    unexpected = report.get("unexpected_keys") or ()
    problems = [
        f"{what} {_listed(keys)}"
        for keys, what in ((missing, "lacks"), (unexpected, "holds, unknown to the model,"))
        if keys
    ]
    if problems:
        text = f"{source} does not fit the {type(model).__name__} of its config.json: it {'; it '.join(problems)}"
        raise ValueError(cut(text, 300))


def check_adapter(model: Any, folder: Any) -> None:
    """Compares an adapter's file with the model it shall go on, by the file's header alone.

    Raises:
        ValueError: the file is damaged, or a tensor of it belongs to a module that the model lacks or has with other
            sizes; both sides are named.
        FileNotFoundError: the folder holds no `adapter_model.safetensors`.
    """
    for name, shape in adapter_shapes(folder).items():
        _check_adapter_tensor(model, os.path.join(folder, ADAPTER_WEIGHTS), name, shape)


def adapter_shapes(folder: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of an adapter's tensors, read from the header of its file.

    Raises:
        ValueError: the file is damaged.
        FileNotFoundError: the folder holds no `adapter_model.safetensors`.
    """
    path = os.path.join(folder, ADAPTER_WEIGHTS)
    if not os.path.isfile(path):
        missing = FileNotFoundError(f"{os.fspath(folder)!r} holds no {ADAPTER_WEIGHTS}; expected a saved adapter")
        raise no_safetensors(folder, missing)
    return read_shapes(path)


def _check_adapter_tensor(model: Any, path: str, name: str, shape: tuple[int, ...]) -> None:
    """The input width of `lora_A` and the output width of `lora_B` are those of the layer they adapt."""
    for kind, axis, size_name in (("lora_A", 1, "in_features"), ("lora_B", 0, "out_features")):
        module_name, found, _ = name.removeprefix("base_model.model.").partition(f".{kind}")
        if not found:
            continue
        try:
            module = model.get_submodule(module_name)
        except AttributeError:
            raise ValueError(
                f"adapter {path} was made for another model: it adapts {module_name}, which this "
                f"{type(model).__name__} does not have"
            ) from None
        size = getattr(module, size_name, None)
        if size is not None and size != shape[axis]:
            raise ValueError(
                f"adapter {path} was made for another model: {name} has shape {shape}, but {module_name} of this "
                f"{type(model).__name__} has {size_name} {size}, not {shape[axis]}"
            )


def adapter_with_magnitudes(folder: Any) -> dict[str, Any] | None:
    """The tensors of a DoRA adapter under the names the library looks for; `None` for any other adapter.

    PEFT saves a magnitude as `….lora_magnitude_vector`, without the `.weight` of the module that holds it; the
    library, which puts the adapter's name in between, would not find it and leave the magnitude as it was before.
    """
    name_in_file = "lora_magnitude_vector"
    with safe_open(os.path.join(folder, ADAPTER_WEIGHTS), framework="pt") as file:
        names = list(file.keys())
        if not any(name.endswith(name_in_file) for name in names):
            return None
        return {f"{name}.weight" if name.endswith(name_in_file) else name: file.get_tensor(name) for name in names}


def _listed(names: Any) -> str:
    names = sorted(cut(name, 60) for name in names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
