# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""`generate()` for Mirasol: media are encoded once, whatever the number of beams, samples or decoding steps."""

from typing import Any

from transformers import DynamicCache, EncoderDecoderCache, GenerationMixin, StaticCache

from .media_cache_mirasol import feature_limit

RAW_MEDIA = ("pixel_values_videos", "input_features", "video_mask", "audio_mask")


class MirasolGenerationMixin(GenerationMixin):
    """Two additions to the library's decoder-only generation: the encoded media and their key-value cache.

    `media_hidden_states` is a plain batch-first tensor, so the library repeats it for beams and returned sequences
    and hands it to every step; its keys and values are computed in the first one only.
    """

    def _maybe_prepare_encoder_kwargs_for_generation(
        self, inputs_tensor: Any, model_kwargs: dict[str, Any], model_input_name: str | None, generation_config: Any
    ) -> dict[str, Any]:
        raw = {name: model_kwargs[name] for name in RAW_MEDIA if model_kwargs.get(name) is not None}
        has_media = "pixel_values_videos" in raw or "input_features" in raw
        cache = model_kwargs.get("past_key_values")
        is_filled = isinstance(cache, EncoderDecoderCache) and any(cache.is_updated.values())
        if generation_config.is_assistant and has_media:
            # the drafter has its own towers and widths
            model_kwargs.pop("media_hidden_states", None)
        if has_media and not is_filled and model_kwargs.get("media_hidden_states") is None:
            media = self.encode_media(**raw)  # type: ignore[attr-defined]
            model_kwargs["media_hidden_states"] = media.media_hidden_states
            model_kwargs["media_attention_mask"] = media.media_attention_mask
        index = model_kwargs.pop("media_index", None)
        if index is not None:
            for name in ("media_hidden_states", "media_attention_mask"):
                if model_kwargs.get(name) is not None:
                    model_kwargs[name] = model_kwargs[name][index]
        copies = max(generation_config.num_beams or 1, generation_config.num_return_sequences or 1)
        if copies > 1 or index is not None or generation_config.prefill_chunk_size is not None:
            for name in RAW_MEDIA:
                model_kwargs.pop(name, None)
        return model_kwargs

    def _prepare_cache_for_generation(
        self,
        generation_config: Any,
        model_kwargs: dict[str, Any],
        generation_mode: Any,
        batch_size: int,
        max_cache_length: int,
    ) -> None:
        is_given = model_kwargs.get("past_key_values") is not None
        super()._prepare_cache_for_generation(
            generation_config, model_kwargs, generation_mode, batch_size, max_cache_length
        )
        cache, media = model_kwargs.get("past_key_values"), model_kwargs.get("media_hidden_states")
        if cache is None or is_given:
            return
        text_config = self.config.get_text_config(decoder=True)
        if isinstance(cache, StaticCache) and media is not None:
            length = min(media.shape[1], feature_limit(self.config) or media.shape[1])
            cross_cache: Any = StaticCache(config=text_config, max_cache_len=length)
        else:
            cross_cache = DynamicCache(config=text_config)
        model_kwargs["past_key_values"] = EncoderDecoderCache(cache, cross_cache)
