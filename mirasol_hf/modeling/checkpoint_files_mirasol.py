# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Files of a checkpoint, looked at before anything is built of them: JSON that is whole, weights that are safetensors
and have the shapes of the model."""

import json
import math
import os
from collections.abc import Iterable
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.utils import (
    CONFIG_NAME,
    GENERATION_CONFIG_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    cached_file,
)

ADAPTER_WEIGHTS = "adapter_model.safetensors"
PICKLED = (WEIGHTS_NAME, WEIGHTS_INDEX_NAME, "adapter_model.bin")
# smallest and largest value of what a saved `generation_config.json` may ask for; a call may ask for more
_GENERATION = {
    "num_beams": (1, 256),
    "num_return_sequences": (1, 256),
    "max_length": (0, 65_536),
    "max_new_tokens": (1, 65_536),
    "min_length": (0, 65_536),
    "min_new_tokens": (0, 65_536),
    "top_k": (0, 2**31 - 1),
    "no_repeat_ngram_size": (0, 65_536),
    "pad_token_id": (0, 2**31 - 1),
    "bos_token_id": (0, 2**31 - 1),
    "eos_token_id": (0, 2**31 - 1),
    "temperature": (0.0, 1e6),
    "top_p": (0.0, 1.0),
    "length_penalty": (-1e6, 1e6),
    "repetition_penalty": (0.0, 1e6),
}
# what a checkpoint may leave to be filled at random, in values: as many as it holds itself, and these
_MAY_LACK = 2**26
# keywords of `from_pretrained` that say which files of a repository are meant
_WHERE = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


def shortly(value: Any, length: int = 60) -> str:
    """A value as it fits into an error of one line."""
    return cut(repr(value), length)


def cut(text: Any, length: int = 100) -> str:
    """A text in one line of at most so many characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def json_object(path: str | os.PathLike) -> dict[str, Any]:
    """What a JSON file holds.

    Raises:
        ValueError: it is not JSON, or holds no object.
    """
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)} is not JSON: {cut(error)}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{os.fspath(path)} holds {cut(json.dumps(found), 60)}, expected a JSON object")
    return found


def check_json(source: Any, options: dict[str, Any]) -> None:
    """Looks at local files of settings, without some of which the library goes on.

    Raises:
        ValueError: one is no JSON object, or what it says of generation is no number or beyond any use.
    """
    for name in (CONFIG_NAME, GENERATION_CONFIG_NAME, "adapter_config.json"):
        path = os.path.join(source, options.get("subfolder") or "", name)
        if os.path.isfile(path):
            found = json_object(path)
            if name == GENERATION_CONFIG_NAME:
                _check_generation(path, found)


def _check_generation(path: str, values: dict[str, Any]) -> None:
    for name, (low, high) in _GENERATION.items():
        value = values.get(name)
        kinds = (int,) if isinstance(high, int) else (int, float)
        for number in value if isinstance(value, list) else [value]:
            if number is not None and not (type(number) in kinds and low <= number <= high):
                kind = "a whole number" if kinds == (int,) else "a number"
                raise ValueError(f"{path}: {name}={shortly(value)} must be {kind} from {low} to {high}")


def check_index(source: Any, options: dict[str, Any]) -> None:
    """Looks at the list of a checkpoint's parts, if it has one.

    Raises:
        ValueError: it is no such list, or names a part that is no safetensors file beside it.
    """
    variant = options.get("variant")
    name = SAFE_WEIGHTS_INDEX_NAME.replace("json", f"{variant}.json") if variant else SAFE_WEIGHTS_INDEX_NAME
    path = find_file(source, name, options)
    if path is None:
        return
    parts = json_object(path).get("weight_map")
    if not isinstance(parts, dict) or not all(isinstance(part, str) for part in parts.values()):
        raise ValueError(f"{path} lacks 'weight_map', an object that names a file for each tensor")
    for part in sorted(set(parts.values())):
        if not part.endswith(".safetensors") or part != os.path.basename(part):
            raise ValueError(f"{path} names {shortly(part)}; expected safetensors files in the same folder")


def find_file(source: Any, name: str, options: dict[str, Any]) -> str | None:
    """The local path of a file of a folder or repository; `None` where it has none of this name."""
    try:
        return cached_file(source, name, **{key: options[key] for key in _WHERE if options.get(key) is not None})
    except OSError:
        return None


def no_safetensors(source: Any, error: Exception) -> Exception:
    """The error for a checkpoint whose weights cannot be found: its own one where they are there as a pickle."""
    found = [] if source is None else [name for name in PICKLED if os.path.isfile(os.path.join(source, name))]
    if not found and "use_safetensors" not in str(error):  # which the library advises to leave out, for a repository
        return error
    what = f"{os.path.join(source, found[0])} is a pickle" if found else f"{source} holds no safetensors file"
    return ValueError(
        f"{what}: weights are read from {SAFE_WEIGHTS_NAME} or {ADAPTER_WEIGHTS} alone, since a pickle may run code. "
        f"docs/hub.md says how to convert files that you trust"
    )


def damaged_file(source: Any, error: Exception) -> str:
    """Says which safetensors file of a folder cannot be read; the library's own error does not name it."""
    if os.path.isdir(source):
        for name in sorted(os.listdir(source)):
            if name.endswith(".safetensors"):
                try:
                    read_shapes(os.path.join(source, name))
                except ValueError as found:
                    return str(found)
    return f"a weight file of {str(source)!r} is not a whole safetensors file: {cut(error)}"


def read_shapes(path: str | os.PathLike) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a safetensors file, by its header alone.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{os.fspath(path)} is not a whole safetensors file: {cut(error)}") from error


def check_shapes(model: Any, files: Iterable[str], may_differ: bool) -> None:
    """Compares the headers of weight files with a model that takes up no memory yet.

    Args:
        model: on the meta device.
        files: safetensors files.
        may_differ: tensors of another shape are left out in loading.

    Raises:
        ValueError: a tensor has another shape than in the model, or the model is so much larger than the files that
            its memory would have to be filled with random numbers.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    prefix = f"{model.base_model_prefix}."
    held = 0
    for path in files:
        for name, shape in read_shapes(path).items():
            held += math.prod(shape)
            wanted = next(
                (expected[key] for key in (name, prefix + name, name.removeprefix(prefix)) if key in expected), shape
            )
            if shape != wanted and not may_differ:
                raise ValueError(
                    f"{path}: {cut(name)} has shape {shape}, but {type(model).__name__} as config.json "
                    f"describes it has {wanted}"
                )
    needed = sum(tensor.numel() for tensor in model.parameters())
    if needed > 2 * held + _MAY_LACK:
        raise ValueError(
            f"config.json describes a model of {needed} values, but the weights in {os.path.dirname(path)} are {held}"
        )
