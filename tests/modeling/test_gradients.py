"""The gradient of the losses: it reaches every parameter, by name, in every preset and with every Combiner."""

from typing import Any

import pytest
import torch

from tests.modeling.preset_twins import twin, twin_media

LOSSES = ("text_loss", "latent_loss", "video_reconstruction_loss", "audio_reconstruction_loss")
WEIGHTS = {f"{name}_weight": weight for name, weight in zip(LOSSES, (10.0, 1.0, 0.5, 2.0), strict=True)}
COMBINERS: dict[str, dict[str, Any]] = {
    "chunk_learned": {},
    "chunk_last": {"output_tokens": "last"},
    "causal_learned": {"context": "causal"},
    "causal_last": {"context": "causal", "output_tokens": "last", "context_chunks": 2},
    "ttm": {"type": "ttm"},
    "ttm_mha": {"type": "ttm", "memory_mode": "tl_mha", "processing_unit": "mixer", "use_positional_embedding": True},
    "ttm_add_erase": {"type": "ttm", "memory_mode": "tl_add_erase", "processing_unit": "mlp"},
}
PROMPTS = torch.randint(3, 64, (2, 6), generator=torch.Generator().manual_seed(2))


def labels() -> torch.Tensor:
    chosen = PROMPTS.clone()
    chosen[:, :3] = -100
    return chosen


def cannot_learn(name: str, memory_mode: str) -> bool:
    """Parameters whose exact gradient is zero, so that only rounding reaches them.

    A softmax does not see what is added to all its inputs: the key's bias where no rotary position turns it, the last
    bias of a summary's weights. A LayerNorm does not see what is added to all channels: the last bias of token mixing.
    Official erasing and adding has, from a memory of zeros, one vector in all memory tokens: the softmax over them is
    constant, and all that leads to it stays as it is.
    """
    if memory_mode == "tl_add_erase" and name.startswith(("write.memory_norm", "write.slot_mlp")):
        return True
    return name.endswith(("k_proj.bias", "token_mlp.down_proj.bias")) or name in (
        "read.mlp.down_proj.bias",
        "write.mlp.down_proj.bias",
    )


def unreached(model: Any) -> list[str]:
    """Names of the parameters that get no gradient beyond rounding."""
    left = []
    for name, value in model.named_parameters():
        short = name.removeprefix("model.combiner.machine.")
        is_still = cannot_learn(short, model.config.combiner_config.memory_mode)
        threshold = -1.0 if is_still else 1e-7
        if value.grad is None or not value.grad.abs().max() > threshold:
            left.append(name)
    return left


@pytest.mark.parametrize("preset", ["tiny", "base", "3b"])
@pytest.mark.parametrize("combiner", COMBINERS)
def test_gradient_reaches_every_parameter(preset: str, combiner: str) -> None:
    sections = {"combiner_config": COMBINERS[combiner], "time_config": {"mask_ratio": 0.5}}
    model = twin(preset, **sections, **WEIGHTS).train()
    outputs = model(input_ids=PROMPTS, **twin_media(model.config), labels=labels())
    expected = sum(weight * outputs[name.removesuffix("_weight")] for name, weight in WEIGHTS.items())
    torch.testing.assert_close(outputs.loss, expected)
    outputs.loss.backward()
    assert unreached(model) == []


@pytest.mark.parametrize("preset", ["tiny", "base", "3b"])
def test_gradient_without_sound_and_through_an_open_gate(preset: str) -> None:
    model = twin(preset, audio_config=None, text_config={"cross_attention_gate": True}).train()
    media = twin_media(model.config)
    model(input_ids=PROMPTS, **media, labels=labels()).loss.backward()
    closed = unreached(model)
    gated = [name for name, _ in model.named_parameters() if ".cross_attn" in name and "gate" not in name]
    assert sorted(closed) == sorted(name for name in gated if not name.endswith("k_proj.bias"))
    with torch.no_grad():
        for layer in model.model.language_model.layers:
            layer.cross_attn_gate.fill_(0.5)
    model.zero_grad()
    model(input_ids=PROMPTS, **media, labels=labels()).loss.backward()
    assert unreached(model) == []


@pytest.mark.parametrize("combiner", ["chunk_learned", "causal_last", "ttm"])
def test_gradient_is_the_weighted_sum_of_those_of_each_loss(combiner: str) -> None:
    model = twin("tiny", combiner_config=COMBINERS[combiner], **WEIGHTS)
    names = [name for name, _ in model.named_parameters()]

    def gradients(name: str) -> list[torch.Tensor]:
        outputs = model(input_ids=PROMPTS, **twin_media(model.config), labels=labels())
        found = torch.autograd.grad(outputs[name], list(model.parameters()), allow_unused=True)
        return [torch.zeros(()) if value is None else value for value in found]

    parts = {name: gradients(name) for name in LOSSES}
    for index, (name, total) in enumerate(zip(names, gradients("loss"), strict=True)):
        expected = sum(WEIGHTS[f"{loss}_weight"] * parts[loss][index] for loss in LOSSES)
        torch.testing.assert_close(total, expected + torch.zeros_like(total), atol=1e-5, rtol=1e-4, msg=name)
    # the text is learnt from words alone, each head from its own loss
    for loss, head in zip(LOSSES[1:], ("latent_head", "video_head", "audio_head"), strict=True):
        for name, gradient in zip(names, parts[loss], strict=True):
            own = head in name
            others = "language_model" in name or "lm_head" in name or ("_head" in name and not own)
            assert not (others and gradient.any()), (loss, name)
            assert not own or gradient.any(), (loss, name)
