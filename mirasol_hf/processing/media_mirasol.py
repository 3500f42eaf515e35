"""A media file as pictures and sound on one clock.

Second 0 is the start of the file's earliest stream. Legend: K chunks, F frames per chunk, H, W image.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .audio_reader_mirasol import AudioReader, Samples, join_pieces
from .chunk_plan_mirasol import ChunkPlan, sample_ranges
from .demux_mirasol import add_problem
from .media_index_mirasol import FloatArray, Progress, index_media
from .media_limits_mirasol import MediaError, MediaLimits, MediaWarning, too_many_idle_chunks
from .media_source_mirasol import MediaInput, MediaSource
from .picture_mirasol import Pictures, orientation
from .video_reader_mirasol import VideoReader

# Share of the progress bar that each step of reading takes.
_INDEX_SHARE, _VIDEO_SHARE = 0.1, 0.6
# Frames that `probe_media` decodes to count them; longer videos are counted by their packets.
_PIXELS_WORTH_COUNTING = 1_500_000_000
_WIDEST_PIXEL = 16


@dataclass
class MediaClip:
    """What was read of one file for one chunk plan.

    Attributes:
        plan: the windows.
        frames: uint8 `[K, F, H, W, 3]` RGB, or None without pictures.
        frame_times: float64 `[K, F]`, the presentation time of each picture in seconds; where a chunk has none, the
            instant it was wanted for.
        video_mask: bool `[K]`, whether any picture is on screen during the chunk.
        audio: per chunk the second of its first real sample and float32 `[n]`; None without sound.
        problems: what is wrong with the file, in words.
    """

    plan: ChunkPlan
    frames: Pictures | None
    frame_times: FloatArray
    video_mask: npt.NDArray[np.bool_]
    audio: list[tuple[float, Samples]] | None
    problems: list[str]


class MediaFile:
    """One open file: its facts, its pictures, its sound.

    Args:
        source: path, bytes or binary file object.
        limits: what the file may cost.
        progress: called with a growing fraction from 0 to 1 while the file is read.

    Attributes:
        label: how messages call the file.
        duration: seconds from the start of the earliest stream to the end of the last.
        problems: what is wrong with the file, in words; grows while it is read.
        frames_decoded: pictures that the decoder has given out so far.

    Raises:
        MediaError: if the file holds nothing that can be read or exceeds a limit; naming it.
        OSError: if it cannot be opened.
    """

    begin = 0.0
    in_memory = False

    def __init__(
        self, source: MediaInput, limits: MediaLimits | None = None, progress: Progress | None = None
    ) -> None:
        self.limits = limits if limits is not None else MediaLimits()
        self._progress = progress
        self._source = MediaSource(source, self.limits)
        self.label = self._source.label
        try:
            index = index_media(self._source, self.limits, self._share(0.0, _INDEX_SHARE))
        except BaseException:
            self._source.close()
            raise
        self.index = index
        self.duration = index.duration
        self.problems = index.problems
        self.frames_decoded = 0

    def __enter__(self) -> "MediaFile":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; one that was given open stays open."""
        self._source.close()

    @property
    def has_video(self) -> bool:
        """Whether the file has pictures."""
        return self.index.video is not None

    @property
    def has_audio(self) -> bool:
        """Whether the file has sound."""
        return self.index.audio is not None

    def video_reader(self) -> VideoReader:
        """A reader of the pictures.

        Raises:
            MediaError: if there are none.
        """
        if self.index.video is None:
            raise MediaError(f"{self.label}: the file has no pictures")
        return VideoReader(self._source, self.index.video, self.index.origin, self.limits, self.problems)

    def audio_reader(self, sampling_rate: int = 16000) -> AudioReader:
        """A reader of the sound.

        Raises:
            MediaError: if there is none.
        """
        if self.index.audio is None:
            raise MediaError(f"{self.label}: the file has no sound")
        index = self.index
        return AudioReader(
            self._source, self.index.audio, index.origin, index.format, self.limits, self.problems, sampling_rate
        )

    def read_pictures(self, plan: ChunkPlan, height: int, width: int) -> tuple[Pictures, FloatArray, Any] | None:
        """Pictures of every chunk.

        Returns:
            Frames uint8 `[K, F, H, W, 3]`, their times float64 `[K, F]` and the mask bool `[K]` of chunks during which
            a picture is on screen; None if no picture can be decoded.

        Raises:
            MediaError: if nothing new is seen or heard in more chunks than the limits allow.
        """
        reader = self.video_reader()
        self._check_idle(plan, reader.times)
        windows = plan.windows
        mask = (windows[:, 0] < reader.end) & (windows[:, 1] > reader.times[0])
        if not bool(mask.any()):
            return None
        wanted = plan.frame_times[mask].reshape(-1)
        share = self._share(_INDEX_SHARE, _INDEX_SHARE + _VIDEO_SHARE)
        found = reader.read(wanted, height, width, share)
        self.frames_decoded += reader.frames_decoded
        if found is None:
            return None
        frames = np.zeros((*plan.frame_times.shape, height, width, 3), dtype=np.uint8)
        times = plan.frame_times.copy()
        frames[mask] = found[0].reshape(-1, *frames.shape[1:])
        times[mask] = found[1].reshape(-1, times.shape[1])
        return frames, times, mask

    def _check_idle(self, plan: ChunkPlan, times: FloatArray) -> None:
        begins, ends = plan.windows[:, 0], plan.windows[:, 1]
        shown = np.searchsorted(times, begins)
        is_idle = begins - np.append(0.0, times)[shown] > self.limits.max_skew
        is_idle &= np.searchsorted(times, ends) == shown
        if self.index.audio is not None:
            first, last = self.index.audio.start - self.index.origin, self.index.audio.end - self.index.origin
            is_idle &= (ends <= first) | (begins >= last)
        if int(is_idle.sum()) > self.limits.max_idle_chunks:
            cause = too_many_idle_chunks(self.limits, float(ends[0] - begins[0]))
            raise MediaError("; ".join([f"{self.label}: {cause}", *self.problems]))

    def read_sound(self, plan: ChunkPlan, sampling_rate: int = 16000) -> Iterator[Iterator[tuple[int, Samples]]]:
        """Sound of one chunk after the other, see `AudioReader.read_pieces`.

        Yields:
            Pieces of the chunk, to be used up before the next one: position of the first sample, counted from second
            0, and float32 `[n]`; none where the chunk has no sound.
        """
        report = self._share(_INDEX_SHARE + _VIDEO_SHARE, 1.0)
        reader = self.audio_reader(sampling_rate)
        for k, pieces in enumerate(reader.read_pieces(sample_ranges(plan.windows, sampling_rate))):
            report(k / plan.num_chunks)
            yield pieces
        report(1.0)

    def warn(self) -> None:
        """Say in one `MediaWarning` what is wrong with the file, if anything is."""
        if self.problems:
            warnings.warn(f"{self.label}: {'; '.join(self.problems)}", MediaWarning, stacklevel=3)

    def _share(self, low: float, high: float) -> Progress:
        def report(fraction: float) -> None:
            if self._progress is not None:
                self._progress(low + (high - low) * fraction)

        return report


