"""Official Flax arrays in and out: the module computes the official numbers, and bad arrays are named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mirasol_hf.conversion import token_turing_machine_from_flax, token_turing_machine_to_flax

GOLDEN = Path(__file__).parents[1] / "golden" / "ttm"
SIZES: dict[str, Any] = {"memory_size": 12, "process_size": 6, "num_heads": 4, "mlp_dim": 40}
CASES: dict[str, dict[str, Any]] = {
    "unit_tl_transformer_pe": {
        "memory_mode": "tl",
        "processing_unit": "transformer",
        "num_layers": 2,
        "use_positional_embedding": True,
    },
    "unit_tl_mixer_nope": {"memory_mode": "tl", "processing_unit": "mixer", "num_layers": 2},
    "unit_tl_mlp_nope": {"memory_mode": "tl", "processing_unit": "mlp", "num_layers": 2},
    "unit_tl_mha_transformer_nope": {"memory_mode": "tl_mha", "processing_unit": "transformer", "num_layers": 2},
    "unit_tl_adderase_transformer_nope_nonzero_memory": {
        "memory_mode": "tl_add_erase",
        "processing_unit": "transformer",
        "num_layers": 1,
    },
}


def parameters(golden: Any) -> dict[str, np.ndarray]:
    return {name: golden[name] for name in golden.files if name.startswith("params/")}


def load(arrays: Any, **case: Any) -> Any:
    return token_turing_machine_from_flax(arrays, **{"use_positional_embedding": False, **SIZES, **case})


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_every_step_equals_the_official_code(name: str, implementation: str) -> None:
    golden = np.load(GOLDEN / f"{name}.npz")
    machine = load(parameters(golden), **CASES[name])
    machine.config._attn_implementation = implementation
    inputs, memory = torch.from_numpy(golden["inputs"]), torch.from_numpy(golden["memory"][:, 0])
    for step in range(inputs.shape[1]):
        outputs, memory = machine.step(memory, inputs[:, step])
        for actual, expected in ((outputs, golden["outputs"][:, step]), (memory, golden["memory"][:, step + 1])):
            torch.testing.assert_close(actual, torch.from_numpy(expected), atol=2e-5, rtol=0)


def test_gradients_equal_the_official_code() -> None:
    golden = np.load(GOLDEN / "grad_tl_transformer.npz")
    machine = load(parameters(golden), **{**CASES["unit_tl_transformer_pe"], "num_layers": 1})
    inputs = torch.from_numpy(golden["inputs"]).requires_grad_()
    memory, outputs = machine.initial_memory(inputs), []
    for step in range(inputs.shape[1]):
        made, memory = machine.step(memory, inputs[:, step])
        outputs.append(made)
    weights = torch.from_numpy(golden["loss_weights"])
    loss = (torch.stack(outputs, dim=1) * weights).sum() / (2 * 5 * 6)
    loss.backward()
    assert loss.item() == pytest.approx(float(golden["loss"]), abs=2e-5)
    torch.testing.assert_close(inputs.grad, torch.from_numpy(golden["grad_inputs"]), atol=2e-5, rtol=0)
    for parameter in machine.parameters():
        parameter.data = parameter.grad
    gradients = token_turing_machine_to_flax(machine, prefix="grads/")
    assert set(gradients) == {name for name in golden.files if name.startswith("grads/")}
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, golden[name], atol=2e-5, rtol=0, err_msg=name)


@pytest.mark.parametrize("name", CASES)
def test_back_to_flax_gives_the_same_arrays(name: str) -> None:
    arrays = parameters(np.load(GOLDEN / f"{name}.npz"))
    back = token_turing_machine_to_flax(load(arrays, **CASES[name]))
    assert set(back) == set(arrays)
    assert all(np.array_equal(back[key], arrays[key]) for key in arrays)


@pytest.mark.parametrize("prefix", ["", "unit_function/", "params/unit_function/"])
def test_prefixes_and_official_spelling(prefix: str) -> None:
    arrays = parameters(np.load(GOLDEN / "unit_tl_mha_transformer_nope.npz"))
    case = {**CASES["unit_tl_mha_transformer_nope"], "memory_mode": "TL-MHA"}
    machine = load({prefix + name.removeprefix("params/"): value for name, value in arrays.items()}, **case)
    assert np.array_equal(
        token_turing_machine_to_flax(machine)["params/TokenLearnerMHA_1/tokens"], machine.write.queries.detach()
    )


@pytest.mark.parametrize(
    ("name", "spellings"),
    [
        ("unit_tl_mixer_nope", ("tl", "TL")),
        ("unit_tl_mha_transformer_nope", ("tl_mha", "TL-MHA", "tl-mha", "TL_MHA")),
        (
            "unit_tl_adderase_transformer_nope_nonzero_memory",
            ("tl_add_erase", "TL-AddErase", "tl_adderase", "TL_ADD_ERASE"),
        ),
    ],
)
def test_every_spelling_of_a_mode(name: str, spellings: tuple[str, ...]) -> None:
    arrays = parameters(np.load(GOLDEN / f"{name}.npz"))
    for spelling in spellings:
        machine = load(arrays, **{**CASES[name], "memory_mode": spelling})
        assert machine.config.memory_mode == CASES[name]["memory_mode"]
    with pytest.raises(ValueError, match=r"memory_mode='pool'.*'tl_add_erase'.*'TL-MHA'"):
        load(arrays, **{**CASES[name], "memory_mode": "pool"})


def test_arrays_of_torch() -> None:
    name = "unit_tl_transformer_pe"
    arrays = parameters(np.load(GOLDEN / f"{name}.npz"))
    expected = token_turing_machine_to_flax(load(arrays, **CASES[name]))
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        tensors = {key: torch.nn.Parameter(torch.from_numpy(value).to(dtype)) for key, value in arrays.items()}
        for key, value in token_turing_machine_to_flax(load(tensors, **CASES[name])).items():
            np.testing.assert_allclose(value, expected[key], rtol=0 if dtype != torch.bfloat16 else 4e-3)


@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_differences_in_float64(name: str) -> None:
    golden = np.load(GOLDEN / f"{name}.npz")
    machine = load(parameters(golden), **CASES[name]).double()
    inputs = torch.from_numpy(golden["inputs"][:1, :2]).double().requires_grad_()
    start = torch.from_numpy(golden["memory"][:1, 1]).double().requires_grad_()

    def two_steps(memory: torch.Tensor, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first, memory = machine.step(memory, inputs[:, 0])
        return (first, *machine.step(memory, inputs[:, 1]))

    assert torch.autograd.gradcheck(two_steps, (start, inputs), fast_mode=True)


def test_the_unused_write_table_of_add_erase_is_kept_but_no_parameter() -> None:
    arrays = parameters(np.load(GOLDEN / "unit_tl_adderase_transformer_nope_nonzero_memory.npz"))
    arrays["params/read_pos_embed/pos_embedding"] = np.ones((1, 22, 24), np.float32)
    arrays["params/write_pos_embed/pos_embedding"] = np.ones((1, 28, 24), np.float32)
    case = CASES["unit_tl_adderase_transformer_nope_nonzero_memory"]
    machine = load(arrays, **{**case, "use_positional_embedding": True})
    assert set(token_turing_machine_to_flax(machine)) == set(arrays)
    assert "write_positions" not in dict(machine.named_parameters())


def test_bad_arrays_are_named() -> None:
    name = "unit_tl_mlp_nope"
    arrays, case = parameters(np.load(GOLDEN / f"{name}.npz")), CASES[name]
    with pytest.raises(ValueError, match=r"missing.*MlpBlock_1/Dense_0/bias"):
        load({key: value for key, value in arrays.items() if key != "params/MlpBlock_1/Dense_0/bias"}, **case)
    with pytest.raises(ValueError, match=r"unexpected.*Dense_7/bias"):
        load({**arrays, "params/Dense_7/bias": np.zeros(3)}, **case)
    with pytest.raises(ValueError, match=r"missing.*TokenLearnerModuleV11_0"):
        load({}, **case)
    with pytest.raises(
        ValueError, match=r"TokenLearnerModuleV11_1/token_masking/Dense_1/kernel.*\(64, 12\).*\(64, 13\)"
    ):
        load(arrays, **{**case, "memory_size": 13})
