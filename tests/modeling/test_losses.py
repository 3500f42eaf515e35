"""The losses: by name, over what is present, and with gradient to every parameter."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.modeling.small_models import build

Media = Callable[..., dict[str, torch.Tensor]]
NAMES = ("text_loss", "latent_loss", "video_reconstruction_loss", "audio_reconstruction_loss")


def labelled(prompts: torch.Tensor) -> torch.Tensor:
    labels = prompts.clone()
    labels[:, :4] = -100
    return labels


def test_text_loss_is_the_mean_over_labelled_tokens(model: Any, media: Media, prompts: torch.Tensor) -> None:
    outputs = model(input_ids=prompts, **media(), labels=labelled(prompts))
    log_probabilities = outputs.logits.log_softmax(-1)
    picked = [-log_probabilities[row, column - 1, prompts[row, column]] for row in range(2) for column in (4, 5)]
    torch.testing.assert_close(outputs.text_loss, torch.stack(picked).mean())


def test_loss_is_the_weighted_sum_of_the_named_losses(media: Media, prompts: torch.Tensor) -> None:
    model = build(text_loss_weight=10.0, latent_loss_weight=2.0, video_reconstruction_loss_weight=0.5)
    outputs = model(input_ids=prompts, **media(), labels=labelled(prompts))
    parts = [outputs[name] for name in NAMES]
    expected = sum(weight * part for weight, part in zip((10.0, 2.0, 0.5, 1.0), parts, strict=True))
    torch.testing.assert_close(outputs.loss, expected)


def test_a_weight_of_zero_switches_a_loss_off(media: Media, prompts: torch.Tensor) -> None:
    weights = dict.fromkeys(("latent_loss_weight", "audio_reconstruction_loss_weight"), 0.0)
    model = build(**weights)
    outputs = model(input_ids=prompts, **media(), labels=labelled(prompts))
    assert outputs.latent_loss is None
    assert outputs.audio_reconstruction_loss is None
    assert outputs.video_reconstruction_loss > 0
    assert [name for name, _ in model.loss_heads.named_parameters()] == ["video_head.weight", "video_head.bias"]


def test_latent_loss_by_hand(model: Any, media: Media, prompts: torch.Tensor) -> None:
    batch = media(2, 3)
    batch["video_mask"][1, 2] = batch["audio_mask"][1, 2] = 0
    outputs = model(input_ids=prompts, **batch, labels=labelled(prompts))
    states = outputs.media_hidden_states.unflatten(1, (3, 3))
    distances = []
    for clip, chunk in ((0, 0), (0, 1), (1, 0)):  # the pairs whose next chunk exists
        predicted = model.loss_heads.latent_head(states[clip, chunk])
        target = outputs.combined_features[clip, chunk + 1]
        distances.append(1 - torch.nn.functional.cosine_similarity(predicted, target, dim=-1).mean())
    torch.testing.assert_close(outputs.latent_loss, torch.stack(distances).mean())


def test_reconstruction_targets_are_down_sized_next_chunks(model: Any, media: Media, prompts: torch.Tensor) -> None:
    batch = media(1, 2)
    outputs = model(input_ids=prompts[:1], **batch, labels=labelled(prompts[:1]))
    states = outputs.media_hidden_states.unflatten(1, (2, 3))[0, 0]
    video = batch["pixel_values_videos"][0, 1].transpose(0, 1)  # [C, F, H, W]
    video_target = video.reshape(3, 2, 2, 4, 4, 4, 4).mean((2, 4, 6)).flatten()
    predicted = model.loss_heads.video_head(states).flatten()[: video_target.numel()]
    torch.testing.assert_close(outputs.video_reconstruction_loss, (predicted - video_target).pow(2).mean())
    audio_target = batch["input_features"][0, 1].reshape(4, 2, 4, 4).mean((1, 3)).flatten()
    predicted = model.loss_heads.audio_head(states).flatten()[: audio_target.numel()]
    torch.testing.assert_close(outputs.audio_reconstruction_loss, (predicted - audio_target).pow(2).mean())


@pytest.mark.parametrize("combiner", [{}, {"context": "causal"}, {"output_tokens": "last"}])
def test_gradient_reaches_every_parameter(media: Media, prompts: torch.Tensor, combiner: dict[str, Any]) -> None:
    model = build(combiner_config=combiner, time_config={"mask_ratio": 0.5}).train()
    model(input_ids=prompts, **media(2, 4), labels=labelled(prompts)).loss.backward()
    without = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []


def test_targets_receive_no_gradient(media: Media, prompts: torch.Tensor) -> None:
    # with nothing but the latent loss and two chunks, the second chunk is only ever a target
    model = build(text_loss_weight=0.0, video_reconstruction_loss_weight=0.0, audio_reconstruction_loss_weight=0.0)
    batch = media(1, 2)
    batch["pixel_values_videos"].requires_grad_()
    model(input_ids=prompts[:1], **batch, labels=labelled(prompts[:1])).loss.backward()
    gradient = batch["pixel_values_videos"].grad
    assert gradient is not None
    assert gradient[:, 0].any()
    assert not gradient[:, 1].any()


def test_masking_acts_in_training_only(media: Media, prompts: torch.Tensor) -> None:
    model = build(time_config={"mask_ratio": 0.5})
    batch = media(1, 4)
    assert torch.equal(model.encode_media(**batch)[0], model.encode_media(**batch)[0])
    model.train()
    torch.manual_seed(0)
    first = model.encode_media(**batch)[0]
    assert not torch.equal(first, model.encode_media(**batch)[0])
    torch.manual_seed(0)
    assert torch.equal(first, model.encode_media(**batch)[0])


def test_gradient_checkpointing_keeps_loss_and_gradients(media: Media, prompts: torch.Tensor) -> None:
    plain, checkpointed = build().train(), build().train()
    checkpointed.activation_checkpointing_enable()
    inputs = {"input_ids": prompts, **media(), "labels": labelled(prompts)}
    losses = [model(**inputs).loss for model in (plain, checkpointed)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    for (name, one), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)
