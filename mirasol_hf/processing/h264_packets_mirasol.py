"""Which packets of an H.264 stream a decoder can do without.

Leaving such packets out is better than having the decoder skip them: one that works on several frames at once would
give a thread to each of them.
"""

import re
from collections.abc import Iterator
from typing import Any

# Types of NAL units (ITU-T H.264, table 7-1): slices of a picture, and what tells the decoder nothing.
_SLICES = {1, 2, 3, 4}
_DELIMITER, _FILLER = 9, 12
_START_CODE = re.compile(b"\x00\x00\x01", re.DOTALL)


def length_bytes(extradata: bytes | None) -> int:
    """Bytes that give the length of each NAL unit, from the header of the stream; 0 if units follow start codes."""
    if extradata is None or len(extradata) < 7 or extradata[0] != 1:
        return 0
    return (extradata[4] & 3) + 1


def is_disposable(packet: Any, prefix: int) -> bool:
    """Whether a packet holds nothing but slices that no other picture refers to (`nal_ref_idc` 0).

    Args:
        packet: `av.Packet`.
        prefix: from `length_bytes`.
    """
    content = memoryview(packet)  # a view: only the first bytes of each unit are looked at
    slices = 0
    for header in _headers(content, prefix) if prefix else _headers_behind_start_codes(content):
        kind, referred_to = header & 31, header >> 5 & 3
        if referred_to or kind not in _SLICES | {_DELIMITER, _FILLER}:
            return False
        slices += kind in _SLICES
    return slices > 0


def _headers(content: memoryview, prefix: int) -> Iterator[int]:
    """First byte of each unit; one that cannot be left out (0xFF) where lengths do not add up."""
    place = 0
    while place + prefix < len(content):
        length = int.from_bytes(content[place : place + prefix], "big")
        yield content[place + prefix] if length else 0xFF
        place += prefix + length
    if place != len(content):
        yield 0xFF


def _headers_behind_start_codes(content: memoryview) -> Iterator[int]:
    """First byte of each unit."""
    for code in _START_CODE.finditer(content):
        yield content[code.end()] if code.end() < len(content) else 0xFF
