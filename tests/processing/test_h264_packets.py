"""Packets that are left out change no other picture."""

import av
import numpy as np
import pytest
from media_maker import write_media

from mirasol_hf.processing.h264_packets_mirasol import is_disposable, length_bytes

X264 = {"x264-params": "bframes=3:b-pyramid=normal:ref=4:log-level=none"}


def _pictures(container, stream, packets):
    """Every decoded picture by its time."""
    frames = [frame for packet in packets for frame in packet.decode()] + list(stream.codec_context.decode(None))
    return {frame.pts: frame.to_ndarray(format="yuv420p") for frame in frames}


@pytest.mark.parametrize("name", ["clip.mp4", "clip.ts"])
def test_other_pictures_stay_the_same_bits(tmp_path, name):
    """With lengths before the units (mp4) and with start codes (MPEG-TS)."""
    path = write_media(tmp_path / name, codec_options=X264, audio=None, gop=50)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        whole = _pictures(container, stream, [packet for packet in container.demux(stream) if packet.size])
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        prefix = length_bytes(stream.codec_context.extradata)
        assert prefix == (4 if name == "clip.mp4" else 0)
        packets = [packet for packet in container.demux(stream) if packet.size]
        needed = [packet for packet in packets if not is_disposable(packet, prefix)]
        assert 0.2 * len(packets) < len(needed) < 0.8 * len(packets)
        kept = _pictures(container, stream, needed)
    assert kept.keys() == {packet.pts for packet in needed}
    for pts, picture in kept.items():
        assert np.array_equal(picture, whole[pts])


def _unit(header, body=b"\x88\x84"):
    return (1 + len(body)).to_bytes(4, "big") + bytes([header]) + body


@pytest.mark.parametrize(
    "content, disposable",
    [
        (_unit(0x01), True),
        (_unit(0x09) + _unit(0x01) + _unit(0x01), True),  # delimiter and two slices
        (_unit(0x61), False),  # others refer to it
        (_unit(0x01) + _unit(0x41), False),
        (_unit(0x68) + _unit(0x01), False),  # parameters of later pictures
        (_unit(0x06) + _unit(0x01), False),
        (_unit(0x09), False),  # no picture
        (_unit(0x01)[:-1], False),  # cut off
        (b"\0\0\0\0" + _unit(0x01), False),
        (b"", False),
    ],
)
def test_units_with_lengths(content, disposable):
    assert is_disposable(content, 4) is disposable


def test_units_behind_start_codes():
    assert is_disposable(b"\0\0\0\x01\x09\xf0\0\0\x01\x01\x88", 0)
    assert not is_disposable(b"\0\0\0\x01\x67\x42\0\0\x01\x01\x88", 0)
    assert not is_disposable(b"\0\0\x01", 0)
    assert not is_disposable(b"no start code", 0)


def test_header_of_the_stream():
    assert length_bytes(bytes([1, 100, 0, 31, 0xFF, 0xE1, 0])) == 4
    assert length_bytes(bytes([1, 100, 0, 31, 0xFD, 0xE1, 0])) == 2
    assert length_bytes(b"\0\0\0\x01\x67\x42\0") == length_bytes(b"\x01") == length_bytes(None) == 0
