"""One seekable, nameless stream of bytes for every kind of source.

FFmpeg never sees a path: a name could select a protocol, a number pattern or a neighbouring file.
"""

import errno
import io
import math
import os
import re
import stat
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from .media_limits_mirasol import MediaError, MediaLimits
from .media_url_mirasol import fetch_url
from .timed_source_mirasol import OnceSource, TimedSource, can_seek, file_label, only_bytes

MediaInput: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
# Zeros whose search takes as long as one move: some demuxers move with every few bytes.
_SEEK_WORTH = 1 << 10
_ADDRESS = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]*://")


class MediaSource(TimedSource):
    """Bytes of one source with a deadline; what FFmpeg reads through.

    Args:
        source: path, bytes, or binary file object (read from its first byte; one that cannot seek is stored first);
            where `limits.allow_urls` is set, an http or https address too, which is fetched whole.
        limits: see [`MediaLimits`].

    Attributes:
        open_ended: whether this is a wav that was written to a pipe, so that its header knows no length.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: as the system says, naming the path.
        MediaError: if the source is empty, not a regular file, an address, or not binary.
        TimeoutError: if an address cannot be fetched in time.
        TypeError: if it is of no known kind.
    """

    def __init__(self, source: MediaInput | OnceSource, limits: MediaLimits) -> None:
        super().__init__(limits)
        if hasattr(source, "read") and not isinstance(source, OnceSource) and not can_seek(source):
            source = OnceSource(source, limits)
        self._owned = isinstance(source, OnceSource) or not hasattr(source, "read")
        self._file: Any
        self._file, self.label = _opened(source, limits)
        try:
            self._measure()
        except BaseException:
            self.close()
            raise

    def _measure(self) -> None:
        try:
            self.size = self._file.seek(0, os.SEEK_END)
            self._file.seek(0)
            head = only_bytes(self._file.read(8), self.label)
            self._file.seek(0)
        except OSError as error:
            raise self._unreadable(error) from error
        if self.size == 0:
            special = "this is a special file, whose size the system does not tell"
            raise MediaError(f"{self.label}: {special if head else 'the file is empty'}")
        self.open_ended = is_open_ended(head)

    def _unreadable(self, error: OSError) -> MediaError:
        return MediaError(f"{self.label}: cannot be read ({error.strerror or error})")

    def take(self, count: int) -> bytes:
        """At most `count` bytes; may raise."""
        self.check_deadline()
        try:
            return only_bytes(self._file.read(count), self.label)
        except OSError as error:
            raise self._unreadable(error) from error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move as `io.IOBase.seek` does; -1 where that fails, which FFmpeg understands."""
        try:
            if self._zeros and self.empty_from == math.inf:
                self._count_zeros(_SEEK_WORTH)
            return int(self._file.seek(offset, whence))
        except BaseException as error:
            # What is no place in the file is for FFmpeg to know, anything else is a failure.
            if not isinstance(error, ValueError) or isinstance(error, MediaError):
                self.failure = self._unreadable(error) if isinstance(error, OSError) else error
            return -1

    def position(self) -> int:
        """Number of the byte that is read next."""
        return int(self._file.tell())

    tell = position

    def close(self) -> None:
        """Close the file if this object opened it."""
        if self._owned:
            self._file.close()


def is_open_ended(head: bytes) -> bool:
    """Whether the first eight bytes are those of a wav without a length."""
    return head[:4] == b"RIFF" and head[4:8] in (b"\xff" * 4, b"\0" * 4)


def _opened(source: Any, limits: MediaLimits) -> tuple[Any, str]:
    """The file behind a source, and how messages call it."""
    if isinstance(source, OnceSource):
        return source.store(), source.label
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        return (fetch_url(path, limits) if _is_address(path) else _open_regular(path)), str(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source), f"<{len(source)} bytes>"
    if hasattr(source, "read"):
        return source, file_label(source)
    raise TypeError(f"a media source is a path, bytes or a binary file object, got {type(source).__name__}")


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
