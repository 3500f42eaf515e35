"""All golden files of the project's neighbours: those kept here, and, where they are at hand, all the others.

`tests/golden` holds what fits into a megabyte, one of each kind. The folder that it was taken from may lie beside the
repository as `../shared/golden`; the cases that only it holds are left out without it.
"""

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mirasol_hf.conversion import (
    resize_position_table,
    token_turing_machine_from_flax,
    token_turing_machine_to_flax,
)
from mirasol_hf.conversion.flax_keys import (
    Key,
    attention_keys,
    block_keys,
    load_arrays,
    mlp_keys,
    norm_keys,
    to_flax_layout,
)
from mirasol_hf.conversion.token_turing_machine import key_table, transformer_keys
from mirasol_hf.conversion.vision_transformer import AUGREG_NUMBERS
from mirasol_hf.modeling.attention_mirasol import sincos_positions
from mirasol_hf.modeling.configuration_mirasol import MirasolCombinerConfig, MirasolVideoConfig
from mirasol_hf.modeling.token_turing_machine_mirasol import (
    MirasolLatentQueries,
    MirasolTokenLearner,
    MirasolTokenTuringMachine,
    MirasolTransformerUnit,
)
from mirasol_hf.modeling.video_tower_mirasol import MirasolTube, MirasolVideoModel, tube_centres, tube_grid
from tests.conversion import token_turing_machine_in_numpy as in_numpy

HERE = Path(__file__).parents[1] / "golden"
BESIDE = Path(__file__).resolve().parents[3] / "shared" / "golden"
SIZES: dict[str, Any] = {"memory_size": 12, "process_size": 6}
# of the official Encoder class, which does not let them be chosen
ENCODER = {"processing_unit": "transformer", "num_layers": 2, "num_heads": 12, "mlp_dim": 512}
UNIT = {"num_layers": 2, "num_heads": 4, "mlp_dim": 40}
MODES = ("tl", "tl_mha", "tl_add_erase")
# by file: what tests it; nothing in the folder beside the repository may be missing here
TESTED_IN = {
    "test_token_turing_machine_from_flax.py": (
        "ttm/unit_tl_transformer_pe.npz",
        "ttm/unit_tl_mixer_nope.npz",
        "ttm/unit_tl_mlp_nope.npz",
        "ttm/unit_tl_mha_transformer_nope.npz",
        "ttm/unit_tl_adderase_transformer_nope_nonzero_memory.npz",
        "ttm/grad_tl_transformer.npz",
    ),
    "test_token_turing_machine.py": ("ttm/official_init_stats_c768.json",),
    "test_vision_transformer_blocks.py": (
        "vit/augreg_tiny_checkpoint.npz",
        "vit/augreg_tiny_io.npz",
        "vit/big_vision_tiny_gap_checkpoint.npz",
        "vit/big_vision_tiny_gap_io.npz",
    ),
    "test_official_golden.py": (
        "ttm/unit_tl_transformer_nope.npz",
        "ttm/encoder_tl_transformer.npz",
        "ttm/encoder_tl_mha_transformer.npz",
        "ttm/block_token_learner_v11.npz",
        "ttm/block_token_learner_mha.npz",
        "ttm/block_vit_encoder.npz",
        "ttm/manifest.json",
        "tubevit/layouts.json",
        "tubevit/token_centres.npz",
        "tubevit/posenc_paper_equations.npz",
        "tubevit/tokens_independent_kernels.npz",
        "tubevit/video.npz",
        "vit/augreg_names_shapes.json",
        "vit/posembed_resize.npz",
    ),
    # shapes, loss values and defects of an unofficial port, without its weights: nothing there can be computed
    "": ("mirasol_pytorch/tiny_config.json",),
}


def find(name: str) -> Path:
    for folder in (HERE, BESIDE):
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"{name} is not kept in the repository and {BESIDE} does not hold it")


def arrays_of(golden: Any) -> dict[str, np.ndarray]:
    return {name: golden[name] for name in golden.files if name.startswith("params/")}


def assert_close(actual: Any, expected: Any, atol: float = 2e-5, rtol: float = 0) -> None:
    torch.testing.assert_close(torch.as_tensor(actual), torch.as_tensor(np.asarray(expected)), atol=atol, rtol=rtol)


def test_every_golden_file_is_tested() -> None:
    if not BESIDE.exists():
        pytest.skip(f"no {BESIDE}")
    present = {path.relative_to(BESIDE).as_posix() for path in BESIDE.rglob("*.*")}
    listed = {name for names in TESTED_IN.values() for name in names}
    assert present - listed == {"README.md", "architecture_facts.md", "index.json"}
    assert listed <= present


