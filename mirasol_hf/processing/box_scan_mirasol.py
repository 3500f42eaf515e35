"""A look at the boxes of an mp4 file before FFmpeg opens it.

FFmpeg allocates the sample tables of an mp4 header while opening, and no option limits that: a table of a few bytes
may claim hundreds of millions of samples. Every table must therefore fit into its box, every sample into the file.
"""

import os
import struct
from typing import Any

from .media_limits_mirasol import MediaError, MediaLimits
from .media_source_mirasol import MediaSource

FIRST_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"sidx", b"pnot", b"moof", b"uuid"}
_CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"mvex", b"moof", b"traf", b"dinf"}
# Bytes per entry of the tables that only list entries.
_ENTRY_BYTES = {b"stts": 8, b"ctts": 8, b"stsc": 12, b"stco": 4, b"co64": 8, b"stss": 4, b"elst": 12}
_TABLE_HEAD = 8


def check_boxes(source: MediaSource, limits: MediaLimits) -> None:
    """Refuse an mp4 whose header would cost more than the file can justify.

    Does nothing for other kinds of file; leaves the source at its first byte.

    Raises:
        MediaError: naming the file and the box.
    """
    source.seek(0)
    head = source.read(8)
    if len(head) == 8 and head[4:8] in FIRST_BOXES:
        BoxScan(source, limits).walk(0, source.size, 0)
    source.seek(0)


class BoxScan:
    """Checks of the boxes between two positions of a source."""

    def __init__(self, source: Any, limits: MediaLimits) -> None:
        self.source = source
        self.limits = limits
        self.boxes = 0

    def walk(self, start: int, end: int, depth: int) -> None:
        """Look at the boxes between two positions, and into those that hold boxes."""
        if depth > self.limits.max_box_depth:
            self.refuse(f"boxes are nested deeper than {self.limits.max_box_depth}")
        while start + 8 <= end:
            self.boxes += 1
            if self.boxes > self.limits.max_boxes:
                self.refuse(f"more than {self.limits.max_boxes} boxes")
            kind, body, after = self._box(start, end)
            if kind == b"cmov":
                self.refuse("the movie header is compressed")
            elif kind in _CONTAINERS:
                self.walk(body, after, depth + 1)
            elif kind in _ENTRY_BYTES:
                self._check_table(kind, body, after)
            elif kind in (b"stsz", b"stz2"):
                self.check_sizes(kind, body, after)
            elif kind == b"trun":
                self.check_run(body)
            start = after

    def _box(self, start: int, end: int) -> tuple[bytes, int, int]:
        """Kind, first byte of the body and first byte after the box that begins at `start`."""
        self.source.seek(start)
        head = self.source.read(16)
        size, kind = struct.unpack(">I4s", head[:8])
        body = start + 8
        if size == 1 and len(head) == 16:
            size = int.from_bytes(head[8:16], "big")
            body = start + 16
        after = end if size == 0 else start + size
        # A cut-off file ends inside a box; a size below the header would never move on.
        return kind, body, min(end, max(after, body))

    def words(self, position: int, count: int) -> list[int]:
        self.source.seek(position)
        raw = self.source.read(4 * count)
        return list(struct.unpack(f">{len(raw) // 4}I", raw[: len(raw) // 4 * 4]))

    def _check_table(self, kind: bytes, body: int, after: int) -> None:
        words = self.words(body, 2)
        claimed = words[1] if len(words) == 2 else 0
        # A cut-off file ends inside its table too: then FFmpeg reads what is there and stops.
        room = max(0, after - body - _TABLE_HEAD) if after < self.source.size else self.source.size
        if claimed * _ENTRY_BYTES[kind] > room:
            self.refuse(f"table {kind.decode()} claims {claimed} entries, more than fit into its box")
        if kind == b"stts":
            self._check_durations(body + _TABLE_HEAD, min(claimed, (after - body) // 8))

    def _check_durations(self, position: int, entries: int) -> None:
        """Run lengths of equal durations must not add up to more samples than the file has bytes."""
        total = 0
        while entries > 0:
            block = self.words(position, 2 * min(entries, 8192))
            if not block:
                return
            total += sum(block[0::2])
            if total > max(self.source.size, 1024):
                self.refuse(f"table stts claims more than {total} samples in {self.source.size} bytes")
            entries -= 8192
            position += 8 * 8192

    def check_sizes(self, kind: bytes, body: int, after: int) -> None:
        words = self.words(body, 3)
        if len(words) < 3:
            return
        constant = words[1] if kind == b"stsz" else 0
        if constant:
            claimed, room = constant * words[2], self.source.size
        else:
            # stz2 packs sizes into as little as four bits.
            claimed, room = words[2] * (4 if kind == b"stsz" else 1) // 2, max(0, after - body)
            room = room if after < self.source.size else max(room, self.source.size)
        if claimed > room:
            self.refuse(f"table {kind.decode()} claims {words[2]} samples, more than the file can hold")

    def check_run(self, body: int) -> None:
        words = self.words(body, 2)
        if len(words) == 2 and words[1] > self.source.size:
            self.refuse(f"table trun claims {words[1]} samples in {self.source.size} bytes")

    def refuse(self, cause: str) -> None:
        """Raise the error that names the source."""
        self.source.seek(0, os.SEEK_SET)
        raise MediaError(f"{self.source.label}: refused before opening: {cause}")
