"""Every hostile file of the oracle in a process of its own: its outcome, its memory, and what else was touched."""

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

_WORKER = Path(__file__).with_name("hostile_worker.py")
# A watchdog for the whole process: the ten seconds of the oracle, and the imports of a machine that is busy.
_PATIENCE = 180
_HARMLESS = re.compile(r'"(/proc/|/dev/null|/etc/localtime|/sys/devices/system/cpu|/begin|/end|/usr/lib|/lib)')


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the witnesses need /proc")
def test_hostile_files_touch_nothing_else(shared_media, tmp_path):
    folder, entries = shared_media
    hostile = [entry for entry in entries.values() if entry["cls"] != "good"]
    with ThreadPoolExecutor(2) as pool:
        wrong = [line for found in pool.map(lambda e: _faults(folder, e, tmp_path), hostile) for line in found]
    assert len(hostile) > 80 and not wrong


def _faults(folder, entry, tmp_path):
    name, path = entry["name"], folder / entry["name"]
    log = tmp_path / f"{name}.strace"
    command = [sys.executable, str(_WORKER), str(path)]
    if shutil.which("strace"):
        command = ["strace", "-f", "-qq", "-e", "trace=%file,%network", "-o", str(log), *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return [f"{name}: hangs"]
    if done.returncode:
        return [f"{name}: ends with {done.returncode}: {done.stderr[-300:]}"]
    report = json.loads(done.stdout.splitlines()[-1])
    faults = [f"{name}: {report['outcome']}"] if report["outcome"] not in entry["accept"] else []
    faults += [f"{name}: {what}" for what in report["touched"]]
    if report["seconds"] > 10:
        faults.append(f"{name}: {report['seconds']:.0f} s of processor time")
    if report["grown_mb"] > 1000:
        faults.append(f"{name}: {report['grown_mb']} MB")
    return faults + [f"{name}: {line}" for line in _strange_calls(log, path)]


def _strange_calls(log, path):
    """System calls between the two marks that name another file or reach for the network."""
    if not log.exists():
        return []
    text = log.read_text(errors="replace")
    between = text.split("/begin-of-reading", 1)[1].split("/end-of-reading", 1)[0].splitlines()[1:]
    calls = [line.split(maxsplit=1)[-1] for line in between if "resumed>" not in line and "---" not in line]
    own = (f'"{path}"', '""', f'"{sys.prefix}', f'"{sys.base_prefix}')
    return [c for c in calls if not any(o in c for o in own) and not _HARMLESS.search(c) and not c.startswith("+++")]


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
