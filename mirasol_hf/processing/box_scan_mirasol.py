"""A look at the boxes of an mp4 file before FFmpeg opens it.

FFmpeg allocates the sample tables of an mp4 header while opening, and no option limits that: tables of a few bytes may
claim hundreds of millions of samples, and edit lists multiply them. Every table must therefore fit into its box, every
sample into the file, and all of them into `MediaLimits.max_packets`.

Any file is looked at this way, whatever its first bytes: FFmpeg takes for mp4 what begins with unknown boxes too, and
looks for tables inside boxes where no encoder puts them.
"""

import os
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .media_limits_mirasol import MediaError, MediaLimits
from .media_source_mirasol import MediaSource

FIRST_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"sidx", b"pnot", b"moof", b"uuid"}
# Boxes that FFmpeg looks into, wherever they stand.
_CONTAINERS = {
    *(b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"mvex", b"moof", b"traf", b"dinf", b"udta", b"wave"),
    *(b"tref", b"gmhd", b"sinf", b"schi", b"ilst", b"iprp", b"ipco", b"jp2h"),
}
# Bytes per entry of the tables that only list entries.
_ENTRY_BYTES = {b"stts": 8, b"ctts": 8, b"stsc": 12, b"stco": 4, b"co64": 8, b"stss": 4, b"elst": 12}
_TABLE_HEAD = 8
# Bytes that an item of a still picture's tables takes at least.
_ITEM_BYTES = {b"iloc": 6, b"iinf": 8, b"ipma": 3}
_LEAVES = {b"mdat", b"ctts", b"sbgp", b"sdtp", b"senc", b"saiz", b"saio", b"sidx", b"tfra", b"subs", b"data", b"covr"}
_TELLING = (*_ENTRY_BYTES, *_ITEM_BYTES, b"stsz", b"stz2", b"trun", b"cmov", b"trak", b"moov", b"dref", b"stbl")
# Boxes inside unknown ones are looked at up to this number, then believed to be none.
_UNKNOWN_BOXES = 20_000
_LARGEST_DESCRIPTION = 2**20
_LOCATIONS = {b"url ", b"urn ", b"alis", b"rsrc"}
# FFmpeg keeps one index entry per this many samples of unpacked sound at most.
_SAMPLES_PER_ENTRY = 160
# Samples without a byte of their own that fragments may claim.
_FREE_CLAIMS = 2**22


def check_boxes(source: MediaSource, limits: MediaLimits) -> None:
    """Refuse an mp4 whose header would cost more than the file can justify, or whose media lie in another file.

    Leaves the source at its first byte.

    Raises:
        MediaError: naming the file and the box.
    """
    BoxScan(source, limits).walk(0, source.size, 0)
    source.raise_failure()
    source.seek(0)


@dataclass
class Claims:
    """What all boxes looked at so far claim: index entries, samples of fragments, bytes of samples of equal size."""

    entries: int = 0
    of_runs: int = 0
    constant_bytes: int = 0


