"""encode_media: what is present decides the result, later chunks never reach earlier ones."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mirasol_hf.training.trainer import count_predicted_chunks
from tests.modeling.small_models import build

VARIANTS: dict[str, dict[str, Any]] = {
    "chunk": {},
    "last": {"combiner_config": {"output_tokens": "last"}},
    "causal": {"combiner_config": {"context": "causal"}},
    "windowed": {
        "combiner_config": {"context": "causal", "context_chunks": 2},
        "time_config": {"attention_window": 2},
    },
    "ttm": {"combiner_config": {"type": "ttm"}},
    "ttm_mha": {
        "combiner_config": {
            "type": "ttm",
            "memory_mode": "tl_mha",
            "processing_unit": "mixer",
            "use_positional_embedding": True,
        },
        "time_config": {"attention_window": 2},
    },
}

Media = Callable[..., dict[str, torch.Tensor]]


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> Any:
    return build(**VARIANTS[request.param])


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_shapes(variant: Any, media: Media) -> None:
    output = variant.encode_media(**media(2, 4))
    assert output.media_hidden_states.shape == (2, 12, 24)
    assert output.media_attention_mask.tolist() == [[1] * 12] * 2
    assert output.combined_features.shape == (2, 4, 3, 24)


@torch.no_grad()
@pytest.mark.parametrize("lengths", [(1, 4, 2), (1, 7, 16)])
def test_ragged_batch_equals_single_clips(variant: Any, media: Media, lengths: tuple[int, ...]) -> None:
    batch = media(len(lengths), max(lengths))
    for row, length in enumerate(lengths):
        batch["video_mask"][row, length:] = 0
        batch["audio_mask"][row, length:] = 0
    together = variant.encode_media(**batch)
    for row, length in enumerate(lengths):
        alone = variant.encode_media(**{name: value[row : row + 1, :length] for name, value in batch.items()})
        assert_close(together.media_hidden_states[row : row + 1, : length * 3], alone.media_hidden_states)
        assert_close(together.combined_features[row : row + 1, :length], alone.combined_features)
        assert together.media_attention_mask[row].sum() == length * 3


@torch.no_grad()
def test_ragged_batch_is_the_same_in_training(variant: Any, media: Media) -> None:
    batch = media(2, 4)
    batch["video_mask"][0, 2:] = batch["audio_mask"][0, 2:] = 0
    batch["video_mask"][1, 1] = batch["audio_mask"][1, 1] = 0  # a gap is no end
    expected = variant.encode_media(**batch)
    seen = expected.media_attention_mask.bool()
    assert seen.view(2, 4, 3)[:, :, 0].tolist() == [[True, True, False, False], [True, False, True, True]]
    assert not expected.media_hidden_states[0, 6:].any()
    trained = variant.train().encode_media(**batch)  # no dropout, no feature masking
    assert_close(trained.media_hidden_states[seen], expected.media_hidden_states[seen])


@torch.no_grad()
def test_recorded_states_of_a_ragged_batch_are_whole() -> None:
    time_model = build().model.time_model
    combined, chunk_mask = torch.randn(2, 4, 3, 24), torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    recorded = time_model(combined, chunk_mask, output_hidden_states=True)
    assert [states.shape for states in recorded.hidden_states] == [(2, 12, 24)] * 3
    plain = time_model(combined, chunk_mask)
    assert_close(recorded.last_hidden_state[0, :6], plain.last_hidden_state[0, :6])
    assert_close(recorded.last_hidden_state[1], plain.last_hidden_state[1])


@torch.no_grad()
def test_content_of_absent_chunks_changes_nothing(variant: Any, media: Media) -> None:
    batch = media(2, 4)
    batch["audio_mask"][:, 1] = 0
    batch["video_mask"][0, 2] = 0
    batch["video_mask"][1, 3] = batch["audio_mask"][1, 3] = 0
    expected = variant.encode_media(**batch)
    batch["input_features"][:, 1] = 1e3
    batch["pixel_values_videos"][0, 2] = float("nan")
    batch["pixel_values_videos"][1, 3] = -1e3
    changed = variant.encode_media(**batch)
    seen = expected.media_attention_mask.bool()
    assert_close(changed.media_hidden_states[seen], expected.media_hidden_states[seen])


@torch.no_grad()
def test_an_absent_modality_equals_its_empty_mask(media: Media) -> None:
    model, batch = build(), media(2, 3)
    alone = model.encode_media(pixel_values_videos=batch["pixel_values_videos"])
    masked = model.encode_media(**{**batch, "audio_mask": torch.zeros(2, 3)})
    assert_close(masked.media_hidden_states, alone.media_hidden_states)
    alone = model.encode_media(input_features=batch["input_features"])
    masked = model.encode_media(**{**batch, "video_mask": torch.zeros(2, 3)})
    assert_close(masked.media_hidden_states, alone.media_hidden_states)


@torch.no_grad()
def test_both_modalities_reach_the_features(variant: Any, media: Media) -> None:
    batch = media(1, 3)
    expected = variant.encode_media(**batch).media_hidden_states
    for name in ("pixel_values_videos", "input_features"):
        changed = variant.encode_media(**{**batch, name: batch[name] + 1}).media_hidden_states
        assert (changed - expected).abs().max() > 1e-2, name


@torch.no_grad()
@pytest.mark.parametrize("name", ["pixel_values_videos", "input_features"])
def test_later_chunks_never_reach_earlier_ones(variant: Any, media: Media, name: str) -> None:
    batch = media(1, 4)
    expected = variant.encode_media(**batch)
    batch[name][:, 2:] += 3
    changed = variant.encode_media(**batch)
    assert_close(changed.media_hidden_states[:, :6], expected.media_hidden_states[:, :6])
    assert_close(changed.combined_features[:, :2], expected.combined_features[:, :2])
    assert (changed.media_hidden_states[:, 6:] - expected.media_hidden_states[:, 6:]).abs().max() > 1e-2


@torch.no_grad()
def test_the_window_bounds_what_is_seen(media: Media) -> None:
    # two layers of window 2 in the Combiner and two in the time model reach back four chunks, not five
    model = build(**VARIANTS["windowed"])
    batch = media(1, 7)
    expected = model.encode_media(**batch).media_hidden_states
    batch["pixel_values_videos"][:, 0] += 3
    changed = model.encode_media(**batch).media_hidden_states
    moved = (changed - expected).abs().amax(dim=(0, 2)).unflatten(0, (7, 3)).amax(dim=1)
    assert moved[5:].max() < 1e-5
    assert moved[:4].min() > 1e-4


@torch.no_grad()
def test_eager_equals_sdpa(variant: Any, media: Media, prompts: torch.Tensor) -> None:
    batch = media(2, 4)
    batch["audio_mask"][0] = 0
    batch["video_mask"][1] = batch["audio_mask"][1] = 0
    variant.set_attn_implementation("sdpa")
    expected = variant(input_ids=prompts, **batch).logits
    variant.set_attn_implementation("eager")
    assert_close(variant(input_ids=prompts, **batch).logits, expected)


@torch.no_grad()
def test_an_image_is_a_video_of_one_frame(media: Media) -> None:
    image = media(2, 1)["pixel_values_videos"][:, :, :1]
    assert build().encode_media(pixel_values_videos=image).media_hidden_states.shape == (2, 3, 24)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_values_videos": torch.zeros(2, 4, 5, 3, 16, 16)}, r"pixel_values_videos.*\(2, 4, 5, 3, 16, 16\).*4"),
        ({"pixel_values_videos": torch.zeros(2, 4, 3, 16, 16)}, "pixel_values_videos"),
        ({"input_features": torch.zeros(2, 4, 8, 15)}, r"input_features.*8, 16"),
        ({"input_features": torch.zeros(2, 3, 8, 16)}, "same chunks"),
        ({"audio_mask": torch.ones(2, 5)}, "audio_mask"),
    ],
)
def test_wrong_shapes_are_named(media: Media, change: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build().encode_media(**{**media(2, 4), **change})


def test_integers_and_no_media_are_refused(media: Media) -> None:
    model = build()
    with pytest.raises(TypeError, match="floating point"):
        model.encode_media(pixel_values_videos=torch.zeros(1, 1, 4, 3, 16, 16, dtype=torch.uint8))
    with pytest.raises(ValueError, match="no media"):
        model.encode_media()
    with pytest.raises(ValueError, match="pixel_values_videos holds 2 clips of 0 chunks"):
        model.encode_media(pixel_values_videos=torch.zeros(2, 0, 4, 3, 16, 16))
    with pytest.raises(ValueError, match="input_features holds 0 clips of 2 chunks"):
        model.encode_media(input_features=torch.zeros(0, 2, 8, 16))
    with pytest.raises(ValueError, match="without pixel_values_videos, but this model has no audio tower"):
        build(audio_config=None).encode_media(input_features=media(1, 2)["input_features"])


@torch.no_grad()
def test_a_model_without_an_audio_tower_reads_the_pictures_alone(media: Media, prompts: torch.Tensor) -> None:
    """Also in its losses: a chunk with sound alone is no chunk for it."""
    model, clip = build(audio_config=None), media(2, 4)
    clip["video_mask"][0, 2] = 0
    pictures = {name: clip[name] for name in ("pixel_values_videos", "video_mask")}
    encoded, expected = model.encode_media(**clip), model.encode_media(**pictures)
    assert torch.equal(encoded.media_hidden_states, expected.media_hidden_states)
    assert torch.equal(encoded.media_attention_mask, expected.media_attention_mask)
    assert torch.equal(model.generate(prompts, **clip), model.generate(prompts, **pictures))
    losses = [model(input_ids=prompts, labels=prompts, **given).loss for given in (clip, pictures)]
    assert torch.equal(*losses)
    counts = [count_predicted_chunks(given, hears=False) for given in (clip, pictures)]
    assert counts[0] == counts[1]


@torch.no_grad()
def test_flex_attention_gives_the_same_features(variant: Any, media: Media) -> None:
    batch = media(2, 3)
    batch["video_mask"][1, 2:] = 0
    batch["audio_mask"][1, 1:] = 0
    expected = variant.encode_media(**batch)
    variant.set_attn_implementation("flex_attention")
    with torch.compiler.set_stance("force_eager"):  # without a C++ compiler
        found = variant.encode_media(**batch)
    for row, length in enumerate((9, 6)):
        assert_close(found.media_hidden_states[row, :length], expected.media_hidden_states[row, :length])
