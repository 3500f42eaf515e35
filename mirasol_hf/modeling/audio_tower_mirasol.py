# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Audio tower: 2-D patches of a chunk's log-mel spectrogram into a ViT.

Shape legend: P chunks (of all clips), S spectrogram steps, M mel bins, N tokens, D width.
"""

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput
from transformers.processing_utils import Unpack
from transformers.utils.generic import TransformersKwargs, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .attention_mirasol import MirasolAttention, MirasolEncoderLayer, sincos_positions
from .base_mirasol import MirasolMediaPart
from .configuration_mirasol import MirasolAudioConfig


class MirasolSpectrogramEmbeddings(nn.Module):
    """Linear embedding of spectrogram patches with fixed 2-D positions at the patch centres."""

    def __init__(self, config: MirasolAudioConfig) -> None:
        super().__init__()
        self.config = config
        steps, bins = config.patch_size
        self.projection = nn.Linear(steps * bins, config.hidden_size)

    def forward(self, spectrogram: torch.Tensor) -> torch.Tensor:
        """[P, S, M] → [P, N, D], step-major."""
        steps, bins = self.config.patch_size
        patches = spectrogram.unfold(1, steps, steps).unfold(2, bins, bins)  # [P, S/steps, M/bins, steps, bins]
        rows, columns = patches.shape[1:3]
        centres = torch.cartesian_prod(
            (torch.arange(rows, dtype=torch.float32) + 0.5) * steps,
            (torch.arange(columns, dtype=torch.float32) + 0.5) * bins,
        )
        tokens = self.projection(patches.flatten(3).flatten(1, 2))
        return tokens + sincos_positions(centres, self.config.hidden_size).to(tokens)


class MirasolAudioModel(MirasolMediaPart):
    """Spectrogram patches, then a pre-norm ViT over the tokens of each chunk by itself."""

    config: MirasolAudioConfig
    base_model_prefix = "audio_tower"
    main_input_name = "input_features"
    _input_embed_layer = "projection"
    input_modalities = ("audio",)
    _can_record_outputs = {
        "hidden_states": MirasolEncoderLayer,
        "attentions": OutputRecorder(MirasolAttention, index=1),
    }

    def __init__(self, config: MirasolAudioConfig) -> None:
        super().__init__(config)
        self.embeddings = MirasolSpectrogramEmbeddings(config)
        self.build_stack(config)
        self.post_init()

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """[S, M] of a chunk."""
        return self.config.num_steps, self.config.num_mel_bins

    @merge_with_config_defaults
    @capture_outputs
    def forward(self, input_features: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> BaseModelOutput:
        """Encodes chunks.

        Args:
            input_features: [P, S, M], log-mel spectrogram.

        Returns:
            `last_hidden_state` [P, N, D].
        """
        hidden_states = self.embeddings(input_features.to(self.dtype))
        return BaseModelOutput(last_hidden_state=self.run_stack(hidden_states, **kwargs))
