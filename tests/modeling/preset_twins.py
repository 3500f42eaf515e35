"""The presets with their widths, depths and pictures made small, and everything else as it is."""

import copy
from typing import Any

import torch

from mirasol_hf.modeling.configuration_mirasol import PRESETS, MirasolConfig
from mirasol_hf.modeling.modeling_mirasol import MirasolForConditionalGeneration

WIDTH = {"hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 2, "num_hidden_layers": 2}
WIDTH["initializer_range"] = 0.2  # at a width of 24 the presets' own would leave hardly any signal
SMALLER: dict[str, dict[str, Any]] = {
    "video_config": {**WIDTH, "image_size": 32},  # the largest tube ends at 28 pixels
    "audio_config": {**WIDTH, "num_steps": 32, "num_mel_bins": 32},
    "combiner_config": {**WIDTH, "num_output_tokens": 4, "memory_size": 6},
    "time_config": {**WIDTH},
    "text_config": {**WIDTH, "num_key_value_heads": 1, "head_dim": None, "vocab_size": 64},
}


def twin_config(preset: str, **sections: Any) -> MirasolConfig:
    """The small twin of a preset; a dict for a section patches it, `audio_config=None` leaves the sound out."""
    fields: dict[str, Any] = copy.deepcopy(PRESETS[preset])
    for name, sizes in SMALLER.items():
        fields[name] = {**fields.get(name, {}), **sizes}
    if preset == "tiny":
        fields["video_config"]["image_size"] = 64  # small as it is, for tubes of its own
    for name, value in sections.items():
        fields[name] = {**fields[name], **value} if isinstance(value, dict) else value
    return MirasolConfig(**fields)


def twin(preset: str, **sections: Any) -> MirasolForConditionalGeneration:
    torch.manual_seed(0)
    return MirasolForConditionalGeneration(twin_config(preset, **sections)).eval()


def twin_media(config: MirasolConfig, clips: int = 2, chunks: int = 4, seed: int = 1) -> dict[str, torch.Tensor]:
    """Random media that fit a configuration, all present."""
    generator = torch.Generator().manual_seed(seed)
    video, audio = config.video_config, config.audio_config
    frames = (video.num_frames, video.num_channels, video.image_size, video.image_size)
    media = {"pixel_values_videos": torch.randn(clips, chunks, *frames, generator=generator)}
    if audio is not None:
        media["input_features"] = torch.randn(clips, chunks, audio.num_steps, audio.num_mel_bins, generator=generator)
    return media
