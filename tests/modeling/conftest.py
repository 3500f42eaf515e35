"""The small model, and media and prompts for it."""

from collections.abc import Callable

import pytest
import torch

from mirasol_hf.modeling.modeling_mirasol import MirasolForConditionalGeneration
from tests.modeling.small_models import build


@pytest.fixture
def model() -> MirasolForConditionalGeneration:
    return build()


@pytest.fixture
def media() -> Callable[..., dict[str, torch.Tensor]]:
    """Random media of given numbers of clips and chunks, all present."""

    def make(clips: int = 2, chunks: int = 4, seed: int = 1) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return {
            "pixel_values_videos": torch.randn(clips, chunks, 4, 3, 16, 16, generator=generator),
            "input_features": torch.randn(clips, chunks, 8, 16, generator=generator),
            "video_mask": torch.ones(clips, chunks, dtype=torch.long),
            "audio_mask": torch.ones(clips, chunks, dtype=torch.long),
        }

    return make


@pytest.fixture
def prompts() -> torch.Tensor:
    return torch.randint(3, 64, (2, 6), generator=torch.Generator().manual_seed(2))