def test_copies_are_the_arrays_of_the_folder_beside() -> None:
    if not BESIDE.exists():
        pytest.skip(f"no {BESIDE}")
    compared = 0
    for path in HERE.rglob("*.npz"):
        name = path.relative_to(HERE)
        if (BESIDE / name).exists():
            kept, original = np.load(path), np.load(BESIDE / name)
            assert set(kept.files) == set(original.files)
            assert all(np.array_equal(kept[key], original[key]) for key in kept.files), name
            compared += 1
    assert compared >= 12
    assert sum(path.stat().st_size for path in HERE.rglob("*") if path.is_file()) < 1_000_000


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("unit_tl_transformer_nope", {**UNIT, "memory_mode": "tl", "processing_unit": "transformer"}),
        ("encoder_tl_transformer", {**ENCODER, "memory_mode": "tl"}),
        ("encoder_tl_mha_transformer", {**ENCODER, "memory_mode": "tl_mha"}),
    ],
)
def test_machine_from_zeros(name: str, case: dict[str, Any]) -> None:
    golden = np.load(find(f"ttm/{name}.npz"))
    machine = token_turing_machine_from_flax(arrays_of(golden), use_positional_embedding=False, **SIZES, **case)
    inputs = torch.from_numpy(golden["inputs"])
    memory = machine.initial_memory(inputs)
    for step in range(inputs.shape[1]):
        outputs, memory = machine.step(memory, inputs[:, step])
        assert_close(outputs, golden["outputs"][:, step])
        if "memory" in golden.files:
            assert_close(memory, golden["memory"][:, step + 1])


@torch.no_grad()
@pytest.mark.parametrize("path", [*sorted(HERE.glob("ttm/unit_*.npz")), BESIDE / "ttm/unit_tl_transformer_nope.npz"])
def test_what_was_read(path: Path) -> None:
    golden = np.load(find(f"ttm/{path.name}"))
    unit = next(name for name in ("transformer", "mixer", "mlp") if f"_{name}_" in path.name)
    case = {**UNIT, "processing_unit": unit, "memory_mode": "tl_mha" if "_mha_" in path.name else "tl"}
    if "adderase" in path.name:
        case = {**case, "memory_mode": "tl_add_erase", "num_layers": 1}
    machine = token_turing_machine_from_flax(
        arrays_of(golden), use_positional_embedding=path.stem.endswith("_pe"), **SIZES, **case
    )
    for step in range(5):
        seen = torch.from_numpy(np.concatenate((golden["memory"][:, step], golden["inputs"][:, step]), 1))
        read = machine.read(machine.add_positions(seen, machine.read_positions, None), None)
        assert_close(read, golden["read_tokens"][:, step])


@torch.no_grad()
@pytest.mark.parametrize("name", ["block_token_learner_v11", "block_token_learner_mha", "block_vit_encoder"])
def test_single_modules(name: str) -> None:
    golden = np.load(find(f"ttm/{name}.npz"))
    tokens = torch.from_numpy(golden["input0"])
    common: dict[str, Any] = {"type": "ttm", "hidden_size": 24, "num_attention_heads": 4, "intermediate_size": 40}
    config = MirasolCombinerConfig(
        **common, num_output_tokens=22, memory_size=22, num_hidden_layers=2, attn_implementation="sdpa"
    )
    table: list[Key]
    module: torch.nn.Module
    if name == "block_token_learner_v11":
        module = MirasolTokenLearner(config, 7)
        table = [*norm_keys("LayerNorm_0", "norm"), *mlp_keys("token_masking", "mlp")]
    elif name == "block_token_learner_mha":
        module = MirasolLatentQueries(config, 7)
        table = [Key("tokens", "queries")]
        table += [Key(k.flax, k.torch.removeprefix("."), *k[2:]) for k in attention_keys("attn", "", 8)]
    else:
        module = MirasolTransformerUnit(config)
        table = [
            Key(key.flax.removeprefix("Encoder_0/"), key.torch.removeprefix("process."), *key[2:])
            for key in transformer_keys(2, 4)
        ]
    named = {key.removeprefix("params/"): value for key, value in arrays_of(golden).items()}
    assert set(named) == {key.flax for key in table}
    load_arrays(module, table, named)
    assert_close(module.eval()(tokens), golden["output"])


