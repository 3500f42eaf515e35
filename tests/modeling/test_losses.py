"""The losses: by name, over what is present, and with gradient to every parameter."""

from collections.abc import Callable
from typing import Any

import numpy as np
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


def test_text_without_a_labelled_token_costs_nothing(model: Any, media: Media, prompts: torch.Tensor) -> None:
    """A mean over nothing would be NaN, and with it the sum of all losses."""
    outputs = model(input_ids=prompts, **media(), labels=torch.full_like(prompts, -100))
    assert outputs.text_loss == 0
    outputs.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


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


def pooled(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Means over the cells of a grid that divides the last axes evenly."""
    lead = values.ndim - len(size)
    shape = list(values.shape[:lead])
    for extent, cells in zip(values.shape[lead:], size, strict=True):
        shape += [cells, extent // cells]
    return values.reshape(shape).mean(axis=tuple(lead + 1 + 2 * axis for axis in range(len(size))))


def losses_in_numpy(model: Any, batch: dict[str, torch.Tensor], outputs: Any, kind: str) -> dict[str, float]:
    """Every media loss, pair of chunks by pair of chunks, in float64."""
    arrays = {name: value.double().numpy() for name, value in batch.items()}
    weights = {name: value.detach().double().numpy() for name, value in model.loss_heads.named_parameters()}
    combined = outputs.combined_features.detach().double().numpy()
    clips, chunks, slots, _ = combined.shape
    states = outputs.media_hidden_states.detach().double().numpy().reshape(clips, chunks, slots, -1)
    found: dict[str, list[float]] = {
        "latent_loss": [],
        "video_reconstruction_loss": [],
        "audio_reconstruction_loss": [],
    }

    def head(name: str, state: np.ndarray) -> np.ndarray:
        return state @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    for clip in range(clips):
        for chunk in range(chunks - 1):
            video, audio = arrays["video_mask"][clip], arrays["audio_mask"][clip]
            if not (video[chunk] or audio[chunk]):
                continue
            state = states[clip, chunk]
            if video[chunk + 1] or audio[chunk + 1]:
                made, target = head("latent_head", state), combined[clip, chunk + 1]
                cosine = (made * target).sum(-1) / np.linalg.norm(made, axis=-1) / np.linalg.norm(target, axis=-1)
                error = (1 - cosine).mean() if kind == "cosine" else ((made - target) ** 2).mean()
                found["latent_loss"].append(error)
            if video[chunk + 1]:
                target = pooled(arrays["pixel_values_videos"][clip, chunk + 1].swapaxes(0, 1), (2, 4, 4)).ravel()
                made = head("video_head", state).ravel()[: target.size]
                found["video_reconstruction_loss"].append(((made - target) ** 2).mean())
            if audio[chunk + 1]:
                target = pooled(arrays["input_features"][clip, chunk + 1], (4, 4)).ravel()
                made = head("audio_head", state).ravel()[: target.size]
                found["audio_reconstruction_loss"].append(((made - target) ** 2).mean())
    return {name: float(np.mean(errors)) if errors else 0.0 for name, errors in found.items()}


@pytest.mark.parametrize("kind", ["cosine", "mse"])
@pytest.mark.parametrize("combiner", [{}, {"context": "causal", "output_tokens": "last"}, {"type": "ttm"}])
@pytest.mark.parametrize("damage", ["whole", "ragged", "modalities", "gap", "silent", "one left"])
def test_losses_are_means_over_what_is_present(
    media: Media, prompts: torch.Tensor, damage: str, combiner: dict[str, Any], kind: str
) -> None:
    batch = media(2, 5)
    video, audio = batch["video_mask"], batch["audio_mask"]
    if damage == "ragged":
        video[0, 2:] = audio[0, 2:] = 0
    elif damage == "modalities":
        video[0, 1] = video[1, 4] = audio[0, 0] = audio[1, 2:4] = 0
    elif damage == "gap":
        video[0, 2] = audio[0, 2] = video[1, 0] = audio[1, 0] = 0
    elif damage == "silent":
        audio[:] = 0
    elif damage == "one left":  # no pair of chunks in either clip
        video[:, 1:] = audio[:, 1:] = 0
    model = build(combiner_config=combiner, latent_loss=kind)
    absent = {"pixel_values_videos": video, "input_features": audio}
    for name, mask in absent.items():  # what stands in absent places must not matter
        batch[name][mask == 0] = 1e4
    outputs = model(input_ids=prompts, **batch, labels=labelled(prompts))
    for name, expected in losses_in_numpy(model, batch, outputs, kind).items():
        assert outputs[name].item() == pytest.approx(expected, rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("combiner", [{}, {"context": "causal"}, {"type": "ttm"}])
def test_what_stands_in_absent_chunks_reaches_no_gradient(
    media: Media, prompts: torch.Tensor, combiner: dict[str, Any], value: float
) -> None:
    batch, model = media(2, 4), build(combiner_config=combiner)
    batch["video_mask"][0, 1:] = batch["audio_mask"][0, 1:] = 0
    batch["video_mask"][1, 2] = batch["audio_mask"][1, 3] = 0

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        model(input_ids=prompts, **batch, labels=labelled(prompts)).loss.backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    expected = gradients()
    for name, mask in (("pixel_values_videos", "video_mask"), ("input_features", "audio_mask")):
        batch[name][batch[mask] == 0] = value
    torch.testing.assert_close(gradients(), expected)


def test_without_a_next_chunk_the_media_losses_are_zero(model: Any, media: Media, prompts: torch.Tensor) -> None:
    """As in a batch whose clips are padded: how far a clip is padded says nothing."""
    outputs = model(input_ids=prompts, **media(2, 1), labels=labelled(prompts))
    assert [outputs[name].item() for name in NAMES[1:]] == [0, 0, 0]
    torch.testing.assert_close(outputs.loss, outputs.text_loss)
    outputs.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_without_the_text_loss_the_rest_is_as_before(media: Media, prompts: torch.Tensor) -> None:
    model = build(text_loss_weight=0.0)
    outputs = model(input_ids=prompts, **media(), labels=labelled(prompts))
    assert outputs.text_loss is None
    torch.testing.assert_close(outputs.loss, sum(outputs[name] for name in NAMES[1:]))
    # a text without media then has nothing to learn from, but a training step does not fail
    model(input_ids=prompts, labels=labelled(prompts)).loss.backward()
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)


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


@pytest.mark.parametrize("combiner", [{}, {"context": "causal"}, {"type": "ttm"}])
def test_masking_acts_in_training_only_and_is_seeded(
    media: Media, prompts: torch.Tensor, combiner: dict[str, Any]
) -> None:
    model = build(combiner_config=combiner, time_config={"mask_ratio": 0.5})
    inputs = {"input_ids": prompts, **media(2, 4), "labels": labelled(prompts)}

    def losses(seed: int) -> list[float]:
        torch.manual_seed(seed)
        outputs = model(**inputs)
        return [outputs[name].item() for name in ("loss", *NAMES)]

    unmasked = losses(0)
    assert losses(1) == unmasked
    model.train()
    assert losses(0) == losses(0)
    assert losses(0) != losses(1)
    assert losses(0) != unmasked
    # the rest of the model is the same in training and out of it
    plain = build(combiner_config=combiner)
    expected = [plain(**inputs)[name] for name in ("loss", *NAMES)]
    torch.testing.assert_close([plain.train()(**inputs)[name] for name in ("loss", *NAMES)], expected)


def test_the_share_of_masked_features(media: Media) -> None:
    model = build(time_config={"mask_ratio": 0.3}).train()
    embeddings = model.model.time_model.embeddings
    with torch.no_grad():
        embeddings.mask_token.fill_(100.0)
    torch.manual_seed(0)
    masked = (embeddings(torch.zeros(8, 50, 3, 24)) > 50).all(-1).float()
    # 1200 features: five standard deviations of a binomial share are 0.066
    assert masked.mean().item() == pytest.approx(0.3, abs=0.066)
    assert masked.unflatten(1, (50, 3)).std(-1).mean() > 0  # single features, not whole chunks


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
