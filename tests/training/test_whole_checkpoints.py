"""A folder `checkpoint-N` is whole, however the run that wrote it ended."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import Trainer
from transformers.trainer_utils import get_last_checkpoint

from mirasol_hf.training.checkpoints import put_in_place
from mirasol_hf.training.run_lock import LOCK_FILE
from tests.training.killed_worker import build

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("killed_worker.py")


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_killed_run_resumes_from_the_last_whole_checkpoint(tmp_path: Path) -> None:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    done = subprocess.run(
        [sys.executable, str(WORKER), str(killed)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 9, done.stderr[-2000:]
    assert _names(killed) == {LOCK_FILE, "checkpoint-1", "tmp-checkpoint-2"}
    assert get_last_checkpoint(str(killed)) == str(killed / "checkpoint-1")
    resumed, unbroken = build(killed), build(whole)
    resumed.train(resume_from_checkpoint=True)
    unbroken.train()
    losses = [[entry["loss"] for entry in run.state.log_history if "loss" in entry] for run in (resumed, unbroken)]
    assert len(losses[1]) == 3
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert _names(killed) == _names(whole) == {"checkpoint-1", "checkpoint-2", "checkpoint-3"}


def test_the_best_checkpoint_and_the_limit(tmp_path: Path) -> None:
    options = {"eval_strategy": "steps", "eval_steps": 1, "save_total_limit": 1, "metric_for_best_model": "loss"}
    trainer = build(tmp_path, **options, load_best_model_at_end=True)
    trainer.train()
    best = tmp_path / "checkpoint-3"
    assert _names(tmp_path) == {best.name}
    assert trainer.state.best_model_checkpoint == str(best)
    state = json.loads((best / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(best)
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"} <= _names(best)


def test_a_checkpoint_takes_the_place_of_one_of_its_name(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").write_text(name)
    put_in_place(tmp_path / "new", tmp_path / "old")
    assert _names(tmp_path) == {"old"} and _names(tmp_path / "old") == {"new.txt"}


def test_a_checkpoint_is_pushed_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed: list[tuple[str, bool]] = []

    def push(self: Trainer, checkpoint_folder: str) -> None:
        pushed.append((checkpoint_folder, Path(checkpoint_folder, "trainer_state.json").is_file()))

    monkeypatch.setattr(Trainer, "_push_from_checkpoint", push)
    trainer = build(tmp_path, max_steps=2)
    trainer.args.push_to_hub = True
    trainer.train()
    assert pushed == [(str(tmp_path / "checkpoint-1"), True), (str(tmp_path / "checkpoint-2"), True)]
