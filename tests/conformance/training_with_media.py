"""Training steps of the FSDP mixin with film and sound beside its text.

Its own batches hold text alone. The towers then get no gradient, Adam keeps no state of them, and the optimizer's
state cannot be resumed: with media every parameter takes part.
"""

from typing import Any

import torch
from transformers_tests import test_fsdp_mixin


def media_for(model: Any, batch_size: int) -> dict[str, torch.Tensor]:
    """Two chunks of film and sound for each text, the same in every process."""
    config = getattr(model, "module", model).config
    video, audio = config.video_config, config.audio_config
    numbers = torch.Generator().manual_seed(0)
    size = (video.num_frames, video.num_channels, video.image_size, video.image_size)
    return {
        "pixel_values_videos": torch.rand(batch_size, 2, *size, generator=numbers),
        "input_features": torch.rand(batch_size, 2, audio.num_steps, audio.num_mel_bins, generator=numbers),
    }


def run_steps(
    model: Any, optimizer: torch.optim.Optimizer, batches: list, *, track_grad_norms: bool = True
) -> tuple[list[float], list[float]]:
    """In place of the mixin's `_run_training_steps`: losses and gradient norms of one step for each batch."""
    losses, norms = [], []
    for input_ids, labels in batches:
        optimizer.zero_grad()
        loss = model(input_ids=input_ids, labels=labels, use_cache=False, **media_for(model, len(input_ids))).loss
        loss.backward()
        if track_grad_norms:
            norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=float("inf")).item())
        optimizer.step()
        losses.append(loss.item())
    return losses, norms


def plan_vs_ddp(rank: int, *args: Any) -> None:
    """The mixin's comparison of FSDP with DDP, in one rank's process."""
    test_fsdp_mixin._run_training_steps = run_steps
    test_fsdp_mixin._test_fsdp2_plan_vs_ddp_impl(rank, *args)
