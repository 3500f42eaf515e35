"""Damaged files: a result or a clear error, never a crash, a hang or memory without bound."""

import os
import queue
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from media_maker import write_channels, write_kinds

MUTANTS = 3000
WORKERS = 2
# A watchdog, not a measurement: the slowest mutants take a second.
HANG_SECONDS = 60
_WORKER = Path(__file__).with_name("fuzz_worker.py")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the worker's memory limit needs /proc")
def test_thousands_of_mutants(tmp_path):
    write_kinds(tmp_path)
    write_channels(tmp_path / "nine.mka", "libopus", [1.0] * 9, options={"mapping_family": "255"})
    write_channels(tmp_path / "surround.m4a", "aac", [1.0] * 8, layout="7.1")
    reports: list[str] = []
    lanes = [threading.Thread(target=_lane, args=(tmp_path, k, reports)) for k in range(WORKERS)]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    kinds = Counter(report.split()[2].rstrip(":") for report in reports)
    bad = [report for report in reports if report.split()[2] in ("wrong:", "crash", "hang")]
    assert len(reports) == MUTANTS and not bad, bad
    assert kinds["result"] > MUTANTS // 10 and kinds["error"] > MUTANTS // 10, kinds


def _lane(folder, lane, reports):
    """All mutants of one lane; after a crash or a hang a new process goes on behind it."""
    number = lane
    while number < MUTANTS:
        number = _run_worker(folder, number, reports) + WORKERS


def _run_worker(folder, first, reports) -> int:
    command = [sys.executable, str(_WORKER), str(folder), str(first), str(MUTANTS), str(WORKERS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=lambda: [*map(lines.put, process.stdout), lines.put(None)], daemon=True).start()
    # The first line comes after the imports.
    current, patience = first, 5 * HANG_SECONDS
    while True:
        try:
            line = lines.get(timeout=patience)
        except queue.Empty:
            process.kill()
            reports.append(f"mutant {current} hang")
            return current
        if line is None:
            if process.wait():
                reports.append(f"mutant {current} crash {process.returncode}")
            return current if process.returncode else MUTANTS
        word, number, *rest = line.split(" ", 2)
        current, patience = int(number), HANG_SECONDS
        if word == "done":
            reports.append(f"mutant {number} {rest[0].strip()}")
