"""MirasolMediaCache: chunk by chunk equals the whole clip, and a window bounds what is kept."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mirasol_hf.modeling.media_cache_mirasol import MirasolMediaCache
from tests.modeling.small_models import build

Media = Callable[..., dict[str, torch.Tensor]]
WINDOWED: dict[str, Any] = {
    "combiner_config": {"context": "causal", "context_chunks": 2},
    "time_config": {"attention_window": 3},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "chunk": {},
    "causal": {"combiner_config": {"context": "causal"}},
    "windowed": WINDOWED,
    "last": {
        "combiner_config": {"output_tokens": "last", "context": "causal"},
        "time_config": {"attention_window": 1},
    },
    "ttm": {"combiner_config": {"type": "ttm"}, "time_config": {"attention_window": 2}},
    "ttm_mha": {"combiner_config": {"type": "ttm", "memory_mode": "tl_mha", "use_positional_embedding": True}},
    "ttm_add_erase": {"combiner_config": {"type": "ttm", "memory_mode": "tl_add_erase", "processing_unit": "mlp"}},
}


def stream(model: Any, batch: dict[str, torch.Tensor], sizes: tuple[int, ...]) -> tuple[Any, MirasolMediaCache]:
    cache, outputs, first = MirasolMediaCache(), [], 0
    for size in sizes:
        part = {name: value[:, first : first + size] for name, value in batch.items()}
        outputs.append(model.encode_media(**part, media_cache=cache))
        first += size
    assert cache.num_chunks == first
    return torch.cat([output.media_hidden_states for output in outputs], dim=1), cache


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("sizes", [(1,) * 6, (2, 1, 3), (6,)])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_streamed_equals_whole(media: Media, variant: str, sizes: tuple[int, ...], implementation: str) -> None:
    model, batch = build(**VARIANTS[variant]), media(2, 6)
    model.set_attn_implementation(implementation)
    expected = model.encode_media(**batch).media_hidden_states
    streamed, _ = stream(model, batch, sizes)
    torch.testing.assert_close(streamed, expected, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_missing_modalities_and_chunks_in_a_stream(media: Media, variant: str) -> None:
    model, batch = build(**VARIANTS[variant]), media(2, 5)
    batch["audio_mask"][0, 1] = batch["video_mask"][1, 2] = 0
    batch["audio_mask"][1, 4] = batch["video_mask"][1, 4] = 0
    expected = model.encode_media(**batch)
    streamed, _ = stream(model, batch, (1,) * 5)
    seen = expected.media_attention_mask.bool()
    torch.testing.assert_close(streamed[seen], expected.media_hidden_states[seen], atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_window_bounds_the_state(media: Media) -> None:
    model, batch = build(**WINDOWED), media(1, 8)
    _, cache = stream(model, batch, (1,) * 8)
    # of three chunks in view the present one comes anew: two are kept, with three features each
    assert cache.time_model.num_tokens == 2 * 3
    tokens_per_chunk = 8 + 4 + 4 + 3  # two tubes, spectrogram patches, learned outputs
    assert cache.combiner.num_tokens == tokens_per_chunk
    assert all(layer.keys.shape[2] == 6 for layer in cache.time_model.key_values.layers)
    cache.reset()
    assert (cache.num_chunks, cache.time_model.num_tokens) == (0, 0)


@torch.no_grad()
def test_another_batch_size_in_a_stream_is_refused(media: Media) -> None:
    model, cache = build(), MirasolMediaCache()
    model.encode_media(**media(2, 1), media_cache=cache)
    with pytest.raises(ValueError, match="holds 2 clips, the new chunks 1"):
        model.encode_media(**media(1, 1), media_cache=cache)
