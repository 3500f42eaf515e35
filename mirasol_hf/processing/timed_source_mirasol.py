"""What every source of bytes keeps to while FFmpeg reads through it, and sources whose bytes come only once."""

import io
import math
import os
import sys
import tempfile
import time
from typing import Any, BinaryIO, cast

from .media_limits_mirasol import MediaError, MediaLimits

# FFmpeg fills a buffer of this many bytes where it searches; what belongs to a packet it may ask for in one piece.
BUFFER_BYTES = 1 << 16
_BLOCK = 1 << 20
_POLL_SECONDS = 0.01


class TimedSource:
    """Bytes that are read within `limits.max_seconds`.

    FFmpeg calls `read` and loses what that raises, an interrupt from the keyboard too. For FFmpeg the source therefore
    ends where something goes wrong; `raise_failure` then raises what it was.

    Attributes:
        label: how messages call the source.
        size: bytes in all, or those that have come so far.
        failure: what has ended reading early.
        empty_from: the byte from which on nothing but zeros was found, and nothing is read; infinite if there is none.
    """

    label: str
    size: int

    def __init__(self, limits: MediaLimits) -> None:
        self.limits = limits
        self.failure: BaseException | None = None
        self.empty_from = math.inf
        self._zeros = self._zeros_start = 0
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

    def read(self, count: int) -> bytes:
        """At most `count` bytes; none at the end, and none after a failure."""
        if self.failure is not None:
            return b""
        try:
            start = self.position()
            if start >= self.empty_from:
                return b""
            data = self.take(count)
            if count <= BUFFER_BYTES:
                self._note_zeros(start, data)
            return data
        except BaseException as error:
            self.failure = error
            return b""

    def take(self, count: int) -> bytes:
        """At most `count` bytes; may raise."""
        raise NotImplementedError

    def position(self) -> int:
        """Number of the byte that is read next."""
        raise NotImplementedError

    def packet_found(self) -> None:
        """Know that what was read so far led to a packet."""
        self._zeros = 0

    def _note_zeros(self, start: int, data: bytes) -> None:
        """End the source where it is empty: a hole costs its writer nothing, and FFmpeg searches through all of it."""
        if data != bytes(len(data)):
            self._zeros = 0
            return
        self._zeros_start = self._zeros_start if self._zeros else start
        self._count_zeros(len(data))

    def _count_zeros(self, count: int) -> None:
        self._zeros += count
        if self._zeros > self.limits.max_empty_bytes:
            self.empty_from = min(self.empty_from, self._zeros_start)
        if self._zeros > 2 * self.limits.max_empty_bytes:
            # A search backwards from the end.
            raise MediaError(
                f"{self.label}: more than MediaLimits.max_empty_bytes={self.limits.max_empty_bytes} zeros, no packet"
            )

    def raise_failure(self) -> None:
        """Raise what ended reading, if it was not the end of the source.

        Raises:
            TimeoutError: when the time limit was used up.
            MediaError: if the source cannot be read, or is refused.
            Exception: what the file object raised, or what interrupted it.
        """
        if self.failure is not None:
            raise self.failure


class OnceSource(TimedSource):
    """A binary file object that cannot seek: a pipe, a socket.

    Nothing is read before it is asked for, and reading returns what is there instead of waiting for more.

    Args:
        file: object with `read`.
        limits: see [`MediaLimits`].
    """

    def __init__(self, file: Any, limits: MediaLimits) -> None:
        self.label = file_label(file)
        super().__init__(limits)
        self.size = 0
        self._file = file

    def take(self, count: int) -> bytes:
        """At most `count` bytes as they come."""
        return self.pull(count)

    def position(self) -> int:
        """Number of the byte that comes next."""
        return self.size

    def pull(self, count: int) -> bytes:
        """At most `count` bytes as they come, unchecked."""
        self.check_deadline()
        waiting = time.monotonic()
        take = getattr(self._file, "read1", self._file.read)
        while (data := take(count)) is None:
            time.sleep(_POLL_SECONDS)
        # Waiting for the writer is nobody's fault.
        self._deadline += time.monotonic() - waiting
        data = only_bytes(data, self.label)
        self.size += len(data)
        return data

    def store(self) -> BinaryIO:
        """All that comes, in a temporary file without a name.

        Raises:
            MediaError: if it is more than `limits.max_stream_bytes`.
        """
        target = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115
        try:
            while data := self.pull(_BLOCK):
                target.write(data)
                if self.size > self.limits.max_stream_bytes:
                    raise MediaError(
                        f"{self.label}: more than MediaLimits.max_stream_bytes={self.limits.max_stream_bytes} bytes "
                        "and cannot seek; a path has no such limit"
                    )
        except BaseException:
            target.close()
            raise
        return target


def can_seek(file: Any) -> bool:
    """Whether a file object can be read in any order."""
    return bool(file.seekable() if hasattr(file, "seekable") else hasattr(file, "seek"))


def file_label(file: Any) -> str:
    """How messages call a file object.

    Raises:
        MediaError: if it is opened as text.
    """
    name = getattr(file, "name", None)
    if name in (0, "<stdin>") or file is getattr(sys.stdin, "buffer", None):
        label = "standard input"
    else:
        # Pipes have a number for a name.
        label = f"<file object {name if isinstance(name, (str, os.PathLike)) else type(file).__name__}>"
    if isinstance(file, io.TextIOBase):
        raise MediaError(f"{label}: the file object is opened as text; open it with mode 'rb'")
    return label


def only_bytes(data: Any, label: str) -> bytes:
    """What a file object gave, if that is bytes.

    Raises:
        MediaError: if it is something else; naming the object.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise MediaError(f"{label}: read() of the file object gives {type(data).__name__}, expected bytes")
    return bytes(data)
