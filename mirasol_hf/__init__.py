"""Mirasol3B (arXiv 2311.05698) for Hugging Face Transformers: answers in free text about long videos with their sound.

Importing the package registers its classes with the Auto classes and the task `"video-question-answering"` with
`transformers.pipeline`. The names below are loaded when first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from mirasol_hf.registration import register
from mirasol_hf.version import __version__

if TYPE_CHECKING:
    from mirasol_hf.assets import EMBEDDED_MODEL, SAMPLE_CLIP
    from mirasol_hf.modeling.configuration_mirasol import (
        MirasolAudioConfig,
        MirasolCombinerConfig,
        MirasolConfig,
        MirasolTextConfig,
        MirasolTimeConfig,
        MirasolVideoConfig,
    )
    from mirasol_hf.modeling.media_cache_mirasol import MirasolMediaCache, MirasolMediaFeatures
    from mirasol_hf.modeling.media_encoding_mirasol import MirasolMediaEncoder
    from mirasol_hf.modeling.modeling_mirasol import (
        MirasolForConditionalGeneration,
        MirasolModel,
        MirasolPreTrainedModel,
    )
    from mirasol_hf.modeling.text_cache_mirasol import MirasolDynamicCache
    from mirasol_hf.pipelines.video_question_answering_mirasol import VideoQuestionAnsweringPipeline
    from mirasol_hf.processing.feature_extraction_mirasol import MirasolFeatureExtractor
    from mirasol_hf.processing.media_mirasol import probe_media, read_media
    from mirasol_hf.processing.processing_mirasol import MirasolProcessor
    from mirasol_hf.processing.video_processing_mirasol import MirasolVideoProcessor

_MODULE_OF_NAME = {
    name: f"mirasol_hf.{module}"
    for module, names in {
        "assets": ("EMBEDDED_MODEL", "SAMPLE_CLIP"),
        "modeling.configuration_mirasol": (
            "MirasolAudioConfig",
            "MirasolCombinerConfig",
            "MirasolConfig",
            "MirasolTextConfig",
            "MirasolTimeConfig",
            "MirasolVideoConfig",
        ),
        "modeling.media_cache_mirasol": ("MirasolMediaCache", "MirasolMediaFeatures"),
        "modeling.media_encoding_mirasol": ("MirasolMediaEncoder",),
        "modeling.modeling_mirasol": (
            "MirasolForConditionalGeneration",
            "MirasolModel",
            "MirasolPreTrainedModel",
        ),
        "modeling.text_cache_mirasol": ("MirasolDynamicCache",),
        "pipelines.video_question_answering_mirasol": ("VideoQuestionAnsweringPipeline",),
        "processing.feature_extraction_mirasol": ("MirasolFeatureExtractor",),
        "processing.media_mirasol": ("probe_media", "read_media"),
        "processing.processing_mirasol": ("MirasolProcessor",),
        "processing.video_processing_mirasol": ("MirasolVideoProcessor",),
    }.items()
    for name in names
}

__all__ = [
    "EMBEDDED_MODEL",
    "SAMPLE_CLIP",
    "MirasolAudioConfig",
    "MirasolCombinerConfig",
    "MirasolConfig",
    "MirasolDynamicCache",
    "MirasolFeatureExtractor",
    "MirasolForConditionalGeneration",
    "MirasolMediaCache",
    "MirasolMediaEncoder",
    "MirasolMediaFeatures",
    "MirasolModel",
    "MirasolPreTrainedModel",
    "MirasolProcessor",
    "MirasolTextConfig",
    "MirasolTimeConfig",
    "MirasolVideoConfig",
    "MirasolVideoProcessor",
    "VideoQuestionAnsweringPipeline",
    "__version__",
    "probe_media",
    "read_media",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF_NAME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))


register()
