# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""A configuration that rejects misspelt fields and sizes that do not fit, wherever they are given."""

import difflib
from collections.abc import Collection
from dataclasses import fields
from typing import Any

from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import PreTrainedConfig
from transformers.utils import logging

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


class MirasolConfigurationError(ValueError, StrictDataclassClassValidationError):
    """Fields that do not fit together: a ValueError, as is all bad input, and what the library raises itself."""

    def __init__(self, message: str) -> None:
        ValueError.__init__(self, message)


class MirasolStrictConfig(PreTrainedConfig):
    """Base of all: misspelt fields and sizes that do not fit are rejected, and what is no field is not written."""

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        reject_unknown_fields(self, kwargs)
        self.check()

    def check(self) -> None:
        """Raises MirasolConfigurationError, a ValueError, for fields that do not fit together."""
        try:
            self.validate_architecture()
        except ValueError as error:
            raise MirasolConfigurationError(str(error)) from error

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Builds a configuration from a dict; fields among the keywords go before those of the dict.

        `AutoConfig` is also called by the library's other Auto classes, with keywords for a tokenizer or a processor:
        through it only those are refused that are nearly a field's name.

        Raises:
            ValueError: for fields that do not fit together, and for keywords that are no fields, unless
                `return_unused_kwargs` hands them back.
        """
        wanted = {**kwargs, "return_unused_kwargs": True}
        config, unused = super().from_dict(config_dict, **wanted)
        config.check()  # the library sets fields among the keywords one by one
        if kwargs.get("return_unused_kwargs"):
            return config, unused
        if "name_or_path" in kwargs:  # AutoConfig, which always gives it
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


def known_keys(config: PreTrainedConfig) -> set[str]:
    """Names of a configuration's fields and of what the library itself keeps in every configuration."""
    return {entry.name for entry in fields(config)} | set(PreTrainedConfig().to_dict()) | _CONFIG_METADATA


def reject_unknown_fields(config: PreTrainedConfig, extra: dict[str, Any]) -> None:
    """Raises ValueError for constructor keys that no field takes; the library would store them silently."""
    known = known_keys(config) | set(vars(PreTrainedConfig()))
    unknown = sorted(key for key in extra if key not in known and not key.startswith("_"))
    if unknown:
        names = [entry.name for entry in fields(config)]
        raise ValueError(f"{type(config).__name__} has no field {with_hints(unknown, names)}")


def with_hints(unknown: Collection[str], known: Collection[str]) -> str:
    """The unknown names, each with the known one that is most like it."""
    alike = {name: difflib.get_close_matches(name, known, n=1) for name in unknown}
    return ", ".join(repr(name) + (f" (did you mean {near[0]!r}?)" if near else "") for name, near in alike.items())
