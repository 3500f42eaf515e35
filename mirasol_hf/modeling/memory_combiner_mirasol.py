# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Memory Combiner: a Token Turing Machine that takes one chunk at each step (paper, section 3.2).

Shape legend: B batch, K chunks, P chunks that exist in the batch, T media tokens per chunk, m outputs, M memory
tokens, D width.
"""

from collections.abc import Iterator

import torch
from transformers.modeling_outputs import BaseModelOutput
from transformers.processing_utils import Unpack
from transformers.utils.generic import TransformersKwargs, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .attention_mirasol import MirasolAttention, MirasolEncoderLayer
from .base_mirasol import MirasolMediaPart
from .combiner_mirasol import MirasolCombinerEmbeddings
from .configuration_mirasol import MirasolAudioConfig, MirasolCombinerConfig, MirasolVideoConfig
from .distributed_mirasol import no_part_of, runs_every_part
from .media_cache_mirasol import MirasolMemoryState
from .token_turing_machine_mirasol import MirasolTokenTuringMachine
from .video_tower_mirasol import tube_grid


class MirasolMemoryCombiner(MirasolMediaPart):
    """Token Turing Machine Combiner: the memory starts at zeros and meets the chunks in order.

    A chunk that does not exist takes no step and leaves the memory as it is; tokens of a missing modality get no
    weight in reading and writing.
    """

    config: MirasolCombinerConfig
    base_model_prefix = "combiner"
    main_input_name = "tokens"
    _fsdp_plan: dict[str, str] = {}  # one small machine, used once for every chunk
    _can_record_outputs = {
        "hidden_states": MirasolEncoderLayer,
        "attentions": OutputRecorder(MirasolAttention, index=1),
    }

    def __init__(
        self,
        config: MirasolCombinerConfig,
        video_config: MirasolVideoConfig,
        audio_config: MirasolAudioConfig | None = None,
    ) -> None:
        super().__init__(config)
        self.embeddings = MirasolCombinerEmbeddings(config)
        frames = (1, video_config.num_frames)
        self.video_slots = [[], *(video_token_slots(video_config, count) for count in frames)]
        self.num_video_slots = len(self.video_slots[-1])
        self.num_audio_slots = 0
        if audio_config is not None:
            steps, bins = audio_config.patch_size
            self.num_audio_slots = (audio_config.num_steps // steps) * (audio_config.num_mel_bins // bins)
        self.machine = MirasolTokenTuringMachine(config, self.num_video_slots + self.num_audio_slots)
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        tokens: torch.Tensor,
        num_video_tokens: int,
        shape: tuple[int, int],
        token_mask: torch.Tensor | None = None,
        chunk_mask: torch.Tensor | None = None,
        state: MirasolMemoryState | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        """Combines chunks.

        Args:
            tokens: [P, T, D], those of existing chunks (or of all B·K) in batch order, video tokens before audio
                tokens.
            num_video_tokens: how many of the T are video tokens.
            shape: (B, K).
            token_mask: [P, T], 0 at tokens of a missing modality.
            chunk_mask: [B, K], 0 at chunks that do not exist; `None` when all exist and P = B·K.
            state: the memory that earlier chunks of a stream left.

        Returns:
            `last_hidden_state` [B, K, m, D], zeros for chunks that do not exist.
        """
        batch = shape[0]
        slots = self.input_slots(num_video_tokens, tokens.shape[1] - num_video_tokens)
        inputs = self.embeddings(tokens, num_video_tokens)
        memory = None if state is None else state.memory
        if memory is None:
            memory = inputs.new_zeros(batch, self.config.memory_size, self.config.hidden_size)
        nothing = inputs.new_zeros(batch, self.config.num_output_tokens, self.config.hidden_size)
        steps = []
        has_all = chunk_mask is None or tokens.shape[0] == shape[0] * shape[1]
        for index, (clips, chosen) in enumerate(chunk_steps(None if has_all else chunk_mask, shape, inputs.device)):
            if isinstance(clips, torch.Tensor) and clips.shape[0] == 0:
                steps.append(nothing)
                continue
            mask = None if token_mask is None else token_mask[chosen]
            made, written = self.machine.step(memory[clips], inputs[chosen], mask, slots, **kwargs)
            if isinstance(clips, torch.Tensor):
                made = nothing.index_copy(0, clips, made.to(nothing.dtype))
                written = memory.index_copy(0, clips, written.to(memory.dtype))
            elif chunk_mask is not None:
                exists = chunk_mask[:, index, None, None].bool()
                made, written = made.where(exists, 0), written.where(exists, memory)
            memory = written
            steps.append(made)
        if state is not None:
            state.memory = memory
        combined = torch.stack(steps, dim=1)
        if runs_every_part(self):  # nobody reads what the last chunk wrote: with one chunk, nothing that was written
            combined = combined + no_part_of(memory).to(combined)
        return BaseModelOutput(last_hidden_state=combined)

    def input_slots(self, num_video_tokens: int, num_audio_tokens: int) -> list[int] | None:
        """Places in the position tables that the tokens take: a missing modality leaves its places empty."""
        if not self.config.use_positional_embedding:
            return None
        video = next(slots for slots in self.video_slots if len(slots) == num_video_tokens)
        return [*video, *range(self.num_video_slots, self.num_video_slots + num_audio_tokens)]


def chunk_steps(
    chunk_mask: torch.Tensor | None, shape: tuple[int, int], device: torch.device
) -> Iterator[tuple[torch.Tensor | slice, torch.Tensor | slice]]:
    """For each of the K chunks: the clips that have it, and its place among the P chunks that exist."""
    if chunk_mask is None:
        for chunk in range(shape[1]):
            yield slice(None), slice(chunk, None, shape[1])
        return
    present = chunk_mask.bool().cpu()  # once, instead of waiting for the device at every step
    places = (present.flatten().cumsum(0) - 1).unflatten(0, shape)
    for chunk in range(shape[1]):
        clips = present[:, chunk]
        yield clips.nonzero().flatten().to(device), places[clips, chunk].to(device)


def video_token_slots(config: MirasolVideoConfig, num_frames: int) -> list[int]:
    """Places of the tokens of a chunk of `num_frames` among those of a full chunk.

    Tokens are time-major within each tube, so that fewer frames give the first ones of each tube.
    """
    slots: list[int] = []
    first = 0
    size = (config.num_frames, config.image_size, config.image_size)
    for kernel, stride, offset in zip(config.tube_kernels, config.tube_strides, config.tube_offsets, strict=True):
        full, here = (tube_grid((frames, *size[1:]), kernel, stride, offset) for frames in (size[0], num_frames))
        slots.extend(range(first, first + here[0] * here[1] * here[2]))
        first += full[0] * full[1] * full[2]
    return slots
