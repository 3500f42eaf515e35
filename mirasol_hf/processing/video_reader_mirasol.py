"""Reading only the pictures that are wanted, as a player would show them.

Legend: N pictures, H, W image.
"""

from collections.abc import Generator, Iterator
from typing import Any

import av
import numpy as np

from .chunk_plan_mirasol import pick_frames
from .demux_mirasol import (
    FloatArray,
    Progress,
    ShownTimes,
    VideoIndex,
    add_problem,
    decode_packet,
    open_container,
    packets,
    prepare_codec,
    stream_at,
)
from .media_limits_mirasol import MediaLimits
from .media_source_mirasol import MediaSource
from .picture_mirasol import Pictures, rgb_picture

# Seeking costs a flush of the decoder and a jump in the file: worth it only past this many frames.
_FRAMES_WORTH_A_SEEK = 12


class VideoReader:
    """Pictures of one video stream at wanted instants.

    Frames are reached by seeking to the key frame before them where that decodes less than reading on. A packet that
    cannot be decoded costs its own frame only: the last good one stays on screen.

    Args:
        source: the file.
        index: its frames, from `index_media`.
        origin: the container's second that counts as 0.
        limits: bounds of the file.
        problems: list that what goes wrong is added to.
    """

    def __init__(
        self, source: MediaSource, index: VideoIndex, origin: float, limits: MediaLimits, problems: list[str]
    ) -> None:
        self.source = source
        self.index = index
        self.origin = origin
        self.limits = limits
        self.problems = problems
        self.frames_decoded = 0
        self._may_seek = index.timed and len(index.keys) > 1

    @property
    def times(self) -> FloatArray:
        """float64 `[n]`: when each frame of the stream appears, in seconds from the start of the file."""
        return self.index.seconds(self.index.pts) - (self.origin if self.index.timed else 0.0)

    @property
    def end(self) -> float:
        """When the last frame leaves the screen, in seconds from the start of the file."""
        return float(self.index.seconds(self.index.end)) - (self.origin if self.index.timed else 0.0)

    @property
    def sample_aspect_ratio(self) -> float:
        """Width of a stored pixel divided by its height."""
        return self.index.pixel_ratio

    def read(
        self, times: FloatArray, height: int, width: int, progress: Progress | None = None
    ) -> tuple[Pictures, FloatArray] | None:
        """The pictures on screen at the given instants, resized.

        Args:
            times: float64 `[N]` seconds, in any order.
            height: rows of each picture; the whole picture is resized, nothing is cropped.
            width: columns of each picture.
            progress: called with the fraction that is done.

        Returns:
            uint8 `[N, H, W, 3]` RGB and the float64 `[N]` presentation times of these pictures; None if no picture of
            the stream can be decoded.
        """
        picked = pick_frames(self.times, times)
        targets = np.unique(self.index.pts[picked])
        shown: dict[int, tuple[Any, int]] = {}
        with _FrameCursor(self) as cursor:
            for count, target in enumerate(targets.tolist()):
                frame, pts = cursor.show(target)
                if frame is None:
                    break
                if pts not in shown:
                    shown[pts] = (rgb_picture(frame, height, width), pts)
                shown[target] = shown[pts]
                if progress is not None:
                    progress((count + 1) / len(targets))
        if not shown:
            add_problem(self.problems, "no picture of the video stream can be decoded")
            return None
        # Pictures that were lost at the end are replaced by the last one before them.
        last = max(shown.values(), key=lambda item: item[1])
        chosen = [shown.get(target, last) for target in self.index.pts[picked].tolist()]
        pictures = np.stack([picture for picture, _ in chosen])
        stamps = self.index.seconds([pts for _, pts in chosen]) - (self.origin if self.index.timed else 0.0)
        return pictures, stamps

    def decode_all(self) -> Generator[Any, None, None]:
        """Every frame of the stream in presentation order, as `av.VideoFrame`."""
        with _FrameCursor(self) as cursor:
            yield from cursor.frames


