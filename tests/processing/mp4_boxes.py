"""An mp4 built box by box, so that a test can make any table lie."""

import struct


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full(kind: bytes, body: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags) + body)


def words(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


def table(kind: bytes, rows, claimed: int | None = None) -> bytes:
    return full(kind, words(len(rows) if claimed is None else claimed) + b"".join(words(*row) for row in rows))


FTYP = box(b"ftyp", b"isom" + words(0) + b"isom")
OWN_FILE = full(b"dref", words(1) + full(b"url ", b"", flags=1))
_SAMPLE = {
    b"vide": box(b"mp4v", bytes(6) + struct.pack(">H", 1) + bytes(16) + struct.pack(">HH", 64, 48) + bytes(50)),
    b"soun": box(b"sowt", bytes(6) + struct.pack(">H", 1) + bytes(8) + struct.pack(">HHHHI", 1, 16, 0, 0, 8000 << 16)),
}


def movie(
    *,
    handler: bytes = b"vide",
    stts=((100, 1),),
    stsc=((1, 100, 1),),
    stco=(48,),
    stsz=(1, 100),
    edts: bytes = b"",
    dref: bytes = OWN_FILE,
    header: bytes = b"moov",
    inside: bytes | None = None,
    tracks: int = 1,
    extra: bytes = b"",
    first: bytes = FTYP,
    data: bytes = bytes(1000),
) -> bytes:
    """A whole file; `inside` puts the sample tables into one more box, `header` names the movie header's box."""
    tables = full(b"stsd", words(1) + _SAMPLE[handler]) + table(b"stts", stts) + table(b"stsc", stsc)
    tables += full(b"stsz", words(*stsz)) + table(b"stco", [(place,) for place in stco])
    tables = tables if inside is None else box(inside, tables)
    media = full(b"mdhd", words(0, 0, 8000 if handler == b"soun" else 25, 100, 0))
    media += full(b"hdlr", words(0) + handler + bytes(13))
    media += box(b"minf", box(b"dinf", dref) + box(b"stbl", tables))
    track = box(b"trak", full(b"tkhd", bytes(80)) + edts + box(b"mdia", media))
    head = full(b"mvhd", words(0, 0, 1000, 4000) + bytes(80))
    return first + box(header, head + track * tracks + extra) + box(b"mdat", data)


def fragmented(runs: int, claimed: int) -> bytes:
    """A movie without samples and one fragment with runs of samples that have no bytes of their own."""
    head = movie(
        stts=(), stsc=(), stco=(), stsz=(0, 0), extra=box(b"mvex", full(b"trex", words(0, 1, 1, 1, 0))), data=b""
    )
    run = full(b"trun", words(claimed))
    traf = box(b"traf", full(b"tfhd", words(0)) + run * runs)
    return head + box(b"moof", full(b"mfhd", words(1)) + traf) + box(b"mdat", bytes(3000))
