"""One training run at a time in a folder: a lock that names the run that holds it, and ends with its process."""

from __future__ import annotations

import errno
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# The Trainer uploads no file of its folder whose name begins so.
LOCK_FILE = "_run.lock"

# The system tells no two locks of one process apart.
_held: set[Path] = set()


@contextmanager
def only_run(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a folder, which is made if it is absent, until the block ends or the process does.

    A lock by `lockf` belongs to this process alone: workers that it forked do not keep it when it is killed. On a
    network file system it holds between machines as far as that passes locks on; where there are none, a warning says
    so.

    Raises:
        ValueError: another run holds the folder; the message names its process, machine and start.
    """
    path = Path(folder).resolve() / LOCK_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    if path in _held:
        raise ValueError(f"{folder} is in use by another run in this process")
    handle = _locked(path, folder)
    _held.add(path)
    try:
        yield
    finally:
        _held.discard(path)
        path.unlink(missing_ok=True)  # while it is held: see `_locked`
        os.close(handle)


def _locked(path: Path, folder: str | os.PathLike[str]) -> int:
    """Open and lock the file; one that a run which ended meanwhile has removed would lock nothing."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(handle, folder)
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                os.ftruncate(handle, 0)
                os.pwrite(handle, _this_run().encode(), 0)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int, folder: str | os.PathLike[str]) -> None:
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            other = os.pread(handle, 300, 0).decode(errors="replace")
            raise ValueError(f"{folder} is in use by another run: {other or 'it has just begun'}") from None
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        warnings.warn(f"the file system of {folder} has no locks: see that no other run writes there", stacklevel=5)


def _this_run() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}, started {datetime.now():%Y-%m-%d %H:%M:%S}"
