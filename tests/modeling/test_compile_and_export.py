"""Compiled and exported programs give what the model gives."""

import copy
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.exporters.base import ExportedModel
from transformers.exporters.exporter_dynamo import DynamoConfig, DynamoExporter
from transformers.exporters.utils import decompose_for_generation

from mirasol_hf.modeling.media_encoding_mirasol import MirasolMediaEncoder
from mirasol_hf.modeling.text_cache_mirasol import CACHE_NAME, MirasolDynamicCache
from tests.modeling import generation_references as references
from tests.modeling.small_models import build

Media = Callable[..., dict[str, torch.Tensor]]
COMBINERS = [
    pytest.param({}, id="by chunk"),
    pytest.param({"type": "ttm", "use_positional_embedding": True}, id="memory"),
    pytest.param({"context": "causal"}, id="causal", marks=pytest.mark.slow),
    pytest.param({"output_tokens": "last"}, id="last outputs", marks=pytest.mark.slow),
]


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def ragged(media: Media, clips: int = 2, chunks: int = 3, seed: int = 1) -> dict[str, torch.Tensor]:
    """Chunks that do not exist, chunks without one modality; and what stands in an absent chunk is no number."""
    batch = media(clips, chunks, seed=seed)
    batch["video_mask"][-1, 1:] = batch["audio_mask"][-1, 2:] = batch["audio_mask"][0, 0] = 0
    batch["pixel_values_videos"][batch["video_mask"] == 0] = torch.nan
    batch["input_features"][batch["audio_mask"] == 0] = torch.inf
    return batch


