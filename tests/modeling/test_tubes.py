"""Tubes against TubeViT's equations: layouts, centres, positions and tokens."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mirasol_hf.modeling.attention_mirasol import sincos_positions
from mirasol_hf.modeling.video_tower_mirasol import MirasolTube, tube_centres, tube_grid

GOLDEN = Path(__file__).parents[1] / "golden" / "tubevit"
LAYOUTS = json.loads((GOLDEN / "layouts.json").read_text())
POSITIONS = np.load(GOLDEN / "positions.npz")


def shapes(tube: dict[str, Any]) -> tuple[Any, Any, Any]:
    return tube["kernel"], tube["stride"], tube["offset"]


def layout_centres(name: str) -> torch.Tensor:
    return torch.cat([tube_centres(LAYOUTS[name]["input"], *shapes(tube)) for tube in LAYOUTS[name]["tubes"]])


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name: str) -> None:
    layout = LAYOUTS[name]
    grids = [tube_grid(layout["input"], *shapes(tube)) for tube in layout["tubes"]]
    # whether an axis without room counts 0 or less, such a tube gives no token
    assert [grid for grid in grids if 0 not in grid] == [
        tuple(tube["grid"]) for tube in layout["tubes"] if tube["tokens"]
    ]
    assert sum(int(np.prod(grid)) for grid in grids) == layout["total_tokens"]


@pytest.mark.parametrize("name", [key.split("/")[1] for key in POSITIONS.files if key.startswith("centres/")])
def test_centres(name: str) -> None:
    assert torch.equal(layout_centres(name), torch.from_numpy(POSITIONS[f"centres/{name}"]))


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("d24", "main_32x64x64"),
        ("d64_remainder4", "main_32x64x64"),
        ("d24_nonsquare", "main_32x64x96_nonsquare"),
        ("d24_image", "image_1x224x224"),
    ],
)
def test_positions_are_interleaved_with_the_usual_frequencies(name: str, layout: str) -> None:
    expected = torch.from_numpy(POSITIONS[f"positions/{name}"])
    actual = sincos_positions(layout_centres(layout), expected.shape[1])
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=0)


@torch.no_grad()
def test_tokens_of_four_tubes() -> None:
    golden = np.load(GOLDEN / "tokens_crop.npz")
    # [P, F, H, W, C] → [P, C, F, H, W]
    video = torch.from_numpy(golden["video_uint8"]).float().permute(0, 4, 1, 2, 3) / 127.5 - 1
    tokens = []
    for index, (kernel, stride, offset) in enumerate(
        zip(*(golden[name].tolist() for name in ("kernel_sizes", "strides", "offsets")), strict=True)
    ):
        weights = torch.from_numpy(golden[f"kernel_tube{index}_dhwio"]).permute(4, 3, 0, 1, 2)
        tube = MirasolTube(3, weights.shape[0], kernel, stride, offset)
        tube.weight.copy_(weights)
        tube.bias.copy_(torch.from_numpy(golden["bias"][index]))
        tokens.append(tube(video))
    torch.testing.assert_close(torch.cat(tokens, dim=1), torch.from_numpy(golden["tokens"]), atol=2e-5, rtol=0)
