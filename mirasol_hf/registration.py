"""Makes the package known to Transformers: configuration, Auto classes, processor parts and the pipeline task.

Transformers has no plug-in entry points, so this runs when the package is imported.
"""

import logging

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    AutoProcessor,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

# `transformers.AutoVideoProcessor` is a placeholder that raises where torchvision is absent; this is the real class.
from transformers.models.auto.video_processing_auto import AutoVideoProcessor
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils.logging import get_logger

from mirasol_hf.assets import EMBEDDED_MODEL

PIPELINE_TASK = "video-question-answering"


def register() -> None:
    """Registers everything; calling it again changes nothing."""
    _register_models()
    _register_processors()
    _register_pipeline()


def _register_models() -> None:
    from mirasol_hf.modeling import configuration_mirasol as configurations
    from mirasol_hf.modeling.audio_tower_mirasol import MirasolAudioModel
    from mirasol_hf.modeling.modeling_mirasol import MirasolForConditionalGeneration, MirasolModel
    from mirasol_hf.modeling.text_decoder_mirasol import MirasolTextModel
    from mirasol_hf.modeling.video_tower_mirasol import MirasolVideoModel

    for config_class in (
        configurations.MirasolConfig,
        configurations.MirasolVideoConfig,
        configurations.MirasolAudioConfig,
        configurations.MirasolCombinerConfig,
        configurations.MirasolTimeConfig,
        configurations.MirasolTextConfig,
    ):
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
    for config_class, model_class in (
        (configurations.MirasolConfig, MirasolModel),
        (configurations.MirasolVideoConfig, MirasolVideoModel),
        (configurations.MirasolAudioConfig, MirasolAudioModel),
        (configurations.MirasolTextConfig, MirasolTextModel),
    ):
        AutoModel.register(config_class, model_class, exist_ok=True)
    config_class = configurations.MirasolConfig
    AutoModelForMultimodalLM.register(config_class, MirasolForConditionalGeneration, exist_ok=True)
    AutoModelForCausalLM.register(config_class, MirasolForConditionalGeneration, exist_ok=True)
    # The Trainer's label smoother shifts labels only for the class names that stand in this static table.
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config_class.model_type] = MirasolForConditionalGeneration.__name__


def _register_processors() -> None:
    from mirasol_hf.modeling.configuration_mirasol import MirasolConfig
    from mirasol_hf.processing.feature_extraction_mirasol import MirasolFeatureExtractor
    from mirasol_hf.processing.processing_mirasol import MirasolProcessor
    from mirasol_hf.processing.video_processing_mirasol import MirasolVideoProcessor

    AutoFeatureExtractor.register(MirasolConfig, MirasolFeatureExtractor, exist_ok=True)
    AutoVideoProcessor.register(MirasolConfig, video_processor_class=MirasolVideoProcessor, exist_ok=True)
    AutoProcessor.register(MirasolConfig, MirasolProcessor, exist_ok=True)


def _register_pipeline() -> None:
    from mirasol_hf.pipelines.video_question_answering_mirasol import VideoQuestionAnsweringPipeline

    if PIPELINE_TASK in PIPELINE_REGISTRY.supported_tasks:
        return
    PIPELINE_REGISTRY.register_pipeline(
        PIPELINE_TASK,
        VideoQuestionAnsweringPipeline,
        pt_model=AutoModelForMultimodalLM,
        default={"model": (str(EMBEDDED_MODEL), "main")},  # a local folder; the revision is not looked at
        type="multimodal",
    )
    get_logger("transformers.pipelines").addFilter(_is_not_about_our_default)


def _is_not_about_our_default(record: logging.LogRecord) -> bool:
    """The library warns of default models, which lie on the Hub and may change; ours is part of the package."""
    return f"defaulted to {EMBEDDED_MODEL} " not in record.getMessage()