def read_media(
    source: MediaInput,
    make_plan: Callable[[float], ChunkPlan],
    *,
    size: tuple[int, int] = (224, 224),
    sampling_rate: int = 16000,
    limits: MediaLimits | None = None,
    progress: Progress | None = None,
) -> MediaClip:
    """Read pictures and sound of one file, cut at the same seconds.

    Args:
        source: path, bytes or binary file object.
        make_plan: from the duration in seconds to the chunk plan.
        size: height and width of the pictures.
        sampling_rate: samples per second of the sound that comes out, one channel.
        limits: what the file may cost.
        progress: called with a growing fraction from 0 to 1.

    Raises:
        MediaError: if nothing can be read; naming the file and the cause.
        OSError: if the file cannot be opened.

    Warns:
        MediaWarning: if only a part can be read.
    """
    with MediaFile(source, limits, progress) as media:
        plan = make_plan(media.duration)
        pictures = media.read_pictures(plan, *size) if media.has_video else None
        audio = _whole_sound(media, plan, sampling_rate) if media.has_audio else None
        if pictures is None and not any(len(data) for _, data in audio or []):
            raise MediaError(f"{media.label}: {'; '.join(media.problems) or 'nothing to see or hear in this span'}")
        media.warn()
        if pictures is None:
            nothing = np.zeros(plan.num_chunks, dtype=bool)
            return MediaClip(plan, None, plan.frame_times, nothing, audio, media.problems)
        frames, times, mask = pictures
        return MediaClip(plan, frames, times, mask, audio, media.problems)


