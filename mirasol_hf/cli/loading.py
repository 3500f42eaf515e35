"""Finds and loads the model that a command asks for: a checkpoint, or an adapter with the model it was made for."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirasol_hf.assets import EMBEDDED_MODEL

if TYPE_CHECKING:
    from mirasol_hf.modeling.configuration_mirasol import MirasolConfig
    from mirasol_hf.pipelines.video_question_answering_mirasol import VideoQuestionAnsweringPipeline

_CONFIG, _ADAPTER_CONFIG, _PROCESSOR_CONFIG = "config.json", "adapter_config.json", "processor_config.json"


def model_folder(model: str | None) -> Path:
    """The folder of a checkpoint or an adapter; `None` is the embedded checkpoint.

    Raises:
        OSError: there is no such folder, or it holds neither.
    """
    folder = EMBEDDED_MODEL if model is None else Path(model)
    if not folder.is_dir():
        raise NotADirectoryError(f"model {str(folder)!r} is not a folder; expected one that save_pretrained wrote")
    if not any((folder / name).is_file() for name in (_CONFIG, _ADAPTER_CONFIG)):
        raise FileNotFoundError(
            f"model {str(folder)!r} holds no {_CONFIG} or {_ADAPTER_CONFIG}; expected what save_pretrained wrote"
        )
    return folder


def adapter_base(folder: Path) -> str | None:
    """The model that the adapter in a folder was made for, as the library takes it; `None` where there is no adapter.

    Raises:
        ValueError: the adapter's configuration does not name its model.
    """
    from mirasol_hf.hub.card import read_json

    path = folder / _ADAPTER_CONFIG
    if not path.is_file():
        return None
    base = read_json(path, "base_model_name_or_path")["base_model_name_or_path"]
    if not isinstance(base, str) or not base:
        raise ValueError(f"{path} does not name the adapter's model: base_model_name_or_path is {base!r}")
    return base


def load_config(model: str | None) -> "MirasolConfig":
    """The configuration of a checkpoint folder, or of the model that an adapter was made for.

    Raises:
        OSError: see `model_folder`, or `config.json` is not readable as JSON, or an adapter's model is not there.
        ValueError: the folder holds a model of another type.
    """
    from mirasol_hf.modeling.configuration_mirasol import MirasolConfig

    folder = model_folder(model)
    base = adapter_base(folder)
    source = str(folder) if base is None else base
    try:
        found = MirasolConfig.get_config_dict(source)[0].get("model_type")
    except (OSError, ValueError) as error:
        if base is None or Path(base).is_dir():
            raise
        raise FileNotFoundError(f"adapter {str(folder)!r} was made for {base!r}, which cannot be read") from error
    if found != MirasolConfig.model_type:
        raise ValueError(f"model {source!r} is of type {found!r}, expected {MirasolConfig.model_type!r}")
    return MirasolConfig.from_pretrained(source)


def load_pipeline(model: str | None) -> "VideoQuestionAnsweringPipeline":
    """The question answering pipeline over a folder, with the library's chatter switched off.

    An adapter is merged into its model, so that what is exported is whole; its processor is its model's where it
    brings none.

    Raises:
        OSError, ValueError: see `load_config`; or the adapter was made for another model.
    """
    from transformers import pipeline
    from transformers.utils import logging

    from mirasol_hf.modeling.modeling_mirasol import MirasolForConditionalGeneration
    from mirasol_hf.processing.processing_mirasol import MirasolProcessor
    from mirasol_hf.registration import PIPELINE_TASK

    load_config(model)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # what the pipeline tells of itself in Python, commands tell in their own way
    logging.get_logger("mirasol_hf.pipelines").setLevel(logging.ERROR)
    folder = model_folder(model)
    base = adapter_base(folder)
    # The library's pipeline, given a folder, wraps what is raised for a damaged file into two tracebacks.
    loaded: Any = MirasolForConditionalGeneration.from_pretrained(str(folder) if base is None else base)
    own_processor = base is None or (folder / _PROCESSOR_CONFIG).is_file()
    processor = MirasolProcessor.from_pretrained(str(folder) if own_processor else base)
    return pipeline(PIPELINE_TASK, model=loaded if base is None else _merged(loaded, folder), processor=processor)


def _merged(model: Any, folder: Path) -> Any:
    """The model with the adapter of a folder in its weights."""
    from mirasol_hf.training.adapters import load_adapter
    from mirasol_hf.training.provenance import note_training

    merged = load_adapter(model, folder).merge_and_unload()
    note_training(merged.config, f"what the adapter {folder.resolve().name} was trained on")
    return merged
