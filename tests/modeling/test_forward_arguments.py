"""Wrong arguments of `forward`: one error each that names what came and what was expected."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.modeling.small_models import build

Media = Callable[..., dict[str, torch.Tensor]]


@pytest.mark.parametrize(
    "name, hint",
    [
        ("pixel_value_videos", "pixel_values_videos"),
        ("input_feature", "input_features"),
        ("audio_masks", "audio_mask"),
        ("label", "labels"),
        ("zzz", None),
    ],
)
def test_unknown_arguments(model: Any, media: Media, prompts: torch.Tensor, name: str, hint: str | None) -> None:
    expected = f"unexpected keyword argument '{name}'" + (rf" \(did you mean '{hint}'\?\)" if hint else "$")
    for part in (model, model.model):
        with pytest.raises(TypeError, match=expected):
            part(input_ids=prompts, **{name: torch.ones(2, 3)})


@torch.no_grad()
def test_times_from_the_processor_may_be_given(model: Any, media: Media, prompts: torch.Tensor) -> None:
    clips = media(chunks=2)
    rows, count = clips["pixel_values_videos"].shape[:2]
    times = {"chunk_seconds": torch.rand(rows, count, 2), "video_timestamps": torch.rand(rows, count, 4)}
    text = prompts[:rows]
    assert torch.equal(model(input_ids=text, **clips, **times).logits, model(input_ids=text, **clips).logits)
    assert torch.equal(
        model.generate(text, max_new_tokens=3, num_beams=2, **clips, **times),
        model.generate(text, max_new_tokens=3, num_beams=2, **clips),
    )


def test_what_the_library_passes_on_is_known(model: Any, prompts: torch.Tensor) -> None:
    outputs = model(
        input_ids=prompts,
        labels=prompts,
        output_attentions=False,
        output_hidden_states=True,
        num_items_in_batch=torch.tensor(10),
        return_dict=True,
    )
    assert outputs.hidden_states is not None and outputs.loss is not None
    assert isinstance(model(input_ids=prompts, return_dict=False), tuple)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"pixel_values_videos": torch.zeros(2, 3, 5, 3, 16, 16)},
            r"pixel_values_videos .*5, 3.*\[B, K, 4 .*video_config",
        ),
        (
            {"pixel_values_videos": torch.zeros(2, 3, 4, 3, 32, 32)},
            r"pixel_values_videos .*32, 32.*16, 16\] by video_conf",
        ),
        (
            {"pixel_values_videos": torch.zeros(2, 3, 4, 1, 16, 16)},
            r"pixel_values_videos .*1, 16.*3, 16, 16\] by video_conf",
        ),
        ({"input_features": torch.zeros(2, 3, 9, 16)}, r"input_features .*9, 16.*8, 16\] by audio_config"),
        ({"input_features": torch.zeros(2, 3, 8, 8)}, r"input_features .*8, 8.*8, 16\] by audio_config"),
        ({"input_features": torch.zeros(2, 4, 8, 16)}, r"2 clips of 3 chunks, input_features 2 of 4"),
        ({"video_mask": torch.ones(2, 4)}, r"video_mask has shape \(2, 4\); expected \[B, K\] = \[2, 3\]"),
    ],
)
def test_media_that_disagree_with_the_configuration(
    model: Any, media: Media, prompts: torch.Tensor, change: dict[str, torch.Tensor], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        model(input_ids=prompts, **{**media(2, 3), **change})
    with pytest.raises(ValueError, match=message):
        model.generate(prompts, **{**media(2, 3), **change}, max_new_tokens=2)


def test_encoded_media_of_another_model(model: Any, media: Media, prompts: torch.Tensor) -> None:
    other = build(time_config={"hidden_size": 16})
    states = other.encode_media(**media(2, 3)).media_hidden_states
    with pytest.raises(ValueError, match=r"media_hidden_states has shape \(2, 9, 16\); expected \[B, K·m, 24\]"):
        model(input_ids=prompts, media_hidden_states=states)


def test_labels_without_text(model: Any, media: Media, prompts: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"labels \(2, 6\) were given without text; expected input_ids"):
        model(labels=prompts, **media(2, 3))
    with pytest.raises(ValueError, match=r"labels has shape \(2, 6\); expected \[B, L\] = \[2, 4\] of input_ids"):
        model(input_ids=prompts[:, :4], labels=prompts)
    with pytest.raises(ValueError, match=r"labels has shape \(2, 6\); expected \[B, L\] = \[2, 4\] of inputs_embeds"):
        model(inputs_embeds=model.get_input_embeddings()(prompts[:, :4]), labels=prompts)


def test_sound_for_a_model_without(media: Media, prompts: torch.Tensor) -> None:
    silent = build(audio_config=None)
    with pytest.raises(ValueError, match=r"input_features was given without .* no audio tower \(audio_config"):
        silent(input_ids=prompts, input_features=media(2, 3)["input_features"])


@pytest.mark.parametrize("token", [-100, 10**6])
def test_tokens_beyond_the_vocabulary(model: Any, prompts: torch.Tensor, token: int) -> None:
    vocab_size = model.config.text_config.vocab_size
    for call in (model, model.generate):
        with pytest.raises(ValueError, match=rf"input_ids holds \[{token}\]; expected 0 to {vocab_size - 1}"):
            call(input_ids=prompts.clone().index_fill_(1, torch.tensor([1]), token))


def test_tokens_that_are_none(model: Any, prompts: torch.Tensor) -> None:
    with pytest.raises(TypeError, match=r"input_ids has dtype torch.float32; expected integers"):
        model(input_ids=prompts.float())
    with pytest.raises(ValueError, match=r"input_ids has shape \(2, 0\); expected \[B, L\] with at least 1 token"):
        model(input_ids=prompts[:2, :0])
    with pytest.raises(ValueError, match=r"input_ids has shape \(5,\)"):
        model(input_ids=prompts[0, :5])
