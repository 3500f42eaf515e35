"""The one table of the library's tests that do not run here, and of those that a test class overrides.

A skip that no line allows is a failure, and so is a line that a whole run does not use.
"""

import re
from typing import NamedTuple


class Skip(NamedTuple):
    """Allows skips: patterns for the test class, the test and the reason that the library gives."""

    classes: str
    tests: str
    reason: str
    why: str


class Override(NamedTuple):
    """Allows a test class to put its own test in place of the library's."""

    classes: str
    test: str
    why: str


ANY = ".*"
MODELS = "MirasolModelTest|VideoTowerTest|AudioTowerTest|TextDecoderTest"
PARTS = "VideoTowerTest|AudioTowerTest|TextDecoderTest"
TOWERS = "VideoTowerTest|AudioTowerTest"

# What the machine lacks: a GPU, and the packages that need one.
ACCELERATOR = (
    Skip(ANY, ANY, "requires (multiple )?accelerators?", "needs a GPU"),
    Skip(
        MODELS,
        "test_flash_attn.*",
        "requires Flash Attention|requires the kernels library|requires MPS",
        "needs a GPU",
    ),
    Skip(MODELS, ".*with_deepspeed.*", "requires deepspeed", "needs a GPU"),
    Skip(MODELS, "test_kernels_can_load.*", "requires the kernels library", "needs a GPU and a download from the Hub"),
)

# Tests for other kinds of models: the library's own test says that it does not apply, whatever ours would do.
OTHER_MODELS = (
    Skip(MODELS, ".*batched_and_grouped_inference.*", "does not support grouped_mm", "mixtures of experts"),
    Skip(MODELS, "test_moe_models_record_router_logits", "no sparse experts", "mixtures of experts"),
    Skip(MODELS, "test_output_router_logits_from_config", "no `output_router_logits`", "mixtures of experts"),
    Skip("TensorParallelTest", "test_moe_parallel_plans_shard_experts", "Not an MoE model", "mixtures of experts"),
    Skip("FSDPTest", ".*expert_parallel.*", "expert parallel plan", "mixtures of experts"),
    Skip(MODELS, "test_encoder_decoder_loss_no_double_shift", ANY, "sequence-to-sequence models"),
    Skip(
        PARTS,
        "test_causal_lm_loss_honors_shift_labels",
        "No decoder-only language modeling head",
        "models with a head",
    ),
    Skip(
        MODELS, "test_(reverse_loading_mapping|can_load_from_already_mapped_keys)", "No conversion", "renamed weights"
    ),
    Skip(MODELS, "test_keep_in_fp32_modules.*", "no _keep_in_fp32_modules", "weights that must stay in float32"),
    Skip(MODELS, "test_resize_position_vector_embeddings", "no.* position embeddings", "learned position tables"),
    Skip(MODELS, "test_sliding_window_mask", "not support sliding window", "windows over text"),
    Skip(MODELS, "test_vision_axial_rope", "axial RoPE|base_model_class", "axial rotary positions"),
    Skip(TOWERS, "test_model_rope_.*", "not support RoPE scaling|does not have RoPE", "rotary positions"),
    Skip(TOWERS, "test_resize_.*embeddings.*", "set to `False`", "vocabularies"),
    Skip(TOWERS, "test_inputs_embeds.*", "doesn't use `inputs_embeds`", "token embeddings"),
    Skip(
        TOWERS,
        "test_tp_plan_matches_params",
        "not have a TP plan",
        "models split by tensor parallelism; towers are replicated",
    ),
    Skip(TOWERS, "test_tied_head_has_a_tp_plan_entry", "not have a TP plan", "models with a head"),
    Skip(PARTS, "test_.*composite_models?", "not a composite|not composite|not support SDPA", "models with parts"),
    Skip(PARTS, "test_internal_model_config_and_subconfig_are_same", "No subconfigs", "models with parts"),
    Skip(
        "MirasolModelTest", "test_sdpa_can_dispatch_non_composite_models", "not support SDPA", "models without parts"
    ),
    Skip(
        "ProcessorTest", "test_.*", "image_processor attribute|doesn't support images", "processors of single images"
    ),
    Skip(
        "ProcessorTest",
        "test_.*(multimodal_tokens|offsets).*",
        "doesn't support `_get_num",
        "placeholder tokens in the text",
    ),
    Skip("PipelineTest", "test_pipeline_.*", "is not in\n?.*`self.pipeline_model_mapping`", "other tasks"),
    Skip("PipelineTest", "test_pipeline_.*", "requires (Timm|PyTesseract)", "other tasks"),
    Skip("PipelineTest", "test_pipeline_mask_generation.*", "not implemented", "other tasks"),
)

SKIPS = (*ACCELERATOR, *OTHER_MODELS)

MEDIA_TOO = "the same comparison on batches with media; of text alone the towers get no gradient to keep a state of"

OVERRIDES = (
    Override(
        TOWERS, "test_model_get_set_embeddings", "the inputs are patches; the library wants a vocabulary's table"
    ),
    Override(
        "VideoProcessorTest",
        "test_video_processor_from_dict_with_kwargs",
        "the whole picture is resized to height and width; the library's test crops",
    ),
    Override(
        "VideoProcessorTest",
        "test_call_numpy_4_channels",
        "frames lie in chunks; the library's test writes the channels to the second axis of the shape",
    ),
    Override(
        "VideoProcessorTest",
        "test_override_instance_attributes_does_not_affect_other_instances",
        "the library's test is for sizes that are dicts and skips its own `SizeDict`, which ours are",
    ),
    Override("FSDPTest", "test_fsdp2_plan_vs_ddp_0_untied", MEDIA_TOO),
    Override("FSDPTest", "test_fsdp2_plan_vs_ddp_1_tied", MEDIA_TOO),
    Override(
        "ProcessorTest",
        "test_apply_chat_template_decoded_video_0",
        "frames in memory that are sampled need their rate, which the library's test does not give",
    ),
    Override(
        "ProcessorTest",
        "test_chat_template_audio_from_video",
        "media have a row for each text, and a mask where one has none; the library's test counts the films alone",
    ),
    Override(
        "ProcessorTest",
        "test_apply_chat_template_video_frame_sampling",
        "the counts are those of another clip, and pictures given one by one may be sampled here",
    ),
)


def find(cls: str, test: str, reason: str) -> Skip | None:
    """The line that allows this skip; None if the table has none."""
    for line in SKIPS:
        if re.fullmatch(line.classes, cls) and re.fullmatch(line.tests, test) and re.search(line.reason, reason):
            return line
    return None


def find_override(cls: str, test: str) -> Override | None:
    """The line that allows this class its own test; None if the table has none."""
    return next((line for line in OVERRIDES if re.fullmatch(line.classes, cls) and line.test == test), None)
