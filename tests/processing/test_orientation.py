"""Side data of decoded frames: read without holding the frame, and where PyAV has no name for a part of it."""

import struct
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from media_maker import picture

from mirasol_hf.processing.media_mirasol import MediaFile, probe_media
from mirasol_hf.processing.picture_mirasol import orientation


def _exif(turn):
    """A JPEG segment that says how the picture is to be turned."""
    entry = struct.pack("<HHII", 0x112, 3, 1, turn)
    body = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


@pytest.fixture(scope="module")
def exif_video(tmp_path_factory):
    """JPEG pictures, each with EXIF data that a player turns by 90 degrees clockwise."""
    path = tmp_path_factory.mktemp("exif") / "exif.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for i in range(5):
            frame = av.VideoFrame.from_ndarray(picture(flash=False), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 5)
            for packet in stream.encode(frame):
                content = bytes(packet)
                marked = av.Packet(content[:2] + _exif(6) + content[2:])
                marked.pts, marked.dts, marked.time_base = packet.pts, packet.dts, packet.time_base
                marked.stream, marked.is_keyframe, marked.duration = stream, True, packet.duration
                container.mux(marked)
    return path


def test_pictures_with_exif_data_are_read_and_turned(exif_video):
    facts = probe_media(exif_video)["video"]
    assert (facts["width"], facts["height"], facts["frames"], facts["rotation"]) == (48, 64, 5, 90)
    with MediaFile(exif_video) as media:
        pictures, _ = media.video_reader().read(np.array([0.1]), 64, 48)
    # What was at the bottom left is at the top left.
    assert np.abs(pictures[0, 4, 4].astype(int) - (30, 30, 220)).max() < 40


@pytest.mark.parametrize("name", ["clip.mov", "exif.mov"])
def test_a_frame_is_not_held_by_its_orientation(exif_video, media, name):
    """A picture of 1080p takes 3 MB: a hundred that wait for the garbage collector are memory without bound."""
    with av.open(str(exif_video if name == "exif.mov" else media / name)) as container:
        frame = next(container.decode(video=0))
        before = sys.getrefcount(frame)
        orientation(frame)
        assert sys.getrefcount(frame) == before
