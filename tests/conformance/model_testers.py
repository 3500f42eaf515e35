"""Small configurations and inputs, in the form that the library's mixins ask for."""

from typing import Any

import torch
from transformers.processing_utils import Unpack
from transformers.testing_utils import torch_device
from transformers.utils.generic import TransformersKwargs

from mirasol_hf import (
    MirasolAudioConfig,
    MirasolCombinerConfig,
    MirasolConfig,
    MirasolForConditionalGeneration,
    MirasolModel,
    MirasolTextConfig,
    MirasolTimeConfig,
    MirasolVideoConfig,
)
from mirasol_hf.modeling.combiner_mirasol import MirasolCombiner
from mirasol_hf.modeling.time_model_mirasol import MirasolTimeModel

WIDTH = {"hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4}
LAYERS = 2
SECTIONS: dict[str, dict[str, Any]] = {
    "video_config": {
        **WIDTH,
        "image_size": 16,
        "num_frames": 4,
        "tube_kernels": ((1, 8, 8), (4, 4, 4)),
        "tube_strides": ((2, 8, 8), (4, 8, 8)),
        "tube_offsets": ((0, 0, 0), (0, 2, 2)),
        "num_hidden_layers": LAYERS,
        "reconstruction_size": (2, 4, 4),
    },
    "audio_config": {
        **WIDTH,
        "num_steps": 8,
        "num_mel_bins": 16,
        "patch_size": (4, 8),
        "num_hidden_layers": LAYERS,
        "reconstruction_size": (4, 4),
    },
    "combiner_config": {**WIDTH, "num_output_tokens": 3, "num_hidden_layers": LAYERS, "memory_size": 4},
    "time_config": {**WIDTH, "num_hidden_layers": LAYERS, "max_position_embeddings": 512},
    "text_config": {
        **WIDTH,
        "vocab_size": 100,
        "num_key_value_heads": 2,
        "num_hidden_layers": LAYERS,
        "max_position_embeddings": 512,
    },
}


class WholeAndPart:
    """Asks a model for both of the library's contracts about the choice of attention.

    Its tests of composite models (a dict, one entry for each section) and those of models without parts (a name for
    all) exclude each other by one flag; every model of ours keeps both.
    """

    _testMethodName: str

    @property
    def _is_composite(self) -> bool:
        return "non_composite" not in self._testMethodName


class MirasolModelTester:
    """The whole model: two clips of three chunks with picture and sound, and a text about each."""

    base_model_class = MirasolModel
    conditional_generation_class = MirasolForConditionalGeneration
    causal_lm_class = MirasolForConditionalGeneration

    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.is_training = True
        self.batch_size = 3
        self.num_chunks = 2
        self.seq_length = 7
        self.num_hidden_layers = LAYERS
        self.hidden_size = WIDTH["hidden_size"]
        self.num_attention_heads = WIDTH["num_attention_heads"]
        self.vocab_size = SECTIONS["text_config"]["vocab_size"]

    def get_config(self) -> MirasolConfig:
        return MirasolConfig(**{key: dict(value) for key, value in SECTIONS.items()})

    def media(self) -> dict[str, torch.Tensor]:
        """Pixels and spectrograms of all clips."""
        video, audio = SECTIONS["video_config"], SECTIONS["audio_config"]
        lead = (self.batch_size, self.num_chunks)
        size = video["image_size"]
        return {
            "pixel_values_videos": torch.rand(*lead, video["num_frames"], 3, size, size, device=torch_device) * 2 - 1,
            "input_features": torch.rand(*lead, audio["num_steps"], audio["num_mel_bins"], device=torch_device),
        }

    def prepare_config_and_inputs_for_common(self) -> tuple[MirasolConfig, dict[str, torch.Tensor]]:
        shape = (self.batch_size, self.seq_length)
        text = {
            "input_ids": torch.randint(3, self.vocab_size, shape, device=torch_device),
            "attention_mask": torch.ones(shape, dtype=torch.long, device=torch_device),
        }
        return self.get_config(), {**text, **self.media()}


class _PartTester:
    """One part by itself, `batch_size` items at a time."""

    section = ""
    config_class: Any

    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.is_training = True
        self.batch_size = 3
        self.num_hidden_layers = LAYERS
        self.hidden_size = WIDTH["hidden_size"]
        self.num_attention_heads = WIDTH["num_attention_heads"]

    def get_config(self) -> Any:
        return self.config_class(**SECTIONS[self.section])


class VideoTowerTester(_PartTester):
    """Chunks of frames; each gives nine tokens."""

    section = "video_config"
    config_class = MirasolVideoConfig
    seq_length = 12

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, torch.Tensor]]:
        section = SECTIONS[self.section]
        size = section["image_size"]
        pixels = torch.rand(self.batch_size, section["num_frames"], 3, size, size, device=torch_device) * 2 - 1
        return self.get_config(), {"pixel_values_videos": pixels}


class AudioTowerTester(_PartTester):
    """Chunks of a spectrogram; each gives four tokens."""

    section = "audio_config"
    config_class = MirasolAudioConfig
    seq_length = 4

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, torch.Tensor]]:
        section = SECTIONS[self.section]
        shape = (self.batch_size, section["num_steps"], section["num_mel_bins"])
        return self.get_config(), {"input_features": torch.rand(*shape, device=torch_device)}


class TextDecoderTester(_PartTester):
    """Text without media."""

    section = "text_config"
    config_class = MirasolTextConfig
    seq_length = 7
    vocab_size = SECTIONS["text_config"]["vocab_size"]

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, torch.Tensor]]:
        shape = (self.batch_size, self.seq_length)
        text = torch.randint(3, self.vocab_size, shape, device=torch_device)
        return self.get_config(), {"input_ids": text, "attention_mask": torch.ones_like(text)}


class CombinerAlone(MirasolCombiner):
    """The Combiner over single chunks of six video and three sound tokens: the library's tests give tensors only."""

    def forward(self, tokens: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> Any:
        return super().forward(tokens, 6, (tokens.shape[0], 1), **kwargs)


class CombinerTester(_PartTester):
    """Nine media tokens of one chunk for each clip, and three tokens that are read out; positions count chunks."""

    section = "combiner_config"
    config_class = MirasolCombinerConfig
    seq_length = 9 + SECTIONS["combiner_config"]["num_output_tokens"]

    def get_config(self) -> MirasolCombinerConfig:
        return MirasolCombinerConfig(**SECTIONS[self.section], context="causal", max_position_embeddings=512)

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, torch.Tensor]]:
        return self.get_config(), {"tokens": torch.rand(self.batch_size, 9, self.hidden_size, device=torch_device)}


class TimeModelAlone(MirasolTimeModel):
    """The time model behind the Combiner of `SECTIONS`: the library's tests build models of one configuration."""

    def __init__(self, config: MirasolTimeConfig) -> None:
        super().__init__(config, MirasolCombinerConfig(**SECTIONS["combiner_config"]))


class TimeModelTester(_PartTester):
    """Features of four chunks."""

    section = "time_config"
    config_class = MirasolTimeConfig
    num_chunks = 4
    seq_length = num_chunks * SECTIONS["combiner_config"]["num_output_tokens"]

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, torch.Tensor]]:
        combiner = SECTIONS["combiner_config"]
        shape = (self.batch_size, self.num_chunks, combiner["num_output_tokens"], combiner["hidden_size"])
        return self.get_config(), {"combined_features": torch.rand(*shape, device=torch_device)}
