# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""`generate()` for Mirasol: media are encoded once, whatever the number of beams, samples or decoding steps."""

from typing import Any

import torch
from transformers import GenerationMixin

from .distributed_mirasol import chunk_of_zeros, runs_every_part
from .media_cache_mirasol import feature_limit
from .media_identity_mirasol import check_source, note_source, number_of, numbers_of_raw
from .text_cache_mirasol import CACHE_NAME, has_media, keep_media, one_cache

RAW_MEDIA = ("pixel_values_videos", "input_features", "video_mask", "audio_mask")
ENCODED_MEDIA = ("media_hidden_states", "media_attention_mask")
TIMES = ("chunk_seconds", "video_timestamps")  # for people: the model counts chunks
# what `generate` takes and continuous batching, which `cache_implementation="paged"` switches to, drops without a word
_NOT_TOKENS = (*RAW_MEDIA, *ENCODED_MEDIA, "media_index", "inputs_embeds", "position_ids", "cache", "past_key_values")


class MirasolGenerationMixin(GenerationMixin):
    """Additions to the library's decoder-only generation: the encoded media and their place in the cache.

    `media_hidden_states` is a plain batch-first tensor, so the library repeats it for beams and returned sequences.
    Its keys and values are computed in the first step and kept in the cache of the text. From then on the cache alone
    is enough, also for the next turn of a conversation.
    """

    def _maybe_prepare_encoder_kwargs_for_generation(
        self, inputs_tensor: Any, model_kwargs: dict[str, Any], model_input_name: str | None, generation_config: Any
    ) -> dict[str, Any]:
        _drop(model_kwargs, *TIMES)
        if "cache" in model_kwargs:  # also where Transformers calls it otherwise
            model_kwargs[CACHE_NAME] = one_cache(model_kwargs.pop("cache"), model_kwargs.pop("past_key_values", None))
        index = model_kwargs.pop("media_index", None)
        copies = max(generation_config.num_beams or 1, generation_config.num_return_sequences or 1)
        cache = model_kwargs.get(CACHE_NAME)
        if has_media(cache):
            if not generation_config.is_assistant:  # to a drafter the library gives its own cache and media each time
                check_source(cache, model_kwargs, index, copies)
            _drop(model_kwargs, *RAW_MEDIA, *ENCODED_MEDIA)
            return model_kwargs
        raw = {name: model_kwargs[name] for name in RAW_MEDIA if model_kwargs.get(name) is not None}
        has_raw = "pixel_values_videos" in raw or "input_features" in raw
        if generation_config.is_assistant:
            self._drop_media_of_another_model(model_kwargs, has_raw)
        has_encoded = model_kwargs.get("media_hidden_states") is not None
        if not has_raw and not has_encoded and runs_every_part(self):
            raw, has_raw, index = self._absent_media(inputs_tensor), True, None
        outlives = cache is not None or generation_config.return_dict_in_generate
        if has_raw and not has_encoded:
            if outlives and not generation_config.is_assistant:
                # repeated with the other tensors, and noted once there is a cache
                model_kwargs["media_numbers"] = numbers_of_raw(raw)
            media = self.encode_media(**raw)  # type: ignore[attr-defined]
            model_kwargs.update({name: media[name] for name in ENCODED_MEDIA})
        if index is not None:
            for name in (*ENCODED_MEDIA, "media_numbers"):
                if model_kwargs.get(name) is not None:
                    model_kwargs[name] = model_kwargs[name][index]
        # otherwise they stay for a drafter, which has its own towers; the library refuses to prefill them in chunks
        if copies > 1 or index is not None or generation_config.prefill_chunk_size is not None:
            _drop(model_kwargs, *RAW_MEDIA)
        return model_kwargs

    def _absent_media(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Media for a text without any, in one of several processes: for each row a chunk that the mask hides."""
        rows = inputs.shape[0]
        chunk = chunk_of_zeros(self.model.video_tower, inputs.device)  # type: ignore[attr-defined]
        mask = torch.zeros(rows, 1, dtype=torch.long, device=inputs.device)
        return {"pixel_values_videos": chunk[None].expand(rows, *[-1] * chunk.ndim), "video_mask": mask}

    def _drop_media_of_another_model(self, model_kwargs: dict[str, Any], has_raw: bool) -> None:
        """A drafter is handed the features of the model it drafts for; without raw media and with another width it
        drafts from the text alone, which costs speed but never changes what is generated."""
        media = model_kwargs.get("media_hidden_states")
        if has_raw or (media is not None and media.shape[-1] != self.config.time_config.hidden_size):
            _drop(model_kwargs, *ENCODED_MEDIA)

    def _prepare_cache_for_generation(
        self,
        generation_config: Any,
        model_kwargs: dict[str, Any],
        generation_mode: Any,
        batch_size: int,
        max_cache_length: int,
    ) -> None:
        raw = model_kwargs.pop("media_numbers", None)
        super()._prepare_cache_for_generation(
            generation_config, model_kwargs, generation_mode, batch_size, max_cache_length
        )
        cache, media = model_kwargs.get(CACHE_NAME), model_kwargs.get("media_hidden_states")
        if cache is not None and media is not None:
            length = min(media.shape[1], feature_limit(self.config) or media.shape[1])
            keep_media(cache, self.config.get_text_config(decoder=True), length)
            note_source(cache, number_of(media, model_kwargs.get("media_attention_mask")), raw)

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        next_sequence_length: int | None = None,
        inputs_embeds: torch.Tensor | None = None,  # named, as the library looks here whether a model takes it
        **kwargs: Any,
    ) -> dict[str, Any]:
        """As in the library, less the media that a step does not need: raw ones once they are encoded, encoded ones
        once their keys and values are in the cache."""
        inputs = super().prepare_inputs_for_generation(
            input_ids, next_sequence_length, inputs_embeds=inputs_embeds, **kwargs
        )
        if has_media(kwargs.get(CACHE_NAME)):
            _drop(inputs, *RAW_MEDIA, *ENCODED_MEDIA)
        elif inputs.get("media_hidden_states") is not None:
            _drop(inputs, *RAW_MEDIA)
        return inputs

    def generate_batch(self, inputs: list[list[int]], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The library's continuous batching, which reads token ids and nothing else.

        Raises:
            ValueError: for media, or anything else that it would leave out.
        """
        dropped = [name for name in _NOT_TOKENS if kwargs.get(name) is not None]
        if dropped:
            raise ValueError(
                f"continuous batching (generate_batch, or cache_implementation='paged') takes token ids alone and "
                f"would leave out {', '.join(dropped)}; expected generate() with another cache_implementation"
            )
        mask = kwargs.get("attention_mask")
        if mask is not None and not bool(mask.all()):
            raise ValueError(
                "continuous batching would read the padding that attention_mask hides; expected generate_batch() with "
                "a list of tokens without padding for each row"
            )
        return super().generate_batch(inputs, *args, **kwargs)


def _drop(arguments: dict[str, Any], *names: str) -> None:
    for name in names:
        arguments.pop(name, None)