def random_machine(case: dict[str, Any], seed: int) -> MirasolTokenTuringMachine:
    """All parameters drawn anew, so that what starts at zero or one counts."""
    config = MirasolCombinerConfig(
        type="ttm",
        memory_size=12,
        num_output_tokens=6,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=case["num_layers"],
        num_attention_heads=4,
        memory_mode=case["memory_mode"],
        processing_unit=case["processing_unit"],
        use_positional_embedding=case["positions"],
        attn_implementation="sdpa",
    )
    machine = MirasolTokenTuringMachine(config, 10).eval()
    generator = torch.Generator().manual_seed(seed)
    for tensor in machine.state_dict().values():
        drawn = torch.randn(tensor.shape, generator=generator)
        tensor.copy_(drawn / max(tensor.shape[-1] if tensor.ndim > 1 else 25, 1) ** 0.5 + (tensor.ndim == 1) * 0.5)
    return machine


@torch.no_grad()
@pytest.mark.parametrize(
    ("memory_mode", "processing_unit", "positions", "zeros"),
    list(product(MODES, ("transformer", "mixer", "mlp"), (False, True), (False, True))),
)
def test_every_machine_equals_its_formulas(
    memory_mode: str, processing_unit: str, positions: bool, zeros: bool
) -> None:
    case = {
        "memory_mode": memory_mode,
        "processing_unit": processing_unit,
        "positions": positions,
        "num_layers": 2,
    }
    machine = random_machine(case, seed=3)
    arrays = {name: value.astype(np.float64) for name, value in token_turing_machine_to_flax(machine, "").items()}
    assert set(arrays) == {key.flax for key in key_table(machine.config)}
    generator = torch.Generator().manual_seed(4)
    inputs, memory = torch.randn(2, 5, 10, 24, generator=generator), torch.randn(2, 12, 24, generator=generator)
    memory = torch.zeros_like(memory) if zeros else memory
    expected = memory.double().numpy()
    # from zeros, erasing and adding makes nearly constant vectors whose norm loses digits
    tolerance = 1e-3 if zeros and memory_mode == "tl_add_erase" else 2e-5
    for step in range(5):
        outputs, memory = machine.step(memory, inputs[:, step])
        wanted, expected = in_numpy.step(arrays, case, expected, inputs[:, step].double().numpy())
        # erased and added memories of random weights grow to 100: float32 has seven digits
        assert_close(outputs.double(), wanted, tolerance, rtol=1e-6)
        assert_close(memory.double(), expected, tolerance, rtol=1e-6)


def test_the_formulas_equal_the_official_numbers() -> None:
    """The numpy machine itself, on official arrays."""
    golden = np.load(HERE / "ttm/unit_tl_transformer_pe.npz")
    arrays = {name.removeprefix("params/"): value.astype(np.float64) for name, value in arrays_of(golden).items()}
    case = {"memory_mode": "tl", "processing_unit": "transformer", "num_layers": 2}
    for step in range(5):
        memory, inputs = (golden[name][:, step].astype(np.float64) for name in ("memory", "inputs"))
        outputs, written = in_numpy.step(arrays, case, memory, inputs)
        np.testing.assert_allclose(outputs, golden["outputs"][:, step], atol=2e-5)
        np.testing.assert_allclose(written, golden["memory"][:, step + 1], atol=2e-5)


@pytest.mark.parametrize("grid", [2, 7, 9])
def test_position_tables_of_other_sizes(grid: int) -> None:
    golden = np.load(find("vit/posembed_resize.npz"))
    expected = golden[f"resized_{grid}x{grid}"]
    assert_close(resize_position_table(golden["pos_embedding"], (grid, grid)), expected)
    without = resize_position_table(golden["pos_embedding"][:, 1:], (grid, grid))
    assert_close(without, expected[:, 1:])
    assert_close(resize_position_table(golden["pos_embedding"], (4, 4)), golden["pos_embedding"])


def test_position_tables_that_are_no_square() -> None:
    with pytest.raises(ValueError, match=r"\(1, 19, 24\).*square"):
        resize_position_table(np.zeros((1, 19, 24), np.float32), (2, 2))
    wide = resize_position_table(np.zeros((1, 17, 24), np.float32), (2, 5))
    assert wide.shape == (1, 11, 24)


VIT_SIZES = {
    "Ti_16": (192, 768, 3, 12),
    "S_16": (384, 1536, 6, 12),
    "B_16": (768, 3072, 12, 12),
    "B_32": (768, 3072, 12, 12),
    "L_16": (1024, 4096, 16, 24),
    "H_14": (1280, 5120, 16, 32),
}


