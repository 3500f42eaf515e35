"""Files of a checkpoint that may not be read, or ask for more than they hold, are refused before anything is built."""

import json
import pickle
import resource
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMultimodalLM

from mirasol_hf.modeling.configuration_mirasol import MirasolConfig
from mirasol_hf.modeling.modeling_mirasol import MirasolForConditionalGeneration, MirasolModel
from mirasol_hf.modeling.strict_config_mirasol import LARGEST
from mirasol_hf.training.adapters import adapter_config, load_adapter
from tests.modeling.small_models import build, small_config

WEIGHTS = "model.safetensors"
SECTIONS = tuple(MirasolConfig.sub_configs_defaults)


class Trap:
    """Unpickled, it leaves a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
@pytest.mark.parametrize("loads", [AutoModelForMultimodalLM, MirasolModel])
def test_pickled_weights_are_refused(folder: Path, name: str, loads: Any) -> None:
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    if name != "pytorch_model.bin":
        (folder / "pytorch_model.bin").rename(folder / "pytorch_model-00001-of-00001.bin")
        parts = dict.fromkeys(tensors, "pytorch_model-00001-of-00001.bin")
        (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": parts}))
    with pytest.raises(ValueError, match=rf"{folder}/{name} is a pickle.*docs/hub.md"):
        loads.from_pretrained(folder)
    with pytest.raises(ValueError, match="use_safetensors=False asks for a pickle"):
        loads.from_pretrained(folder, use_safetensors=False)


@pytest.mark.parametrize("part", ["trap.bin", "../outside.safetensors", "/tmp/outside.safetensors", 3])
def test_a_list_of_parts_names_safetensors_files_beside_it(folder: Path, part: Any) -> None:
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).rename(folder.parent / "outside.safetensors")
    (folder / "trap.bin").write_bytes(pickle.dumps(Trap(folder / "sprung")))
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(tensors, part)}))
    with pytest.raises(ValueError, match=rf"{index} (names|lacks)"):
        AutoModelForMultimodalLM.from_pretrained(folder, weights_only=False)
    assert not (folder / "sprung").exists()


@pytest.mark.parametrize("by", ["package", "library", "folder"])
def test_a_pickled_adapter_is_refused(tmp_path: Path, folder: Path, by: str) -> None:
    adapted = get_peft_model(MirasolForConditionalGeneration.from_pretrained(folder), adapter_config("text"))
    adapter = tmp_path / "adapter"
    adapted.save_pretrained(adapter)
    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    model = build()
    with pytest.raises(ValueError, match=rf"{adapter}/adapter_model.bin is a pickle"):
        if by == "package":
            load_adapter(model, adapter)
        elif by == "library":
            model.load_adapter(adapter)
        else:
            AutoModelForMultimodalLM.from_pretrained(adapter)


def test_the_documented_conversion(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["lm_head.weight"] = tensors["model.language_model.embed_tokens.weight"]  # one tensor under two names
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    page = (Path(__file__).parents[2] / "docs" / "hub.md").read_text()
    code = next(part.split("```")[0] for part in page.split("```python notest\n")[1:] if "pytorch_model.bin" in part)
    monkeypatch.chdir(folder)
    exec(code, {})
    again = AutoModelForMultimodalLM.from_pretrained(folder)
    for name, tensor in build().state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def _sizes() -> list[tuple[str, str]]:
    """Every whole number of every section, and those that lists of the section hold."""
    found = []
    for section in SECTIONS:
        config = getattr(MirasolConfig(), section)
        for name in type(config).__annotations__:
            value = getattr(config, name)
            entry = value[0] if isinstance(value, (list, tuple)) and value else value
            entry = entry[0] if isinstance(entry, (list, tuple)) else entry
            if type(entry) is int:
                found.append((section, name))
    return found


@pytest.mark.parametrize(("section", "name"), _sizes())
def test_no_size_is_without_bound(tmp_path: Path, section: str, name: str) -> None:
    small_config().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    value = config[section][name]
    huge = [10**12] * len(value) if isinstance(value, list) else 10**12
    if isinstance(value, list) and isinstance(value[0], list):
        huge = [[10**12] * 3 for _ in value]
    config[section][name] = huge
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=rf"{section}\.{name}=.* is too large; expected at most \d+ .*{path}"):
        MirasolConfig.from_pretrained(tmp_path)


_QUICK = {("video_config", "image_size"), ("combiner_config", "memory_size"), ("text_config", "vocab_size")}
_QUICK |= {("text_config", "hidden_size"), ("audio_config", "num_steps")}


@pytest.mark.parametrize(
    ("section", "name"),
    [pytest.param(*size, marks=() if size in _QUICK else pytest.mark.slow) for size in _sizes()],
)
def test_sizes_within_the_bounds_cost_no_more_than_the_weights(folder: Path, section: str, name: str) -> None:
    """The largest value that is allowed, beside weights of a tiny model."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if isinstance(config[section][name], list):
        return
    config[section][name] = LARGEST.get(name, 2**31 - 1)
    path.write_text(json.dumps(config))
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    try:
        AutoModelForMultimodalLM.from_pretrained(folder)
    except ValueError as error:
        assert len(str(error)) <= 300
    assert time.monotonic() - began < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


def test_a_model_much_larger_than_its_weights_is_not_allocated(tmp_path: Path) -> None:
    small_config(text_config={"vocab_size": 4_000_000, "hidden_size": 64 * 24}).save_pretrained(tmp_path)
    save_file({"model.video_projection.bias": torch.zeros(24)}, tmp_path / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"config.json describes a model of \d{11} values.* are 24"):
        AutoModelForMultimodalLM.from_pretrained(tmp_path, output_loading_info=True)


@pytest.mark.parametrize(
    ("section", "fields"),
    [
        ("video_config", {"image_size": 4096, "tube_strides": ((2, 8, 8), (4, 8, 8))}),
        ("video_config", {"reconstruction_size": (1000, 1000, 1000)}),
        ("audio_config", {"num_steps": 16_384, "num_mel_bins": 1024, "patch_size": (1, 1)}),
        ("audio_config", {"reconstruction_size": (1000, 1000)}),
        ("text_config", {"num_labels": 10**9}),
    ],
)
def test_products_of_sizes_are_bounded(section: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"{section}.*expected at most"):
        small_config(**{section: fields})


def test_weights_of_the_caller_need_no_folder() -> None:
    model = build()
    again = MirasolForConditionalGeneration.from_pretrained(None, config=model.config, state_dict=model.state_dict())
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
