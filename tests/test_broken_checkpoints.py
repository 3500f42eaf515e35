"""A saved checkpoint, broken in many ways: one line that names the file and what is wrong with it, never more."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mirasol_hf import MirasolFeatureExtractor, MirasolProcessor, MirasolVideoProcessor
from mirasol_hf.cli.loading import load_pipeline
from mirasol_hf.modeling.modeling_mirasol import MirasolForConditionalGeneration
from mirasol_hf.training.tokenizer import train_tokenizer
from tests.modeling.small_models import build

NAN, INFINITE = float("nan"), float("inf")
FILES = ("config.json", "generation_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json")
CONTENTS = {"empty": b"", "open": b"{", "null": b"null", "list": b"[]", "number": b"3", "bytes": b"\xff\xfe\0"}
CONTENTS["deep"] = b"[" * 100_000

# file, keys and index on the way to a value, what is written there


def _each(file: str, names: str, *values: Any) -> list[tuple[str, str, Any]]:
    return [(file, name, value) for name in names.split() for value in values]


CONFIG, GENERATION, PROCESSOR, TOKENIZER = FILES[:4]
VALUES: list[tuple[str, str, Any]] = [
    *_each(CONFIG, "video_config.hidden_size text_config.hidden_size", "big", None, 0, -1, 1.5, 10**9, 48),
    *_each(CONFIG, "video_config combiner_config", "big", 3, [], {"x": 1}),
    *_each(CONFIG, "audio_config.sampling_rate audio_config.num_steps", 0, -16_000, 10**9, "fast"),
    *_each(CONFIG, "text_config.num_hidden_layers text_config.vocab_size", True, {}, 10**9),
    *_each(CONFIG, "text_config.rope_parameters", {"rope_theta": 0}, {"rope_type": "longrope"}),
    (CONFIG, "text_config.rms_norm_eps", NAN),
    (CONFIG, "text_config.pad_token_id", -3),
    (CONFIG, "text_config.id2label", 5),
    (CONFIG, "text_config.hidden_act", "gulu"),
    (CONFIG, "video_config.tube_kernels", [[1, "8", 8], [4, 4, 4]]),
    (CONFIG, "video_config.image_size", [16, 16]),
    (CONFIG, "latent_loss_weight", INFINITE),
    (CONFIG, "hiden_size", 3),
    *_each(GENERATION, "num_beams max_new_tokens", 0, "x", 10**9),
    (GENERATION, "temperature", NAN),
    (GENERATION, "eos_token_id", ["x"]),
    *_each(PROCESSOR, "video_processor.image_std video_processor.image_mean", [NAN, 0.5, 0.5], "x", [0.5, 0.5], None),
    (PROCESSOR, "video_processor.image_std", [0, 0, 0]),
    (PROCESSOR, "video_processor.rescale_factor", 0),
    *_each(PROCESSOR, "video_processor.size", {"height": 10**9, "width": 16}, {"height": -1, "width": 16}),
    *_each(PROCESSOR, "video_processor.size", {"height": 16.5, "width": 16}, "big", {"shortest_edge": 16}),
    *_each(PROCESSOR, "video_processor.num_frames video_processor.num_chunks", 0, -1, "x", 10**9),
    (PROCESSOR, "video_processor.do_normalize", "yes"),
    (PROCESSOR, "video_processor.num_frame", 3),
    *_each(PROCESSOR, "feature_extractor.sampling_rate feature_extractor.num_mel_bins", 0, -1, "x", 10**9),
    *_each(
        PROCESSOR, "feature_extractor.num_steps feature_extractor.n_fft feature_extractor.win_length", 0, "x", 10**9
    ),
    *_each(PROCESSOR, "feature_extractor.db_scale feature_extractor.mel_floor", 0, NAN, "x"),
    *_each(PROCESSOR, "feature_extractor.max_hop_seconds", 0, 1e-12, NAN),
    (PROCESSOR, "feature_extractor.min_frequency", 8000.0),
    (PROCESSOR, "feature_extractor.num_melbins", 64),
    (PROCESSOR, "feature_extractor", 3),
    (PROCESSOR, "video_processor", None),
    *_each(PROCESSOR, "prompt_template", "{context}", 3),
    (TOKENIZER, "model", None),
    (TOKENIZER, "model.vocab", [1]),
    (TOKENIZER, "added_tokens", {"a": 1}),
    (TOKENIZER, "pre_tokenizer.type", "Unknown"),
    ("tokenizer_config.json", "pad_token", 5),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    build(text_config={"vocab_size": 300}).save_pretrained(folder)
    MirasolProcessor(
        MirasolVideoProcessor(size={"height": 16, "width": 16}, num_frames=4),
        MirasolFeatureExtractor(num_mel_bins=16, num_steps=8),
        train_tokenizer(["what is shown ?"], vocab_size=280),
    ).save_pretrained(folder)
    load_pipeline(str(folder))
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "broken"))


def _refused(folder: Path, file: str, *words: str) -> None:
    """By the class that reads the file; of a damaged file and a wrong tensor, also by what all commands load with."""
    loads: Callable = MirasolProcessor.from_pretrained
    if file.endswith(("model.safetensors", "index.json")) or file in ("config.json", "generation_config.json"):
        loads = MirasolForConditionalGeneration.from_pretrained
    for door in (loads, load_pipeline) if words else (loads,):
        with pytest.raises(ValueError) as caught:
            door(str(folder))
        text = str(caught.value)
        assert text.count(str(folder)) == 1 and "\n" not in text, text
        assert len(text) - len(str(folder)) <= 260, text
        assert all(word in text for word in words), text


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_no_object_is_named(folder: Path, file: str, content: str) -> None:
    (folder / file).write_bytes(CONTENTS[content])
    _refused(folder, file, file)


@pytest.mark.parametrize("file", [*FILES, "model.safetensors"])
def test_a_file_that_was_cut_off_is_named(folder: Path, file: str) -> None:
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    _refused(folder, file, file)


@pytest.mark.parametrize("file", ["processor_config.json", "tokenizer.json"])
def test_a_file_that_is_not_there_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    _refused(folder, file, file)


def test_a_tokenizer_without_a_padding_token_asks_nothing(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ValueError, match=rf"the tokenizer of {folder} has no padding token"):
        load_pipeline(str(folder))


@pytest.mark.parametrize(("file", "place", "value"), VALUES)
def test_a_wrong_value_is_named(folder: Path, file: str, place: str, value: Any) -> None:
    content = json.loads((folder / file).read_text())
    *parents, last = place.split(".")
    target = content
    for key in parents:
        target = target[key]
    target[last] = value
    (folder / file).write_text(json.dumps(content))
    _refused(folder, file)
    if place.startswith(("video_processor.", "feature_extractor.")):
        with pytest.raises(ValueError, match=rf"{last}.*{folder / file}\)$"):
            MirasolProcessor.from_pretrained(folder)


@pytest.mark.parametrize("change", ["shape", "missing", "unknown"])
def test_a_wrong_tensor_is_named(folder: Path, change: str) -> None:
    path = folder / "model.safetensors"
    tensors, name = load_file(path), "model.video_projection.weight"
    if change == "shape":
        tensors[name] = torch.zeros(5, 24)
    else:
        kept = tensors.pop(name)
        if change == "unknown":
            tensors["model.vido_projection.weight"] = kept
    save_file(tensors, path, metadata={"format": "pt"})
    _refused(
        folder, "model.safetensors", "video_projection.weight", *(["(5, 24)", "(24, 24)"] if change == "shape" else [])
    )


def test_the_command_line_tells_it_in_one_line(folder: Path, refused_command: Callable) -> None:
    (folder / "processor_config.json").write_text("null")
    assert str(folder / "processor_config.json") in refused_command("ask", "clip.mp4", "what?", "--model", folder)


@pytest.fixture
def refused_command(capsys: pytest.CaptureFixture) -> Callable:
    from mirasol_hf.cli import main

    def run(*words: Any) -> str:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        lines = capsys.readouterr().err.splitlines()
        assert ended.value.code == 2 and len(lines) == 1
        return lines[0]

    return run
