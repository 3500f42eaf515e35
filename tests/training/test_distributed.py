"""Two processes on this machine's CPU compute what one does: data parallel, fully sharded, tensor parallel."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMultimodalLM

from tests.training.small_model import SMALL_CONFIG, small_model

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("distributed_worker.py")
LAUNCHERS = {
    "one": [sys.executable],
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"],
    "accelerate": [
        # accelerate starts several processes on CPUs by MPI alone; its launcher for GPUs starts them without any too
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2",
        "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0",
    ],
}  # fmt: skip

PARTS = {"video_tower", "audio_tower", "combiner", "time_model", "language_model"}


def _run(launcher: str, mode: str, folder: Path, output: Path) -> dict[str, Any]:
    output.mkdir()
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [*LAUNCHERS[launcher], str(WORKER), mode, str(folder), str(output)],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return torch.load(output / "result.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose heads two processes can share, without dropout or random masks."""
    place = tmp_path_factory.mktemp("model")
    text = {**SMALL_CONFIG["text_config"], "num_key_value_heads": 2, "num_hidden_layers": 2}
    small_model(text_config=text).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return _run("one", "one", folder, tmp_path_factory.mktemp("one") / "out")


@pytest.mark.parametrize("mode", ["tp", "fsdp"])
def test_sharded_model_equals_one_process(folder: Path, alone: dict[str, Any], tmp_path: Path, mode: str) -> None:
    both = _run("torchrun", mode, folder, tmp_path / "out")
    assert not alone["split"]
    assert {name.split(".")[1] for name in both["split"] if name.startswith("model.")} >= PARTS
    torch.testing.assert_close(both["loss"], alone["loss"], atol=1e-5, rtol=0)
    for name in ("logits", "answered"):
        torch.testing.assert_close(both[name], alone[name], atol=1e-5, rtol=0)
    assert set(both["gradients"]) == set(alone["gradients"])
    for name, gradient in alone["gradients"].items():
        torch.testing.assert_close(both["gradients"][name], gradient, atol=1e-5, rtol=1e-4, msg=name)
    _assert_same_weights(tmp_path / "out" / "model", folder)


def test_accelerate_launch_equals_one_process(folder: Path, tmp_path: Path) -> None:
    single = _run("one", "trainer", folder, tmp_path / "single")
    double = _run("accelerate", "trainer", folder, tmp_path / "double")
    assert len(single["losses"]) == 2 and single["losses"][0] != single["losses"][1]
    assert double["losses"] == pytest.approx(single["losses"], abs=1e-5)
    _assert_same_weights(tmp_path / "double" / "model", tmp_path / "single" / "model")


def _assert_same_weights(found: Path, expected: Path) -> None:
    """Both folders load in one process, with the same weights."""
    weights = [dict(AutoModelForMultimodalLM.from_pretrained(place).named_parameters()) for place in (found, expected)]
    assert set(weights[0]) == set(weights[1])
    for name, value in weights[1].items():
        torch.testing.assert_close(weights[0][name], value, atol=1e-5, rtol=0, msg=name)
