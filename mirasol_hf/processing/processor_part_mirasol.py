"""What the parts of a processor share: keywords that nothing takes are refused, and files are saved whole."""

import os
from abc import abstractmethod
from typing import Any

from .keywords_mirasol import check_loading, refuse_misspelt
from .saved_options_mirasol import naming_file
from .saving_mirasol import save_whole

# where the options of a part are saved: with the whole processor, or alone
_FILES = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")


class ProcessorPartMixin:
    """A video processor or feature extractor with known options; stands before the library's class."""

    @classmethod
    @abstractmethod
    def option_names(cls) -> set[str]:
        """Names of what the part can be built of, and of what the library writes beside them into saved files."""

    def save_pretrained(
        self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any
    ) -> list[str] | None:
        """Saves as the library does, but nothing half-written; see `save_whole` for what is raised."""
        save = super().save_pretrained  # type: ignore[misc]
        return save_whole(save, save_directory, push_to_hub, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Loads a saved part; see the library's method for the arguments.

        Raises:
            TypeError: for a keyword that neither the options nor the loading know.
            ValueError: a file is damaged, or an option in it is wrong.
        """
        check_loading(cls.__name__, kwargs, cls.option_names())
        with naming_file(pretrained_model_name_or_path, kwargs, _FILES):
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)  # type: ignore[misc]

    @classmethod
    def from_dict(cls, options: dict[str, Any], **kwargs: Any) -> Any:
        """Builds a part from the dict of a saved one; options among the keywords go before those of the dict.

        Raises:
            TypeError: for a misspelt option.
        """
        names = cls.option_names()
        if not kwargs.get("return_unused_kwargs"):
            refuse_misspelt(cls.__name__, kwargs, names)
        given = {name: kwargs.pop(name) for name in list(kwargs) if name in names}
        return super().from_dict({**options, **given}, **kwargs)  # type: ignore[misc]
