"""What is not finite ends a run, is told by its name, and reaches neither a checkpoint nor JSON."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from mirasol_hf.strict_json import dumps
from mirasol_hf.training.finite import NonFiniteError
from tests.training.killed_worker import build
from tests.training.small_model import small_rows


def _strictly(text: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _finite(model: torch.nn.Module) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in model.parameters())


@pytest.mark.parametrize("accumulation", [1, 2])
def test_first_loss_that_is_not_finite_ends_the_run(tmp_path: Path, accumulation: int) -> None:
    options = {"gradient_accumulation_steps": accumulation, "per_device_train_batch_size": 2 // accumulation}
    trainer = build(tmp_path, **options, save_total_limit=1)
    trainer.train_dataset[4]["input_features"] = torch.full((3, 4, 8), float("inf"))
    with pytest.raises(NonFiniteError, match=r"step 3: loss is nan.*text_loss is nan.*checkpoint-2$"):
        trainer.train()
    assert _names(tmp_path) == {"checkpoint-2"}
    assert _finite(trainer.model), "the optimizer never saw the gradients"
    _strictly((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())


@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_gradient_norm_that_is_not_finite_ends_the_run(tmp_path: Path, limit: float) -> None:
    trainer = build(tmp_path, max_grad_norm=limit, logging_steps=100)
    weight = trainer.model.lm_head.weight
    weight.register_hook(lambda gradient: gradient * (float("nan") if trainer.state.global_step == 1 else 1))
    with pytest.raises(NonFiniteError, match=r"^step 2: gradient norm is nan; .*checkpoint-1$"):
        trainer.train()
    assert _finite(trainer.model)


class _Poison(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            kwargs["model"].lm_head.weight.data[0, 0] = float("nan")


def test_weights_that_are_not_finite_are_no_checkpoint(tmp_path: Path) -> None:
    trainer = build(tmp_path, save_total_limit=1)
    trainer.add_callback(_Poison())
    with pytest.raises(NonFiniteError, match=r"step 2, before saving: 1 of \d+ weights"):
        trainer.train()
    assert _names(tmp_path) == {"checkpoint-1"}


def test_evaluation_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    trainer = build(tmp_path, eval_strategy="steps", eval_steps=2)
    trainer.eval_dataset[0]["pixel_values_videos"] = torch.full((3, 2, 3, 8, 8), float("nan"))
    with pytest.raises(NonFiniteError, match=r"step 2: eval_loss is nan"):
        trainer.train()
    assert _names(tmp_path) == {"checkpoint-1"}


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    trainer = build(tmp_path)
    weight = trainer.model.model.time_model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        weight[0, 0] = float("inf")
    with pytest.raises(NonFiniteError, match=r"step 0, before training: 1 of \d+ weights .*time_model"):
        trainer.train()
    with pytest.raises(NonFiniteError, match="before saving"):
        trainer.save_model(str(tmp_path / "model"))
    assert not (tmp_path / "model").exists()


def test_json_has_no_nan(tmp_path: Path) -> None:
    assert _strictly(dumps({"a": [1.0, float("nan")], "b": (float("-inf"),), "c": "NaN", 1: 2})) == {
        "a": [1.0, None], "b": [None], "c": "NaN", "1": 2,
    }  # fmt: skip
    trainer = build(tmp_path, eval_strategy="steps", eval_steps=1, metric_for_best_model="accuracy", max_steps=2)
    trainer.compute_metrics = lambda evaluated: {"accuracy": float("nan")}
    trainer.train()
    state = _strictly((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())
    assert state["best_metric"] is None
    assert [entry["eval_accuracy"] for entry in state["log_history"] if "eval_accuracy" in entry] == [None, None]
    resumed = build(tmp_path, eval_strategy="steps", eval_steps=1, metric_for_best_model="accuracy", max_steps=3)
    resumed.compute_metrics = lambda evaluated: {"accuracy": 0.5}
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.best_metric == 0.5


def test_losses_of_text_alone(tmp_path: Path) -> None:
    rows = [{name: row[name] for name in ("prompt", "answer")} for row in small_rows(["red", "no"])]
    trainer = build(tmp_path, max_steps=1, save_strategy="no")
    trainer.train_dataset = rows
    assert trainer.train().global_step == 1
