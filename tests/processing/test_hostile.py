"""Every hostile file of the oracle in a process of its own: its outcome, its memory, and what else was touched."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

_WORKER = Path(__file__).with_name("hostile_worker.py")
# A watchdog for each file: the ten seconds of the oracle on a machine that is busy, under strace.
_PATIENCE = 120
_HARMLESS = re.compile(r'"(/proc/|/dev/null|/etc/localtime|/sys/devices/system/cpu|/begin|/end|/usr/lib|/lib)')


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the witnesses need /proc")
def test_hostile_files_touch_nothing_else(shared_media, tmp_path):
    folder, entries = shared_media
    hostile = [entry for entry in entries.values() if entry["cls"] != "good"]
    log = tmp_path / "calls"
    traced = (
        ["strace", "-f", "-qq", "-s", "4096", "-e", "trace=%file,%network", "-o", str(log)]
        if shutil.which("strace")
        else []
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen([*traced, sys.executable, str(_WORKER)], **pipes) as worker:
        wrong = [fault for entry in hostile for fault in _faults(worker, folder / entry["name"], entry["accept"])]
        worker.stdin.close()
    if traced:
        wrong += [fault for entry in hostile for fault in _strange_calls(log, folder / entry["name"])]
    assert len(hostile) > 80 and not wrong


def _faults(worker, path, accepted):
    worker.stdin.write(f"{path}\n")
    worker.stdin.flush()
    watchdog = threading.Timer(_PATIENCE, worker.kill)
    watchdog.start()
    line = worker.stdout.readline()
    watchdog.cancel()
    if not line:
        pytest.fail(f"{path.name}: hangs, or ended the process that starts the others")
    report = json.loads(line)
    if "crash" in report:
        return [f"{path.name}: ends with status {report['crash']}"]
    faults = [f"{path.name}: {report['outcome']}"] if report["outcome"] not in accepted else []
    faults += [f"{path.name}: {what}" for what in report["touched"]]
    if report["seconds"] > 10:
        faults.append(f"{path.name}: {report['seconds']:.0f} s of processor time")
    if report["grown_mb"] > 1000:
        faults.append(f"{path.name}: {report['grown_mb']} MB")
    return faults


def _strange_calls(log, path):
    """System calls while a file was read that name another file or reach for the network."""
    mark = f"/begin-of-reading/{path.name}/"
    between = log.read_text(errors="replace").split(mark, 1)[1].split("/end-of-reading", 1)[0].splitlines()[1:-1]
    calls = [line.split(maxsplit=1)[-1] for line in between if "resumed>" not in line and "---" not in line]
    own = (f'"{path}"', '""', f'"{sys.prefix}', f'"{sys.base_prefix}')
    strange = [
        c for c in calls if not any(o in c for o in own) and not _HARMLESS.search(c) and not c.startswith("+++")
    ]
    return [f"{path.name}: {call}" for call in strange]


@pytest.mark.skipif(sys.platform != "linux", reason="the witnesses need /proc")
@pytest.mark.parametrize("what", ["import socket; socket.socket()", "open('/etc/hostname').read()"])
def test_the_witness_sees(what, tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from hostile_worker import Witness\n"
        f"witness = Witness('/clip.mp4'); witness.begin()\n{what}\nprint(witness.end())"
    )
    command = [sys.executable, "-c", code, str(_WORKER.parent)]
    seen = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "socket" in seen or "/etc/hostname" in seen


@pytest.mark.skipif(sys.platform != "linux", reason="the witnesses need /proc")
def test_odd_paths_are_errors(processor, tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "dangling.mp4").symlink_to("nowhere.mp4")
    odd = [str(tmp_path / name) for name in ("pipe.mp4", "folder.mp4", "loop.mp4", "dangling.mp4", "none.mp4")]
    odd += [
        "/dev/zero",
        "/dev/urandom",
        "pipe:0",
        f"concat:{tmp_path}/a.ts|b.ts",
        f"subfile,,start,0,end,0,,:{tmp_path}",
    ]
    odd += ["tcp://127.0.0.1:9?listen=1", "data:audio/wav;base64,UklGRiQAAABXQVZF", f"cache:{tmp_path}/a.ts", "fd:0"]
    for path in odd:
        with pytest.raises((ValueError, OSError)) as error:
            processor(videos=path)
        assert path in str(error.value)
