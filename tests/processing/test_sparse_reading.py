"""Pictures reached by seeking are those that decoding the whole film gives, whatever the codec makes of it."""

from fractions import Fraction

import av
import numpy as np
import pytest

from mirasol_hf.processing.media_limits_mirasol import MediaLimits
from mirasol_hf.processing.media_mirasol import MediaFile
from mirasol_hf.processing.video_reader_mirasol import VideoReader, rgb_picture

# Larger than what is decoded by one thread anyway.
HEIGHT, WIDTH, FRAMES, RATE = 272, 352, 100, 25
X264 = {"preset": "veryfast", "g": "20", "keyint_min": "20", "sc_threshold": "0"}
FILES = {
    "b-frames.mp4": ("libx264", {**X264, "bf": "3", "x264-params": "b-adapt=0"}),
    "b-pyramid.mkv": ("libx264", {**X264, "bf": "7", "x264-params": "b-adapt=0:b-pyramid=normal:direct=temporal"}),
    "b-strict.mov": ("libx264", {**X264, "bf": "3", "x264-params": "b-adapt=0:b-pyramid=strict:weightp=2"}),
    "open-gop.ts": ("libx264", {**X264, "bf": "3", "x264-params": "open-gop=1:b-adapt=0"}),
    "slices.mp4": ("libx264", {**X264, "tune": "zerolatency", "x264-params": "slices=4"}),
    "interlaced.mp4": ("libx264", {**X264, "bf": "2", "x264-params": "tff=1:b-adapt=0"}),
    "one-key.mp4": ("libx264", {**X264, "g": "500", "keyint_min": "500", "bf": "3", "x264-params": "b-adapt=0"}),
    "vp9.webm": ("libvpx-vp9", {"g": "20", "deadline": "realtime", "cpu-used": "8"}),
    "mpeg2.ts": ("mpeg2video", {"g": "20", "bf": "2"}),
    "mpeg4.avi": ("mpeg4", {"g": "20", "bf": "2"}),
    "mpeg4.mp4": ("mpeg4", {"g": "20", "bf": "2"}),
}
PLAIN_H264 = ("b-frames.mp4", "b-pyramid.mkv", "b-strict.mov", "one-key.mp4")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for name, (codec, options) in FILES.items():
        _write(folder / name, codec, options)
    return folder


def _write(path, codec, options):
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH * 2), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i in range(FRAMES):
            picture = np.full((HEIGHT * 3 // 2, WIDTH), 128, dtype=np.uint8)
            picture[:HEIGHT] = noise[:, 3 * i : 3 * i + WIDTH] // 4 + (np.arange(HEIGHT)[:, None] + 2 * i) % 160
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _read(path, times, threads=2):
    with MediaFile(path, MediaLimits(max_threads=threads)) as media:
        reader = media.video_reader()
        pictures, stamps = reader.read(np.asarray(times), 48, 64)
        assert media.problems == []
        return pictures, stamps, reader.frames_decoded


def _whole(path):
    with MediaFile(path) as media:
        reader = media.video_reader()
        pictures = [rgb_picture(frame, 48, 64) for frame in reader.decode_all()]
        return np.stack(pictures), reader.times


@pytest.mark.parametrize("name", FILES)
def test_sought_pictures_are_those_of_the_whole_film(films, name) -> None:
    pictures, times = _whole(films / name)
    assert len(pictures) == len(times) == FRAMES
    for wanted in ([38, 39, 41, 99], [17, 59, 78, 79, 80, 81], [0], [55], list(range(3, 100, 7))):
        found, stamps, _ = _read(films / name, times[wanted] + 0.01)
        np.testing.assert_array_equal(stamps, times[wanted])
        np.testing.assert_array_equal(found, pictures[wanted])


@pytest.mark.parametrize("name", FILES)
def test_threads_change_no_pixel(films, name) -> None:
    times = [0.5, 1.3, 2.6, 2.62, 3.9]
    one = _read(films / name, times, threads=1)
    for threads in (2, 5, 16):
        many = _read(films / name, times, threads)
        np.testing.assert_array_equal(many[0], one[0])
        np.testing.assert_array_equal(many[1], one[1])


@pytest.mark.parametrize("name", PLAIN_H264)
def test_no_more_than_needed_is_decoded(films, name) -> None:
    last_of_group = 79
    _, _, decoded = _read(films / name, [last_of_group / RATE + 0.01])
    from_key = 80 if name.startswith("one-key") else 20
    # Of three B frames in a row at least one is no reference and is left out.
    assert 1 <= decoded <= from_key * 3 // 4 + 2


def test_nothing_behind_the_wanted_picture_is_decoded(films) -> None:
    for name in ("vp9.webm", "slices.mp4"):
        _, _, decoded = _read(films / name, [63 / RATE + 0.01], threads=8)
        assert decoded == 4, name


def test_a_damaged_group_falls_back_to_what_is_on_screen(films, tmp_path) -> None:
    path = tmp_path / "damaged.mkv"
    raw = bytearray((films / "b-pyramid.mkv").read_bytes())
    for position in range(len(raw) // 2, len(raw) // 2 + 4000, 40):
        raw[position] ^= 0x5A
    path.write_bytes(raw)
    times = (np.arange(50) + 0.5) * FRAMES / RATE / 50
    with MediaFile(path) as media:
        reader = media.video_reader()
        pictures, stamps = reader.read(times, 48, 64)
        again = VideoReader(reader.source, reader.index, reader.origin, MediaLimits(max_threads=1), [])
        single = again.read(times, 48, 64)
    assert len(pictures) == 50 and media.problems
    np.testing.assert_array_equal(single[0], pictures)
    np.testing.assert_array_equal(single[1], stamps)
