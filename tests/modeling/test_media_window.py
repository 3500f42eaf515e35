"""text_config.media_window: the text sees a clip's latest chunks, whole or streamed, and nothing else is kept."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mirasol_hf.modeling.media_cache_mirasol import MirasolMediaCache, MirasolMediaFeatures
from tests.modeling.small_models import build

Media = Callable[..., dict[str, torch.Tensor]]
FEATURES = 3  # of a chunk


def windowed(window: int | None = 2, **sections: Any) -> Any:
    return build(text_config={"media_window": window}, **sections)


def ragged(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The second clip ends after three of five chunks and has a gap at its second."""
    for name in ("video_mask", "audio_mask"):
        batch[name][1, [1, 3, 4]] = 0
    return batch


def by_hand(model: Any, batch: dict[str, torch.Tensor], chunks: list[list[int]]) -> dict[str, torch.Tensor]:
    """Features of the named chunks of each clip, cut out of those of the whole clip."""
    encoded = model.encode_media(**batch).media_hidden_states.unflatten(1, (-1, FEATURES))
    rows = [encoded[clip, places].flatten(0, 1) for clip, places in enumerate(chunks)]
    return {"media_hidden_states": torch.stack(rows)}


@torch.no_grad()
def test_text_sees_the_latest_chunks(media: Media, prompts: torch.Tensor) -> None:
    batch = ragged(media(2, 5))
    expected = build()(input_ids=prompts, **by_hand(build(), batch, [[3, 4], [0, 2]])).logits
    actual = windowed()(input_ids=prompts, **batch)
    torch.testing.assert_close(actual.logits, expected, atol=1e-5, rtol=0)
    assert actual.media_hidden_states.shape[1] == 5 * FEATURES  # the losses need all of them
    everything = build()(input_ids=prompts, **batch).logits
    assert (expected - everything).abs().max() > 1e-3
    torch.testing.assert_close(windowed(99)(input_ids=prompts, **batch).logits, everything, atol=1e-6, rtol=0)


@torch.no_grad()
def test_features_without_a_mask_are_cut_too(media: Media, prompts: torch.Tensor) -> None:
    batch = media(2, 5)
    states = build().encode_media(**batch).media_hidden_states
    expected = build()(input_ids=prompts, media_hidden_states=states[:, -2 * FEATURES :]).logits
    torch.testing.assert_close(
        windowed()(input_ids=prompts, media_hidden_states=states).logits, expected, atol=1e-5, rtol=0
    )


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"cache_implementation": "static"}])
def test_generation_from_whole_clips_and_by_hand_agree(
    media: Media, prompts: torch.Tensor, options: dict[str, Any]
) -> None:
    batch = ragged(media(2, 5))
    chosen = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "output_logits": True}
    beams = {name: value for name, value in options.items() if name == "num_beams"}

    def logits(model: Any, **media: Any) -> torch.Tensor:
        made = model.generate(input_ids=prompts, return_dict_in_generate=True, **chosen, **media)
        return torch.stack(made.logits)

    expected = logits(build(), **beams, **by_hand(build(), batch, [[3, 4], [0, 2]]))
    torch.testing.assert_close(logits(windowed(), **options, **batch), expected, atol=1e-5, rtol=0)
    assert (logits(build(), **beams, **batch) - expected).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("sizes", [(1,) * 5, (2, 3)])
def test_a_stream_keeps_what_the_text_sees(media: Media, prompts: torch.Tensor, sizes: tuple[int, ...]) -> None:
    model, batch = windowed(combiner_config={"type": "ttm"}, time_config={"attention_window": 2}), ragged(media(2, 5))
    cache, features, first = MirasolMediaCache(), MirasolMediaFeatures(model.config), 0
    for size in sizes:
        part = {name: value[:, first : first + size] for name, value in batch.items()}
        features.add(model.encode_media(**part, media_cache=cache))
        first += size
        assert features.num_features <= 2 * FEATURES
        sofar = {name: value[:, :first] for name, value in batch.items()}
        expected = model(input_ids=prompts, **sofar).logits
        actual = model(input_ids=prompts, **features.joined()).logits
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def test_features_before_the_first_chunk_are_refused() -> None:
    features = MirasolMediaFeatures(windowed().config)
    with pytest.raises(ValueError, match="no chunk has come yet"):
        features.joined()


@torch.no_grad()
def test_without_a_window_all_is_kept(media: Media) -> None:
    model, batch = build(), media(1, 4)
    features = MirasolMediaFeatures(model.config)
    for chunk in range(4):
        features.add(model.encode_media(**{name: value[:, chunk : chunk + 1] for name, value in batch.items()}))
    assert features.num_features == 4 * FEATURES
    assert features.joined()["media_hidden_states"].shape == (1, 4 * FEATURES, 24)
    features.reset()
    assert features.num_features == 0


@torch.no_grad()
@pytest.mark.parametrize(
    ("section", "window"), [("combiner_config", "context_chunks"), ("time_config", "attention_window")]
)
def test_absent_chunks_count_for_what_looks_back_in_time(media: Media, section: str, window: str) -> None:
    """Of chunks 0, (1) and 2 the last sees the first through a window of 3, and not through one of 2."""
    batch = media(1, 3)
    for name in ("video_mask", "audio_mask"):
        batch[name][0, 1] = 0
    other = {name: value.clone() for name, value in batch.items()}
    for name in ("pixel_values_videos", "input_features"):
        other[name][0, 0] += 1.0
    for size, sees in ((3, True), (2, False)):
        sections: dict[str, Any] = {"combiner_config": {"context": "causal", "context_chunks": 1}}
        sections["time_config"] = {"attention_window": 1}
        sections[section] = {**sections[section], window: size}
        model = build(**sections)
        last, changed = (model.encode_media(**one).media_hidden_states[0, -FEATURES:] for one in (batch, other))
        assert ((last - changed).abs().max() > 1e-5) == sees
