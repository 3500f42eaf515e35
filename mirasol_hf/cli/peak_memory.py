"""Peak memory of this process, for benchmarks whose every row is a process of its own."""

import resource
import sys
from pathlib import Path


def peak_resident_mib() -> float:
    """Peak resident memory so far, in MiB."""
    # Linux hands `ru_maxrss` of the parent on through fork and exec; the high-water mark in /proc is our own.
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round((peak if sys.platform == "darwin" else peak * 1024) / 2**20, 1)