def _whole_sound(media: MediaFile, plan: ChunkPlan, sampling_rate: int) -> list[tuple[float, Samples]]:
    """Per chunk the second of its first real sample and all of its samples."""
    starts = sample_ranges(plan.windows, sampling_rate)[:, 0].tolist()
    joined = [
        join_pieces(start, list(pieces))
        for start, pieces in zip(starts, media.read_sound(plan, sampling_rate), strict=True)
    ]
    return [(position / sampling_rate, samples) for position, samples in joined]


def probe_media(source: MediaInput, limits: MediaLimits | None = None) -> dict[str, Any]:
    """What a file holds, as data.

    Args:
        source: path, bytes or binary file object.
        limits: what the file may cost.

    Returns:
        `{"duration", "video": {"width", "height", "frames", "fps", "start", "duration", "rotation"} | None,
        "audio": {"sampling_rate", "channels", "start", "duration"} | None, "problems": [...]}`. Seconds from the start
        of the earliest stream; size in pixels after rotation and sample aspect ratio; rotation in clockwise degrees as
        applied; fps None for a single frame.

    Raises:
        MediaError: if nothing can be read; naming the file and the cause.
        OSError: if the file cannot be opened.
    """
    with MediaFile(source, limits) as media:
        video = _probe_video(media) if media.has_video else None
        audio = _probe_audio(media) if media.has_audio else None
        if video is None and audio is None:
            raise MediaError(f"{media.label}: {'; '.join(media.problems)}")
        return {"duration": media.duration, "video": video, "audio": audio, "problems": list(media.problems)}


def _probe_video(media: MediaFile) -> dict[str, Any] | None:
    reader = media.video_reader()
    times, end = reader.times, reader.end
    frames = reader.decode_all()
    first = next(frames, None)
    if first is None:
        add_problem(media.problems, "no picture of the video stream can be decoded")
        return None
    width, height, turn = _display_size(first, reader.sample_aspect_ratio)
    count = len(times)
    if count * first.width * first.height <= _PIXELS_WORTH_COUNTING:
        count = 1 + sum(1 for _ in frames)
    frames.close()
    span = float(times[-1] - times[0])
    return {
        "width": width,
        "height": height,
        "frames": count,
        "fps": (len(times) - 1) / span if span > 0 else None,
        "start": float(times[0]),
        "duration": end - float(times[0]),
        "rotation": turn,
    }


def _display_size(frame: Any, pixel_ratio: float) -> tuple[int, int, int]:
    """Width, height and clockwise rotation as a player shows the frame."""
    turn, _ = orientation(frame)
    ratio = pixel_ratio if 1 / _WIDEST_PIXEL <= pixel_ratio <= _WIDEST_PIXEL else 1.0
    width, height = max(1, round(frame.width * ratio)), frame.height
    return (height, width, turn) if turn % 180 else (width, height, turn)


def _probe_audio(media: MediaFile) -> dict[str, Any]:
    index = media.index
    assert index.audio is not None
    return {
        "sampling_rate": index.audio.sampling_rate,
        "channels": index.audio.channels,
        "start": index.audio.start - index.origin,
        "duration": index.audio.end - index.audio.start,
    }
