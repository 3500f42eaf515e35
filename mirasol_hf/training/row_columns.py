"""Which columns of a training row may be left out of a batch: annotations, and never media.

Legend: K chunks, F frames per chunk, C, H, W image, S spectrogram steps per chunk, M mel bins, m tokens per chunk, D
width.
"""

from __future__ import annotations

import datetime
import mimetypes
import os
from collections.abc import Mapping
from numbers import Number
from typing import Any

import numpy as np
import torch

from mirasol_hf.processing.keywords_mirasol import most_alike

# media of one clip and their dimensions: [K,F,C,H,W], [K,F,H,W,C], [K,S,M] and [K·m,D], each with its mask
MEDIA_RANKS = {"pixel_values_videos": 5, "frames": 5, "input_features": 3, "media_hidden_states": 2}
MASK_OF = {
    "pixel_values_videos": "video_mask",
    "frames": "video_mask",
    "input_features": "audio_mask",
    "media_hidden_states": "media_attention_mask",
}
RANKS = {**MEDIA_RANKS, **dict.fromkeys(MASK_OF.values(), 1)}
TEXT = ("prompt", "answer")

# columns that are media whatever they hold
_SOURCES = frozenset({"video", "videos", "audio", "audios", "image", "images"})
# keys by which a column of `datasets` gives a file or a sound
_SOURCE_KEYS = frozenset({"path", "bytes", "array"})
_SCALARS = (Number, np.generic, datetime.date, datetime.time, datetime.timedelta)
_MEDIA_TYPES = ("video/", "audio/", "image/")
# dimensions from which on an array is a picture or a spectrogram, and no box, span or score
_MEDIA_DIMENSIONS = 3


def check_columns(row: Mapping[str, Any], index: int) -> None:
    """Refuse a row with media that would not reach the model.

    Columns that the collator does not take are left out, as long as they hold annotations: text, numbers, boxes. In a
    row without any media a path or an array counts as media, since it would be trained on text alone.

    Raises:
        ValueError: the row has undecoded media, media under a name that is not known, or a mask without its media.
    """
    has_media = any(row.get(name) is not None for name in MEDIA_RANKS)
    for name, value in row.items():
        if value is None or name in RANKS or name in TEXT:
            continue
        if name in _SOURCES or _is_media(value, alone=not has_media):
            raise ValueError(
                f"row {index}: the collator does not take the media in column {name!r} ({_told(value)}), only "
                f"{', '.join(MEDIA_RANKS)}. Decode files by mirasol_hf.data.media_dataset.MediaDataset, and remove a "
                "column that the model need not see"
            )
        near = most_alike(name, RANKS)
        if near is not None and not isinstance(value, (str, Number)):
            raise ValueError(f"row {index}: the collator does not take the column {name!r}: did you mean {near!r}?")
    for mask in dict.fromkeys(MASK_OF.values()):
        media = [name for name, its_mask in MASK_OF.items() if its_mask == mask]
        if all(row.get(name) is None for name in media) and _any(row.get(mask)):
            raise ValueError(f"row {index} has {mask!r} without {' or '.join(map(repr, media))}")


def _any(mask: Any) -> bool:
    return mask is not None and bool(torch.as_tensor(mask).any())


def _is_media(value: Any, alone: bool) -> bool:
    """Whether a column may hold media; of a row with nothing else, rather too often than too seldom."""
    if value is None or isinstance(value, _SCALARS):
        return False
    if isinstance(value, (str, os.PathLike)):
        return alone and (mimetypes.guess_type(os.fspath(value))[0] or "").startswith(_MEDIA_TYPES)
    if isinstance(value, Mapping):
        return bool(_SOURCE_KEYS & set(value)) or any(_is_media(item, alone) for item in value.values())
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return value.ndim >= (1 if alone else _MEDIA_DIMENSIONS)
    if isinstance(value, (list, tuple)):
        return _depth(value) >= _MEDIA_DIMENSIONS or any(_is_media(item, alone) for item in value[:1])
    return True


def _depth(value: Any) -> int:
    """How deep lists lie in each other, by their first items."""
    depth = 0
    while isinstance(value, (list, tuple)) and value:
        depth, value = depth + 1, value[0]
    return depth


def _told(value: Any) -> str:
    if isinstance(value, (str, os.PathLike)):
        return repr(os.fspath(value))
    shape = getattr(value, "shape", None)
    return type(value).__name__ + ("" if shape is None else f" of shape {tuple(shape)}")
