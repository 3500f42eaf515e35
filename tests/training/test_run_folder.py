"""Two runs never share a folder, and what a folder holds is replaced by request alone."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirasol_hf.cli import main
from mirasol_hf.training import run_lock
from mirasol_hf.training.run_folder import clear, where_to_start
from mirasol_hf.training.run_lock import LOCK_FILE, only_run
from mirasol_hf.training.train import run_recipe
from tests.training.killed_worker import build

# Holds a folder until its input ends; like a loader, it has a forked child that outlives it by some seconds.
HOLDER = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from run_lock import only_run
with only_run(sys.argv[2]):
    if os.fork() == 0:
        os.close(1)
        time.sleep(30)
        os._exit(0)
    print(flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen]:
    code = str(Path(run_lock.__file__).parent)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stdout.readline() == b"\n"
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_the_other_run_is_named(holder: subprocess.Popen, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    named = rf"in use by another run: process {holder.pid} on \S+, started \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d"
    for _ in range(2):
        with pytest.raises(ValueError, match=named):
            run_recipe("avscenes-tiny", tmp_path, resume=True)
    with pytest.raises(ValueError, match=named):
        build(tmp_path).train()
    with pytest.raises(SystemExit) as ended:
        main(["train", "--recipe", "avscenes-tiny", "--output-dir", str(tmp_path), "--overwrite"])
    assert ended.value.code == 2
    assert str(holder.pid) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_FILE]
    # A run that saves nothing disturbs nobody.
    assert build(tmp_path, save_strategy="no", max_steps=1).train().global_step == 1


def test_a_killed_run_leaves_no_lock(holder: subprocess.Popen, tmp_path: Path) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with only_run(tmp_path), pytest.raises(ValueError, match="in this process"), only_run(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_folder_holds_is_kept(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoints" / "checkpoint-3"
    assert where_to_start(tmp_path / "new", resume=True, overwrite=False) is None
    (tmp_path / "model.safetensors").touch()
    for resume in (False, True):
        with pytest.raises(ValueError, match=r"holds a model \(model.safetensors\).*--overwrite"):
            where_to_start(tmp_path, resume=resume, overwrite=False)
    checkpoint.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"holds checkpoints.*--resume.*--overwrite"):
        where_to_start(tmp_path, resume=False, overwrite=False)
    assert where_to_start(tmp_path, resume=True, overwrite=False) == str(checkpoint)
    (tmp_path / "training_result.json").touch()
    with pytest.raises(ValueError, match=r"finished run.*nothing is left to resume.*--overwrite"):
        where_to_start(tmp_path, resume=True, overwrite=False)
    with pytest.raises(ValueError, match=r"finished run.*--overwrite"):
        where_to_start(tmp_path, resume=False, overwrite=False)
    with pytest.raises(ValueError, match="give one of them"):
        where_to_start(tmp_path, resume=True, overwrite=True)
    assert where_to_start(tmp_path, resume=False, overwrite=True) is None
    assert checkpoint.is_dir(), "looking changes nothing"
    clear(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "checkpoints"}
    assert not checkpoint.exists()
