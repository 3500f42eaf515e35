"""Finds and loads the model that a command asks for."""

from pathlib import Path
from typing import TYPE_CHECKING

from mirasol_hf.assets import EMBEDDED_MODEL

if TYPE_CHECKING:
    from mirasol_hf.modeling.configuration_mirasol import MirasolConfig
    from mirasol_hf.pipelines.video_question_answering_mirasol import VideoQuestionAnsweringPipeline


def model_folder(model: str | None) -> Path:
    """The folder of a checkpoint; `None` is the embedded one.

    Raises:
        OSError: there is no such folder, or it holds no `config.json`.
    """
    folder = EMBEDDED_MODEL if model is None else Path(model)
    if not folder.is_dir():
        raise NotADirectoryError(f"model {str(folder)!r} is not a folder; expected one that save_pretrained wrote")
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"model {str(folder)!r} holds no config.json; expected what save_pretrained wrote")
    return folder


def load_config(model: str | None) -> "MirasolConfig":
    """The configuration of a checkpoint folder.

    Raises:
        OSError: see `model_folder`, or `config.json` is not readable as JSON.
        ValueError: the folder holds a model of another type.
    """
    from transformers import PreTrainedConfig

    from mirasol_hf.modeling.configuration_mirasol import MirasolConfig

    folder = model_folder(model)
    found = PreTrainedConfig.get_config_dict(str(folder))[0].get("model_type")
    if found != MirasolConfig.model_type:
        raise ValueError(f"model {str(folder)!r} is of type {found!r}, expected {MirasolConfig.model_type!r}")
    return MirasolConfig.from_pretrained(str(folder))


def load_pipeline(model: str | None) -> "VideoQuestionAnsweringPipeline":
    """The question answering pipeline over a checkpoint folder, with the library's chatter switched off.

    Raises:
        OSError, ValueError: see `load_config`.
    """
    from transformers import pipeline
    from transformers.utils import logging

    from mirasol_hf.registration import PIPELINE_TASK

    load_config(model)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return pipeline(PIPELINE_TASK, model=str(model_folder(model)))
