"""Saving works wherever the folder itself can be written, and no half-written folder passes for a whole one."""

import inspect
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
from packaging.version import Version
from transformers import pipeline
from transformers.integrations.peft import MIN_PEFT_VERSION

from mirasol_hf.hub.export import export
from mirasol_hf.modeling import model_saving_mirasol
from mirasol_hf.modeling.model_saving_mirasol import whole_folder
from mirasol_hf.processing import saving_mirasol
from mirasol_hf.registration import PIPELINE_TASK
from mirasol_hf.training.adapters import adapter_config
from tests.modeling.small_models import build
from tests.training.killed_worker import build as build_trainer

WRITTEN = {
    "model": {"config.json", "generation_config.json", "model.safetensors"},
    "adapter": {"adapter_config.json", "adapter_model.safetensors"},
    "processor": {"processor_config.json", "tokenizer.json", "tokenizer_config.json"},
    "video_processor": {"video_preprocessor_config.json"},
    "feature_extractor": {"preprocessor_config.json"},
    "tokenizer": {"tokenizer.json", "tokenizer_config.json"},
    "export": {"README.md", "config.json", "model.safetensors", "processor_config.json", "modeling_mirasol.py"},
    "trainer": {"checkpoint-3", "config.json", "model.safetensors", "training_args.bin"},
}


@pytest.fixture(scope="module")
def other_disk() -> Iterator[Path]:
    """A folder that is a file system of its own: a mount, or a link to one where mounting is not permitted."""
    folder = Path(tempfile.mkdtemp()) / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and not subprocess.run(
        ["mount", "-t", "tmpfs", "none", str(folder)], capture_output=True, check=False
    ).returncode  # fmt: skip
    if mounted:
        yield folder
        subprocess.run(["umount", "-l", str(folder)], check=True)
    else:
        shared = Path("/dev/shm")
        if not shared.is_dir() or shared.stat().st_dev == folder.stat().st_dev:
            pytest.skip("no second file system here")
        folder.rmdir()
        folder.symlink_to(tempfile.mkdtemp(dir=shared))
        yield folder
        shutil.rmtree(folder.resolve())


def _save(kind: str, parts: Any, folder: Path) -> None:
    model, processor = parts
    if kind == "model":
        build().save_pretrained(folder)
    elif kind == "adapter":
        if Version(peft.__version__) < Version(MIN_PEFT_VERSION):
            pytest.skip(f"this Transformers adds adapters with PEFT {MIN_PEFT_VERSION} only, not {peft.__version__}")
        adapted = build()
        adapted.add_adapter(adapter_config("text"))
        adapted.save_pretrained(folder)
    elif kind == "export":
        export(pipeline(PIPELINE_TASK, model=model, processor=processor, device="cpu"), folder)
    elif kind == "trainer":
        trainer = build_trainer(folder, save_total_limit=1)
        trainer.train()
        trainer.save_model()
    else:
        saved = processor if kind == "processor" else getattr(processor, kind)
        saved.save_pretrained(folder)


@pytest.mark.parametrize("kind", WRITTEN)
def test_saving_onto_another_file_system(other_disk: Path, random_parts: Any, kind: str) -> None:
    assert other_disk.stat().st_dev != other_disk.parent.stat().st_dev
    for path in other_disk.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    _save(kind, random_parts, other_disk)
    assert {path.name for path in other_disk.iterdir()} >= WRITTEN[kind]
    assert not list(other_disk.glob(".tmp-*"))
    assert [path.name for path in other_disk.parent.iterdir()] == [other_disk.name]


@pytest.mark.parametrize("kind", ["model", "adapter", "processor", "export"])
def test_nothing_is_written_beside_the_folder(
    tmp_path: Path, random_parts: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    made: list[str] = []

    def noting(do: Any) -> Any:
        def noted(path: Any, *rest: Any, **more: Any) -> Any:
            made.append(os.fspath(path))
            return do(path, *rest, **more)

        return noted

    for name in ("mkdir", "rename", "replace"):
        monkeypatch.setattr(os, name, noting(getattr(os, name)))
    _save(kind, random_parts, folder)
    assert made and all(Path(path).is_relative_to(folder) for path in made)


@pytest.mark.parametrize("kind", ["model", "adapter", "processor"])
@pytest.mark.parametrize("before", ["empty", "full"])
def test_a_save_killed_while_files_move_leaves_no_folder_that_opens(
    tmp_path: Path, random_parts: Any, monkeypatch: pytest.MonkeyPatch, kind: str, before: str
) -> None:
    replace, rmtree = os.replace, shutil.rmtree
    last = {"model": "config.json", "adapter": "adapter_config.json", "processor": "processor_config.json"}[kind]
    for moved in range(len(WRITTEN[kind])):
        folder = tmp_path / str(moved)
        if before == "full":
            _save(kind, random_parts, folder)
        done: list[str] = []

        def die(source: str, target: str, done: list[str] = done, allowed: int = moved) -> None:
            if len(done) == allowed:
                raise KeyboardInterrupt
            done.append(target)
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", die)
            patch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)  # a killed process cleans nothing
            with pytest.raises(KeyboardInterrupt):
                _save(kind, random_parts, folder)
        assert not (folder / last).exists()
        assert list(folder.glob(".tmp-*"))
        _save(kind, random_parts, folder)
        assert (folder / last).exists() and not list(folder.glob(".tmp-*"))
        rmtree(folder)


def test_other_processes_of_a_run_keep_their_temporary_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    with whole_folder(tmp_path) as first:
        monkeypatch.setenv("RANK", "0")
        with whole_folder(tmp_path) as second:
            assert Path(first).is_dir() and Path(second).is_dir() and first != second


def test_both_folders_of_remote_code_save_alike() -> None:
    for name in ("whole_folder", "_move"):
        assert inspect.getsource(getattr(model_saving_mirasol, name)) == inspect.getsource(
            getattr(saving_mirasol, name)
        )
    assert model_saving_mirasol._ENTRIES == saving_mirasol._ENTRIES
