"""One seekable, nameless stream of bytes for every kind of source.

FFmpeg never sees a path: a name could select a protocol, a number pattern or a neighbouring file.
"""

import errno
import io
import os
import re
import stat
import time
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from .media_limits_mirasol import MediaError, MediaLimits
from .media_url_mirasol import fetch_url

MediaInput: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
_ADDRESS = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]*://")


class TimedSource:
    """What is read within `limits.max_seconds`; `label` says how messages call it."""

    label: str

    def __init__(self, limits: MediaLimits) -> None:
        self.limits = limits
        self.renew_deadline()

    def check_deadline(self) -> None:
        """Raise TimeoutError when the time limit is used up."""
        if time.monotonic() > self._deadline:
            raise TimeoutError(
                f"{self.label}: reading took longer than MediaLimits.max_seconds={self.limits.max_seconds:g}"
            )

    def renew_deadline(self) -> None:
        """Give the time limit anew, for what is read piece by piece."""
        self._deadline = time.monotonic() + self.limits.max_seconds


class MediaSource(TimedSource):
    """Bytes of one source with a deadline; what FFmpeg reads through.

    Args:
        source: path, bytes, or binary file object (read from its first byte); where `limits.allow_urls` is set, an
            http or https address too, which is fetched whole.
        limits: see [`MediaLimits`].

    Attributes:
        label: how messages call the source.
        size: bytes in all.
        open_ended: whether this is a wav that was written to a pipe, so that its header knows no length.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: as the system says, naming the path.
        MediaError: if the source is empty, not a regular file, an address, or not binary.
        TimeoutError: if an address cannot be fetched in time.
        TypeError: if it is of no known kind.
    """

    def __init__(self, source: MediaInput, limits: MediaLimits) -> None:
        super().__init__(limits)
        self._owned = not hasattr(source, "read")
        if isinstance(source, (str, os.PathLike)):
            self.label = str(source)
            path = os.fspath(source)
            self._file: Any = fetch_url(path, limits) if _is_address(path) else _open_regular(path)
        elif isinstance(source, (bytes, bytearray, memoryview)):
            self.label = f"<{len(source)} bytes>"
            self._file = io.BytesIO(source)
        elif hasattr(source, "read"):
            self.label = f"<file object {getattr(source, 'name', type(source).__name__)}>"
            self._file = _seekable(source, self.label, limits.max_stream_bytes)
        else:
            raise TypeError(f"a media source is a path, bytes or a binary file object, got {type(source).__name__}")
        self.size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        self.open_ended = is_open_ended(self._file.read(8))
        self._file.seek(0)
        if self.size == 0:
            self.close()
            raise MediaError(f"{self.label}: the file is empty")

    def read(self, count: int) -> bytes:
        """At most `count` bytes.

        Raises:
            TimeoutError: when the time limit of the file is used up.
        """
        self.check_deadline()
        return bytes(self._file.read(count))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move as `io.IOBase.seek` does."""
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        """Position in bytes."""
        return int(self._file.tell())

    def close(self) -> None:
        """Close the file if this object opened it."""
        if self._owned:
            self._file.close()


def is_open_ended(head: bytes) -> bool:
    """Whether the first eight bytes are those of a wav without a length."""
    return head[:4] == b"RIFF" and head[4:8] in (b"\xff" * 4, b"\0" * 4)


def _is_address(path: str) -> bool:
    return bool(_ADDRESS.match(path)) and "\0" not in path and not Path(path).exists()


def _open_regular(path: str) -> BinaryIO:
    """Open a regular file for reading without ever waiting for one."""
    if not path:
        raise MediaError("the path of the media file is empty")
    if "\0" in path:
        raise MediaError(f"{path!r}: a path cannot contain a NUL character")
    # Without O_NONBLOCK, opening a FIFO that nobody writes to waits for ever.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "a media file is expected, this is a directory", path)
        raise MediaError(f"{path}: not a regular file")
    return os.fdopen(handle, "rb")


def _seekable(file: Any, label: str, max_bytes: int) -> Any:
    """The file object itself if it can seek, else its content in memory."""
    if isinstance(file, io.TextIOBase):
        raise MediaError(f"{label}: the file object is opened as text; open it with mode 'rb'")
    if file.seekable() if hasattr(file, "seekable") else hasattr(file, "seek"):
        return file
    content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise MediaError(f"{label}: more than MediaLimits.max_stream_bytes={max_bytes} bytes and cannot seek")
    return io.BytesIO(content)
