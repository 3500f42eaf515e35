"""A model that does not fit is refused before anything of it is made, with what it needs and what there is."""

from collections import namedtuple
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from mirasol_hf.cli import main
from mirasol_hf.modeling.configuration_mirasol import MirasolConfig
from mirasol_hf.modeling.modeling_mirasol import MirasolForConditionalGeneration
from mirasol_hf.training import memory, train
from mirasol_hf.training.memory import check_memory, free_bytes, training_bytes
from mirasol_hf.training.recipe import load_recipe

GIB = 2**30
Memory = namedtuple("Memory", "available")


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for part in value.values() for tensor in _tensors(part)]
    return [tensor for part in value for tensor in _tensors(part)] if isinstance(value, (list, tuple)) else []


@pytest.mark.parametrize("muon", [0, 3])
def test_the_forecast_is_what_a_step_leaves_behind(muon: int) -> None:
    recipe = load_recipe("avscenes-tiny", [f"optimisation.muon_scale={muon}"])
    forecast = training_bytes(recipe)
    model = MirasolForConditionalGeneration(MirasolConfig.from_preset("tiny", **recipe.config))
    optimizer = train.build_optimizer(recipe.optimisation, model) or torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    kept = {
        "weights": list(model.parameters()),
        "gradients": [parameter.grad for parameter in model.parameters()],
        "optimizer": [tensor for tensor in _tensors(optimizer.state_dict()) if tensor.ndim],  # not the step's number
        "buffers": list(model.buffers()),
    }
    for name, tensors in kept.items():
        assert forecast[name] == sum(tensor.nbytes for tensor in tensors), name


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(20 * GIB))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(memory, "_CONTROL_GROUPS", Path("/nonexistent"))


def test_3b_is_refused_on_a_small_machine(
    small_machine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    made: list[Any] = []
    monkeypatch.setattr(train, "_train", lambda *arguments: made.append(arguments))
    words = ["train", "--recipe", "avscenes-tiny", "--output-dir", str(tmp_path / "run"), "preset=3b"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and not made and not (tmp_path / "run").exists()
    assert "preset 3b needs at least 34.0 GiB" in line and "(weights 11." in line
    assert "20.0 GiB are free; --force" in line
    with pytest.raises(SystemExit) as ended:
        main([*words, "--force"])
    assert not ended.value.code and len(made) == 1


def test_the_shipped_recipe_fits_a_small_machine(small_machine: None) -> None:
    check_memory(load_recipe("avscenes-tiny"))


@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_of_a_container_counts(
    small_machine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    assert free_bytes() == 20 * GIB
    monkeypatch.setattr(memory, "_CONTROL_GROUPS", tmp_path)
    kind, limit_file, used_file, droppable = {
        1: ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("", "memory.max", "memory.current", "inactive_file"),
    }[version]
    monkeypatch.setattr(memory, "_own_groups", lambda: {kind: "pod/container"})
    group = tmp_path / kind / "pod" / "container"
    group.mkdir(parents=True)
    for folder, limit in ((group, "max" if version == 2 else str(2**63 - 4096)), (group.parent, str(4 * GIB))):
        (folder / limit_file).write_text(limit + "\n")
        (folder / used_file).write_text(f"{2 * GIB}\n")
        (folder / "memory.stat").write_text(f"anon {GIB}\n{droppable} {GIB}\n")
    assert free_bytes() == 3 * GIB


def test_on_a_gpu_main_memory_holds_the_weights_alone(small_machine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (79 * GIB, 80 * GIB))
    recipe = load_recipe("avscenes-tiny", ["preset=3b"])
    check_memory(recipe)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (15 * GIB, 16 * GIB))
    with pytest.raises(ValueError, match=r"of the GPU's memory .* 15\.0 GiB are free"):
        check_memory(recipe)
