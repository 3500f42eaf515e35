"""The media encoders that `mirasol bench scaling` compares, and what one pass through each of them costs.

Shape legend: B batch, K chunks, F frames per chunk, C, H, W image, S spectrogram steps, M mel bins, T media tokens of
a chunk, D width.
"""

import copy
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mirasol_hf.modeling.attention_mirasol import sincos_positions
from mirasol_hf.modeling.audio_tower_mirasol import MirasolAudioModel
from mirasol_hf.modeling.base_mirasol import MirasolMediaPart
from mirasol_hf.modeling.combiner_mirasol import MirasolCombinerEmbeddings
from mirasol_hf.modeling.configuration_mirasol import MirasolConfig, MirasolTimeConfig
from mirasol_hf.modeling.media_cache_mirasol import MirasolMediaCache
from mirasol_hf.modeling.modeling_mirasol import MirasolModel
from mirasol_hf.modeling.video_tower_mirasol import MirasolVideoModel

PLAIN = "plain"
COMBINERS: dict[str, dict[str, Any]] = {
    "chunk": {"type": "transformer", "context": "chunk"},
    "causal": {"type": "transformer", "context": "causal"},
    "ttm": {"type": "ttm"},
}
ENCODERS = (*COMBINERS, PLAIN)

_TOWERS = {
    "video_tower": ("video_tower", "video_projection"),
    "audio_tower": ("audio_tower", "audio_projection"),
}
# the text decoder reads the features and has no part in their cost
_NO_TEXT = {
    "vocab_size": 16,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
}


class NotAvailableError(ValueError):
    """This version of the package cannot build the encoder."""


