# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Caches of the text decoder that keep the keys and values of the media next to those of the text.

A cache of the library holds one layer of keys and values for each decoder layer. Cross-attention needs a second one,
which never grows. `EncoderDecoderCache` would hold both, but it is no `DynamicCache` or `StaticCache`, and that is
what the library and its users expect of a decoder-only model: to measure, crop, compile and continue from it. So the
caches here are those of the library and carry the media besides.

Shape legend: B batch, N media features (K·m), H key-value heads.
"""

from collections.abc import Callable
from typing import Any

import torch
from transformers import Cache, DynamicCache, EncoderDecoderCache, QuantizedCache, StaticCache
from transformers.modeling_outputs import BaseModelOutputWithPast

from .media_identity_mirasol import change_source, forget_source, set_source, source_of

# How Transformers names the cache in arguments and outputs: "past_key_values" before 5.24, "cache" since.
CACHE_NAME = "cache" if "cache" in BaseModelOutputWithPast.__dataclass_fields__ else "past_key_values"


def one_cache(cache: Cache | None, past_key_values: Cache | None) -> Cache | None:
    """The cache that was given under either name.

    Raises:
        TypeError: two different ones were given.
    """
    if cache is not None and past_key_values is not None and cache is not past_key_values:
        raise TypeError("two caches were given, as cache and as past_key_values, its older name; expected one")
    return past_key_values if cache is None else cache


class MirasolMediaKeyValues:
    """What a cache of the text also keeps: keys and values of the media, and which of them may be seen."""

    cross_attention_cache: Cache  # each layer [B, H, N, head]
    is_updated: dict[int, bool]  # by decoder layer, whether its keys and values are there
    media_attention_mask: torch.Tensor | None  # [B, N], 0 at features that may not be seen

    def make_room_for_media(self, cross_attention_cache: Cache) -> None:
        """Takes an empty cache for the media."""
        self.cross_attention_cache = cross_attention_cache
        self.is_updated = {}
        self.media_attention_mask = None

    def reset(self) -> None:
        """Forgets text and media."""
        super().reset()  # type: ignore[misc]
        self.forget_media()

    def crop(self, tokens_to_remove: int) -> None:
        """Removes the last `-tokens_to_remove` tokens, none if it is 0; with the first token the media go too."""
        super().crop(tokens_to_remove)  # type: ignore[misc]
        if tokens_to_remove and not int(self.get_seq_length()):  # type: ignore[attr-defined]
            self.forget_media()

    def forget_media(self) -> None:
        """Makes room for others."""
        self.cross_attention_cache.reset()
        self.make_room_for_media(self.cross_attention_cache)
        forget_source(self)  # type: ignore[arg-type]

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Takes the rows of the beams that go on."""
        super().reorder_cache(beam_idx)  # type: ignore[misc]
        self._change_media(lambda tensor: tensor.index_select(0, beam_idx.to(tensor.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeats every row."""
        super().batch_repeat_interleave(repeats)  # type: ignore[misc]
        self._change_media(lambda tensor: tensor.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps the rows of `indices`."""
        super().batch_select_indices(indices)  # type: ignore[misc]
        self._change_media(lambda tensor: tensor[indices])

    def _change_media(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        for layer in self._layers_to_change():
            layer.keys, layer.values = change(layer.keys), change(layer.values)
        if self.media_attention_mask is not None:
            self.media_attention_mask = change(self.media_attention_mask)
        change_source(self, change)  # type: ignore[arg-type]

    def _layers_to_change(self) -> list[Any]:
        return [self.cross_attention_cache.layers[index] for index, is_filled in self.is_updated.items() if is_filled]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "media_source": source_of(self)}  # type: ignore[arg-type]

    def __setstate__(self, state: dict[str, Any]) -> None:
        set_source(self, state.pop("media_source"))  # type: ignore[arg-type]
        self.__dict__.update(state)


class MirasolDynamicCache(MirasolMediaKeyValues, DynamicCache):
    """Grows with the text."""

    def __init__(self, *args: Any, config: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, config=config, **kwargs)
        self.make_room_for_media(DynamicCache(config=config))


class MirasolStaticCache(MirasolMediaKeyValues, StaticCache):
    """Of one size, so that decoding compiles; made from a `StaticCache` by `keep_media`."""


class MirasolQuantizedCache(MirasolMediaKeyValues, QuantizedCache):
    """Keeps the text quantised, and the media, which no step adds to, as they are; made by `keep_media`."""


class MirasolEncoderDecoderCache(MirasolMediaKeyValues, EncoderDecoderCache):
    """The library's pair of caches, which knows what a decoder-only model must of its media; made by `keep_media`."""

    def _layers_to_change(self) -> list[Any]:
        return []  # the pair has changed both of its caches itself


_WITH_MEDIA: dict[type, type] = {
    DynamicCache: MirasolDynamicCache,
    EncoderDecoderCache: MirasolEncoderDecoderCache,
    StaticCache: MirasolStaticCache,
    QuantizedCache: MirasolQuantizedCache,
}


def keep_media(cache: Cache, config: Any, num_features: int) -> None:
    """Lets a cache, also one that the caller made, keep the media too; one that already does stays as it is.

    Its class is exchanged for the one here that extends it, so that the caller's variable goes on naming the cache
    that generation fills. A cache of another class is left alone: media are then projected anew in every step.

    Args:
        cache: the cache of the text.
        config: the text decoder's configuration.
        num_features: N, the length of the media.
    """
    if has_media(cache):
        return
    cache.__class__ = _WITH_MEDIA.get(type(cache), type(cache))
    if isinstance(cache, MirasolEncoderDecoderCache):
        cache.make_room_for_media(cache.cross_attention_cache)
    elif isinstance(cache, MirasolMediaKeyValues):
        static = isinstance(cache, StaticCache)
        room = StaticCache(config=config, max_cache_len=num_features) if static else DynamicCache(config=config)
        cache.make_room_for_media(room)


def media_part(cache: Cache | None) -> Any:
    """The cache itself if it has a place for the media, with `cross_attention_cache` and `is_updated`; else `None`."""
    return cache if isinstance(cache, (MirasolMediaKeyValues, EncoderDecoderCache)) else None


def has_media(cache: Cache | None) -> bool:
    """Whether keys and values of media are in the cache, so that the media themselves are not needed any more."""
    part = media_part(cache)
    return part is not None and any(part.is_updated.values())
