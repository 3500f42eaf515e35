"""Bytes that come once and in order: a pipe, a socket, a growing file.

An mp4 that comes this way cannot be looked at before FFmpeg opens it, so its header boxes are held back and checked
one by one on their way.
"""

import io
import math
from typing import Any, BinaryIO

from .box_scan_mirasol import FIRST_BOXES, BoxScan, Claims
from .media_limits_mirasol import MediaError, MediaLimits
from .media_source_mirasol import is_open_ended
from .timed_source_mirasol import OnceSource

_MP4_DEMUXER = {"mov", "mp4", "m4a", "3gp", "3g2", "mj2"}


class StreamSource(OnceSource):
    """A binary file object that cannot seek; what FFmpeg reads through.

    Args:
        file: object with `read`.
        limits: see [`MediaLimits`].

    Attributes:
        open_ended: whether this is a wav whose header knows no length.
        formats: demuxers that may be used: the mp4 demuxer only where its boxes are checked.
        problems: what is wrong with the bytes, in words.
        header_last: whether this is an mp4 whose header follows its media, which only `store` makes readable.

    Raises:
        MediaError: if the object is opened as text, empty, or refused by its first boxes.
    """

    def __init__(self, file: Any, limits: MediaLimits) -> None:
        super().__init__(file, limits)
        self.problems: list[str] = []
        self._ready = b""
        head = read_exactly(self, 8)
        if not head:
            raise MediaError(f"{self.label}: the stream is empty")
        self._ready = head
        self._boxes = _BoxGuard(self) if head[4:8] in FIRST_BOXES else None
        self.header_last = self._boxes is not None and self._boxes.media_come_first()
        self.open_ended = is_open_ended(head)
        # FFmpeg takes for mp4 what begins with unknown boxes too; such a stream would come past the check.
        allowed = limits.formats.split(",")
        self.formats = ",".join(name for name in allowed if self._boxes is not None or name not in _MP4_DEMUXER)

    def take(self, count: int) -> bytes:
        """At most `count` bytes that are checked."""
        return self.pull(count) if self._boxes is None else self._boxes.read(count)

    def pull(self, count: int) -> bytes:
        """At most `count` bytes as they come, unchecked."""
        if self._ready:
            data, self._ready = self._ready[:count], self._ready[count:]
            return data
        return super().pull(count)

    def store(self) -> BinaryIO:
        """All that came and comes, in a temporary file; its boxes are checked again when it is read."""
        if self._boxes is not None:
            self._ready, self._boxes = bytes(self._boxes.checked) + self._ready, None
        return super().store()

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
        self.checked = bytearray()
        self.media_left: int | None = 0  # None: to the end of the stream
        self.header_seen = self.media_begun = False
        self.ended = False
        self.claims = Claims()

    def media_come_first(self) -> bool:
        """Check and hold the boxes before the header or the media; whether it is the media that come."""
        while not (self.header_seen or self.ended or self.media_begun):
            self._next_box()
        return self.media_begun and not self.header_seen

    def read(self, count: int) -> bytes:
        if not self.checked and self.media_left == 0 and not self.ended:
            self._next_box()
        if self.checked:
            data = bytes(self.checked[:count])
            del self.checked[:count]
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
        if size < len(head) or len(self.checked) + size > self.source.limits.max_header_bytes:
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
        self.checked += head + body

    @property
    def _most(self) -> int:
        return self.source.limits.max_header_bytes

    def _let_through(self, head: bytes, size: int) -> None:
        if size != 0 and size < len(head):
            self._refuse(f"box 'mdat' of {size} bytes")
        self.media_begun = True
        self.media_left = None if size == 0 else size - len(head)
        self.checked += head

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