class MediaEncoder(nn.Module):
    """The time-aligned part of a Mirasol model."""

    parts = {
        **{part: tuple(f"model.{name}" for name in names) for part, names in _TOWERS.items()},
        "combiner": ("model.combiner",),
        "time_model": ("model.time_model",),
    }

    def __init__(self, config: MirasolConfig) -> None:
        super().__init__()
        self.model = MirasolModel(config)

    def forward(
        self,
        video: torch.Tensor,
        spectrogram: torch.Tensor,
        cache: MirasolMediaCache | None = None,
        chunk_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """[B, K, F, C, H, W] and [B, K, S, M] → [B, K·m, D]; chunks where `chunk_mask` [B, K] is 0 do not exist."""
        features = self.model.encode_media(video, spectrogram, chunk_mask, chunk_mask, cache).media_hidden_states
        assert features is not None
        return features


class PlainTransformer(MirasolMediaPart):
    """All tokens of all chunks in one bidirectional Transformer."""

    config: MirasolTimeConfig

    def __init__(self, config: MirasolConfig) -> None:
        time_config, combiner = copy.deepcopy(config.time_config), copy.deepcopy(config.combiner_config)
        if time_config.hidden_size != combiner.hidden_size:
            raise ValueError(
                f"the plain baseline needs one width: time_config.hidden_size={time_config.hidden_size} differs from "
                f"combiner_config.hidden_size={combiner.hidden_size}"
            )
        time_config.num_hidden_layers += combiner.num_hidden_layers
        combiner.output_tokens = "last"  # nothing to read out: every token is an output
        super().__init__(time_config)
        self.embeddings = MirasolCombinerEmbeddings(combiner)
        self.build_stack(time_config)
        self.post_init()

    def forward(self, tokens: torch.Tensor, num_video_tokens: int) -> torch.Tensor:
        """[B, K, T, D], the video tokens of a chunk first → [B, K·T, D]."""
        _, chunks, count, width = tokens.shape
        hidden_states = self.embeddings(tokens.flatten(0, 1), num_video_tokens).view(tokens.shape)
        positions = sincos_positions(torch.arange(chunks, dtype=torch.float32)[:, None], width)
        positions = positions.to(hidden_states)[:, None].expand(-1, count, -1)
        return self.run_stack((hidden_states + positions).flatten(1, 2))


class PlainEncoder(nn.Module):
    """What the paper argues against: the same towers, then one Transformer over everything, without a Combiner."""

    parts = {**_TOWERS, "joint_transformer": ("joint_transformer",)}

    def __init__(self, config: MirasolConfig) -> None:
        super().__init__()
        width = config.time_config.hidden_size
        self.video_tower = MirasolVideoModel(config.video_config)
        self.video_projection = nn.Linear(config.video_config.hidden_size, width)
        self.audio_tower = MirasolAudioModel(config.audio_config)
        self.audio_projection = nn.Linear(config.audio_config.hidden_size, width)
        self.joint_transformer = PlainTransformer(config)

    def forward(self, video: torch.Tensor, spectrogram: torch.Tensor) -> torch.Tensor:
        """[B, K, F, C, H, W] and [B, K, S, M] → [B, K·T, D]."""
        video_tokens = self.video_projection(self.video_tower(video.flatten(0, 1)).last_hidden_state)
        audio_tokens = self.audio_projection(self.audio_tower(spectrogram.flatten(0, 1)).last_hidden_state)
        tokens = torch.cat((video_tokens, audio_tokens), dim=1).unflatten(0, video.shape[:2])
        return self.joint_transformer(tokens, video_tokens.shape[1])


Encoder = MediaEncoder | PlainEncoder


def encoder_config(preset: str, name: str, window: int | None = None) -> MirasolConfig:
    """The preset with the named Combiner and a text decoder of no weight.

    Args:
        preset: `"tiny"`, `"base"` or `"3b"`.
        name: one of `ENCODERS`.
        window: chunks that the time model (and a causal Combiner) sees; `None` for all.
    """
    combiner = dict(COMBINERS.get(name, {}))
    if combiner.get("context") == "causal":
        combiner["context_chunks"] = window
    return MirasolConfig.from_preset(
        preset, combiner_config=combiner, time_config={"attention_window": window}, text_config=_NO_TEXT
    )


def build_encoder(name: str, config: MirasolConfig, device: str = "meta", dtype: str = "float32") -> Encoder:
    """Makes an encoder with random weights, on `"meta"` without any.

    Raises:
        NotAvailableError: the model cannot be built from this configuration.
    """
    default = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.device(device):
            encoder: Encoder = PlainEncoder(config) if name == PLAIN else MediaEncoder(config)
    except ValueError as error:
        raise NotAvailableError(str(error)) from error
    finally:
        torch.set_default_dtype(default)
    return encoder.eval()


def count_parameters(encoder: Encoder) -> dict[str, int]:
    """Parameters of each part."""
    return {
        part: sum(parameter.numel() for name in names for parameter in encoder.get_submodule(name).parameters())
        for part, names in encoder.parts.items()
    }


def random_media(
    config: MirasolConfig, chunks: int, device: str, dtype: str, clips: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise in the shape of clips: [B, K, F, C, H, W] and [B, K, S, M]."""
    video, audio = config.video_config, config.audio_config
    kind = {"device": device, "dtype": getattr(torch, dtype)}
    frames = (video.num_frames, video.num_channels, video.image_size, video.image_size)
    spectrogram = (audio.num_steps, audio.num_mel_bins)
    return torch.randn(clips, chunks, *frames, **kind), torch.randn(clips, chunks, *spectrogram, **kind)


def run_stream(encoder: Encoder, media: tuple[torch.Tensor, torch.Tensor], chunks: int) -> Iterator[float]:
    """Feeds the one chunk in `media` again and again, keeps no features, and yields the seconds of each call."""
    cache = MirasolMediaCache()
    for _ in range(chunks):
        begin = time.perf_counter()
        encoder(*media, cache)
        if media[0].is_cuda:
            torch.cuda.synchronize()
        yield time.perf_counter() - begin


@torch.no_grad()
def count_flops(encoder: Encoder, config: MirasolConfig, chunks: int, streamed: bool = False) -> dict[str, int]:
    """FLOPs of each part, and in `other` what belongs to none, as torch's counter has them.

    The counter takes a multiplication and an addition as two, counts matrix products only, and counts masked
    attention in full, as it is computed.

    Args:
        encoder: on `"meta"`; there attention runs as matrix products, all of which the counter knows.
        config: what it was built from.
        chunks: K.
        streamed: chunk by chunk instead of as one clip.
    """
    if not streamed:
        return _count(encoder, lambda: encoder(*random_media(config, chunks, "meta", "float32")))
    media, cache = random_media(config, 1, "meta", "float32"), MirasolMediaCache()
    window = config.time_config.attention_window
    # with a full window all tensors keep their shapes, so that later calls cost what the first such call does
    counted = chunks if window is None else min(chunks, window + 1)
    calls = [_count(encoder, lambda: encoder(*media, cache)) for _ in range(counted)]
    if counted < chunks and calls[-1] != calls[-2]:
        raise RuntimeError(f"chunk {counted} of a stream costs {calls[-1]}, the one before {calls[-2]}: not steady")
    times = [1] * (counted - 1) + [chunks - counted + 1]
    return {part: sum(call[part] * count for call, count in zip(calls, times)) for part in calls[0]}


def _count(encoder: Encoder, run: Callable[[], Any]) -> dict[str, int]:
    with FlopCounterMode(display=False) as counter:
        run()
    by_module = counter.get_flop_counts()
    root = type(encoder).__name__
    flops = {
        part: sum(sum(by_module.get(f"{root}.{name}", {}).values()) for name in names)
        for part, names in encoder.parts.items()
    }
    return {**flops, "other": counter.get_total_flops() - sum(flops.values())}
