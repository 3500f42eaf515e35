"""What a run must keep in memory, computed without any, against what the machine has free."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

from mirasol_hf.modeling.configuration_mirasol import MirasolConfig
from mirasol_hf.modeling.modeling_mirasol import MirasolForConditionalGeneration
from mirasol_hf.training.optimizer import linear_weights
from mirasol_hf.training.recipe import Recipe

_CONTROL_GROUPS = Path("/sys/fs/cgroup")
# the hierarchies of control groups (version 2 has no name): folder, limit, use, and the entry of what can be dropped
_GROUPS = {
    "": ("", "memory.max", "memory.current", "inactive_file"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def check_memory(recipe: Recipe) -> None:
    """Compare what the model of a recipe takes in training with what is free.

    Raises:
        ValueError: there is less; both are named. Activations come on top and depend on the clips.
    """
    needs = training_bytes(recipe)
    places = [("main memory", needs, free_bytes())]
    if torch.cuda.is_available():
        # the model is made in main memory and moved
        places = [("main memory", {"weights": needs["weights"]}, free_bytes())]
        places.append(("the GPU's memory", needs, torch.cuda.mem_get_info()[0]))
    for place, parts, free in places:
        if sum(parts.values()) > free:
            listed = ", ".join(f"{name} {_gib(size)}" for name, size in parts.items())
            raise ValueError(
                f"recipe {recipe.name} with preset {recipe.preset} needs at least {_gib(sum(parts.values()))} GiB of "
                f"{place} ({listed}), {_gib(free)} GiB are free; --force starts all the same"
            )


def training_bytes(recipe: Recipe) -> dict[str, int]:
    """Bytes that the weights of a recipe's model take while it is trained, by what they are for.

    All are float32, with bfloat16 autocast too. AdamW keeps two numbers for each weight, Muon one for each weight of
    its matrices.
    """
    with torch.device("meta"):
        model = MirasolForConditionalGeneration(MirasolConfig.from_preset(recipe.preset, **recipe.config))
    weights = sum(parameter.numel() for parameter in model.parameters())
    by_muon = sum(matrix.numel() for matrix in linear_weights(model)) if recipe.optimisation.muon_scale else 0
    buffers = sum(buffer.numel() for buffer in model.buffers())
    counts = {"weights": weights, "gradients": weights, "optimizer": 2 * weights - by_muon, "buffers": buffers}
    return {name: 4 * count for name, count in counts.items()}


def free_bytes() -> int:
    """Main memory that this process may still take: of the machine, and of the control groups that a container has."""
    return min([psutil.virtual_memory().available, *_free_in_groups()])


def _free_in_groups() -> list[int]:
    """What each control group that holds this process leaves; pages of files that can be dropped are not taken."""
    found = []
    for kind, own in _own_groups().items():
        root, limit, used, droppable = _GROUPS[kind]
        for folder in (_CONTROL_GROUPS / root / own, *(_CONTROL_GROUPS / root / own).parents):
            if not folder.is_relative_to(_CONTROL_GROUPS / root):
                break
            try:
                numbers = dict(line.split() for line in (folder / "memory.stat").read_text("utf-8").splitlines())
                taken = int((folder / used).read_text("utf-8")) - int(numbers[droppable])
                found.append(int((folder / limit).read_text("utf-8")) - taken)
            except (OSError, ValueError, KeyError):  # no such group, or "max", no limit
                continue
    return found


def _own_groups() -> dict[str, str]:
    """The path of this process's control group in each hierarchy that may limit memory."""
    try:
        lines = Path("/proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        return {}
    paths = (line.split(":", 2) for line in lines)
    return {kind: path.lstrip("/") for _, kind, path in paths if kind in _GROUPS}


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f}"
