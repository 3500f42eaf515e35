"""MirasolMediaCache: chunk by chunk equals the whole clip, for every Combiner and window, and the state is bounded."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch

from mirasol_hf.modeling.media_cache_mirasol import MirasolMediaCache, MirasolMediaFeatures
from tests.modeling.small_models import build

Media = Callable[..., dict[str, torch.Tensor]]
COMBINERS: dict[str, dict[str, Any]] = {
    "chunk": {},
    "chunk_last": {"output_tokens": "last"},
    "causal": {"context": "causal"},
    "causal_last": {"context": "causal", "output_tokens": "last"},
    "causal_1": {"context": "causal", "context_chunks": 1},
    "causal_2": {"context": "causal", "context_chunks": 2},
    "causal_2_last": {"context": "causal", "context_chunks": 2, "output_tokens": "last"},
    "causal_99": {"context": "causal", "context_chunks": 99},
    "ttm": {"type": "ttm"},
    "ttm_mha": {"type": "ttm", "memory_mode": "tl_mha", "use_positional_embedding": True},
    "ttm_mixer": {"type": "ttm", "processing_unit": "mixer", "use_positional_embedding": True},
    "ttm_add_erase": {"type": "ttm", "memory_mode": "tl_add_erase", "processing_unit": "mlp"},
}
WINDOWS = (None, 1, 2, 99)
CHUNKS = 6
BOUNDED = {
    "ttm": ({"type": "ttm"}, 2, 3),
    "ttm_window_1": ({"type": "ttm", "memory_mode": "tl_mha"}, 1, 1),
    "chunk": ({}, 3, 2),
    "causal": ({"context": "causal", "context_chunks": 2}, 3, 2),
}


def damaged(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Takes sound, pictures and whole chunks away in the middle of clips, and ends all clips but the first early."""
    batch = {name: value.clone() for name, value in batch.items()}
    batch["audio_mask"][0, 1] = batch["video_mask"][0, 2] = 0
    batch["audio_mask"][0, 3] = batch["video_mask"][0, 3] = 0  # with one clip: a gap for the whole batch
    for clip in range(1, batch["video_mask"].shape[0]):
        batch["audio_mask"][clip] = batch["audio_mask"][clip].roll(clip)
        for name in ("audio_mask", "video_mask"):
            batch[name][clip, CHUNKS - 2 * clip :] = 0
    return batch


def stream(
    model: Any, batch: dict[str, torch.Tensor], sizes: tuple[int, ...], features: MirasolMediaFeatures | None = None
) -> tuple[Any, MirasolMediaCache]:
    cache, outputs, first = MirasolMediaCache(), [], 0
    for size in sizes:
        part = {name: value[:, first : first + size] for name, value in batch.items()}
        outputs.append(model.encode_media(**part, media_cache=cache))
        if features is not None:
            features.add(outputs[-1])
        first += size
    assert cache.num_chunks == first
    return torch.cat([output.media_hidden_states for output in outputs], dim=1), cache


