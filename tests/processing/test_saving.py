import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mirasol_hf.processing.feature_extraction_mirasol import MirasolFeatureExtractor
from mirasol_hf.processing.processing_mirasol import MirasolProcessor
from mirasol_hf.processing.video_processing_mirasol import MirasolVideoProcessor

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(processor, tmp_path):
    processor.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def run(code, *arguments, path=None):
    """Run code in a fresh interpreter, offline; returns what it prints."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(path or ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=arguments[0],
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_reload_in_this_process(processor, folder, media):
    again = MirasolProcessor.from_pretrained(folder)
    assert again.to_dict() == processor.to_dict()
    left, right = (p(text="q?", videos=media / "clip.mp4", return_tensors="pt") for p in (processor, again))
    assert all(torch.equal(left[name], right[name]) for name in left)


FRESH = """
import sys, torch
from transformers import AutoProcessor
import mirasol_hf
folder, clip, expected = sys.argv[1:]
processor = AutoProcessor.from_pretrained(folder)
assert type(processor).__module__ == "mirasol_hf.processing.processing_mirasol"
out = processor(text="q?", videos=clip, return_tensors="pt")
saved = torch.load(expected, weights_only=True)
assert set(saved) == set(out) and all(torch.equal(saved[name], out[name]) for name in saved)
print("identical")
"""


def test_auto_processor_in_a_fresh_process(processor, folder, media, tmp_path):
    out = processor(text="q?", videos=media / "clip.mp4", return_tensors="pt")
    torch.save(dict(out), tmp_path / "out.pt")
    assert "identical" in run(FRESH, folder, media / "clip.mp4", tmp_path / "out.pt")


REMOTE_LOAD = """
import sys
from transformers import AutoProcessor
processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
assert type(processor).__module__.startswith("transformers_modules")
assert not any(name.split(".")[0] == "mirasol_hf" for name in sys.modules)
out = processor(text="q?", videos=sys.argv[2], return_tensors="pt")
print({name: tuple(value.shape) for name, value in out.items()})
"""


@pytest.mark.slow
def test_flat_folder_loads_where_the_package_is_absent(processor, media, tmp_path, monkeypatch):
    # What `register_for_auto_class` does, undone after the test.
    for part, auto_class in (
        (MirasolProcessor, "AutoProcessor"),
        (MirasolVideoProcessor, "AutoVideoProcessor"),
        (MirasolFeatureExtractor, "AutoFeatureExtractor"),
    ):
        monkeypatch.setattr(part, "_auto_class", auto_class)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    flat = tmp_path / "flat"
    processor.save_pretrained(flat)
    printed = run(REMOTE_LOAD, flat, media / "clip.mp4", path=tmp_path)
    assert "'pixel_values_videos': (1, 4, 8, 3, 64, 64)" in printed


def test_processing_imports_only_from_its_own_folder():
    names = []
    for file in sorted((ROOT / "mirasol_hf" / "processing").glob("*.py")):
        for line in file.read_text().splitlines():
            stripped = line.strip()
            assert not stripped.startswith(("from . import", "from ..", "import mirasol", "from mirasol")), file
        names.append(file.name)
    assert all(name.endswith("_mirasol.py") for name in names if name != "__init__.py")


def test_prompt_template_must_hold_the_question(processor):
    with pytest.raises(ValueError, match="prompt_template"):
        MirasolProcessor(
            processor.video_processor, processor.feature_extractor, processor.tokenizer, prompt_template="{context}"
        )


@pytest.mark.parametrize("part", ["processor", "video_processor", "feature_extractor"])
def test_broken_off_save_leaves_the_earlier_one(processor, tmp_path, monkeypatch, part):
    saved = processor if part == "processor" else getattr(processor, part)
    folder = tmp_path / "saved"
    names = [Path(path) for path in saved.save_pretrained(folder)]
    assert names and all(path.parent == folder and path.is_file() for path in names)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "other.txt").write_text("stays")

    def half(self, path):
        Path(path).write_text("{")
        raise OSError("no space left on device")

    monkeypatch.setattr(type(saved), "to_json_file", half)
    for place in (folder, tmp_path / "new"):
        with pytest.raises(OSError, match="no space left"):
            saved.save_pretrained(place)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {**before, "other.txt": b"stays"}
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_saving_into_a_file_is_refused(processor, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="expected a folder"):
        processor.save_pretrained(tmp_path / "file")
