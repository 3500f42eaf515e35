"""Long video files with sound, made in seconds: what `mirasol bench decode` reads.

One short piece is encoded; longer files repeat its packets with later time stamps, so that an hour costs no more than
writing it. To a decoder every repetition is new work.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FRAMES_PER_SECOND = 25
SAMPLING_RATE = 48000
# Frames from one key frame to the next: one second, and the default of x264.
INTERVALS = {"short": 25, "long": 250}
_WIDTHS = {1080: 1920, 480: 854}
_FORMATS = {"h264": ("mp4", "libx264", "aac"), "vp9": ("webm", "libvpx-vp9", "libopus")}
# As films are commonly stored (B frames, arithmetic coding, deblocking), encoded as fast as that allows.
_ENCODING = {
    "h264": {"preset": "veryfast", "crf": "28", "sc_threshold": "0"},
    "vp9": {"deadline": "realtime", "cpu-used": "8", "row-mt": "1", "crf": "40", "b": "2000000"},
}


@dataclass(frozen=True)
class FileKind:
    """What a file is like.

    Args:
        seconds: its duration, a multiple of `piece_seconds`.
        height: rows of its pictures.
        codec: `"h264"` (mp4, sound AAC) or `"vp9"` (webm, sound Opus).
        interval: `"short"`, a key frame each second, or `"long"`, one every ten.
        piece_seconds: duration of the piece that is encoded; at least one interval.

    Raises:
        ValueError: for an unknown codec or interval, or a duration that is no multiple.
    """

    seconds: int
    height: int
    codec: str
    interval: str
    piece_seconds: int = 10

    def __post_init__(self) -> None:
        if self.codec not in _FORMATS:
            raise ValueError(f"codec {self.codec!r} must be one of {', '.join(_FORMATS)}")
        if self.interval not in INTERVALS:
            raise ValueError(f"interval {self.interval!r} must be one of {', '.join(INTERVALS)}")
        if self.seconds < 1 or self.seconds % self.piece_seconds:
            raise ValueError(f"{self.seconds} s must be a positive multiple of {self.piece_seconds} s")
        if self.height < 16 or self.height % 2:
            raise ValueError(f"a height of {self.height} must be even and at least 16")

    @property
    def width(self) -> int:
        """Columns of a picture."""
        return _WIDTHS.get(self.height, self.height * 16 // 9 // 2 * 2)

    @property
    def name(self) -> str:
        """File name."""
        return f"{self.codec}-{self.height}p-{self.interval}-{self.seconds}s.{_FORMATS[self.codec][0]}"


def make_file(kind: FileKind, folder: Path) -> Path:
    """The file of that kind in `folder`, written if it is not there yet."""
    path = folder / kind.name
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"unfinished-{os.getpid()}-{path.name}")
    try:
        if kind.seconds == kind.piece_seconds:
            _encode(kind, unfinished)
        else:
            _repeat(make_file(replace(kind, seconds=kind.piece_seconds), folder), kind, unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _encode(kind: FileKind, path: Path) -> None:
    import av

    _, video_codec, audio_codec = _FORMATS[kind.codec]
    interval = str(INTERVALS[kind.interval])
    with av.open(str(path), "w") as container:
        options = {**_ENCODING[kind.codec], "g": interval, "keyint_min": interval}
        video = container.add_stream(video_codec, rate=FRAMES_PER_SECOND, options=options)
        video.width, video.height, video.pix_fmt = kind.width, kind.height, "yuv420p"
        audio = container.add_stream(audio_codec, rate=SAMPLING_RATE, layout="stereo")
        for stream, frames in ((video, _pictures(kind)), (audio, _sound(kind))):
            for frame in frames:
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


def _pictures(kind: FileKind) -> Iterator[Any]:
    """A texture that glides past, under a bar that moves the other way."""
    import av

    rng = np.random.default_rng(0)
    texture = _smooth(rng.integers(0, 256, (kind.height + 256, kind.width + 512)).astype(np.float32))
    chroma = np.full((kind.height // 2, kind.width), 128, dtype=np.uint8)
    for i in range(kind.piece_seconds * FRAMES_PER_SECOND):
        top, left = i % 256, 2 * i % 512
        luma = texture[top : top + kind.height, left : left + kind.width].copy()
        bar = 5 * i % kind.width
        luma[:, bar : bar + kind.width // 16] = 235
        frame = av.VideoFrame.from_ndarray(np.concatenate((luma, chroma)), format="nv12")
        frame.pts, frame.time_base = i, Fraction(1, FRAMES_PER_SECOND)
        yield frame


def _smooth(noise: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Noise as a texture with a range of scales, in the range of luma."""
    out = np.zeros_like(noise)
    for scale in (4, 16, 64):
        coarse = noise[: -(-noise.shape[0] // scale), : -(-noise.shape[1] // scale)]
        out += scale**0.5 * np.kron(coarse, np.ones((scale, scale), np.float32))[: noise.shape[0], : noise.shape[1]]
    return (16 + 219 * (out - out.min()) / (out.max() - out.min())).astype(np.uint8)


def _sound(kind: FileKind) -> Iterator[Any]:
    """A gliding tone in noise, two channels."""
    import av

    rng = np.random.default_rng(1)
    times = np.arange(kind.piece_seconds * SAMPLING_RATE) / SAMPLING_RATE
    tone = 0.3 * np.sin(2 * np.pi * (200 + 50 * times) * times)
    wave = (tone + 0.05 * rng.standard_normal((2, len(times)))).astype(np.float32)
    for first in range(0, len(times), 960):
        block = np.ascontiguousarray(wave[:, first : first + 960])
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLING_RATE, first, Fraction(1, SAMPLING_RATE)
        yield frame


def _repeat(piece: Path, kind: FileKind, path: Path) -> None:
    """The packets of `piece` again and again, each stream in its own step."""
    import av

    with av.open(str(piece)) as source, av.open(str(path), "w") as container:
        video, audio = source.streams.video[0], source.streams.audio[0]
        copies = {stream.index: container.add_stream_from_template(stream) for stream in (video, audio)}
        packets: dict[int, list[Any]] = {stream.index: [] for stream in (video, audio)}
        for packet in source.demux(video, audio):
            if packet.size:
                packets[packet.stream_index].append(packet)
        pictures = _shifted(packets[video.index], copies[video.index], Fraction(kind.piece_seconds) / video.time_base)
        # Sound is continued packet by packet: the first holds the encoder's delay and is not repeated.
        start, *rest = packets[audio.index]
        step = Fraction(rest[1].pts - rest[0].pts)
        sounds = _shifted(rest, copies[audio.index], step * len(rest))
        container.mux(_copy(start, copies[audio.index], 0))
        heard = 0
        for end in range(kind.piece_seconds, kind.seconds + 1, kind.piece_seconds):
            container.mux(list(islice(pictures, len(packets[video.index]))))
            due = round(end / (step * audio.time_base))
            container.mux(list(islice(sounds, due - heard)))
            heard = due


def _shifted(packets: list[Any], stream: Any, period: Fraction) -> Iterator[Any]:
    round_trip = 0
    while True:
        for packet in packets:
            yield _copy(packet, stream, round(round_trip * period))
        round_trip += 1


def _copy(packet: Any, stream: Any, shift: int) -> Any:
    import av

    copy = av.Packet(bytes(packet))
    copy.stream, copy.time_base = stream, packet.time_base
    copy.pts, copy.dts = packet.pts + shift, (packet.dts if packet.dts is not None else packet.pts) + shift
    copy.duration, copy.is_keyframe = packet.duration, packet.is_keyframe
    return copy
