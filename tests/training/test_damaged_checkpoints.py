"""A run goes on from a whole checkpoint of its own, or says which file or setting is at fault and what to do."""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mirasol_hf.training.checkpoint_manifest import MANIFEST, DamagedCheckpoint, check_checkpoint
from mirasol_hf.training.full_disk import told_when_full
from tests.training.killed_worker import build

NEEDED = ("trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    build(folder, max_steps=2).train()
    return folder


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    return tmp_path


def _damages(file: Path) -> Iterator[str]:
    """Damage a file in one way after the other."""
    content = file.read_bytes()
    for way, changed in (
        ("cut", content[: len(content) // 2]),
        ("empty", b""),
        ("longer", content + b"\0"),
        ("zeros", bytes(len(content))),
        ("gone", None),
    ):
        file.unlink(missing_ok=True) if changed is None else file.write_bytes(changed)
        yield way
    file.write_bytes(content)


def test_every_file_is_missed_or_found_damaged(run: Path) -> None:
    trainer = build(run)
    newest = run / "checkpoint-2"
    names = {path.name for path in newest.iterdir()}
    assert names >= {*NEEDED, MANIFEST, "model.safetensors", "tokenizer.json", "config.json"}
    for name in sorted(names):
        for way in _damages(newest / name):
            if name == MANIFEST and way == "gone":
                continue  # as a checkpoint of another Trainer
            with pytest.raises(DamagedCheckpoint) as told:
                trainer.train(resume_from_checkpoint=True)
            message = str(told.value)
            assert message.startswith(f"{newest}/{name} "), (name, way, message)
            assert message.endswith(f"remove the folder to go on from {run / 'checkpoint-1'}, which is whole")
            assert "\n" not in message and len(message) < 300 + 2 * len(str(run))
    shutil.rmtree(newest)
    assert trainer.train(resume_from_checkpoint=True).global_step == 3


def test_without_manifest_the_files_tell(run: Path) -> None:
    newest = run / "checkpoint-2"
    (newest / MANIFEST).unlink()
    check_checkpoint(newest, {"seed": 1}, NEEDED)
    for name in (*NEEDED, "model.safetensors", "tokenizer.json"):
        for way in _damages(newest / name):
            if way == "longer" or (way == "gone" and name not in NEEDED):
                continue
            with pytest.raises(DamagedCheckpoint, match=re.escape(f"checkpoint-2/{name} ")):
                check_checkpoint(newest, {}, NEEDED)


def test_pickled_weights_are_refused(run: Path) -> None:
    newest = run / "checkpoint-2"
    (newest / MANIFEST).unlink()
    torch.save(load_file(newest / "model.safetensors"), newest / "pytorch_model.bin")
    (newest / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"checkpoint-2/pytorch_model\.bin is a pickle"):
        build(run).train(resume_from_checkpoint=str(newest))


def test_one_changed_byte_of_the_optimizer(run: Path) -> None:
    file = run / "checkpoint-2" / "optimizer.pt"
    content = bytearray(file.read_bytes())
    momentum = torch.load(file)["state"][0]["exp_avg"].contiguous().numpy().tobytes()
    content[content.index(momentum) + 5] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamagedCheckpoint, match=r"optimizer\.pt is damaged: the checksum of"):
        build(run).train(resume_from_checkpoint=str(run / "checkpoint-2"))


def test_nothing_whole_beside_it(run: Path) -> None:
    for step in (1, 2):
        (run / f"checkpoint-{step}" / "scheduler.pt").unlink()
    with pytest.raises(DamagedCheckpoint, match=r"checkpoint-2/scheduler.pt is missing; no other checkpoint"):
        build(run).train(resume_from_checkpoint=True)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*checkpoint-9"):
        build(run).train(resume_from_checkpoint=str(run / "checkpoint-9"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 7}, r"seed 42 \(here 7\)"),
        ({"per_device_train_batch_size": 3}, r"per_device_train_batch_size 2 \(here 3\)"),
        ({"gradient_accumulation_steps": 2}, r"gradient_accumulation_steps 1 \(here 2\)"),
        ({"learning_rate": 0.5, "optim": "sgd"}, r"optim '\w+' \(here 'sgd'\)"),
    ],
)
def test_other_settings_than_the_runs(run: Path, change: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=rf"checkpoint-2 belongs to another run, with .*{told}"):
        build(run, **change).train(resume_from_checkpoint=True)


def test_other_rows_than_the_runs(run: Path) -> None:
    trainer = build(run)
    trainer.train_dataset = trainer.train_dataset[:4]
    with pytest.raises(ValueError, match=r"rows 6 \(here 4\)"):
        trainer.train(resume_from_checkpoint=True)


def test_weights_alone_do_not_go_on(tmp_path: Path) -> None:
    build(tmp_path, max_steps=1, save_only_model=True).train()
    with pytest.raises(DamagedCheckpoint, match=r"optimizer\.pt is missing: the weights alone.*save_only_model"):
        build(tmp_path).train(resume_from_checkpoint=True)


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_ends_a_run_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch says of it: its archive could not be written."""
    trainer = build(tmp_path)
    write = torch.save

    def save(what: Any, path: Any, *more: Any, **options: Any) -> None:
        if trainer.state.global_step == 2 and str(path).endswith("optimizer.pt"):
            monkeypatch.setattr("tempfile.TemporaryFile", _full)
            raise RuntimeError("[enforce fail at inline_container.cc:858] . PytorchStreamWriter failed writing file")
        write(what, path, *more, **options)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(OSError, match=rf"^the disk of {tmp_path} is full: checkpoint-2 could not be written$") as told:
        trainer.train()
    assert told.value.errno == errno.ENOSPC
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    assert json.loads((tmp_path / "checkpoint-1" / "trainer_state.json").read_text())["global_step"] == 1


def _full(**options: Any) -> Any:
    raise FULL


@pytest.mark.parametrize(
    ("error", "is_full"),
    [
        (FULL, True),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (OSError(errno.EDQUOT, "quota"), True),
        (PermissionError(errno.EACCES, "no"), False),
        (RuntimeError("something else"), False),
        (ValueError("os error 28"), False),
    ],
)
def test_what_says_that_a_disk_is_full(tmp_path: Path, error: Exception, is_full: bool) -> None:
    with pytest.raises(OSError if is_full else type(error)) as told, told_when_full(tmp_path, "lost"):
        raise error
    assert ("is full: lost" in str(told.value)) == is_full