def assert_same_media(actual: Any, expected: Any) -> None:
    mask = expected.media_attention_mask.bool()
    assert torch.equal(actual.media_attention_mask.bool(), mask)
    torch.testing.assert_close(
        actual.media_hidden_states[mask], expected.media_hidden_states[mask], atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(actual.combined_features, expected.combined_features, atol=1e-5, rtol=1e-5)


def check_compiled_media(model: Any, batches: list[dict[str, torch.Tensor]], backend: str) -> None:
    torch.compiler.reset()
    compiled = torch.compile(model.encode_media, fullgraph=True, dynamic=False, backend=backend)
    with torch._dynamo.config.patch(error_on_recompile=True):  # which chunks exist must not matter
        for batch in batches:
            assert_same_media(compiled(**batch), model.encode_media(**batch))


@pytest.mark.parametrize("combiner", COMBINERS)
def test_media_encoding_compiles_without_graph_breaks(media: Media, combiner: dict[str, Any]) -> None:
    model = build(combiner_config=combiner)
    nothing = {**media(2, 3), "video_mask": torch.zeros(2, 3).long(), "audio_mask": torch.zeros(2, 3).long()}
    check_compiled_media(model, [ragged(media), media(2, 3), nothing], backend="eager")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pixel_values_videos", "input_features"])
def test_one_modality_compiles_without_graph_breaks(model: Any, media: Media, name: str) -> None:
    check_compiled_media(model, [{name: media(2, 3)[name]}], backend="eager")
    mask = name.replace("pixel_values_videos", "video").replace("input_features", "audio") + "_mask"
    batch = ragged(media)
    check_compiled_media(model, [{name: batch[name], mask: batch[mask]}], backend="eager")


@pytest.mark.slow
def test_media_encoding_compiled_to_machine_code(model: Any, media: Media) -> None:
    check_compiled_media(model, [ragged(media), media(2, 3)], backend="inductor")


@pytest.mark.parametrize("combiner", COMBINERS)
def test_the_media_encoder_exported_alone(media: Media, combiner: dict[str, Any]) -> None:
    model = build(combiner_config=combiner)
    exported = DynamoExporter().export(MirasolMediaEncoder(model.model), ragged(media), DynamoConfig())
    assert not any("language_model" in name for name in exported.program.state_dict)
    for batch in (ragged(media), media(2, 3, seed=5)):
        assert_same_media(exported(**batch), model.encode_media(**batch))


def test_the_whole_model_exported(model: Any, media: Media, prompts: torch.Tensor) -> None:
    inputs = {"input_ids": prompts, "attention_mask": torch.ones_like(prompts), **ragged(media)}
    exported = DynamoExporter().export(model, {**inputs, "use_cache": False}, DynamoConfig())
    torch.testing.assert_close(exported(**inputs).logits, model(**inputs).logits, atol=1e-5, rtol=1e-5)


def test_prefill_and_decode(model: Any, media: Media, prompts: torch.Tensor) -> None:
    inputs = {"input_ids": prompts, **ragged(media)}
    exported = DynamoExporter().export_for_generation(model, copy.deepcopy(inputs), DynamoConfig())
    stages = decompose_for_generation(model, inputs)
    assert set(exported.components) == set(stages) == {"prefill", "decode"}
    for name, (part, arguments) in stages.items():
        assert "pixel_values_videos" not in arguments
        expected = part(**copy.deepcopy(arguments))
        given = {key: value for key, value in arguments.items() if key in exported.components[name].metadata.kwargs}
        actual = exported.runners[name](**copy.deepcopy(given))
        torch.testing.assert_close(actual.logits, expected.logits, atol=1e-5, rtol=1e-5)
        for ours, theirs in zip(actual[CACHE_NAME].layers, expected[CACHE_NAME].layers, strict=True):
            torch.testing.assert_close(ours.keys, theirs.keys, atol=1e-5, rtol=1e-5)


def decode_with_programs(
    exported: ExportedModel, cache: Any, memory: dict[str, torch.Tensor], prompts: torch.Tensor, steps: int
) -> torch.Tensor:
    """Greedy decoding by the programs of an export alone."""
    sequences, rows = prompts, prompts.shape[0]
    positions = torch.arange(prompts.shape[1] + steps).expand(rows, -1)
    outputs = exported.runners["prefill"](
        input_ids=prompts, position_ids=positions[:, : prompts.shape[1]], **{CACHE_NAME: cache}, **memory
    )
    for step in range(steps):
        sequences = torch.cat((sequences, outputs.logits[:, -1:].argmax(-1)), dim=1)
        if step < steps - 1:
            place = sequences.shape[1] - 1
            outputs = exported.runners["decode"](
                input_ids=sequences[:, -1:],
                position_ids=positions[:, place : place + 1],
                **{CACHE_NAME: outputs[CACHE_NAME]},
            )
    return sequences


@pytest.mark.slow
def test_programs_for_all_shapes_generate_what_the_model_does(
    model: Any, media: Media, prompts: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch 2.13 logs a warning that cannot be formatted when it loads a program with a cache among its inputs
    monkeypatch.setattr(logging.getLogger("torch._export.serde.serialize"), "disabled", True)
    exporter, config = DynamoExporter(), DynamoConfig(dynamic=True)
    encoder = exporter.export(MirasolMediaEncoder(model.model), ragged(media), config)
    exporter.export_for_generation(
        model, {"input_ids": prompts, **ragged(media)}, config, multi_token_decode=True
    ).save_pretrained(tmp_path)
    decoder = ExportedModel.from_pretrained(tmp_path)
    for clips, chunks, length in ((2, 3, 6), (3, 5, 9)):
        batch = ragged(media, clips, chunks)
        text = torch.randint(3, 64, (clips, length), generator=torch.Generator().manual_seed(7))
        encoded = encoder(**batch)
        assert_same_media(encoded, model.encode_media(**batch))
        memory = {name: encoded[name] for name in ("media_hidden_states", "media_attention_mask")}
        generated = decode_with_programs(decoder, MirasolDynamicCache(config=model.config), memory, text, 6)
        assert torch.equal(generated, references.greedy(model, text, 6, **batch))


LOAD = """
import sys, torch, mirasol_hf
from transformers.exporters.base import ExportedModel
from transformers.exporters.exporter_dynamo import register_pytree_node
from mirasol_hf.modeling.text_cache_mirasol import CACHE_NAME, MirasolDynamicCache

register_pytree_node(MirasolDynamicCache)
exported = ExportedModel.from_pretrained(sys.argv[1])
inputs, logits = torch.load(sys.argv[2])
cache = MirasolDynamicCache(config=exported.config)
actual = exported.runners["prefill"](**{CACHE_NAME: cache}, **inputs).logits
torch.testing.assert_close(actual, logits, atol=1e-5, rtol=1e-5)
print("same")
"""


@pytest.mark.slow
def test_a_saved_export_runs_in_another_process(
    model: Any, media: Media, prompts: torch.Tensor, tmp_path: Path
) -> None:
    batch = {"input_ids": prompts, **ragged(media)}
    DynamoExporter().export_for_generation(model, batch, DynamoConfig()).save_pretrained(tmp_path / "exported")
    encoded = model.encode_media(**ragged(media))
    inputs = {
        "input_ids": prompts,
        "position_ids": torch.arange(6).expand(2, -1),
        "media_hidden_states": encoded.media_hidden_states,
        "media_attention_mask": encoded.media_attention_mask,
    }
    torch.save((inputs, model(**batch).logits), tmp_path / "expected.pt")
    command = [sys.executable, "-W", "ignore", "-c", LOAD, str(tmp_path / "exported"), str(tmp_path / "expected.pt")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "same"
