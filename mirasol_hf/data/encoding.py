"""Writes AVScenes clips as real mp4 files: H.264 pictures and AAC sound on one clock.

Frames are rendered and encoded in short runs, so a long clip never lies in memory as a whole. One thread per encoder
and bit-exact flags make the bytes a function of the scene and of the installed codec builds alone.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.video.reformatter import Interpolation

if TYPE_CHECKING:
    from .scene import Scene

# Frames rendered at a time: 1.5 MB at 128 pixels.
_RUN_FRAMES = 32
# Quality near transparency: what differs from the rendered arrays is mostly the halved colour resolution of yuv420p.
# Without mbtree: its look-ahead reads memory that was never written, and equal scenes then give different files.
_X264_OPTIONS = {"preset": "veryfast", "crf": "16", "threads": "1", "x264-params": "mbtree=0"}
_KEYFRAME_SECONDS = 4
_AAC_BIT_RATE = 96_000
# Perceptual noise substitution would replace noise by other noise of the same loudness.
_AAC_OPTIONS = {"aac_pns": "0"}
_AAC_BLOCK = 1024
# FFmpeg's default for RGB at these sizes, said in the file so that no reader has to guess.
_BT601, _VIDEO_RANGE = 6, 1
# Averages the chroma of two by two pixels instead of picking one; the same on every processor.
_TO_YUV = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


def write_scene(scene: Scene, path: str | os.PathLike[str]) -> None:
    """Encode `scene` to an mp4 file at `path`, replacing what is there.

    Pictures are `scene.size` pixels square, `scene.num_frames` of them at `scene.fps`; sound is mono at
    `scene.sampling_rate`. The file appears under its name only when it is complete. Raises `FileNotFoundError` when
    the folder of `path` does not exist, `IsADirectoryError` when `path` is a folder, `OSError` when writing fails.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {target}: the folder {target.parent} does not exist")
    if target.is_dir():
        raise IsADirectoryError(f"cannot write {target}: it is a folder, expected the path of an mp4 file")
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        _encode(scene, partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def scene_to_bytes(scene: Scene) -> bytes:
    """The mp4 file that `write_scene` would write, as bytes."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "scene.mp4"
        write_scene(scene, path)
        return path.read_bytes()


def _encode(scene: Scene, path: Path) -> None:
    """Encode picture by picture, each followed by the sound that belongs to it."""
    # The header first, so that a pipe can carry the clip; FFmpeg moves it in a file that it opens itself.
    options = {"fflags": "+bitexact", "use_editlist": "1", "movflags": "+faststart"}
    with av.open(f"file:{path}", "w", format="mp4", options=options) as container:
        video, audio = _add_video(container, scene), _add_audio(container, scene)
        samples = scene.render_audio(scene.sampling_rate)
        blocks = _audio_frames(samples, scene.sampling_rate)
        heard = 0
        for number, picture in enumerate(_pictures(scene)):
            container.mux(video.encode(_video_frame(picture, number, scene.fps)))
            until = (number + 1) / scene.fps * scene.sampling_rate
            while heard < min(until, len(samples)):
                container.mux(audio.encode(next(blocks)))
                heard += _AAC_BLOCK
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def _add_video(container: Any, scene: Scene) -> Any:
    stream = container.add_stream("libx264", rate=scene.fps, options=_X264_OPTIONS)
    stream.width = stream.height = scene.size
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.time_base = Fraction(1, scene.fps)
    context.colorspace, context.color_range = _BT601, _VIDEO_RANGE
    context.thread_count = 1
    context.gop_size = _KEYFRAME_SECONDS * scene.fps
    context.flags |= av.codec.context.Flags.bitexact
    return stream


def _add_audio(container: Any, scene: Scene) -> Any:
    stream = container.add_stream("aac", rate=scene.sampling_rate, layout="mono", options=_AAC_OPTIONS)
    context = stream.codec_context
    context.bit_rate = _AAC_BIT_RATE
    context.thread_count = 1
    context.flags |= av.codec.context.Flags.bitexact
    return stream


def _pictures(scene: Scene) -> Iterator[np.ndarray]:
    """Every frame of the clip, uint8 [size, size, 3]."""
    for first in range(0, scene.num_frames, _RUN_FRAMES):
        numbers = np.arange(first, min(first + _RUN_FRAMES, scene.num_frames))
        yield from scene.render_frames(numbers / scene.fps)


def _video_frame(picture: np.ndarray, number: int, fps: int) -> Any:
    rgb = av.VideoFrame.from_ndarray(picture, format="rgb24")
    frame = rgb.reformat(format="yuv420p", interpolation=_TO_YUV)
    frame.pts, frame.time_base = number, Fraction(1, fps)
    return frame


def _audio_frames(samples: np.ndarray, rate: int) -> Iterator[Any]:
    """The sound in blocks of the encoder; the last one is as short as what is left."""
    for first in range(0, len(samples), _AAC_BLOCK):
        frame = av.AudioFrame.from_ndarray(samples[None, first : first + _AAC_BLOCK], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
        yield frame
