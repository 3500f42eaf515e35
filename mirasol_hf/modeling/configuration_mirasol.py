# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Configuration of Mirasol: one section for each part of the model.

The paper (arXiv 2311.05698) leaves most sizes open. What is the paper's: 128 frames in 16 chunks, 32 Combiner outputs
per chunk, text loss weighted ten times in fine-tuning. Everything else is a choice of this package.
"""

import copy
import math
from dataclasses import field
from typing import Any, ClassVar

from transformers import PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .checkpoint_files_mirasol import shortly
from .field_checks_mirasol import (
    are_integers,
    patch_tokens,
    require_divisible,
    require_layers,
    require_positive,
    require_product,
    require_rotary,
    require_share,
    tube_tokens,
)
from .presets_mirasol import PRESETS
from .strict_config_mirasol import MirasolStrictConfig, strict_fields

# How tensor parallelism splits a ViT block: heads and hidden channels go to the ranks, each block sums twice.
ENCODER_TP_PLAN = {
    **{f"layers.*.self_attn.{name}_proj": "rowwise" if name == "o" else "colwise" for name in "qkvo"},
    "layers.*.mlp.up_proj": "colwise",
    "layers.*.mlp.down_proj": "rowwise",
}


# where Transformers imports the code of a Hub folder
_REMOTE_MODULES = "transformers_modules"


@strict_fields
class MirasolVideoConfig(MirasolStrictConfig):
    """Video tower: sparse tubes (TubeViT, arXiv 2212.03229) into a pre-norm ViT.

    Args:
        image_size: height and width of a frame in pixels.
        num_channels: channels of a frame.
        num_frames: frames per chunk, F.
        tube_kernels, tube_strides, tube_offsets: one `(time, height, width)` triple for each tube, in frames and
            pixels. The first axis of a kernel may not exceed `num_frames`. TubeViT's 16-frame tube cannot fit chunks
            of eight frames; the defaults keep its kinds (long and small, short and wide, a dense 2-D patch) at F=8.
        hidden_size, intermediate_size, num_hidden_layers, num_attention_heads: the ViT.
        reconstruction_size: `(frames, height, width)` of the down-sized next chunk that the video reconstruction
            loss predicts.
    """

    model_type = "mirasol_video"
    base_config_key = "video_config"
    section = "video_config"
    base_model_fsdp_plan: ClassVar[dict[str, str]] = {}
    base_model_tp_plan = ENCODER_TP_PLAN

    image_size: int = 224
    num_channels: int = 3
    num_frames: int = 8
    tube_kernels: list[Any] | tuple[Any, ...] = ((8, 8, 8), (8, 4, 4), (4, 12, 12), (1, 16, 16))
    tube_strides: list[Any] | tuple[Any, ...] = ((8, 32, 32), (8, 32, 32), (8, 32, 32), (8, 16, 16))
    tube_offsets: list[Any] | tuple[Any, ...] = ((0, 0, 0), (0, 8, 8), (0, 16, 16), (0, 0, 0))
    hidden_size: int = 1280
    intermediate_size: int = 5120
    num_hidden_layers: int = 32
    num_attention_heads: int = 16
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    attention_dropout: float | int = 0.0
    dropout: float | int = 0.0
    initializer_range: float = 0.02
    reconstruction_size: list[int] | tuple[int, ...] = (4, 16, 16)

    def validate_architecture(self) -> None:
        require_positive(self, self.section, "image_size", "num_channels", "num_frames", "num_hidden_layers")
        require_positive(self, self.section, "intermediate_size")
        require_layers(self, self.section, "layer_norm_eps")
        require_divisible(self, self.section, "hidden_size", "num_attention_heads")
        if not len(self.tube_kernels) == len(self.tube_strides) == len(self.tube_offsets) >= 1:
            raise ValueError(
                f"{self.section}: tube_kernels ({len(self.tube_kernels)}), tube_strides ({len(self.tube_strides)}) "
                f"and tube_offsets ({len(self.tube_offsets)}) must have one triple for each tube, and at least one"
            )
        for name in ("tube_kernels", "tube_strides", "tube_offsets"):
            if not all(are_integers(triple, 3) for triple in getattr(self, name)):
                raise ValueError(
                    f"{self.section}.{name}={shortly(getattr(self, name))} must be (time, height, width) triples of "
                    f"integers"
                )
        extent = (self.num_frames, self.image_size, self.image_size)
        names = ("num_frames", "image_size", "image_size")
        for kernel, stride, offset in zip(self.tube_kernels, self.tube_strides, self.tube_offsets, strict=True):
            for axis in range(3):
                if kernel[axis] < 1 or stride[axis] < 1 or offset[axis] < 0:
                    raise ValueError(
                        f"{self.section}: tube_kernels {tuple(kernel)} and tube_strides {tuple(stride)} must be "
                        f"positive, tube_offsets {tuple(offset)} not negative"
                    )
                if offset[axis] + kernel[axis] > extent[axis]:
                    raise ValueError(
                        f"{self.section}.tube_kernels {tuple(kernel)} at tube_offsets {tuple(offset)} does not fit "
                        f"{self.section}.{names[axis]}={extent[axis]}"
                    )
        if len(self.reconstruction_size) != 3 or min(self.reconstruction_size) < 1:
            given = shortly(self.reconstruction_size)
            raise ValueError(f"{self.section}.reconstruction_size={given} must be three sizes >= 1")
        require_product(
            self,
            self.section,
            "reconstruction_size and num_channels",
            math.prod((*self.reconstruction_size, self.num_channels)),
        )
        require_product(self, self.section, "tube_kernels, tube_strides and image_size", sum(tube_tokens(self)))


@strict_fields
class MirasolAudioConfig(MirasolStrictConfig):
    """Audio tower: 2-D patches of a chunk's log-mel spectrogram into a pre-norm ViT.

    Args:
        num_steps: spectrogram steps per chunk, S.
        num_mel_bins: mel bins, M.
        patch_size: `(steps, mel bins)` of a patch; must divide S and M.
        sampling_rate: of the waveform in Hz.
        reconstruction_size: `(steps, mel bins)` of the down-sized next spectrogram that the audio reconstruction loss
            predicts.
    """

    model_type = "mirasol_audio"
    base_config_key = "audio_config"
    section = "audio_config"
    base_model_fsdp_plan: ClassVar[dict[str, str]] = {}
    base_model_tp_plan = ENCODER_TP_PLAN

    num_steps: int = 96
    num_mel_bins: int = 128
    patch_size: list[int] | tuple[int, ...] = (16, 16)
    sampling_rate: int = 16_000
    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    attention_dropout: float | int = 0.0
    dropout: float | int = 0.0
    initializer_range: float = 0.02
    reconstruction_size: list[int] | tuple[int, ...] = (24, 32)

    def validate_architecture(self) -> None:
        require_positive(self, self.section, "num_steps", "num_mel_bins", "num_hidden_layers", "sampling_rate")
        require_positive(self, self.section, "intermediate_size")
        require_layers(self, self.section, "layer_norm_eps")
        require_divisible(self, self.section, "hidden_size", "num_attention_heads")
        for axis, name in enumerate(("num_steps", "num_mel_bins")):
            if len(self.patch_size) != 2 or self.patch_size[axis] < 1 or getattr(self, name) % self.patch_size[axis]:
                raise ValueError(
                    f"{self.section}.patch_size={shortly(self.patch_size)} must divide "
                    f"{self.section}.{name}={getattr(self, name)}"
                )
        if len(self.reconstruction_size) != 2 or min(self.reconstruction_size) < 1:
            given = shortly(self.reconstruction_size)
            raise ValueError(f"{self.section}.reconstruction_size={given} must be two sizes >= 1")
        require_product(self, self.section, "reconstruction_size", math.prod(self.reconstruction_size))
        require_product(self, self.section, "num_steps, num_mel_bins and patch_size", patch_tokens(self))


@strict_fields
class MirasolCombinerConfig(MirasolStrictConfig):
    """Combiner: all tokens of a chunk become `num_output_tokens` joint features.

    Args:
        type: `"transformer"`, or `"ttm"` for a Token Turing Machine.
        context: `"chunk"` sees the tokens of one chunk, `"causal"` those of earlier chunks too (paper, Eq. 2).
        context_chunks: with `context="causal"`, how many chunks are seen, the present one and
            absent ones included; `None` for all.
        num_output_tokens: m, joint features per chunk (paper: 32).
        output_tokens: `"learned"` appends m learned tokens and keeps their outputs, which keeps m meaningful when a
            modality is missing; `"last"` keeps the last m outputs of the media tokens, the paper's letter.
        memory_size: memory tokens of the Token Turing Machine; at least `num_output_tokens`.
        memory_mode: how the machine summarises memory and inputs: `"tl"` by learned weights, `"tl_mha"` by attention
            of latent queries; `"tl_add_erase"` reads as `"tl"` and writes by erasing and adding, whose official form
            is flawed (see `MirasolAddEraseWrite`).
        processing_unit: what works on the m tokens that were read: `"transformer"`, `"mixer"` or `"mlp"`, each of
            `num_hidden_layers` blocks with MLPs of `intermediate_size`.
        use_positional_embedding: learned tables added before reading and writing.

    The machine (`type="ttm"`) carries earlier chunks in its memory: `context` and `output_tokens` mean nothing to it,
    and its m outputs are the `num_output_tokens` tokens it reads and processes.
    """

    model_type = "mirasol_combiner"
    base_config_key = "combiner_config"
    section = "combiner_config"
    base_model_fsdp_plan: ClassVar[dict[str, str]] = {}
    default_theta = 10_000.0

    type: str = "transformer"
    context: str = "chunk"
    context_chunks: int | None = None
    num_output_tokens: int = 32
    output_tokens: str = "learned"
    memory_size: int = 96
    memory_mode: str = "tl"
    processing_unit: str = "transformer"
    use_positional_embedding: bool = False
    hidden_size: int = 2048
    intermediate_size: int = 8192
    num_hidden_layers: int = 8
    num_attention_heads: int = 16
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    attention_dropout: float | int = 0.0
    dropout: float | int = 0.0
    initializer_range: float = 0.02
    rope_parameters: dict | None = None
    max_position_embeddings: int = 65_536

    @property
    def base_model_tp_plan(self) -> dict[str, str] | None:
        """How tensor parallelism splits the layers; `None` for a Token Turing Machine, which has others."""
        return None if self.type == "ttm" else ENCODER_TP_PLAN

    def validate_architecture(self) -> None:
        require_positive(self, self.section, "num_output_tokens", "num_hidden_layers", "memory_size")
        require_positive(self, self.section, "hidden_size", "intermediate_size", "max_position_embeddings")
        require_layers(self, self.section, "layer_norm_eps")
        if self.type != "ttm" or self.processing_unit == "transformer":
            require_divisible(self, self.section, "hidden_size", "num_attention_heads")
        for name, allowed in (
            ("type", ("transformer", "ttm")),
            ("context", ("chunk", "causal")),
            ("output_tokens", ("learned", "last")),
            ("memory_mode", ("tl", "tl_mha", "tl_add_erase")),
            ("processing_unit", ("transformer", "mixer", "mlp")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{self.section}.{name}={shortly(getattr(self, name))} must be one of {allowed}")
        if self.context_chunks is not None and (self.context_chunks < 1 or self.context != "causal"):
            raise ValueError(
                f"{self.section}.context_chunks={self.context_chunks} must be at least 1 and needs "
                f"{self.section}.context='causal', not {self.context!r}"
            )
        if self.type == "ttm":
            self._check_memory()
        elif self.context == "causal":
            require_rotary(self, self.section, self.hidden_size // self.num_attention_heads)

    def _check_memory(self) -> None:
        if self.memory_size < self.num_output_tokens:
            raise ValueError(
                f"{self.section}.memory_size={self.memory_size} is smaller than "
                f"{self.section}.num_output_tokens={self.num_output_tokens}"
            )
        if self.memory_mode == "tl_mha" and self.hidden_size % 8:
            raise ValueError(
                f"{self.section}.hidden_size={self.hidden_size} must be a multiple of the 8 heads of "
                f"{self.section}.memory_mode='tl_mha'"
            )
        if self.context_chunks is not None:
            raise ValueError(
                f"{self.section}.context_chunks={self.context_chunks} bounds a causal Transformer; with "
                f"{self.section}.type='ttm' the memory carries all earlier chunks"
            )


@strict_fields
class MirasolTimeConfig(MirasolStrictConfig):
    """Autoregressive time model over the Combiner features, block-causal by chunk.

    Args:
        attention_window: how many chunks a chunk sees, itself and absent ones included; `None` for all earlier chunks.
        mask_ratio: share of Combiner features replaced by a learned mask token, in training only (the paper masks at
            random while predicting latents; its rate is not known).
    """

    model_type = "mirasol_time"
    base_config_key = "time_config"
    section = "time_config"
    base_model_fsdp_plan: ClassVar[dict[str, str]] = {}
    base_model_tp_plan = ENCODER_TP_PLAN
    default_theta = 10_000.0

    hidden_size: int = 2048
    intermediate_size: int = 8192
    num_hidden_layers: int = 14
    num_attention_heads: int = 16
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    attention_dropout: float | int = 0.0
    dropout: float | int = 0.0
    initializer_range: float = 0.02
    attention_window: int | None = None
    mask_ratio: float | int = 0.0
    rope_parameters: dict | None = None
    max_position_embeddings: int = 65_536

    def validate_architecture(self) -> None:
        require_positive(self, self.section, "num_hidden_layers", "intermediate_size", "max_position_embeddings")
        require_divisible(self, self.section, "hidden_size", "num_attention_heads")
        require_rotary(self, self.section, self.hidden_size // self.num_attention_heads)
        if self.attention_window is not None and self.attention_window < 1:
            raise ValueError(
                f"{self.section}.attention_window={self.attention_window} must be at least 1 chunk, or None for all "
                f"(a chunk must see its own {MirasolCombinerConfig.section}.num_output_tokens features)"
            )
        require_layers(self, self.section, "layer_norm_eps")
        require_share(self, self.section, "mask_ratio")


@strict_fields
class MirasolTextConfig(MirasolStrictConfig):
    """Text decoder: Llama-style layers with cross-attention to the media features.

    Args:
        cross_attention_every: every n-th layer attends to the media, counted from the last layer backwards.
        cross_attention_gate: a tanh gate that starts at zero on each cross-attention, for decoders that come
            pretrained on text alone.
        media_window: how many of a clip's latest chunks the text attends to, absent ones not counted; `None` for all.
            With a bound, what a stream must keep for the text stops growing.
        rope_parameters: rotary positions in the library's form: `rope_type` (`"default"`, or a scaling such as
            `"linear"`, `"dynamic"`, `"yarn"`, `"llama3"`), `rope_theta`, and `partial_rotary_factor`, the share of
            each head's channels that is rotated.
    """

    model_type = "mirasol_text"
    base_config_key = "text_config"
    section = "text_config"
    keys_to_ignore_at_inference = ["cache", "past_key_values"]
    base_model_fsdp_plan: ClassVar[dict[str, str]] = {
        "embed_tokens": "free_full_weight",
        "layers.*": "free_full_weight",
        "norm": "keep_full_weight",
    }
    default_theta = 10_000.0
    partial_rotary_factor = 1.0
    base_model_tp_plan = {
        "embed_tokens": "embedding_rowwise",
        **{
            f"layers.*.{attention}.{name}_proj": "rowwise" if name == "o" else "colwise"
            for attention in ("self_attn", "cross_attn")
            for name in "qkvo"
        },
        "layers.*.mlp.gate_proj": "colwise",
        "layers.*.mlp.up_proj": "colwise",
        "layers.*.mlp.down_proj": "rowwise",
    }

    vocab_size: int = 32_000
    hidden_size: int = 2048
    intermediate_size: int = 5632
    num_hidden_layers: int = 16
    num_attention_heads: int = 32
    num_key_value_heads: int = 8
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-6
    use_cache: bool = True
    attention_bias: bool = False
    attention_dropout: float | int = 0.0
    dropout: float | int = 0.0
    initializer_range: float = 0.02
    cross_attention_every: int = 1
    cross_attention_gate: bool = False
    media_window: int | None = None
    rope_parameters: dict | None = None
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        if self.head_dim is None and self.num_attention_heads > 0:
            self.head_dim = self.hidden_size // self.num_attention_heads
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        require_positive(
            self,
            self.section,
            "vocab_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_key_value_heads",
            "cross_attention_every",
            "max_position_embeddings",
        )
        require_divisible(self, self.section, "hidden_size", "num_attention_heads")
        require_divisible(self, self.section, "num_attention_heads", "num_key_value_heads")
        require_rotary(self, self.section, self.head_dim or 0)
        require_layers(self, self.section, "rms_norm_eps")
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            given = getattr(self, name)
            for token in given if isinstance(given, list) else [given]:
                if token is not None and not 0 <= token < self.vocab_size:
                    raise ValueError(
                        f"{self.section}.{name}={given} must be at least 0 and below "
                        f"{self.section}.vocab_size={self.vocab_size}"
                    )
        if self.media_window is not None and self.media_window < 1:
            raise ValueError(
                f"{self.section}.media_window={self.media_window} must be at least 1 chunk, or None for all (the text "
                f"must see {MirasolCombinerConfig.section}.num_output_tokens features)"
            )


def _of_text_config(name: str) -> property:
    """A field of the text section, read and written through the whole configuration."""

    def get(config: "MirasolConfig") -> Any:
        return getattr(config.text_config, name)

    def put(config: "MirasolConfig", value: Any) -> None:
        setattr(config.text_config, name, value)

    return property(get, put, doc=f"`text_config.{name}`")


@strict_fields
class MirasolConfig(MirasolStrictConfig):
    """Configuration of Mirasol; `MirasolConfig()` is the 3B model with audio.

    Args:
        video_config, audio_config, combiner_config, time_config, text_config: the sections, as configuration objects
            or dicts. Absent sections take their defaults; `audio_config=None` gives a model without sound.
        text_loss_weight, latent_loss_weight, video_reconstruction_loss_weight, audio_reconstruction_loss_weight:
            weights of the losses; 0 switches a loss off. Equal in pretraining; the paper fine-tunes with text ×10.
        latent_loss: `"cosine"` or `"mse"`.
        trained_on: what the weights were trained on, in words; told beside the answers.
        media_ranges: for each trait of `MirasolProcessor.media_traits` the lowest and the highest value of the clips
            that the weights were trained on; a clip outside of one is told to be unlike them.

    Example:
        >>> config = MirasolConfig.from_preset("tiny")
        >>> config.video_config.num_frames
        8
    """

    model_type = "mirasol"
    sub_configs_defaults = {
        "video_config": MirasolVideoConfig,
        "audio_config": SubConfigSpec(MirasolAudioConfig, optional=True),
        "combiner_config": MirasolCombinerConfig,
        "time_config": MirasolTimeConfig,
        "text_config": MirasolTextConfig,
    }
    base_model_fsdp_plan: ClassVar[dict[str, str]] = {}

    # dicts or configurations when given, configurations once built
    video_config: Any = None
    audio_config: Any = field(default_factory=dict)  # None: a model without sound
    combiner_config: Any = None
    time_config: Any = None
    text_config: Any = None
    text_loss_weight: float | int = 1.0
    latent_loss_weight: float | int = 1.0
    video_reconstruction_loss_weight: float | int = 1.0
    audio_reconstruction_loss_weight: float | int = 1.0
    latent_loss: str = "cosine"
    trained_on: str | None = None
    media_ranges: dict | None = None
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True

    # the sizes that tools of the library look for in any configuration: those of the text decoder, which they mean
    vocab_size = _of_text_config("vocab_size")
    hidden_size = _of_text_config("hidden_size")
    intermediate_size = _of_text_config("intermediate_size")
    num_hidden_layers = _of_text_config("num_hidden_layers")
    num_attention_heads = _of_text_config("num_attention_heads")
    num_key_value_heads = _of_text_config("num_key_value_heads")

    def __post_init__(self, **kwargs: Any) -> None:
        if not type(self).__module__.startswith(_REMOTE_MODULES):
            # A folder with its own code, opened where the package is installed: the package's classes serve, and
            # saving again would otherwise name code files that are not there.
            kwargs.pop("auto_map", None)
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> "MirasolConfig":
        """Builds one of the named sizes.

        Args:
            name: `"tiny"` (about 3 million parameters, 64 px), `"base"` or `"3b"`.
            overrides: fields of the top configuration; a dict for a section patches that section's fields.

        Raises:
            ValueError: the preset's name is not known, or fields do not fit together.
        """
        if name not in PRESETS:
            raise ValueError(f"unknown preset {name!r}; expected one of {', '.join(sorted(PRESETS))}")
        values: dict[str, Any] = copy.deepcopy(PRESETS[name])
        for key, value in overrides.items():
            patches_section = key in cls.sub_configs_defaults and isinstance(value, dict)
            values[key] = {**values.get(key, {}), **value} if patches_section else value
        return cls(**values)

    def validate_architecture(self) -> None:
        for name in ("text", "latent", "video_reconstruction", "audio_reconstruction"):
            weight = getattr(self, f"{name}_loss_weight")
            if not 0 <= weight < math.inf:
                raise ValueError(f"{name}_loss_weight={weight} must be finite and not negative")
        if self.latent_loss not in ("cosine", "mse"):
            raise ValueError(f"latent_loss={shortly(self.latent_loss)} must be 'cosine' or 'mse'")
        for name, bounds in (self.media_ranges or {}).items():
            if not _is_range(bounds):
                given = f"media_ranges[{shortly(name)}]={shortly(bounds)}"
                raise ValueError(f"{given} must be two finite numbers, the lower one first")
        for name in self.sub_configs_defaults:
            section = getattr(self, name)
            if not isinstance(section, PreTrainedConfig) and not (name == "audio_config" and section is None):
                raise ValueError(f"{name} must be a dict or a configuration, got {shortly(section)}")
            if section is not None:
                section.validate_architecture()  # its fields may have been set since it was made
        self._check_last_outputs()

    def _check_last_outputs(self) -> None:
        """With `output_tokens="last"` a chunk must have at least m tokens to keep."""
        combiner, video, audio = self.combiner_config, self.video_config, self.audio_config
        if combiner.output_tokens != "last" or combiner.type == "ttm":
            return
        tokens = sum(tube_tokens(video))
        if audio is not None:
            tokens += patch_tokens(audio)
        if combiner.num_output_tokens > tokens:
            raise ValueError(
                f"combiner_config.num_output_tokens={combiner.num_output_tokens} with combiner_config.output_tokens="
                f"'last' exceeds the {tokens} tokens of a chunk that video_config.tube_kernels and "
                f"audio_config.patch_size give"
            )


def _is_range(bounds: Any) -> bool:
    """Whether something is two finite numbers, the lower one first."""
    numbers = isinstance(bounds, (list, tuple)) and all(isinstance(bound, (int, float)) for bound in bounds)
    return numbers and len(bounds) == 2 and -math.inf < bounds[0] <= bounds[1] < math.inf
