# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Which media a cache of the text was filled from, so that others beside it are an error instead of being ignored.

Media are known by a number for each clip, computed from their bits: equal media have equal numbers, whether they are
the same tensors or were read again. It stays on the device, so that only a comparison waits for it. The numbers lie
beside the caches and not in them, because exported programs take every tensor of a cache as an input.

Shape legend: B clips or rows.
"""

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import Cache

# By cache and by what was given: "raw" media and "encoded" ones, each [B].
_SOURCES: WeakKeyDictionary[Cache, dict[str, torch.Tensor]] = WeakKeyDictionary()
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_PIECE = 2**17  # bounds the memory for the bits as 64-bit integers; fastest on a CPU too, as they stay in its cache
_ODD = (-0x61C8864680B583EB, -0x40A7B892E31B1A47)  # the constants of SplitMix64, which spreads a counter over 64 bits


def number_of(media: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """A number for each clip [B] of a tensor [B, K, …] and its mask [B, K], which is 1 everywhere if not given."""
    mask = media.new_ones(media.shape[:2], dtype=torch.int64) if mask is None else (mask != 0).long().to(media.device)
    return _hash(media) * _ODD[1] + _hash(mask)


def numbers_of_raw(arguments: Mapping[str, Any]) -> torch.Tensor | None:
    """A number for each clip [B] of the raw media among the arguments of `forward` or `generate`."""
    names = (("pixel_values_videos", "video_mask", _ODD[0]), ("input_features", "audio_mask", 1))
    given = [(arguments.get(name), arguments.get(mask), factor) for name, mask, factor in names]
    numbers = [number_of(media, mask) * factor for media, mask, factor in given if media is not None]
    return torch.stack(numbers).sum(dim=0) if numbers else None


def _hash(tensor: torch.Tensor) -> torch.Tensor:
    """[B, …] → [B]: the sum of the elements' bits, each times a factor of its place, in integers that wrap around."""
    bits = tensor.detach().contiguous().view(_INTEGERS[tensor.element_size()]).flatten(1)
    factors = torch.arange(1, min(_PIECE, bits.shape[1]) + 1, device=bits.device) * _ODD[0]
    factors = (factors ^ (factors >> 30)) * _ODD[1]
    factors = factors ^ (factors >> 27)
    total = torch.zeros(bits.shape[0], dtype=torch.int64, device=bits.device)
    for piece in bits.split(_PIECE, dim=1):
        total = total * _ODD[0] + (piece.long() * factors[: piece.shape[1]]).sum(dim=1)
    return total


def note_source(cache: Cache, encoded: torch.Tensor, raw: torch.Tensor | None) -> None:
    """Notes what a cache is filled from.

    Args:
        cache: it may still be empty.
        encoded: numbers [B] of the encoded media.
        raw: numbers [B] of the raw ones, if these were given.
    """
    known = _SOURCES.get(cache, {})
    if raw is None and "raw" in known and torch.equal(known["encoded"], encoded):
        return  # generate() has noted both, and gives forward() the encoded media alone
    _SOURCES[cache] = {"encoded": encoded} if raw is None else {"encoded": encoded, "raw": raw}


@torch.compiler.disable(reason="media beside a cache that holds some are compared with those; leave them out")
def check_source(
    cache: Cache, arguments: Mapping[str, Any], index: torch.Tensor | None = None, copies: int = 1
) -> None:
    """Raises ValueError if media are given that are not those that the cache was filled from.

    Args:
        cache: one that holds media.
        arguments: those of `forward` or `generate`; encoded media among them count before raw ones.
        index: the clip of each row.
        copies: how often a row is repeated after this.
    """
    kind, encoded = "encoded", arguments.get("media_hidden_states")
    if encoded is not None:
        numbers = number_of(encoded, arguments.get("media_attention_mask"))
    else:
        kind, raw = "raw", numbers_of_raw(arguments)
        if raw is None:
            return
        numbers = raw
    numbers = (numbers if index is None else numbers[index]).repeat_interleave(copies)
    known = _SOURCES.get(cache, {}).get(kind)
    if known is not None and torch.equal(known, numbers.to(known.device)):
        return
    holds = "media that these cannot be compared with" if known is None else "other media"
    raise ValueError(
        f"media were given beside a cache that holds {holds}; expected none beside it, to go on about those that it "
        f"holds, or for other media a new cache, or this one after reset()"
    )


def source_of(cache: Cache) -> dict[str, torch.Tensor]:
    """What is noted of a cache."""
    return _SOURCES.get(cache, {})


def set_source(cache: Cache, source: dict[str, torch.Tensor]) -> None:
    """Notes what `source_of` gave, for a copy of the cache."""
    _SOURCES[cache] = source


def change_source(cache: Cache, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Follows the rows of a cache that are reordered, repeated or selected."""
    if cache in _SOURCES:
        _SOURCES[cache] = {kind: change(numbers) for kind, numbers in _SOURCES[cache].items()}


def forget_source(cache: Cache) -> None:
    """Of a cache that holds no media, nothing is known."""
    _SOURCES.pop(cache, None)