class _FrameCursor:
    """A position in the stream that can move to any frame."""

    def __init__(self, reader: VideoReader) -> None:
        self.reader = reader
        self.index = reader.index
        self._open()

    def __enter__(self) -> "_FrameCursor":
        return self

    def __exit__(self, *exc: object) -> None:
        self.container.close()

    def _open(self, ticks: int | None = None) -> None:
        self.container = open_container(self.reader.source, self.reader.limits)
        self.stream = stream_at(self.container, self.index.stream)
        prepare_codec(self.stream, self.reader.limits)
        if ticks is not None:
            self.container.seek(ticks, stream=self.stream)
        self._restart()

    def _restart(self) -> None:
        self.shown_times = ShownTimes() if self.index.in_order else None
        self.frames = self._decode()
        self.current: tuple[Any, int] | None = None
        self.upcoming: tuple[Any, int] | None = None

    def show(self, target: int) -> tuple[Any | None, int]:
        """The frame on screen at tick `target` and its own tick; None if no frame is left.

        Targets must not go back in time.
        """
        if self.reader._may_seek:
            self._seek_towards(target)
        self._advance(target)
        if self.current is None and self.upcoming is not None and self.sought:
            # The seek landed behind the target: this index cannot be trusted, read on from the start instead.
            self.reader._may_seek = False
            self.container.close()
            self._open()
            self._advance(target)
        return self.current or self.upcoming or (None, 0)

    sought = False

    def _seek_towards(self, target: int) -> None:
        keys = self.index.keys
        key = int(np.searchsorted(keys[:, 0], target, side="right")) - 1
        here = self.upcoming or self.current
        position = here[1] if here is not None else int(self.index.pts[0])
        if key < 0 or keys[key, 0] <= position:
            return
        skipped = np.searchsorted(self.index.pts, keys[key, 0]) - np.searchsorted(self.index.pts, position)
        if skipped <= _FRAMES_WORTH_A_SEEK:
            return
        try:
            self.container.seek(int(keys[key, 1]), stream=self.stream)
        except (av.FFmpegError, OSError):
            self.reader._may_seek = False
            return
        self.sought = True
        self._restart()

    def _advance(self, target: int) -> None:
        while True:
            if self.upcoming is None:
                self.upcoming = self._next()
            if self.upcoming is None or self.upcoming[1] > target:
                return
            self.current, self.upcoming = self.upcoming, None
            # Of frames that share their time, the last one stays on screen.
            if self.current[1] == target and not self.index.is_shared(target):
                return

    def _next(self) -> tuple[Any, int] | None:
        frame = next(self.frames, None)
        return None if frame is None else (frame, frame.pts)

    def _decode(self) -> Iterator[Any]:
        """Frames from here on, each with its tick in `pts`."""
        idle, count = 0, 0
        for packet in self._packets_and_flush():
            idle += 1
            if self.shown_times is not None and packet is not None:
                self.shown_times.note(packet)
            try:
                frames = decode_packet(packet) if packet is not None else list(self.stream.codec_context.decode(None))
            except (av.FFmpegError, ValueError):
                add_problem(self.reader.problems, "some pictures are damaged")
                frames = []
            for frame in frames:
                pts = frame.pts if frame.pts is not None else frame.dts
                if self.shown_times is not None:
                    pts = self.shown_times.next(pts)
                if not self.index.timed:
                    pts, count = count, count + 1
                if pts is not None and frame.width * frame.height <= self.reader.limits.max_pixels:
                    idle = 0
                    frame.pts = pts
                    self.reader.frames_decoded += 1
                    yield frame
            if idle > self.reader.limits.max_idle_packets:
                add_problem(self.reader.problems, "the video stream was given up after packets without a picture")
                return

    def _packets_and_flush(self) -> Iterator[Any | None]:
        for packet in packets(self.container, [self.stream], self.reader.source, self.reader.problems):
            self.reader.source.check_deadline()
            yield packet
        yield None
