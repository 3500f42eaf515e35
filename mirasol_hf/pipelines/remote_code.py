"""Saves a pipeline with its code, so that it also loads where this package is not installed.

Transformers copies the files of `modeling/`, `processing/` and the pipeline flat into the folder. Loading it elsewhere
needs `trust_remote_code=True`; read such code before you trust it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers.dynamic_module_utils import custom_object_save

from mirasol_hf.pipelines.video_question_answering_mirasol import VideoQuestionAnsweringPipeline
from mirasol_hf.registration import PIPELINE_TASK


def save_with_code(pipe: VideoQuestionAnsweringPipeline, folder: str | os.PathLike, **kwargs: Any) -> None:
    """Saves model, processor and pipeline together with their code.

    Elsewhere: `pipeline(model=folder, trust_remote_code=True)`, or any Auto class with `trust_remote_code=True`.

    Args:
        pipe: what to save; its configuration is as before afterwards.
        folder: where to; made if it does not exist.
        kwargs: passed to `save_pretrained`, for example `max_shard_size`.
    """
    config: Any = pipe.model.config
    pipeline_class = type(pipe)
    file = pipeline_class.__module__.rpartition(".")[2]
    entry = {"impl": f"{file}.{pipeline_class.__name__}", "pt": ["AutoModelForMultimodalLM"], "type": "multimodal"}
    with _remote_classes(pipe):
        config.auto_map = _auto_map(pipe)
        config.custom_pipelines = {PIPELINE_TASK: entry}
        try:
            pipe.save_pretrained(folder, **kwargs)
        finally:
            del config.auto_map, config.custom_pipelines
    custom_object_save(pipe, folder)


def _auto_map(pipe: VideoQuestionAnsweringPipeline) -> dict[str, str]:
    """Which class of the folder each Auto class loads; the saved model's class alone would not do for all."""
    from mirasol_hf.modeling.modeling_mirasol import MirasolForConditionalGeneration, MirasolModel

    classes = {
        "AutoConfig": type(pipe.model.config),
        "AutoModel": MirasolModel,
        "AutoModelForMultimodalLM": MirasolForConditionalGeneration,
        "AutoModelForCausalLM": MirasolForConditionalGeneration,
    }
    return {auto: f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}" for auto, cls in classes.items()}


@contextmanager
def _remote_classes(pipe: VideoQuestionAnsweringPipeline) -> Iterator[None]:
    """Within it, saving the parts of a pipeline also saves the code of their classes."""
    processor = pipe.processor
    marked: dict[Any, str] = {
        type(pipe.model.config): "AutoConfig",
        type(pipe.model): "AutoModelForMultimodalLM",
        type(processor): "AutoProcessor",
        type(processor.video_processor): "AutoVideoProcessor",
        type(processor.feature_extractor): "AutoFeatureExtractor",
    }
    before = {cls: getattr(cls, "_auto_class", None) for cls in marked}
    for cls, auto in marked.items():
        cls._auto_class = auto
    try:
        yield
    finally:
        for cls, earlier in before.items():
            cls._auto_class = earlier
        for part in (processor, processor.video_processor, processor.feature_extractor):
            part.__dict__.pop("auto_map", None)  # left behind by saving, and saved again the next time
