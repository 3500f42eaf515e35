# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Mirasol: free-text answers about long videos with their sound (arXiv 2311.05698).

What is special about the architecture:
- the time-aligned part cuts video and audio into K chunks, encodes each chunk by itself (sparse tubes and spectrogram
  patches, two ViTs), lets a Combiner turn both into m joint features and relates the chunks with an autoregressive
  Transformer, so that cost grows linearly with the number of chunks and parameters do not grow;
- the contextual part, a text decoder, is never synchronised with the media: it cross-attends to the chunk features.

Shape legend: B batch, K chunks, F frames per chunk, C, H, W image, S spectrogram steps, M mel bins,
P existing chunks, T tokens per chunk, m Combiner outputs, D width, L text length, V vocabulary.
"""

import inspect
from typing import Any

import torch
from torch import nn
from transformers import Cache
from transformers.processing_utils import Unpack
from transformers.utils.generic import TransformersKwargs, can_return_tuple

from .audio_tower_mirasol import MirasolAudioModel
from .base_mirasol import MirasolPreTrainedModel
from .combiner_mirasol import MirasolCombiner
from .configuration_mirasol import MirasolConfig
from .distributed_mirasol import gathers_weights, no_part_of, runs_every_part
from .generation_mirasol import ENCODED_MEDIA, RAW_MEDIA, MirasolGenerationMixin
from .input_checks_mirasol import (
    check_arguments,
    check_input_ids,
    check_labels,
    check_text_against_media,
    check_text_length,
    usable_sound,
)
from .loading_mirasol import TRAINING_WEIGHTS
from .losses_mirasol import MirasolLossHeads, predicted_chunks
from .media_cache_mirasol import feature_limit, latest_features
from .media_encoding_mirasol import MirasolMediaEncoding
from .media_identity_mirasol import check_source, note_source, number_of, numbers_of_raw
from .memory_combiner_mirasol import MirasolMemoryCombiner
from .outputs_mirasol import MirasolConditionalGenerationOutput, MirasolMediaOutput, MirasolModelOutput
from .text_cache_mirasol import CACHE_NAME, has_media, one_cache
from .text_decoder_mirasol import MirasolTextModel
from .time_model_mirasol import MirasolTimeModel
from .video_tower_mirasol import MirasolVideoModel


class MirasolModel(MirasolMediaEncoding, MirasolPreTrainedModel):
    """Towers, Combiner, time model and text decoder, without heads."""

    config: MirasolConfig
    input_modalities = ("video", "audio", "text")
    _keys_to_ignore_on_load_unexpected = [*TRAINING_WEIGHTS, r"^lm_head\."]  # of a checkpoint with heads

    def __init__(self, config: MirasolConfig) -> None:
        super().__init__(config)
        combiner, time, audio = config.combiner_config, config.time_config, config.audio_config
        self.video_tower = MirasolVideoModel(config.video_config)
        self.video_projection = nn.Linear(config.video_config.hidden_size, combiner.hidden_size)
        self.audio_tower = MirasolAudioModel(audio) if audio is not None else None
        self.audio_projection = nn.Linear(audio.hidden_size, combiner.hidden_size) if audio is not None else None
        self.combiner: MirasolCombiner | MirasolMemoryCombiner
        if combiner.type == "ttm":
            self.combiner = MirasolMemoryCombiner(combiner, config.video_config, audio)
        else:
            self.combiner = MirasolCombiner(combiner)
        self.time_model = MirasolTimeModel(time, combiner)
        self.language_model = MirasolTextModel(config.text_config, memory_width=time.hidden_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        assert isinstance(value, nn.Embedding)
        self.language_model.embed_tokens = value

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        video_mask: torch.Tensor | None = None,
        audio_mask: torch.Tensor | None = None,
        media_hidden_states: torch.Tensor | None = None,
        media_attention_mask: torch.Tensor | None = None,
        media_index: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        chunk_seconds: torch.Tensor | None = None,
        video_timestamps: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MirasolModelOutput:
        """Runs text against media; without media it is a plain language model.

        Args:
            input_ids: [B, L] (or `inputs_embeds` [B, L, D]).
            attention_mask: [B, past + L], 0 at padding.
            pixel_values_videos, input_features, video_mask, audio_mask: as in `encode_media`; ignored where
                `media_hidden_states` is given.
            media_hidden_states: [clips, K·m, D] from `encode_media`.
            media_attention_mask: [clips, K·m].
            media_index: [B], the clip that each text row is about; by default row i is about clip i.
            position_ids: [B, L].
            cache: a cache of the library, which then keeps the media too (see `keep_media`); once it does, the media
                may be left out.
            chunk_seconds, video_timestamps: what the processor returns with `return_timestamps=True`; not used, as
                the model counts chunks.
            past_key_values: the older name of `cache`.
            kwargs: what the library knows by name, such as `output_attentions`.

        Raises:
            TypeError: an unknown keyword argument, or integers where floating point is expected.
            ValueError: no text, tensors that do not fit the configuration or each other, or other media than the cache
                holds.
        """
        check_arguments(kwargs, _FORWARD_ARGUMENTS)
        cache = one_cache(cache, past_key_values)
        text = input_ids if input_ids is not None else inputs_embeds
        if text is None:
            raise ValueError("give input_ids [B, L] or inputs_embeds; encode_media() encodes media without text")
        media = MirasolMediaOutput(media_hidden_states, media_attention_mask)
        has_raw = pixel_values_videos is not None or input_features is not None
        raw = (pixel_values_videos, input_features, video_mask, audio_mask)
        named = dict(zip((*RAW_MEDIA, *ENCODED_MEDIA), (*raw, media_hidden_states, media_attention_mask), strict=True))
        is_filled = has_media(cache)
        if is_filled and (has_raw or media_hidden_states is not None):
            check_source(cache, named, media_index)
        if has_raw and media_hidden_states is None and not is_filled:
            media = self.encode_clips(*raw)
        elif runs_every_part(self):
            if media_hidden_states is None:
                media_index = None
            media = self.run_without_media(media, text, cache)
        memory, memory_mask = media.media_hidden_states, media.media_attention_mask
        if memory is not None:
            width = self.config.time_config.hidden_size
            check_text_against_media(text, memory, memory_mask, width, media_index is not None)
        if media_index is not None:
            memory = None if memory is None else memory[media_index]
            memory_mask = None if memory_mask is None else memory_mask[media_index]
        whole = MirasolMediaOutput(memory, memory_mask)
        limit = feature_limit(self.config)
        if limit is not None:
            memory, memory_mask = latest_features(memory, memory_mask, limit)
        decoded = self.language_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            media_hidden_states=memory,
            media_attention_mask=memory_mask,
            use_cache=use_cache,
            **kwargs,
        )
        if not is_filled and not torch.compiler.is_compiling():
            self.note_media(getattr(decoded, CACHE_NAME), whole, named, media_index)
        return MirasolModelOutput(
            **decoded,
            media_hidden_states=media.media_hidden_states,
            media_attention_mask=media.media_attention_mask,
            combined_features=media.combined_features,
        )

    def note_media(
        self, cache: Cache | None, seen: MirasolMediaOutput, given: dict[str, Any], index: torch.Tensor | None
    ) -> None:
        """Lets a cache that has been filled know what from.

        Args:
            cache: that of the text.
            seen: what each row attends to.
            given: media among the arguments of `forward`.
            index: the clip of each row.
        """
        if cache is None or seen.media_hidden_states is None or not has_media(cache):
            return
        raw = numbers_of_raw(given) if given["media_hidden_states"] is None else None
        raw = raw if raw is None or index is None else raw[index]
        note_source(cache, number_of(seen.media_hidden_states, seen.media_attention_mask), raw)

    def run_without_media(
        self, media: MirasolMediaOutput, text: torch.Tensor, cache: Cache | None
    ) -> MirasolMediaOutput:
        """Runs the parts that encode media where this process has none to encode and others may.

        Returns `media` as it is, or for a text without media one chunk for each row that the mask hides, so that
        cross-attention runs too.
        """
        if has_media(cache):
            return media
        if media.media_hidden_states is None:
            return self.encode_nothing((text.shape[0], 1), text.device, None)
        if self.training:
            unused = self.run_unused(text.device).to(media.media_hidden_states)
            media.media_hidden_states = media.media_hidden_states + unused
        return media


class MirasolForConditionalGeneration(MirasolPreTrainedModel, MirasolGenerationMixin):
    """Mirasol with its language-modelling head, its media losses and `generate()`."""

    config: MirasolConfig
    input_modalities = ("video", "audio", "text")
    output_modalities = ("text",)
    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}
    _fsdp_plan = {"lm_head": "keep_full_weight"}

    def __init__(self, config: MirasolConfig) -> None:
        super().__init__(config)
        self.model = MirasolModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.loss_heads = MirasolLossHeads(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        """The model itself, by which the library means: no modality has an encoder of its own.

        Media of all kinds become features together, in `encode_media`, and the text attends to these. Exporters thus
        leave the model whole instead of cutting it where other models put features among their tokens.
        """
        return self

    @gathers_weights
    def encode_media(self, *args: Any, **kwargs: Any) -> MirasolMediaOutput:
        """See `MirasolModel.encode_media`."""
        return self.model.encode_media(*args, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        video_mask: torch.Tensor | None = None,
        audio_mask: torch.Tensor | None = None,
        media_hidden_states: torch.Tensor | None = None,
        media_attention_mask: torch.Tensor | None = None,
        media_index: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        num_chunks_in_batch: dict[str, torch.Tensor] | None = None,
        chunk_seconds: torch.Tensor | None = None,
        video_timestamps: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MirasolConditionalGenerationOutput:
        """Runs text against media and, with `labels`, computes the losses.

        Args:
            labels: [B, L], tokens to predict, −100 where none is (prompt and padding). They are shifted inside.
            logits_to_keep: compute logits for the last that many positions only; 0 for all.
            num_chunks_in_batch: for gradient accumulation, as `num_items_in_batch` is for the text: predicted chunks
                by the name of the loss (see `predicted_chunks`) in all micro-batches. `MirasolTrainer` gives it.

        The other arguments are those of `MirasolModel.forward`.

        Returns:
            `logits` [B, L, V]; with `labels` also `loss` and, as far as their weights are not 0 and media are given
            as raw tensors, `text_loss`, `latent_loss`, `video_reconstruction_loss`, `audio_reconstruction_loss`.
        """
        if input_ids is not None:
            check_input_ids(input_ids)
        check_labels(labels, input_ids, inputs_embeds)
        text = input_ids if input_ids is not None else inputs_embeds
        if text is not None and position_ids is None:  # given positions may restart in a row that packs several texts
            check_text_length(text.shape[1], self.config.text_config)
        if labels is not None and use_cache is None:
            use_cache = False  # training decodes nothing; with a cache, packed texts would see each other
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values_videos=pixel_values_videos,
            input_features=input_features,
            video_mask=video_mask,
            audio_mask=audio_mask,
            media_hidden_states=media_hidden_states,
            media_attention_mask=media_attention_mask,
            media_index=media_index,
            position_ids=position_ids,
            cache=one_cache(cache, past_key_values),
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        losses: dict[str, torch.Tensor] = {}
        if labels is not None:
            sound, sound_mask = usable_sound(self.config, pixel_values_videos, input_features, audio_mask)
            raw = dict(zip(RAW_MEDIA, (pixel_values_videos, sound, video_mask, sound_mask), strict=True))
            losses = self.compute_losses(logits, labels, outputs, raw, num_chunks_in_batch, **kwargs)
        return MirasolConditionalGenerationOutput(
            logits=logits,
            **{name: value for name, value in outputs.items() if name != "last_hidden_state"},
            **losses,
        )

    def compute_losses(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        outputs: MirasolModelOutput,
        raw: dict[str, torch.Tensor | None],
        num_chunks_in_batch: dict[str, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> dict[str, torch.Tensor]:
        """All losses by name and their weighted sum as `loss`.

        Each loss is a mean over what there is, 0 where there is nothing: the text loss over the labels that are not
        -100. With `num_items_in_batch` (the Trainer's count of labels over all accumulated steps) it is a share of the
        accumulated batch. So are the media losses with `num_chunks_in_batch`; without it a Trainer that sums
        over micro-batches would count each in full, so they take the share of the labels.
        """
        losses = {}
        if self.config.text_loss_weight > 0:
            losses["text_loss"] = self.text_loss(logits, labels, **kwargs)
        if outputs.combined_features is not None:
            losses.update(self.media_losses(outputs, raw, num_chunks_in_batch))
        share: torch.Tensor | float = 1.0
        items = kwargs.get("num_items_in_batch")
        if items is not None and num_chunks_in_batch is None:
            share = (labels[:, 1:] != -100).sum() / items
        loss = no_part_of(logits).float()  # so that there is always something to differentiate
        for name, value in losses.items():
            weight = getattr(self.config, f"{name}_weight") * (1.0 if name == "text_loss" else share)
            loss = loss + weight * value.float()
        if outputs.media_hidden_states is not None and runs_every_part(self):
            loss = loss + self.loss_heads.run_unused(outputs.media_hidden_states, losses)
        return {"loss": loss, **losses}

    def text_loss(self, logits: torch.Tensor, labels: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Cross-entropy over the labels that are not -100; 0 where none is."""
        if kwargs.get("num_items_in_batch") is None:
            targets = labels[:, 1:] if kwargs.get("shift_labels") is None else kwargs["shift_labels"]
            kwargs["num_items_in_batch"] = (targets != -100).sum().clamp(min=1)
        vocab_size = self.config.text_config.vocab_size
        return self.loss_function(logits=logits, labels=labels, vocab_size=vocab_size, **kwargs)

    def media_losses(
        self,
        outputs: MirasolModelOutput,
        raw: dict[str, torch.Tensor | None],
        num_chunks_in_batch: dict[str, torch.Tensor] | None,
    ) -> dict[str, torch.Tensor]:
        combined, states = outputs.combined_features, outputs.media_hidden_states
        assert combined is not None and states is not None
        shape = combined.shape[:2]
        present = []
        for media_name, mask_name in (("pixel_values_videos", "video_mask"), ("input_features", "audio_mask")):
            mask = raw[mask_name]
            if mask is None or raw[media_name] is None:
                mask = torch.full(shape, raw[media_name] is not None, device=states.device)
            present.append(mask.to(states.device))
        return self.loss_heads(
            states.unflatten(1, combined.shape[1:3]),
            combined,
            raw["pixel_values_videos"],
            raw["input_features"],
            predicted_chunks(*present),
            num_chunks_in_batch,
        )


_FORWARD_ARGUMENTS = frozenset(inspect.signature(MirasolForConditionalGeneration.forward).parameters)

__all__ = ["MirasolForConditionalGeneration", "MirasolModel", "MirasolPreTrainedModel"]
