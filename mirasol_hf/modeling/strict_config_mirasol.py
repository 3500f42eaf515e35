# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""A configuration that rejects misspelt fields and sizes that do not fit, wherever they are given."""

import difflib
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, ClassVar, TypeVar

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError
from transformers import PreTrainedConfig
from transformers.utils import CONFIG_NAME, logging

from .checkpoint_files_mirasol import cut, json_object, shortly

logger = logging.get_logger(__name__)

# keys that the library itself writes into saved configurations or passes to constructors
_CONFIG_METADATA = {
    "attn_implementation",
    "auto_map",
    "custom_pipelines",
    "dtype",
    "model_type",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "quantization_config",
    "rope_scaling",
    "rope_theta",
    "torch_dtype",
    "transformers_version",
}


# what the library hands on when it loads a configuration
_LOADING = {"code_revision", "gguf_file", "trust_remote_code", "use_fast"}

# how alike two names are at least when one is taken for the other misspelt (ratio of difflib's SequenceMatcher)
_MISSPELT = 0.9


# The largest value of each whole number, far beyond any real model: a few bytes of JSON may not ask for more time and
# memory than the weights beside them justify (what exceeds the weights within these bounds is refused in loading).
LARGEST = {
    "hidden_size": 65_536,
    "intermediate_size": 1_048_576,
    "num_hidden_layers": 256,
    "num_attention_heads": 4096,
    "num_key_value_heads": 4096,
    "head_dim": 4096,
    "vocab_size": 4_194_304,
    "max_position_embeddings": 16_777_216,
    "image_size": 4096,
    "num_channels": 256,
    "num_frames": 1024,
    "num_steps": 16_384,
    "num_mel_bins": 1024,
    "sampling_rate": 384_000,
    "num_output_tokens": 16_384,
    "memory_size": 65_536,
    "num_labels": 65_536,  # the library's own, which makes a name for each
}
_LARGEST_OTHER = 2**31 - 1
# tokens of a chunk, values of a reconstructed chunk
LARGEST_PRODUCT = 65_536

Config = TypeVar("Config")


class MirasolConfigurationError(ValueError, StrictDataclassFieldValidationError, StrictDataclassClassValidationError):
    """Fields of a wrong type or size, or that do not fit together: a ValueError, as is all bad input, and what the
    library raises itself."""

    def __init__(self, message: str) -> None:
        ValueError.__init__(self, message)


def strict_fields(cls: type[Config]) -> type[Config]:
    """The library's `strict` dataclass, whose fields also keep to `LARGEST`, and whose errors are ValueErrors."""
    strict_class: Any = strict(cls)
    assign = strict_class.__setattr__
    types = {entry.name: getattr(entry.type, "__name__", str(entry.type)) for entry in fields(strict_class)}

    def check_and_assign(self: Any, name: str, value: Any) -> None:
        where = f"{self.section}.{name}" if self.section else name
        limit = LARGEST.get(name, _LARGEST_OTHER)
        if any(abs(number) > limit for number in _whole_numbers(value)):
            raise MirasolConfigurationError(f"{where}={shortly(value)} is too large; expected at most {limit}")
        try:
            assign(self, name, value)
        except StrictDataclassFieldValidationError as error:
            raise MirasolConfigurationError(f"{where}={shortly(value)} must be {types[name]}") from error

    strict_class.__setattr__ = check_and_assign
    return strict_class


def _whole_numbers(value: Any) -> Iterator[int]:
    """The whole numbers in a field: itself, or those in a list of lists."""
    if isinstance(value, int):
        yield value
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _whole_numbers(entry)


