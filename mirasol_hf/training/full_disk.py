"""A full disk is called so, whatever the library that writes makes of it."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

_FULL = (errno.ENOSPC, errno.EDQUOT)
# more than what a file system keeps in reserve for the end of a file
_PROBE = b"\0" * (1 << 20)


@contextmanager
def told_when_full(folder: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Raise OSError with errno ENOSPC, saying that the disk is full and `what` is lost, where that was the cause."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if not (_says_full(error) or _is_full(folder)):
            raise
        told = OSError(f"the disk of {os.fspath(folder)} is full: {what}")
        told.errno = errno.ENOSPC
        raise told from error


def _says_full(error: BaseException) -> bool:
    """Whether an error names the cause: safetensors does so in words alone."""
    return getattr(error, "errno", None) in _FULL or any(f"(os error {number})" in str(error) for number in _FULL)


def _is_full(folder: str | os.PathLike[str]) -> bool:
    """Whether nothing can be written: the writer of torch does not say why it failed."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(_PROBE)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno in _FULL
    return False