@dataclass
class _Track:
    """What the tables of one track claim."""

    samples: int = 0
    sample_bytes: int = 0
    edits: int = 1
    chunks: int = 0
    runs: list[tuple[int, int]] = field(default_factory=list)
    handlers: set[bytes] = field(default_factory=set)
    steps_of_one: bool = False

    @property
    def unpacked(self) -> bool:
        """Whether FFmpeg may take this for plain sound, whose samples it indexes by the chunk."""
        return self.steps_of_one and self.handlers != {b"vide"}

    def entries(self, scan: "BoxScan") -> int:
        """Index entries that FFmpeg will make of them."""
        listed = 0 if self.unpacked and self.handlers == {b"soun"} else self.samples
        return max(listed, self._entries_of_chunks(scan) if self.unpacked else 0) * self.edits

    def _entries_of_chunks(self, scan: "BoxScan") -> int:
        most = 0
        for position, count in self.runs:
            raw = scan.bytes_at(position, 12 * count)
            rows = np.frombuffer(raw[: len(raw) // 12 * 12], dtype=">u4").reshape(-1, 3).astype(np.int64)
            spans = np.diff(np.append(rows[:, 0], self.chunks + 1)).clip(0, max(self.chunks, 0))
            most = max(most, int((spans * (rows[:, 1] // _SAMPLES_PER_ENTRY + 1).astype(object)).sum()))
        return most


class BoxScan:
    """Checks of the boxes between two positions of a source."""

    def __init__(self, source: Any, limits: MediaLimits, claims: Claims | None = None) -> None:
        self.source = source
        self.limits = limits
        self.claims = claims if claims is not None else Claims()
        self.media_bytes = float(source.size)
        self.run_bytes = self.media_bytes
        self.boxes = 0
        self.unknown = 0
        self.track = _Track()

    def walk(self, start: int, end: int, depth: int, known: bool = True) -> None:
        """Look at the boxes between two positions, and into them; `known` is what FFmpeg would look into too."""
        if depth > self.limits.max_box_depth:
            if known:
                self.refuse(f"boxes are nested deeper than {self.limits.max_box_depth}")
            return
        while start + 8 <= end and self._count(known):
            kind, body, after = self._box(start, end)
            if body > after:
                return
            self._look(kind, body, after, depth, known)
            start = after

    def _count(self, known: bool) -> bool:
        self.boxes += known
        self.unknown += not known
        if self.boxes > self.limits.max_boxes:
            self.refuse(f"more than {self.limits.max_boxes} boxes")
        return known or self.unknown <= _UNKNOWN_BOXES

    def _box(self, start: int, end: int) -> tuple[bytes, int, int]:
        """Kind, first byte of the body and first byte after the box that begins at `start`.

        A box that is smaller than its head ends before its body: there FFmpeg stops. So does a file that holds less
        than it announces.
        """
        self.source.seek(start)
        head = self.source.read(16)
        if len(head) < 8:
            return b"", end + 1, end
        size, kind = struct.unpack(">I4s", head[:8])
        body = start + 8
        if size == 1 and len(head) == 16:
            size = int.from_bytes(head[8:16], "big")
            body = start + 16
        # A cut-off file ends inside a box.
        return kind, body, end if size == 0 else min(end, start + size)

    def _look(self, kind: bytes, body: int, after: int, depth: int, known: bool) -> None:
        if kind == b"cmov":
            self.refuse("the movie header is compressed")
        elif kind == b"trak":
            outer, self.track = self.track, _Track()
            self.walk(body, after, depth + 1)
            self._close_track()
            self.track = outer
        elif kind in _CONTAINERS:
            self.walk(body, after, depth + 1)
        elif kind in (b"stsd", b"meta"):
            self._search(kind, body, after, depth)
        elif kind in _ENTRY_BYTES:
            self._check_table(kind, body, after)
        elif kind in _ITEM_BYTES:
            self._check_items(kind, body, after)
        elif kind in (b"stsz", b"stz2"):
            self._check_sizes(kind, body, after)
        elif kind == b"trun":
            self._check_run(body)
        elif kind == b"hdlr":
            self.track.handlers.add(self.bytes_at(body + 8, 4))
        elif kind == b"dref":
            self._check_references(body, after)
        elif kind in (b"free", b"hoov") and self.bytes_at(body + 4, 4) in (b"mvhd", b"cmov"):
            # FFmpeg takes such a box for a movie header.
            self.walk(body, after, depth + 1)
        elif kind not in _LEAVES:
            self.walk(body, after, depth + 1, known=False)

    def _search(self, kind: bytes, body: int, after: int, depth: int) -> None:
        """Look at boxes that stand at places only a full parser knows."""
        if kind == b"meta":
            self.walk(body, after, depth + 1, known=False)
            self.walk(body + 4, after, depth + 1, known=False)
        content = self.bytes_at(body, min(after - body, _LARGEST_DESCRIPTION))
        if kind == b"stsd" and after - body > _LARGEST_DESCRIPTION:
            self.refuse(f"sample descriptions of {after - body} bytes")
        for telling in _TELLING:
            at = content.find(telling)
            while at >= 0:
                self.walk(body + at - 4, after, depth + 1, known=False)
                at = content.find(telling, at + 1)

    def words(self, position: int, count: int) -> list[int]:
        """Up to `count` numbers of four bytes, fewer at the end of the file."""
        raw = self.bytes_at(position, 4 * count)
        return list(struct.unpack(f">{len(raw) // 4}I", raw[: len(raw) // 4 * 4]))

    def bytes_at(self, position: int, count: int) -> bytes:
        """Up to `count` bytes, fewer at the end of the file."""
        self.source.seek(position)
        return bytes(self.source.read(count))

    def _check_table(self, kind: bytes, body: int, after: int) -> None:
        words = self.words(body, 2)
        claimed = words[1] if len(words) == 2 else 0
        if claimed > self.limits.max_packets:
            self.refuse(f"table {kind.decode()} claims {claimed} entries, more than MediaLimits.max_packets")
        # A cut-off file ends inside its table too: then FFmpeg reads what is there and stops.
        room = max(0, after - body - _TABLE_HEAD) if after < self.source.size else self.source.size
        if claimed * _ENTRY_BYTES[kind] > room:
            self.refuse(f"table {kind.decode()} claims {claimed} entries, more than fit into its box")
        listed = min(claimed, (after - body) // _ENTRY_BYTES[kind])
        if kind == b"stts":
            self._check_durations(body + _TABLE_HEAD, min(claimed, (after - body) // 8))
        elif kind == b"stsc":
            self.track.runs.append((body + _TABLE_HEAD, listed))
        elif kind in (b"stco", b"co64"):
            self.track.chunks = max(self.track.chunks, listed)
        elif kind == b"elst":
            self._count_edits(body, listed)

    def _count_edits(self, body: int, listed: int) -> None:
        """Edits that show something: FFmpeg copies the samples of the track for each of them."""
        wide = self.bytes_at(body, 1) == b"\1"
        raw = self.bytes_at(body + _TABLE_HEAD, listed * (20 if wide else 12))
        kind = np.dtype(
            [("span", ">u8"), ("at", ">i8"), ("rate", ">u4")]
            if wide
            else [("span", ">u4"), ("at", ">i4"), ("rate", ">u4")]
        )
        rows = np.frombuffer(raw[: len(raw) // kind.itemsize * kind.itemsize], dtype=kind)
        self.track.edits = max(self.track.edits, int((rows["at"] != -1).sum()))

    def _check_durations(self, position: int, entries: int) -> None:
        """Run lengths of equal durations must not add up to more samples than the file has bytes."""
        total = 0
        single = entries == 1
        while entries > 0:
            block = self.words(position, 2 * min(entries, 8192))
            if not block:
                return
            total += sum(block[0::2])
            if single and block[1:] == [1]:
                self.track.steps_of_one = True
            elif total > max(self.media_bytes, 1024):
                self.refuse(f"table stts claims more than {total} samples in {self.source.size} bytes")
            entries -= 8192
            position += 8 * 8192

    def _check_sizes(self, kind: bytes, body: int, after: int) -> None:
        words = self.words(body, 3)
        if len(words) < 3:
            return
        self.track.samples = max(self.track.samples, words[2])
        if kind == b"stsz" and words[1]:
            self.track.sample_bytes = words[1]
            return
        # stz2 packs sizes into as little as four bits.
        claimed, room = words[2] * (4 if kind == b"stsz" else 1) // 2, max(0, after - body)
        if claimed > (room if after < self.source.size else max(room, self.source.size)):
            self.refuse(f"table {kind.decode()} claims {words[2]} samples, more than the file can hold")

    def _close_track(self) -> None:
        if not self.track.unpacked:
            self.claims.constant_bytes += self.track.samples * self.track.sample_bytes
        if self.claims.constant_bytes > self.media_bytes:
            self.refuse(f"table stsz claims {self.track.samples} samples, more than the file can hold")
        self._claim(self.track.entries(self))

    def _check_run(self, body: int) -> None:
        words = self.words(body, 2)
        claimed = words[1] if len(words) == 2 else 0
        self.claims.of_runs += claimed
        if claimed > self.media_bytes or self.claims.of_runs > self.run_bytes + _FREE_CLAIMS:
            self.refuse(f"table trun claims {claimed} samples in {self.source.size} bytes")
        self._claim(claimed)

    def _claim(self, entries: int) -> None:
        self.claims.entries += entries
        if self.claims.entries > self.limits.max_packets:
            self.refuse(
                f"claims {self.claims.entries} samples, more than MediaLimits.max_packets={self.limits.max_packets}"
            )

    def _check_items(self, kind: bytes, body: int, after: int) -> None:
        """Tables of the items of a still picture; their count follows one, or for places two, numbers of two bytes."""
        head = self.bytes_at(body, 10)
        skip = 6 if kind == b"iloc" else 4
        wide = head[:1] >= (b"\2" if kind == b"iloc" else b"\1") or kind == b"ipma"
        claimed = int.from_bytes(head[skip : skip + (4 if wide else 2)], "big")
        if claimed * _ITEM_BYTES[kind] > max(0, after - body):
            self.refuse(f"table {kind.decode()} claims {claimed} items, more than fit into its box")

    def _check_references(self, body: int, after: int) -> None:
        """Refuse media that lie elsewhere; the lowest flag says that they lie in this file."""
        start = body + 8
        while start + 12 <= after and self._count(True):
            kind, inner, end = self._box(start, after)
            if end < inner + 4:
                return
            if kind in _LOCATIONS and end > inner + 4 and not ord(self.bytes_at(inner + 3, 1) or b"\1") & 1:
                self.refuse(f"the media lie in another file (a reference of kind {kind.decode()!r})")
            start = end

    def refuse(self, cause: str) -> None:
        """Raise the error that names the source."""
        self.source.seek(0, os.SEEK_SET)
        raise MediaError(f"{self.source.label}: refused before opening: {cause}")