class MirasolStrictConfig(PreTrainedConfig):
    """Base of all: misspelt fields and sizes that do not fit are rejected, and what is no field is not written."""

    # its key in the whole configuration, if it is a part of that
    section: ClassVar[str] = ""

    def __post_init__(self, **kwargs: Any) -> None:
        try:
            super().__post_init__(**kwargs)
        except (
            AttributeError,
            KeyError,
            TypeError,
        ) as error:  # of the library's own keys, whose types it does not check
            raise MirasolConfigurationError(f"{self.section or type(self).__name__}: {error.args[0]}") from error
        reject_unknown_fields(self, kwargs)
        self.check()

    def check(self) -> None:
        """Raises MirasolConfigurationError, a ValueError, for fields that do not fit together."""
        try:
            self.validate_architecture()
        except ValueError as error:
            raise MirasolConfigurationError(str(error)) from error

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The content of a configuration file and the keywords that are left.

        Raises:
            ValueError: a local file is not JSON, or holds no object.
        """
        file = _config_file(pretrained_model_name_or_path, kwargs.get("subfolder"))
        if os.path.isfile(file):
            json_object(file)
        return super().get_config_dict(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Loads a configuration; see `PreTrainedConfig.from_pretrained` for the arguments.

        Raises:
            ValueError: see `get_config_dict` and `from_dict`.
        """
        with _naming(_config_file(pretrained_model_name_or_path, kwargs.get("subfolder"))):
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Builds a configuration from a dict; fields among the keywords go before those of the dict.

        `AutoConfig` is also called by the library's other Auto classes, with keywords for a tokenizer or a processor:
        through it only those are refused that are nearly a field's name.

        Raises:
            ValueError: for fields that do not fit together, and for keywords that are no fields, unless
                `return_unused_kwargs` hands them back.
        """
        source = kwargs.get("name_or_path")  # of AutoConfig, which always gives it
        with _naming(None if source is None else _config_file(source)):
            config, unused = super().from_dict(config_dict, **{**kwargs, "return_unused_kwargs": True})
            config.check()  # the library sets fields among the keywords one by one
        if kwargs.get("return_unused_kwargs"):
            return config, unused
        if source is not None:
            names = [entry.name for entry in fields(cls)]
            unused = {key: unused[key] for key in unused if difflib.get_close_matches(key, names, 1, _MISSPELT)}
        reject_unknown_fields(config, {key: unused[key] for key in unused if key not in _LOADING})
        return config

    def to_dict(self) -> dict[str, Any]:
        """The fields and the library's own keys.

        Attributes that somebody else has set on the configuration are left out: a configuration that was written with
        them could not be read again.
        """
        output = super().to_dict()
        known = known_keys(self)
        foreign = sorted(key for key in output if key not in known and not key.startswith("_"))
        if foreign:
            logger.warning_once(f"{type(self).__name__} has no field {', '.join(foreign)}; not written")
        return {key: value for key, value in output.items() if key not in foreign}


def _config_file(source: Any, subfolder: str | None = None) -> str:
    """The configuration file that a file, a folder or a repository stands for."""
    path = os.fspath(source)
    return path if os.path.isfile(path) else os.path.join(path, subfolder or "", CONFIG_NAME)


@contextmanager
def _naming(file: str | None) -> Iterator[None]:
    """Adds the name of the file to what is raised for fields of a configuration."""
    try:
        yield
    except (MirasolConfigurationError, AttributeError, KeyError, TypeError, RecursionError) as error:
        named = "" if file is None or file in str(error) else f" (while loading {file})"
        raise MirasolConfigurationError(f"{cut(error, 200)}{named}") from error


def known_keys(config: PreTrainedConfig) -> set[str]:
    """Names of a configuration's fields and of what the library itself keeps in every configuration."""
    return {entry.name for entry in fields(config)} | set(PreTrainedConfig().to_dict()) | _CONFIG_METADATA


def reject_unknown_fields(config: PreTrainedConfig, extra: dict[str, Any]) -> None:
    """Raises ValueError for constructor keys that no field takes; the library would store them silently."""
    known = known_keys(config) | set(vars(PreTrainedConfig()))
    unknown = sorted(key for key in extra if key not in known and not key.startswith("_"))
    if unknown:
        names = [entry.name for entry in fields(config)]
        raise MirasolConfigurationError(f"{type(config).__name__} has no field {with_hints(unknown, names)}")


def with_hints(unknown: Collection[str], known: Collection[str]) -> str:
    """The unknown names, each with the known one that is most like it."""
    alike = {name: difflib.get_close_matches(name, known, n=1) for name in unknown}
    return ", ".join(repr(name) + (f" (did you mean {near[0]!r}?)" if near else "") for name, near in alike.items())
