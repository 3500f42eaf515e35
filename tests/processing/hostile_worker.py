"""Gives files to the processor, each in a process of its own under a limit of memory, and reports what it touched.

Two witnesses: an audit hook sees every file that Python opens, every program it starts and every socket it makes; the
tables of /proc, read by a thread every few milliseconds and at the end, show what FFmpeg's own code has open. A file
that native code opens and closes between two looks escapes the second one, which `strace` in the test closes where it
is installed.
"""

import json
import os
import resource
import sys
import threading
import time
import warnings
from pathlib import Path

HEADROOM_BYTES = 1 << 30
_WATCHED = ("open", "os.exec", "os.posix_spawn", "os.system", "subprocess.Popen", "socket.__new__", "socket.connect")
# FFmpeg loads tables of character sets from the system's libraries.
_OWN = ("/proc/", "/usr/lib", "/lib", sys.prefix, sys.base_prefix)


class Witness:
    """What the process touches from `begin` on."""

    def __init__(self, path: str) -> None:
        self.allowed = {path, os.path.abspath(path), os.path.realpath(path)}
        self.seen: set[str] = set()
        self.over = threading.Event()
        self.watching = False
        sys.addaudithook(self._hear)

    def begin(self) -> None:
        self.before = self._open_files()
        self.watching = True
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()

    def end(self) -> list[str]:
        self.over.set()
        self.thread.join()
        self._compare()
        self.watching = False
        return sorted(self.seen)

    def _hear(self, event, details) -> None:
        if not self.watching or event not in _WATCHED:
            return
        if event == "open":
            name = details[0]
            own = not isinstance(name, (str, bytes)) or os.fsdecode(name) in self.allowed
            if own or os.fsdecode(name).startswith(_OWN):
                return
            self.seen.add(f"open {os.fsdecode(name)}")
        else:
            self.seen.add(f"{event} {details}"[:200])

    def _open_files(self) -> set[str]:
        found = set()
        for entry in os.listdir("/proc/self/fd"):
            try:
                found.add(os.readlink(f"/proc/self/fd/{entry}"))
            except OSError:
                continue
        return found

    def _compare(self) -> None:
        for name in self._open_files() - self.before - self.allowed:
            if not name.startswith(_OWN):
                self.seen.add(f"holds {name}")

    def _look(self) -> None:
        while not self.over.wait(0.005):
            self._compare()


def report(processor, path: str) -> str:
    """Read one file as JSON: its outcome, what else was touched, memory and processor time."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + HEADROOM_BYTES, used + HEADROOM_BYTES))
    seconds = time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    witness = Witness(path)
    # strace shows this call, which marks where watching begins.
    os.path.exists(f"/begin-of-reading/{os.path.basename(path)}/")
    witness.begin()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            processor(videos=path, num_chunks=2)
            outcome = "partial" if caught else "ok"
        except (ValueError, OSError) as error:
            outcome = "error" if os.path.basename(path) in str(error) else f"does not name the file: {error}"
    touched = witness.end()
    os.path.exists("/end-of-reading")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    seconds = time.process_time() - seconds
    return json.dumps({"outcome": outcome, "touched": touched, "grown_mb": grown, "seconds": seconds})


def main() -> None:
    """One process per path on standard input, forked after the imports; one line of JSON for each."""
    from fuzz_worker import _processor

    processor = _processor()
    processor(videos=[_picture()], num_chunks=1)
    for line in sys.stdin:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            print(report(processor, line.rstrip("\n")), flush=True)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status:
            print(json.dumps({"crash": status}), flush=True)


def _picture():
    import numpy as np

    return np.zeros((8, 8, 3), np.uint8)


if __name__ == "__main__":
    main()
