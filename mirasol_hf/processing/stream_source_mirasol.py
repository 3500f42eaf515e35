"""Bytes that come once and in order: a pipe, a socket, a growing file.

An mp4 that comes this way cannot be looked at before FFmpeg opens it, so its header boxes are held back and checked
one by one on their way.
"""

import io
import math
import time
from typing import Any

from .box_scan_mirasol import FIRST_BOXES, BoxScan, Claims
from .media_limits_mirasol import MediaError, MediaLimits
from .media_source_mirasol import TimedSource, is_open_ended

_MP4_DEMUXER = {"mov", "mp4", "m4a", "3gp", "3g2", "mj2"}
_POLL_SECONDS = 0.01


class StreamSource(TimedSource):
    """A binary file object that cannot seek, with a deadline; what FFmpeg reads through.

    Nothing is read before it is asked for, and reading returns what is there instead of waiting for more.

    Args:
        file: object with `read`.
        limits: see [`MediaLimits`].

    Attributes:
        label: how messages call the source.
        size: bytes that have come so far.
        open_ended: whether this is a wav whose header knows no length.
        formats: demuxers that may be used: the mp4 demuxer only where its boxes are checked.
        problems: what is wrong with the bytes, in words.

    Raises:
        MediaError: if the object is opened as text, or empty.
    """

    def __init__(self, file: Any, limits: MediaLimits) -> None:
        self.label = f"<file object {getattr(file, 'name', type(file).__name__)}>"
        if isinstance(file, io.TextIOBase):
            raise MediaError(f"{self.label}: the file object is opened as text; open it with mode 'rb'")
        super().__init__(limits)
        self.size = 0
        self.problems: list[str] = []
        self.failure: BaseException | None = None
        self._file = file
        head = self._exactly(8)
        if not head:
            raise MediaError(f"{self.label}: the stream is empty")
        self._boxes = _BoxGuard(self) if head[4:8] in FIRST_BOXES else None
        self._ready = head
        self.open_ended = is_open_ended(head)
        # FFmpeg takes for mp4 what begins with unknown boxes too; such a stream would come past the check.
        allowed = limits.formats.split(",")
        self.formats = ",".join(name for name in allowed if self._boxes is not None or name not in _MP4_DEMUXER)

    def read(self, count: int) -> bytes:
        """At most `count` bytes; none at the end, and none after a failure."""
        if self.failure is not None:
            return b""
        try:
            return self.pull(count) if self._boxes is None else self._boxes.read(count)
        except BaseException as error:
            # FFmpeg calls this and loses exceptions on the way, an interrupt from the keyboard too. For FFmpeg the
            # stream ends here; `raise_failure` then raises what has ended it.
            self.failure = error
            return b""

    def raise_failure(self) -> None:
        """Raise what ended reading, if it was not the end of the stream.

        Raises:
            TimeoutError: when the time limit was used up.
            MediaError: if a header box was refused.
            Exception: what the file object raised, or what interrupted it.
        """
        if self.failure is not None:
            raise self.failure

    def pull(self, count: int) -> bytes:
        """At most `count` bytes as they come, unchecked."""
        if self._ready:
            data, self._ready = self._ready[:count], self._ready[count:]
            return data
        self.check_deadline()
        waiting = time.monotonic()
        take = getattr(self._file, "read1", self._file.read)
        while (data := take(count)) is None:
            time.sleep(_POLL_SECONDS)
        # Waiting for the writer is nobody's fault.
        self._deadline += time.monotonic() - waiting
        self.size += len(data)
        return bytes(data)

    def _exactly(self, count: int) -> bytes:
        self._ready = b""
        return read_exactly(self, count)

    def close(self) -> None:
        """Nothing: the object was given open and stays open."""


def read_exactly(source: StreamSource, count: int) -> bytes:
    """`count` bytes, fewer only at the end of the stream."""
    parts = []
    while count > 0:
        data = source.pull(min(count, 1 << 20))
        if not data:
            break
        parts.append(data)
        count -= len(data)
    return b"".join(parts)


class _BoxGuard:
    """Lets media data through and holds every other box back until it is checked."""

    def __init__(self, source: StreamSource) -> None:
        self.source = source
        self.checked = b""
        self.media_left: int | None = 0  # None: to the end of the stream
        self.header_seen = False
        self.ended = False
        self.claims = Claims()

    def read(self, count: int) -> bytes:
        if not self.checked and self.media_left == 0 and not self.ended:
            self._next_box()
        if self.checked:
            data, self.checked = self.checked[:count], self.checked[count:]
            return data
        if self.ended:
            return b""
        data = self.source.pull(count if self.media_left is None else min(count, self.media_left))
        if self.media_left is not None:
            self.media_left -= len(data)
            if not data:
                self._cut_off()
        return data

    def _cut_off(self) -> None:
        self.ended = True
        self.source.problems.append("the stream is cut off")

    def _next_box(self) -> None:
        head = read_exactly(self.source, 8)
        if not head:
            self.ended = True
            return
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1:
            head += read_exactly(self.source, 8)
            size = int.from_bytes(head[8:16], "big")
        if len(head) not in (8, 16):
            return self._cut_off()
        if kind == b"mdat":
            self._let_through(head, size)
            return
        name = kind.decode("latin-1")
        if size < len(head) or size > self.source.limits.max_header_bytes:
            self._refuse(f"box {name!r} of {size} bytes; MediaLimits.max_header_bytes={self._most} are held")
        body = read_exactly(self.source, size - len(head))
        if len(body) < size - len(head):
            if not self.header_seen:
                raise MediaError(f"{self.source.label}: the stream ends inside its header")
            return self._cut_off()
        if body[4:8] in (b"mvhd", b"cmov") and kind != b"moov":
            self._refuse(f"a movie header is hidden in box {name!r}")
        _HeldBoxes(self, head + body).walk(0, size, 0)
        self.header_seen = self.header_seen or kind == b"moov"
        self.checked = head + body

    @property
    def _most(self) -> int:
        return self.source.limits.max_header_bytes

    def _let_through(self, head: bytes, size: int) -> None:
        if not self.header_seen:
            raise MediaError(
                f"{self.source.label}: the header of this mp4 comes after its media, which only a file that can seek "
                "allows; give the path, or write it fragmented or with its header first (faststart)"
            )
        if size != 0 and size < len(head):
            self._refuse(f"box 'mdat' of {size} bytes")
        self.media_left = None if size == 0 else size - len(head)
        self.checked = head

    def _refuse(self, cause: str) -> None:
        raise MediaError(f"{self.source.label}: refused while reading: {cause}")


class _HeldBoxes(BoxScan):
    """The check of one held box; what it claims counts against the whole stream, whose end nobody knows.

    A table without an entry for each sample costs its writer nothing, FFmpeg some tens of bytes per sample.
    """

    def __init__(self, guard: _BoxGuard, content: bytes) -> None:
        super().__init__(_Held(guard.source.label, content), guard.source.limits, guard.claims)
        self.media_bytes = math.inf
        self.run_bytes = guard.source.size

    def refuse(self, cause: str) -> None:
        """Raise the error that names the stream."""
        raise MediaError(f"{self.source.label}: refused while reading: {cause}")


class _Held:
    """A held box as the source of a scan; it is whole, so none of its tables ends with the file."""

    def __init__(self, label: str, content: bytes) -> None:
        self.label = label
        self.size = len(content) + 1
        self._file = io.BytesIO(content)
        self.read, self.seek = self._file.read, self._file.seek