@torch.no_grad()
@pytest.mark.parametrize("clips", [1, 3])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("combiner", COMBINERS)
def test_streamed_equals_whole(media: Media, combiner: str, window: int | None, clips: int) -> None:
    model = build(combiner_config=COMBINERS[combiner], time_config={"attention_window": window})
    whole = media(clips, CHUNKS)
    for batch, sizes in ((whole, (1,) * 6), (damaged(whole), (1,) * 6), (damaged(whole), (2, 1, 3))):
        # all of it: chunks that do not exist are zeros either way
        expected = model.encode_media(**batch).media_hidden_states
        torch.testing.assert_close(stream(model, batch, sizes)[0], expected, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("combiner", COMBINERS)
def test_streamed_equals_whole_with_eager_attention(media: Media, combiner: str) -> None:
    model, batch = build(combiner_config=COMBINERS[combiner], time_config={"attention_window": 3}), media(2, CHUNKS)
    model.set_attn_implementation("eager")
    expected = model.encode_media(**batch).media_hidden_states
    torch.testing.assert_close(stream(model, batch, (1,) * 6)[0], expected, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("combiner", COMBINERS)
def test_clips_of_a_damaged_batch_equal_the_clip_alone(media: Media, combiner: str) -> None:
    model, batch = build(combiner_config=COMBINERS[combiner]), damaged(media(3, CHUNKS))
    together = model.encode_media(**batch)
    for clip in range(3):
        alone = model.encode_media(**{name: value[clip : clip + 1] for name, value in batch.items()})
        seen = alone.media_attention_mask.bool()
        assert torch.equal(seen, together.media_attention_mask[clip : clip + 1].bool())
        actual = together.media_hidden_states[clip : clip + 1]
        torch.testing.assert_close(actual[seen], alone.media_hidden_states[seen], atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("output_tokens", ["learned", "last"])
def test_windows_agree_with_what_they_mean(media: Media, output_tokens: str) -> None:
    def features(window: int | None, **combiner: Any) -> torch.Tensor:
        combiner = {"output_tokens": output_tokens, **combiner}
        model = build(combiner_config=combiner, time_config={"attention_window": window})
        return model.encode_media(**media(1, 5)).media_hidden_states

    # one chunk in view is the Combiner of single chunks; more in view than there are is all of them
    torch.testing.assert_close(features(2, context="causal", context_chunks=1), features(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(features(5), features(None), atol=1e-5, rtol=0)
    every = features(None, context="causal")
    torch.testing.assert_close(features(5, context="causal", context_chunks=5), every, atol=1e-5, rtol=0)
    assert (features(4, context="causal") - every)[:, 4 * 3 :].abs().max() > 1e-3
    assert (features(None, context="causal", context_chunks=4) - every)[:, 4 * 3 :].abs().max() > 1e-3


@torch.no_grad()
def test_a_window_bounds_the_state(media: Media) -> None:
    fields = {"combiner_config": {"context": "causal", "context_chunks": 2}, "time_config": {"attention_window": 3}}
    model, batch = build(**fields), media(1, 8)
    _, cache = stream(model, batch, (1,) * 8)
    # of three chunks in view the present one comes anew: two are kept, with three features each
    assert cache.time_model.num_tokens == 2 * 3
    tokens_per_chunk = 8 + 4 + 4 + 3  # two tubes, spectrogram patches, learned outputs
    assert cache.combiner.num_tokens == tokens_per_chunk
    assert all(layer.keys.shape[2] == 6 for layer in cache.time_model.key_values.layers)
    cache.reset()
    assert (cache.num_chunks, cache.time_model.num_tokens) == (0, 0)


def stored_bytes(*roots: Any) -> int:
    """Bytes of all tensor storages that can be reached from objects, each storage once."""
    storages: dict[int, int] = {}
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, torch.Tensor):
            storages[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
        elif isinstance(thing, dict):
            waiting.extend(thing.values())
        elif isinstance(thing, (list, tuple)):
            waiting.extend(thing)
        elif hasattr(thing, "__dict__"):
            waiting.extend(vars(thing).values())
    return sum(storages.values())


def sizes_along_a_stream(model: Any, batch: dict[str, torch.Tensor]) -> list[int]:
    cache, features, sizes = MirasolMediaCache(), MirasolMediaFeatures(model.config), []
    for chunk in range(batch["video_mask"].shape[1]):
        part = {name: value[:, chunk : chunk + 1] for name, value in batch.items()}
        features.add(model.encode_media(**part, media_cache=cache))
        sizes.append(stored_bytes(cache, features))
    return sizes


@torch.no_grad()
@pytest.mark.parametrize("case", BOUNDED)
@pytest.mark.parametrize("clips", [1, 2])
def test_the_bytes_of_the_state_stop_growing(media: Media, case: str, clips: int) -> None:
    combiner, attention_window, media_window = BOUNDED[case]
    windows = {"time_config": {"attention_window": attention_window}, "text_config": {"media_window": media_window}}
    model, batch = build(combiner_config=combiner, **windows), media(clips, 12)
    sizes = sizes_along_a_stream(model, batch)
    assert sizes[0] > 0
    assert len(set(sizes[3:])) == 1, sizes
    # without windows each chunk adds at least keys and values of three features in two layers
    grown = sizes_along_a_stream(build(combiner_config={"type": "ttm"}), batch)
    assert all(later - earlier >= clips * 3 * 24 * 4 * 4 for earlier, later in pairwise(grown))


@torch.no_grad()
def test_a_gap_moves_the_windows_on(media: Media) -> None:
    fields = {"combiner_config": {"context": "causal", "context_chunks": 2}, "time_config": {"attention_window": 2}}
    model, batch = build(**fields), media(1, 2)
    cache = MirasolMediaCache()
    model.encode_media(**batch, media_cache=cache)
    assert cache.time_model.num_tokens == 3
    nothing = {"video_mask": torch.zeros(1, 3), "audio_mask": torch.zeros(1, 3)}
    gap = {name: media(1, 3)[name] for name in ("pixel_values_videos", "input_features")}
    output = model.encode_media(**gap, **nothing, media_cache=cache)
    assert not output.media_attention_mask.any() and not output.media_hidden_states.any()
    assert (cache.num_chunks, cache.time_model.num_tokens, cache.combiner.num_tokens) == (5, 0, 0)


@torch.no_grad()
def test_another_batch_size_in_a_stream_is_refused(media: Media) -> None:
    model, cache = build(), MirasolMediaCache()
    model.encode_media(**media(2, 1), media_cache=cache)
    with pytest.raises(ValueError, match="holds 2 clips, the new chunks 1"):
        model.encode_media(**media(1, 1), media_cache=cache)


@torch.no_grad()
def test_another_batch_size_is_refused_where_no_chunk_exists(media: Media) -> None:
    model, cache = build(), MirasolMediaCache()
    model.encode_media(**media(2, 1), media_cache=cache)
    nothing = {"video_mask": torch.zeros(1, 1), "audio_mask": torch.zeros(1, 1)}
    with pytest.raises(ValueError, match="holds 2 clips, the new chunks 1"):
        model.encode_media(**{**media(1, 1), **nothing}, media_cache=cache)
    assert cache.num_chunks == 1


@torch.no_grad()
@pytest.mark.parametrize("other", ["dtype", "combiner_config.type", "time_config.num_hidden_layers"])
def test_a_cache_of_another_model_is_refused_until_it_is_reset(media: Media, other: str) -> None:
    model, batch, cache = build(), media(1, 2), MirasolMediaCache()
    model.encode_media(**batch, media_cache=cache)
    if other == "dtype":
        second = build().to(torch.bfloat16)
        batch = {name: value.to(torch.bfloat16) if "mask" not in name else value for name, value in batch.items()}
    else:
        section, field = other.split(".")
        second = build(**{section: {field: {"type": "ttm", "num_hidden_layers": 1}[field]}})
    with pytest.raises(ValueError, match=rf"holds a stream of a model with {other}=.*reset\(\)"):
        second.encode_media(**batch, media_cache=cache)
    assert cache.num_chunks == 2
    cache.reset()
    second.encode_media(**batch, media_cache=cache)
    assert cache.num_chunks == 2


def test_what_a_stream_cannot_go_with_is_refused(media: Media) -> None:
    model, batch = build(), media(1, 1)
    for wrong in ({}, MirasolMediaCache):
        with pytest.raises(TypeError, match="expected a MirasolMediaCache object"):
            model.encode_media(**batch, media_cache=wrong)
    model.activation_checkpointing_enable()
    model.train()
    with pytest.raises(ValueError, match="media_cache does not go with activation checkpointing"):
        model.encode_media(**batch, media_cache=MirasolMediaCache())
    with torch.no_grad():  # nothing is run again
        model.encode_media(**batch, media_cache=MirasolMediaCache())
    model.set_attn_implementation("flex_attention")
    with pytest.raises(ValueError, match="media_cache does not go with attn_implementation='flex_attention'"):
        model.encode_media(**batch, media_cache=MirasolMediaCache())


@torch.no_grad()
def test_what_the_processor_yields_is_taken_as_it_is(media: Media) -> None:
    model, batch = build(), media(1, 1)
    times = {"chunk_seconds": torch.tensor([[[0.0, 1.0]]]), "video_timestamps": torch.zeros(1, 1, 4)}
    expected = model.encode_media(**batch).media_hidden_states
    assert torch.equal(model.encode_media(**batch, **times).media_hidden_states, expected)


@torch.no_grad()
def test_last_outputs_need_enough_tokens(media: Media) -> None:
    model, batch = build(combiner_config={"output_tokens": "last", "num_output_tokens": 5}), media(2, 3)
    with pytest.raises(ValueError, match=r"output_tokens='last'.*num_output_tokens=5.*only 4"):
        model.encode_media(input_features=batch["input_features"])
    batch["video_mask"][1, 2] = 0
    with pytest.raises(ValueError, match=r"num_output_tokens=5.*only 4"):
        model.encode_media(**batch)


@torch.no_grad()
def test_chunks_without_anything_are_not_kept_for_the_text(media: Media, prompts: torch.Tensor) -> None:
    """A text does not attend to them; before anything has come, one stands for them all."""
    model, batch = build(), media(1, 6)
    for name in ("video_mask", "audio_mask"):
        batch[name][0, [0, 1, 3, 4]] = 0
    features = MirasolMediaFeatures(model.config)
    stream(model, batch, (1,) * 6, features)
    assert features.num_features == 1 + 2 * model.config.combiner_config.num_output_tokens
    whole = model(input_ids=prompts[:1], **batch).logits
    torch.testing.assert_close(model(input_ids=prompts[:1], **features.joined()).logits, whole, atol=1e-5, rtol=0)
