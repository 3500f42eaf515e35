"""Nothing leaks: changed later chunks change no earlier output, at any layer of the time-aligned part."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tests.modeling.small_models import build

Media = Callable[..., dict[str, torch.Tensor]]
CHUNKS = 5
COMBINERS: dict[str, dict[str, Any]] = {
    "chunk": {},
    "chunk_last": {"output_tokens": "last"},
    "causal": {"context": "causal"},
    "causal_last": {"context": "causal", "output_tokens": "last"},
    "causal_2": {"context": "causal", "context_chunks": 2},
    "ttm": {"type": "ttm"},
    "ttm_positions": {"type": "ttm", "use_positional_embedding": True},
    "ttm_mha": {"type": "ttm", "memory_mode": "tl_mha", "processing_unit": "mixer"},
    "ttm_add_erase": {"type": "ttm", "memory_mode": "tl_add_erase", "processing_unit": "mlp"},
}
TIME_ALIGNED = ("video_tower", "audio_tower", "video_projection", "audio_projection", "combiner", "time_model")


def by_chunk(output: torch.Tensor) -> torch.Tensor | None:
    """[K, …] of an output of one clip, by which of its axes counts chunks; `None` where none does."""
    if output.shape[0] == CHUNKS:  # towers and the Combiner of single chunks
        return output
    if output.ndim > 2 and output.shape[1] == CHUNKS:  # [B, K, …]
        return output[0]
    if output.ndim == 3 and output.shape[0] == 1 and output.shape[1] % CHUNKS == 0:  # [B, K·n, D]
        return output[0].unflatten(0, (CHUNKS, -1))
    return None


def record(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The output of every module of the time-aligned part, its chunks first; one step of a memory is one chunk."""
    calls: dict[str, list[torch.Tensor]] = {}
    handles = []

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            tensors = output if isinstance(output, tuple) else [output]
            for place, tensor in enumerate(tensors):
                if isinstance(tensor, torch.Tensor) and tensor.ndim > 1:
                    calls.setdefault(f"{name}:{place}", []).append(tensor.detach().clone())

        return hook

    for name, module in model.model.named_modules():
        if name.startswith(TIME_ALIGNED):
            handles.append(module.register_forward_hook(keep(name)))
    encoded = model.encode_media(**batch)
    for handle in handles:
        handle.remove()
    calls["media_hidden_states"], calls["combined_features"] = (
        [encoded.media_hidden_states],
        [encoded.combined_features],
    )
    found = {}
    for name, outputs in calls.items():
        if len(outputs) == CHUNKS and name.startswith("combiner.machine"):
            found[name] = torch.stack(outputs)
        elif len(outputs) == 1 and (chunks := by_chunk(outputs[0])) is not None:
            found[name] = chunks
    return found


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("combiner", COMBINERS)
def test_later_chunks_reach_no_earlier_output_of_any_layer(media: Media, combiner: str, window: int | None) -> None:
    model = build(combiner_config=COMBINERS[combiner], time_config={"attention_window": window})
    batch = media(1, CHUNKS)
    before = record(model, batch)
    layers = [name for name, module in model.model.named_modules() if name.startswith(TIME_ALIGNED)]
    layers = [name for name in layers if name.rpartition(".")[0].endswith("layers")]
    assert len(layers) >= 5
    assert not [name for name in layers if f"{name}:0" not in before]  # all of them were heard
    generator = torch.Generator().manual_seed(9)
    for first in range(1, CHUNKS):
        for changed in (("pixel_values_videos",), ("input_features",), ("pixel_values_videos", "input_features")):
            other = dict(batch)
            for name in changed:
                noise = 5 * torch.randn(batch[name].shape, generator=generator)
                noise[:, :first] = 0
                other[name] = batch[name] + noise
            after = record(model, other)
            assert set(after) == set(before)
            for name, chunks in after.items():
                earlier = (chunks - before[name])[:first].abs().max().item()
                assert earlier <= 1e-5, (name, first, changed, earlier)
            for name in ("media_hidden_states", "combined_features"):  # the change was felt
                moved = (after[name] - before[name])[first].abs().max()
                assert moved > 1e-3, (name, first, changed)


@torch.no_grad()
@pytest.mark.parametrize("combiner", COMBINERS)
@pytest.mark.parametrize("fate", ["appear", "vanish"])
def test_whether_later_chunks_exist_changes_no_earlier_output(media: Media, combiner: str, fate: str) -> None:
    model, batch = build(combiner_config=COMBINERS[combiner]), media(2, CHUNKS)
    if fate == "appear":
        batch["audio_mask"][:, 3:] = 0
    other = {name: value.clone() for name, value in batch.items()}
    other["audio_mask"][0, 3:] = 1 if fate == "appear" else 0
    other["video_mask"][0, 4:] = 0
    expected, actual = model.encode_media(**batch), model.encode_media(**other)
    for name in ("media_hidden_states", "combined_features"):
        first, second = (output[name].flatten(1, -2) for output in (expected, actual))
        torch.testing.assert_close(second[:, : 3 * 3], first[:, : 3 * 3], atol=1e-5, rtol=0)
        assert (second[0, 9:] - first[0, 9:]).abs().max() > 1e-3


def test_a_hook_would_see_a_leak(media: Media) -> None:
    """The search itself: with a time model that sees everything, it finds the leak in the first layer."""
    model, batch = build(), media(1, CHUNKS)
    other = {**batch, "input_features": batch["input_features"].clone()}
    other["input_features"][:, 3:] += 3
    for layer in model.model.time_model.layers:
        plain = layer.self_attn.forward
        layer.self_attn.forward = lambda states, mask, *rest, plain=plain, **more: plain(states, None, *rest, **more)
    with torch.no_grad():
        before, after = record(model, batch), record(model, other)
    leaks = [name for name in before if (after[name] - before[name])[:3].abs().max() > 1e-3]
    assert "time_model.layers.0:0" in leaks
    assert not [name for name in leaks if not name.startswith(("time_model", "media_hidden_states"))]