@pytest.mark.parametrize("name", VIT_SIZES)
def test_names_and_shapes_of_full_size(name: str) -> None:
    official = json.loads(find("vit/augreg_names_shapes.json").read_text())[name]
    width, hidden, heads, _ = VIT_SIZES[name]
    patch = int(name.split("_")[1])
    tube = {"tube_kernels": [[1, patch, patch]], "tube_strides": [[1, patch, patch]], "tube_offsets": [[0, 0, 0]]}
    config = MirasolVideoConfig(
        hidden_size=width,
        intermediate_size=hidden,
        num_attention_heads=heads,
        num_hidden_layers=1,
        num_frames=1,
        **tube,
    )
    with torch.device("meta"):
        tower = MirasolVideoModel(config)
    tensors = tower.state_dict()
    for key in block_keys("Transformer", "", 1, heads, AUGREG_NUMBERS):
        empty = np.broadcast_to(np.float32(0), tuple(tensors[key.torch].shape))
        assert list(to_flax_layout(empty, key).shape) == official.pop(key.flax), key
    out, channels, _, height, columns = tower.embeddings.tubes[0].weight.shape
    assert [height, columns, channels, out] == official.pop("embedding/kernel")
    assert not [left for left in official if left.startswith("Transformer/encoder")]


def layouts() -> Any:
    return json.loads(find("tubevit/layouts.json").read_text())


def centres_of(layout: dict[str, Any]) -> torch.Tensor:
    return torch.cat(
        [tube_centres(layout["input"], *(tube[k] for k in ("kernel", "stride", "offset"))) for tube in layout["tubes"]]
    )


def beside(name: str) -> Any:
    if not (BESIDE / name).exists():
        pytest.skip(f"no {BESIDE / name}")
    return json.loads((BESIDE / name).read_text()) if name.endswith("json") else np.load(BESIDE / name)


def test_all_layouts_and_centres() -> None:
    all_layouts, centres = beside("tubevit/layouts.json"), beside("tubevit/token_centres.npz")
    for name, layout in all_layouts.items():
        counts = [
            int(np.prod(tube_grid(layout["input"], tube["kernel"], tube["stride"], tube["offset"])))
            for tube in layout["tubes"]
        ]
        assert counts == [tube["tokens"] for tube in layout["tubes"]], name
        assert sum(counts) == layout["total_tokens"], name
    compared = [name for name in centres.files if name.endswith("/half")]
    assert len(compared) == 10
    for name in compared:
        assert torch.equal(centres_of(all_layouts[name.split("/")[0]]), torch.from_numpy(centres[name])), name


@pytest.mark.parametrize(
    ("name", "layout", "every"),
    [
        ("d24", "main_32x64x64", 1),
        ("d96", "main_32x64x64", 1),
        ("d64_remainder4", "main_32x64x64", 1),
        ("d24_nonsquare", "main_32x64x96_nonsquare", 1),
        ("d768_every7th", "main_32x224x224", 7),
        ("d24_image", "image_1x224x224", 1),
    ],
)
def test_all_positions(name: str, layout: str, every: int) -> None:
    expected = beside("tubevit/posenc_paper_equations.npz")[f"{name}/normalized/interleaved"]
    centres = centres_of(beside("tubevit/layouts.json")[layout])[::every]
    assert_close(sincos_positions(centres, expected.shape[1]), expected)


@torch.no_grad()
def test_tokens_of_the_whole_video() -> None:
    golden, video = beside("tubevit/tokens_independent_kernels.npz"), beside("tubevit/video.npz")["video_uint8"]
    frames = torch.from_numpy(video).float().permute(0, 4, 1, 2, 3) / 127.5 - 1  # [P, C, F, H, W]
    tokens = []
    for index, shape in enumerate(zip(golden["kernel_sizes"], golden["strides"], golden["offsets"], strict=True)):
        tube = MirasolTube(3, 12, *(part.tolist() for part in shape))
        tube.weight.copy_(torch.from_numpy(golden[f"kernel_tube{index}_dhwio"]).permute(4, 3, 0, 1, 2))
        tube.bias.copy_(torch.from_numpy(golden["bias"][index]))
        tokens.append(tube(frames))
    assert_close(torch.cat(tokens, dim=1), golden["tokens"])


def test_manifest_has_the_arguments_used_here() -> None:
    files = beside("ttm/manifest.json")["files"]
    assert files["unit_tl_transformer_nope"]["kwargs"] == {
        **UNIT,
        **SIZES,
        "memory_mode": "TL",
        "processing_unit": "transformer",
        "use_positional_embedding": False,
    }
    for name in ("encoder_tl_transformer", "encoder_tl_mha_transformer"):
        assert files[name]["kwargs"]["num_layers"] == ENCODER["num_layers"]
