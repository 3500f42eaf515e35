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
TOWERS = "VideoTowerTest|AudioTowerTest"
MEDIA_PARTS = f"{TOWERS}|CombinerTest|TimeModelTest"
PARTS = f"{MEDIA_PARTS}|TextDecoderTest"
MODELS = f"{PARTS}|MirasolModelTest"

# What the machine lacks: a GPU, and packages that need one.
ACCELERATOR = (
    Skip(ANY, ANY, "requires (multiple )?accelerators?", "needs a GPU"),
    Skip(
        MODELS,
        "test_flash_attn.*",
        "requires Flash Attention|requires the kernels library|requires MPS",
        "the package does not run without a GPU",
    ),
    Skip(MODELS, ".*with_deepspeed.*", "requires deepspeed", "also asks for a GPU"),
    Skip(MODELS, "test_kernels_can_load.*", "requires the kernels library", "needs a GPU and a download from the Hub"),
    Skip(
        "TensorParallelTest", "test_tp_generation_quantized", "requires torchao", "the extra `quantization` brings it"
    ),
)

TORCHVISION = (
    Skip(
        "PipelineTest",
        "test_pipeline_any_to_any_.*",
        "is not in\n?.*`self.pipeline_model_mapping`",
        "the library's pipeline itself requires torchvision, whatever the model",
    ),
)

# The library's test applies to another kind of model: to run it, Mirasol would have to become one.
EXPERTS = (
    Skip(MODELS, ".*batched_and_grouped_inference.*", "does not support grouped_mm", "Mirasol has no experts"),
    Skip(MODELS, "test_moe_models_record_router_logits", "no sparse experts", "Mirasol has no experts"),
    Skip(MODELS, "test_output_router_logits_from_config", "no `output_router_logits`", "Mirasol has no router"),
    Skip("TensorParallelTest", "test_moe_parallel_plans_shard_experts", "Not an MoE model", "Mirasol has no experts"),
    Skip("FSDPTest", ".*expert_parallel.*", "expert parallel plan", "Mirasol has no experts"),
)

OTHER_MODELS = (
    Skip(
        MODELS,
        "test_encoder_decoder_loss_no_double_shift",
        "No sequence-to-sequence|not an encoder-decoder",
        "the text decoder takes prompt and answer as one sequence; no encoder reads the prompt",
    ),
    Skip(
        PARTS,
        "test_causal_lm_loss_honors_shift_labels",
        "No decoder-only language modeling head",
        "a part has no head; over the whole model the test runs",
    ),
    Skip(
        MODELS,
        "test_(reverse_loading_mapping|can_load_from_already_mapped_keys)",
        "No conversion",
        "no checkpoint in the library's format has other names than these classes, so nothing is to be renamed",
    ),
    Skip(
        MODELS,
        "test_keep_in_fp32_modules.*",
        "no _keep_in_fp32_modules",
        "norms and rotary tables are computed in float32 whatever their dtype; keeping the norms' weights in it too "
        "brought the logits no closer to those in float32",
    ),
    Skip(
        MODELS,
        "test_resize_position_vector_embeddings",
        "no.* position embeddings",
        "positions are rotary or fixed sines: there is no learned table to resize",
    ),
    Skip(
        MODELS,
        "test_sliding_window_mask",
        "not support sliding window",
        "the text attends to all of itself, as in the paper; windows are counted in chunks and tested as such",
    ),
    Skip(MODELS, "test_vision_axial_rope", "no axial RoPE", "the towers' positions are fixed sines, as in TubeViT"),
    Skip(
        TOWERS,
        "test_model_rope_.*",
        "not support RoPE scaling|does not have RoPE",
        "the towers' positions are fixed sines, as in TubeViT",
    ),
    Skip(
        "CombinerTest|TimeModelTest",
        "test_model_rope_(scaling_from_config|with_partial_rotation).*",
        "no vocab size defined and the test doesn't yet support non-text",
        "the library's test gives token ids; that of the frequencies runs",
    ),
    Skip(
        "CombinerTest",
        "test_enable_input_require_grads_with_gradient_checkpointing",
        "No model with a differentiable loss",
        "the library's test looks at the weight of an embedding; the Combiner adds learned vectors and has none",
    ),
    Skip(MEDIA_PARTS, "test_resize_.*embeddings.*", "set to `False`", "media have no vocabulary to resize"),
    Skip(MEDIA_PARTS, "test_inputs_embeds.*", "doesn't use `inputs_embeds`", "media have no token embeddings"),
    Skip(
        PARTS,
        "test_sdpa_can_dispatch_composite_models",
        "not have both a non-text modality tower",
        "the test compares a tower with a text decoder, and a part is one of them; over the whole model it runs",
    ),
    Skip(PARTS, "test_internal_model_config_and_subconfig_are_same", "No subconfigs", "a part has no sections"),
)

# The library's test gives single images, or counts the placeholder tokens of media in the text.
PROCESSORS = (
    Skip(
        "ProcessorTest",
        "test_.*",
        "image_processor attribute|doesn't support images",
        "Mirasol sees clips; a still picture is one too, and has no processor of its own",
    ),
    Skip(
        "ProcessorTest",
        "test_.*(multimodal_tokens|offsets).*",
        "doesn't support `_get_num",
        "the text attends to the media, whose tokens never stand in it: there is nothing to count",
    ),
)

PIPELINES = (
    Skip(
        "PipelineTest",
        "test_pipeline_.*",
        "is not in\n?.*`self.pipeline_model_mapping`",
        "a task of another kind of model: classes, boxes, masks, speech, text about an image",
    ),
    Skip(
        "PipelineTest",
        "test_pipeline_.*",
        "requires (Timm|PyTesseract)",
        "a task of another kind of model, and a package for it",
    ),
    Skip("PipelineTest", "test_pipeline_mask_generation.*", "not implemented", "the library has no test of this task"),
)

SKIPS = (*ACCELERATOR, *TORCHVISION, *EXPERTS, *OTHER_MODELS, *PROCESSORS, *PIPELINES)


OVERRIDES = (
    Override(
        MEDIA_PARTS,
        "test_model_get_set_embeddings",
        "the inputs are patches and features; the library wants a vocabulary's table",
    ),
    Override(
        "VideoProcessorTest",
        "test_video_processor_from_dict_with_kwargs",
        "the whole picture is resized to height and width; the library's test crops",
    ),
    Override(
        "VideoProcessorTest",
        "test_override_instance_attributes_does_not_affect_other_instances",
        "the library's test is for sizes that are dicts and skips its own `SizeDict`, which ours are",
    ),
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
