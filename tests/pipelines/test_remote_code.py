"""A folder saved with its code works in a process that cannot import this package."""

import json
import os
import subprocess
import sys

import pytest
from transformers import pipeline

from mirasol_hf.pipelines.remote_code import save_with_code
from mirasol_hf.registration import PIPELINE_TASK

QUESTION = "What colour is the square?"

ELSEWHERE = """
import json, sys
sys.modules["mirasol_hf"] = None
from PIL import Image
from transformers import AutoConfig, AutoModel, AutoModelForMultimodalLM, AutoProcessor, pipeline
folder, clip, question = sys.argv[1:]
pipe = pipeline(model=folder, trust_remote_code=True, device="cpu")
assert pipe([Image.new("RGB", (48, 48))] * 3, question, max_new_tokens=1)  # pictures in memory, as well as files
names = [type(auto.from_pretrained(folder, trust_remote_code=True)).__name__
         for auto in (AutoConfig, AutoModel, AutoModelForMultimodalLM, AutoProcessor)]
print(json.dumps({"task": pipe.task, "names": names, "found": pipe(clip, question, max_new_tokens=4)}))
"""


@pytest.fixture(scope="module")
def pipe(random_folder):
    return pipeline(PIPELINE_TASK, model=str(random_folder), device="cpu")


def test_folder_works_without_the_package(pipe, scene_clip, tmp_path):
    folder = tmp_path / "saved"
    save_with_code(pipe, folder)
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(folder), str(scene_clip), QUESTION],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")},
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.strip().splitlines()[-1])
    assert result["task"] == PIPELINE_TASK
    assert result["names"] == ["MirasolConfig", "MirasolModel", "MirasolForConditionalGeneration", "MirasolProcessor"]
    here = pipe(str(scene_clip), QUESTION, max_new_tokens=4)
    assert result["found"][0]["answer"] == here[0]["answer"]
    assert result["found"][0]["score"] == pytest.approx(here[0]["score"], rel=1e-4)


def test_saving_with_code_leaves_no_trace(pipe, tmp_path):
    save_with_code(pipe, tmp_path / "with")
    pipe.save_pretrained(tmp_path / "without")
    files = list((tmp_path / "without").iterdir())
    assert not [path for path in files if path.suffix == ".py"]
    for path in files:
        if path.suffix == ".json":
            text = path.read_text(encoding="utf-8")
            assert "auto_map" not in text
            assert "custom_pipelines" not in text
    assert not (tmp_path / "with" / "config.json").read_text(encoding="utf-8").count(str(tmp_path))
