# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Video tower: sparse tubes of a chunk's frames into a ViT (TubeViT, arXiv 2212.03229).

Shape legend: P chunks (of all clips), F frames, C channels, H height, W width, N tokens, D width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput
from transformers.processing_utils import Unpack
from transformers.utils.generic import TransformersKwargs, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .attention_mirasol import MirasolAttention, MirasolEncoderLayer, sincos_positions
from .base_mirasol import MirasolMediaPart
from .configuration_mirasol import MirasolVideoConfig
from .distributed_mirasol import no_part_of, runs_every_part

Triple = Sequence[int]


def tube_grid(size: Triple, kernel: Triple, stride: Triple, offset: Triple) -> tuple[int, int, int]:
    """Windows of a tube along time, height and width: valid windows after cropping the offset (may be 0)."""
    steps, height, width = (
        max(0, (extent - first - span) // step + 1)
        for extent, span, step, first in zip(size, kernel, stride, offset, strict=True)
    )
    return steps, height, width


def tube_centres(size: Triple, kernel: Triple, stride: Triple, offset: Triple) -> torch.Tensor:
    """Centres [N, 3] of a tube's windows in frames and pixels, `offset + i·stride + kernel/2`, time first."""
    grid = tube_grid(size, kernel, stride, offset)
    axes = [
        first + torch.arange(count, dtype=torch.float32) * step + span / 2
        for count, span, step, first in zip(grid, kernel, stride, offset, strict=True)
    ]
    return torch.cartesian_prod(*axes).reshape(-1, 3)


class MirasolTube(nn.Conv3d):
    """One tube: a 3-D convolution with its own kernel, stride and offset.

    Windows hardly overlap, so the convolution is computed as one matrix product over the gathered windows.
    """

    def __init__(self, in_channels: int, width: int, kernel: Triple, stride: Triple, offset: Triple) -> None:
        # Any: the stubs want triples of known length, configurations hold lists
        shape: Any = {"kernel_size": tuple(kernel), "stride": tuple(stride)}
        super().__init__(in_channels, width, **shape)
        self.offset = tuple(offset)

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        """[P, C, F, H, W] → tokens [P, N, D], time-major, then height, then width."""
        for axis, (first, kernel, stride) in enumerate(zip(self.offset, self.kernel_size, self.stride, strict=True)):
            video = video.narrow(axis + 2, first, video.shape[axis + 2] - first).unfold(axis + 2, kernel, stride)
        # [P, C, t, h, w, kt, kh, kw] → [P, t·h·w, C·kt·kh·kw]
        windows = video.permute(0, 2, 3, 4, 1, 5, 6, 7).flatten(4).flatten(1, 3)
        return nn.functional.linear(windows, self.weight.flatten(1), self.bias)


class MirasolTubeEmbeddings(nn.Module):
    """All tubes, concatenated in their configured order, with fixed positions at the tube centres."""

    def __init__(self, config: MirasolVideoConfig) -> None:
        super().__init__()
        self.config = config
        self.tubes = nn.ModuleList(
            MirasolTube(config.num_channels, config.hidden_size, *shape)
            for shape in zip(config.tube_kernels, config.tube_strides, config.tube_offsets, strict=True)
        )

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        """[P, F, C, H, W] → [P, N, D]. Tubes longer than F frames give no tokens, as for a single image."""
        size = (video.shape[1], *video.shape[3:])
        video = video.transpose(1, 2)
        tokens, centres = [], []
        for tube in self.tubes:
            assert isinstance(tube, MirasolTube)
            shape = (tube.kernel_size, tube.stride, tube.offset)
            if 0 not in tube_grid(size, *shape):
                tokens.append(tube(video))
                centres.append(tube_centres(size, *shape))
        if not tokens:
            raise ValueError(f"no tube of video_config.tube_kernels fits a chunk of {size[0]} frames of {size[1:]}")
        positions = sincos_positions(torch.cat(centres), self.config.hidden_size)
        joined = torch.cat(tokens, dim=1)
        joined = joined + positions.to(joined)
        if len(tokens) < len(self.tubes) and runs_every_part(self):
            unused = torch.stack([no_part_of(parameter) for parameter in self.parameters()]).sum()
            joined = joined + unused.to(joined)
        return joined


class MirasolVideoModel(MirasolMediaPart):
    """Tubes, then a pre-norm ViT over the tokens of each chunk by itself."""

    config: MirasolVideoConfig
    base_model_prefix = "video_tower"
    main_input_name = "pixel_values_videos"
    input_modalities = ("video",)
    _can_record_outputs = {
        "hidden_states": MirasolEncoderLayer,
        "attentions": OutputRecorder(MirasolAttention, index=1),
    }

    def __init__(self, config: MirasolVideoConfig) -> None:
        super().__init__(config)
        self.embeddings = MirasolTubeEmbeddings(config)
        self.build_stack(config)
        self.post_init()

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """[F, C, H, W] of a chunk."""
        return self.config.num_frames, self.config.num_channels, self.config.image_size, self.config.image_size

    def get_input_embeddings(self) -> nn.Module:
        """The first tube: the library wants one module with a weight."""
        return self.embeddings.tubes[0]

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embeddings.tubes[0] = value

    @merge_with_config_defaults
    @capture_outputs
    def forward(self, pixel_values_videos: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> BaseModelOutput:
        """Encodes chunks.

        Args:
            pixel_values_videos: [P, F, C, H, W], normalised frames.

        Returns:
            `last_hidden_state` [P, N, D].
        """
        hidden_states = self.embeddings(pixel_values_videos.to(self.dtype))
        return BaseModelOutput(last_hidden_state=self.run_stack(hidden_states, **kwargs))
