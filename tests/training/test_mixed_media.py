"""Two processes whose batches have other media do not wait for each other, and compute what one does."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMultimodalLM

from tests.training.mixed_media_worker import batches, questions, trainer
from tests.training.small_model import SMALL_CONFIG, small_model

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("mixed_media_worker.py")


def _run(mode: str, folder: Path, output: Path) -> list[Any]:
    """What each of two processes found."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(WORKER), mode, str(folder), str(output)],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [torch.load(output / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module", params=["transformer"])
def folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A model with a tube that is longer than one frame, and the Combiner that is asked for."""
    place = tmp_path_factory.mktemp("model")
    combiner = {**SMALL_CONFIG["combiner_config"], "type": request.param}
    tubes = {"tube_kernels": ((1, 4, 4), (2, 8, 8)), "tube_strides": ((1, 4, 4), (2, 8, 8))}
    video = {**SMALL_CONFIG["video_config"], **tubes, "tube_offsets": ((0, 0, 0), (0, 0, 0))}
    text = {**SMALL_CONFIG["text_config"], "num_hidden_layers": 2}
    small_model(video_config=video, text_config=text, combiner_config=combiner).save_pretrained(place)
    return place


def _alone(model: Any, pair: tuple[dict[str, torch.Tensor], ...]) -> dict[str, Any]:
    """One process with both batches of a pair: the mean of their losses has the mean of their gradients."""
    model.zero_grad()
    found = [model(**batch) for batch in pair]
    sum(output.loss / 2 for output in found).backward()
    gradients = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in model.named_parameters()
    }
    return {"outputs": found, "gradients": gradients}


@pytest.mark.parametrize(
    ("mode", "folder"),
    [("ddp", "transformer"), ("fsdp", "transformer"), ("checkpointed", "transformer"), ("fsdp", "ttm")],
    indirect=["folder"],
)
def test_processes_with_other_media_equal_one(folder: Path, tmp_path: Path, mode: str) -> None:
    both = _run(mode, folder, tmp_path)
    model = AutoModelForMultimodalLM.from_pretrained(folder).train()
    for name, pair in batches().items():
        alone = _alone(model, pair)
        for rank, output in enumerate(alone["outputs"]):
            torch.testing.assert_close(both[rank][name]["logits"], output.logits, atol=1e-5, rtol=0, msg=name)
            torch.testing.assert_close(both[rank][name]["loss"], output.loss, atol=1e-5, rtol=0, msg=name)
            # every weight has a gradient, zeros where nothing depends on it: optimizers keep state for all of them
            assert set(both[rank][name]["gradients"]) == set(alone["gradients"]), name
            for key, gradient in alone["gradients"].items():
                found = both[rank][name]["gradients"][key]
                torch.testing.assert_close(found, gradient, atol=1e-5, rtol=1e-4, msg=f"{name}: {key}")


@torch.no_grad()
def test_generating_with_sharded_weights_equals_one_process(folder: Path, tmp_path: Path) -> None:
    both = _run("generate", folder, tmp_path)
    model = AutoModelForMultimodalLM.from_pretrained(folder).eval()
    clips = {
        name: value for name, value in questions()[1].items() if name in ("pixel_values_videos", "input_features")
    }
    features = model.encode_media(**clips).media_hidden_states
    torch.testing.assert_close(both[0]["features"], torch.zeros_like(features), atol=0, rtol=0)
    torch.testing.assert_close(both[1]["features"], features, atol=1e-5, rtol=0)
    for found, question in zip(both, questions(), strict=True):
        options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False}
        assert torch.equal(found["greedy"], model.generate(**question, **options))
        assert torch.equal(found["beams"], model.generate(**question, **options, num_beams=2))
        torch.testing.assert_close(found["logits"], model(**question).logits, atol=1e-5, rtol=0)


def test_adam_resumes_after_text_alone(folder: Path, tmp_path: Path) -> None:
    for found in _run("adam", folder, tmp_path):
        assert found["losses"][0] > found["losses"][1] > found["losses"][2] > found["next"]
        torch.testing.assert_close(found["resumed"], found["next"], atol=1e-5, rtol=0)


def test_trainer_with_sharded_weights_equals_one_process(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    alone = trainer(str(folder), tmp_path / "one")
    for found in _run("trainer", folder, tmp_path / "two"):
        assert found["losses"] == pytest.approx(alone["losses"], abs=1e-5)
        assert found["answers"] == alone["answers"]
    # the checkpoint has its name, and nothing else lies beside it
    assert [path.name for path in (tmp_path / "two" / "run").iterdir()] == ["checkpoint-2"]
    weights = [
        dict(AutoModelForMultimodalLM.from_pretrained(tmp_path / name / "run" / "checkpoint-2").named_parameters())
        for name in ("one", "two")
    ]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=1e-5, rtol=0, msg=name)
