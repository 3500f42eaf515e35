"""A recipe runs from nothing to a saved model, and goes on in the middle of a stage as if it had not stopped."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mirasol_hf.training import train
from mirasol_hf.training.provenance import weights_hash
from mirasol_hf.training.train import run_recipe

SMALL = [
    "stages=[{name: events, window: event, steps: 3, batch_size: 2, questions: 2, num_chunks: [2]},"
    " {name: clips, steps: 3, batch_size: 2, questions: 2, num_chunks: [2], max_seconds: 5}]",
    "running.workers=0", "running.logging_steps=1", "running.save_steps=2", "running.eval_steps=0",
    "tokenizer.num_scenes=20", "optimisation.warmup_steps=1",
]  # fmt: skip


def test_recipe_runs_and_saves_everything(tmp_path: Path) -> None:
    from transformers import AutoModelForMultimodalLM, AutoProcessor

    result = run_recipe("avscenes-tiny", tmp_path, overrides=[*SMALL, "running.eval_steps=6", "running.eval_clips=2"])
    assert result["steps"] == 6 and result["resumed_from"] is None and result["hardware"]
    assert 0 <= result["validation"]["validation_overall"] <= 1
    assert json.loads((tmp_path / "training_result.json").read_text()) == json.loads(json.dumps(result))
    model = AutoModelForMultimodalLM.from_pretrained(tmp_path)
    assert result["weights"] == weights_hash(model)
    assert not {"result", "time", "hardware"} & set(result["recipe"])  # those of the run that the recipe records
    processor = AutoProcessor.from_pretrained(tmp_path)
    text = processor.tokenizer(processor.build_prompt("What is seen?"), return_tensors="pt")
    assert model(**text).logits.shape[-1] == model.config.text_config.vocab_size >= len(processor.tokenizer)
    assert not torch.equal(model.lm_head.weight[5:6], torch.zeros(1, model.lm_head.weight.shape[1]))


def test_resume_in_the_middle_of_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_recipe("avscenes-tiny", tmp_path / "whole", overrides=SMALL)
    # A crash in step 5 leaves the checkpoint of step 4, the first of the second stage.
    with monkeypatch.context() as patch:
        patch.setattr(train.FamilyAccuracy, "on_step_end", _crash_at(5))
        with pytest.raises(KeyboardInterrupt):
            run_recipe("avscenes-tiny", tmp_path / "broken", overrides=SMALL)
    with pytest.raises(ValueError, match="holds checkpoints"):
        run_recipe("avscenes-tiny", tmp_path / "broken", overrides=SMALL)
    others = {"seed=7": r"seed 0 \(here 7\)", "stages.1.batch_size=3": r"stages.1.batch_size 2 \(here 3\)"}
    for change, told in others.items():
        with pytest.raises(ValueError, match=rf"checkpoint-4 belongs to another run, with {told}"):
            run_recipe("avscenes-tiny", tmp_path / "broken", resume=True, overrides=[*SMALL, change])
    tokenizer = tmp_path / "broken" / "checkpoints" / "checkpoint-4" / "tokenizer.json"
    text = tokenizer.read_text()
    tokenizer.write_text(text[:100])
    with pytest.raises(ValueError, match=r"tokenizer.json has 100 bytes, .*go on from .*checkpoint-2, which is whole"):
        run_recipe("avscenes-tiny", tmp_path / "broken", resume=True, overrides=SMALL)
    tokenizer.write_text(text)
    result = run_recipe("avscenes-tiny", tmp_path / "broken", resume=True, overrides=SMALL)
    assert result["resumed_from"].endswith("checkpoint-4")
    whole, resumed = (_weights(tmp_path / name) for name in ("whole", "broken"))
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, atol=1e-5, rtol=0, msg=name)
    whole_losses, resumed_losses = (_losses(tmp_path / name) for name in ("whole", "broken"))
    assert resumed_losses == pytest.approx(whole_losses, abs=1e-5) and len(whole_losses) == 6
    before = _everything(tmp_path / "broken")
    for resume in (True, False):
        with pytest.raises(ValueError, match=r"finished run.*--overwrite"):
            run_recipe("avscenes-tiny", tmp_path / "broken", resume=resume, overrides=SMALL)
    assert _everything(tmp_path / "broken") == before
    short = [*SMALL, "stages.0.steps=1", "stages.1.steps=1"]
    assert run_recipe("avscenes-tiny", tmp_path / "broken", overwrite=True, overrides=short)["steps"] == 2
    assert [path.name for path in (tmp_path / "broken" / "checkpoints").iterdir()] == ["checkpoint-2"]


def _everything(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def _crash_at(step: int) -> Any:
    def on_step_end(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == step:
            raise KeyboardInterrupt

    return on_step_end


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def _losses(folder: Path) -> list[float]:
    state = json.loads((folder / "checkpoints" / "checkpoint-6" / "trainer_state.json").read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]
