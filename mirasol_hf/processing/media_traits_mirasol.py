# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""A few numbers that tell what kind of media a clip holds, by which a clip unlike those of the training is noticed.

Each is the mean over the chunks that exist of a value of the chunk, so those of a stream are the means so far.

Legend: B clips, K chunks, F frames per chunk, C, H, W image, S spectrogram steps per chunk, M mel bins.
"""

from collections.abc import Mapping, Sequence

import torch

# how far a pixel may be from the median colour of its frame, in each colour, and still count as background
_SAME_COLOUR = 12 / 255
# likewise for a place of the normalised spectrogram and its chunk's median
_SAME_LEVEL = 0.5
# every n-th row and column is looked at, so that a side has about this many pixels
_SIDE = 32


def media_traits(
    inputs: Mapping[str, torch.Tensor], image_mean: Sequence[float], image_std: Sequence[float]
) -> dict[str, float]:
    """The traits of one clip, as far as it has pictures and sound.

    Args:
        inputs: what the processor made of the clip: `pixel_values_videos` [1, K, F, C, H, W] with `video_mask`
            [1, K], `input_features` [1, K, S, M] with `audio_mask` [1, K], or one of the two.
        image_mean: by which the pixels were normalised.
        image_std: likewise.

    Returns:
        `picture_background_share`: of the pixels, those that have about the median colour of their frame;
        `picture_background_brightness`: of that colour, from 0 to 1; `sound_background_share`: of a chunk's
        spectrogram, what is about as loud as its median; `sound_background_level`: of that median.
    """
    found: dict[str, float] = {}
    pixels, sound = inputs.get("pixel_values_videos"), inputs.get("input_features")
    if pixels is not None and inputs["video_mask"].any():
        colours = _colours(pixels[inputs["video_mask"].bool()], image_mean, image_std)
        background = colours.median(-1, keepdim=True).values
        near = (colours - background).abs().amax(-2) < _SAME_COLOUR
        found["picture_background_share"] = near.float().mean().item()
        found["picture_background_brightness"] = background.mean().item()
    if sound is not None and inputs["audio_mask"].any():
        levels = sound[inputs["audio_mask"].bool()].float().flatten(1)
        usual = levels.median(-1, keepdim=True).values
        found["sound_background_share"] = ((levels - usual).abs() < _SAME_LEVEL).float().mean().item()
        found["sound_background_level"] = usual.mean().item()
    return found


def _colours(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Pixels as they were before they were normalised, in rows: [K, F, C, H, W] -> [K, F, C, N]."""
    step = max(1, min(pixels.shape[-2:]) // _SIDE)
    shape = (-1, 1, 1)
    thinned = pixels[..., ::step, ::step].float()
    return (thinned * thinned.new_tensor(std).view(shape) + thinned.new_tensor(mean).view(shape)).flatten(-2)
