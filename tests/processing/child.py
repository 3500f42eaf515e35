"""Runs a function in a forked process, which may crash or run out of memory without ending the tests."""

import multiprocessing
import resource
from pathlib import Path


def in_child(function, *arguments, headroom: int | None = None):
    """What a function returns in a process of its own, to which `headroom` more bytes may be given; else fails."""
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(
        target=lambda: theirs.send(_limited(function, arguments, headroom))
    )
    child.start()
    theirs.close()
    try:
        result = ours.recv()
    except EOFError:
        result = "no answer"
    child.join()
    assert child.exitcode == 0, f"the process ended with {child.exitcode}: {result}"
    return result


def _limited(function, arguments, headroom):
    if headroom is not None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + headroom, used + headroom))
    return function(*arguments)
