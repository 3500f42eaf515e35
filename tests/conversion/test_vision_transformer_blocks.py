"""Public ViT checkpoints: a tower's blocks compute the official numbers from them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mirasol_hf.conversion import load_vision_transformer_blocks, vision_transformer_blocks_to_flax
from mirasol_hf.modeling.configuration_mirasol import MirasolVideoConfig
from mirasol_hf.modeling.video_tower_mirasol import MirasolTube, MirasolVideoModel

GOLDEN = Path(__file__).parents[1] / "golden" / "vit"


def tower(**fields: Any) -> MirasolVideoModel:
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
    tube = {"tube_kernels": [[1, 4, 4]], "tube_strides": [[1, 4, 4]], "tube_offsets": [[0, 0, 0]]}
    return MirasolVideoModel(MirasolVideoConfig(**{**sizes, **tube, "image_size": 16, "num_frames": 1, **fields}))


def assert_close(actual: torch.Tensor, expected: np.ndarray) -> None:
    torch.testing.assert_close(actual, torch.from_numpy(expected), atol=2e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["augreg_tiny", "big_vision_tiny_gap"])
def test_blocks_equal_the_official_code(name: str, implementation: str) -> None:
    checkpoint, golden = np.load(GOLDEN / f"{name}_checkpoint.npz"), np.load(GOLDEN / f"{name}_io.npz")
    model = tower().eval()
    model.set_attn_implementation(implementation)
    rest = {key: torch.from_numpy(value) for key, value in load_vision_transformer_blocks(model, checkpoint).items()}
    tube = model.embeddings.tubes[0]
    assert isinstance(tube, MirasolTube) and tube.bias is not None
    tube.weight.copy_(rest["embedding/kernel"].permute(3, 2, 0, 1)[:, :, None])
    tube.bias.copy_(rest["embedding/bias"])
    tokens = tube(torch.from_numpy(golden["image"]).permute(0, 3, 1, 2)[:, :, None])
    assert_close(tokens, golden["patch_embedding"].reshape(2, 16, 24))
    if "cls" in rest:
        tokens = torch.cat((rest["cls"].expand(2, -1, -1), tokens), dim=1)
        tokens = tokens + rest["Transformer/posembed_input/pos_embedding"]
    else:
        tokens = tokens + rest["pos_embedding"]
    encoded = model.run_stack(tokens)
    assert_close(encoded, golden["encoded"])
    pooled = encoded[:, 0] if "cls" in rest else encoded.mean(dim=1)
    assert_close(pooled @ rest["head/kernel"] + rest["head/bias"], golden["logits"])


BLOCKS = "params/Transformer/"


def big_vision_blocks() -> dict[str, np.ndarray]:
    checkpoint = np.load(GOLDEN / "big_vision_tiny_gap_checkpoint.npz")
    return {name: checkpoint[name] for name in checkpoint.files if name.startswith(BLOCKS)}


def test_blocks_come_back_out() -> None:
    arrays, model = big_vision_blocks(), tower()
    assert not load_vision_transformer_blocks(model, arrays)
    back = vision_transformer_blocks_to_flax(model)
    assert set(back) == set(arrays)
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)


@pytest.mark.parametrize("prefix", ["", "opt/target/", "params/img/"])
def test_stacked_blocks_and_other_prefixes(prefix: str) -> None:
    arrays = big_vision_blocks()
    stacked = {}
    for name, array in arrays.items():
        place = name.removeprefix("params/")
        if "encoderblock_0" in name:
            place = place.replace("encoderblock_0", "encoderblock")
            array = np.stack((array, arrays[name.replace("block_0", "block_1", 1)]))
        elif "encoderblock" in name:
            continue
        stacked[prefix + place] = array
    model = tower()
    assert not load_vision_transformer_blocks(model, stacked)
    back = vision_transformer_blocks_to_flax(model)
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)
    with pytest.raises(ValueError, match=r"unexpected.*1 layers.*encoderblock_1"):
        load_vision_transformer_blocks(tower(num_hidden_layers=1), stacked)


def test_other_sizes_are_named() -> None:
    checkpoint = np.load(GOLDEN / "augreg_tiny_checkpoint.npz")
    with pytest.raises(ValueError, match=r"missing.*encoderblock_2/LayerNorm_0/scale"):
        load_vision_transformer_blocks(tower(num_hidden_layers=3), checkpoint)
    with pytest.raises(ValueError, match=r"unexpected.*1 layers.*encoderblock_1"):
        load_vision_transformer_blocks(tower(num_hidden_layers=1), checkpoint)
    with pytest.raises(ValueError, match=r"\(24, 40\).*\(24, 48\)"):
        load_vision_transformer_blocks(tower(intermediate_size=48), checkpoint)
