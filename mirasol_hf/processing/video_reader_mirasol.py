"""Reading only the pictures that are wanted, as a player would show them.

Legend: N pictures, H, W image.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import av
import numpy as np

from .chunk_plan_mirasol import pick_frames
from .clock_mirasol import KnownClock
from .demux_mirasol import ShownTimes, add_problem, decode_packet, open_container, packets, prepare_codec, stream_at
from .h264_packets_mirasol import is_disposable, length_bytes
from .media_index_mirasol import FloatArray, Progress, VideoIndex
from .media_limits_mirasol import MediaLimits
from .media_source_mirasol import MediaSource
from .picture_mirasol import Pictures, rgb_picture

# Seeking costs a flush of the decoder and a jump in the file: worth it only past this many frames.
_FRAMES_WORTH_A_SEEK = 12
# Codecs in which a picture that is marked as no reference is needed by no other picture, so that leaving it out
# changes nothing. (In HEVC the mark holds within one temporal layer only.)
_SKIPS_EXACTLY = {"h264"}
# Containers that are sought by presentation time; in others the key frame may be missed by that.
_SEEK_BY_PRESENTATION = {"mov", "matroska"}


@dataclass
class _Trip:
    """Neighbouring wanted frames that are decoded in one go.

    Attributes:
        start: presentation and decoding time of the key frame to seek to, None for the beginning of the stream.
        targets: ticks of the frames, ascending.
    """

    start: tuple[int, int] | None
    targets: list[int]


# Ticks of wanted frames with the picture that is on screen then and its own tick.
_Shown: TypeAlias = dict[int, tuple[Pictures, int]]


class _UnsureError(Exception):
    """The stream is not as plain as the index promised; it has to be read with more care."""


class VideoReader:
    """Pictures of one video stream at wanted instants.

    Frames are reached by seeking to the key frame before them where that decodes less than reading on. In a stream
    without damage nothing behind a wanted frame is decoded, nor what no wanted frame depends on. In a damaged one a
    packet that cannot be decoded costs its own frame only: the last good one stays on screen.

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
        # Where the time stamps jump, a time does not say which place of the file is meant.
        self._may_seek = index.timed and len(index.keys) > 1 and not index.shifts

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
        targets = np.unique(self.index.pts[picked]).tolist()
        try:
            shown = self._read_trips(targets, height, width, progress)
        except _UnsureError:
            shown = self._read_carefully(targets, height, width, progress)
        if not shown:
            add_problem(self.problems, "no picture of the video stream can be decoded")
            return None
        # Pictures that were lost at the end are replaced by the last one before them.
        last = max(shown.values(), key=lambda item: item[1])
        chosen = [shown.get(target, last) for target in self.index.pts[picked].tolist()]
        pictures = np.stack([picture for picture, _ in chosen])
        stamps = self.index.seconds([pts for _, pts in chosen]) - (self.origin if self.index.timed else 0.0)
        return pictures, stamps

    def _read_trips(self, targets: list[int], height: int, width: int, progress: Progress | None) -> _Shown:
        """Exactly the wanted frames of a stream without damage, each by its own tick."""
        shown: _Shown = {}
        if not self.index.timed or self.index.in_order or bool((np.diff(self.index.pts) <= 0).any()):
            raise _UnsureError
        with _FrameCursor(self) as cursor:
            for trip in self._plan_trips(targets):
                wanted = set(trip.targets)
                for frame in cursor.travel(trip):
                    if frame.pts in wanted and frame.pts not in shown:
                        shown[frame.pts] = (rgb_picture(frame, height, width), frame.pts)
                if not wanted <= shown.keys():
                    raise _UnsureError
                if progress is not None:
                    progress(len(shown) / len(targets))
        return shown

    def _plan_trips(self, targets: list[int]) -> list[_Trip]:
        """Cut the wanted frames where seeking decodes less than reading on."""
        trips = [_Trip(None, [])]
        keys, pts = self.index.keys, self.index.pts
        position = int(pts[0])
        for target in targets:
            key = int(np.searchsorted(keys[:, 0], target, side="right")) - 1
            if (
                self._may_seek
                and key >= 0
                and self._frames_between(position, int(keys[key, 0])) > _FRAMES_WORTH_A_SEEK
            ):
                trips.append(_Trip((int(keys[key, 0]), int(keys[key, 1])), []))
            trips[-1].targets.append(target)
            position = target
        return [trip for trip in trips if trip.targets]

    def _frames_between(self, position: int, key: int) -> int:
        """Frames that need not be decoded if reading goes on at tick `key` instead of `position`."""
        pts = self.index.pts
        return int(np.searchsorted(pts, key) - np.searchsorted(pts, position))

    def _read_carefully(self, targets: list[int], height: int, width: int, progress: Progress | None) -> _Shown:
        """What is on screen at each tick in a stream where frames may be missing or out of place."""
        shown: _Shown = {}
        with _FrameCursor(self) as cursor:
            for count, target in enumerate(targets):
                frame, pts = cursor.show(target)
                if frame is None:
                    break
                if pts not in shown:
                    shown[pts] = (rgb_picture(frame, height, width), pts)
                shown[target] = shown[pts]
                if progress is not None:
                    progress((count + 1) / len(targets))
        return shown

    def decode_all(self) -> Generator[Any, None, None]:
        """Every frame of the stream in presentation order, as `av.VideoFrame`."""
        with _FrameCursor(self) as cursor:
            yield from cursor.frames


class _FrameCursor:
    """A position in the stream that can move to any frame."""

    frames: Iterator[Any]
    current: tuple[Any, int] | None
    upcoming: tuple[Any, int] | None

    def __init__(self, reader: VideoReader) -> None:
        self.reader = reader
        self.index = reader.index
        self._open()

    def __enter__(self) -> "_FrameCursor":
        return self

    def __exit__(self, *exc: object) -> None:
        self.container.close()
        # The generator holds this object; without it the decoder and its pictures are freed at once.
        self.frames = iter(())
        self.current, self.upcoming = None, None

    def _open(self) -> None:
        self.container = open_container(self.reader.source, self.reader.limits)
        self.stream = stream_at(self.container, self.index.stream)
        prepare_codec(self.stream, self.reader.limits)
        if self.index.in_order and self.stream.codec_context.has_b_frames:
            # Behind a seek the decoder drops frames that lean on what came before, and the count of times is lost.
            self.reader._may_seek = False
        self._restart()

    def _restart(self) -> None:
        self.shown_times = ShownTimes() if self.index.in_order else None
        self.frames = self._decode()
        self.current, self.upcoming = None, None

    def travel(self, trip: _Trip) -> Iterator[Any]:
        """Frames of a stream without damage on the way to the wanted ones.

        Decoding ends with the packet of the last wanted frame, and leaves out what nothing depends on.

        Raises:
            _UnsureError: if anything is not as the index says.
        """
        context, missing = self.stream.codec_context, set(trip.targets)
        skips = context.name in _SKIPS_EXACTLY
        prefix = length_bytes(context.extradata)
        if trip.start is not None:
            by_presentation = bool(_SEEK_BY_PRESENTATION & set(self.container.format.name.split(",")))
            self.container.seek(trip.start[0 if by_presentation else 1], stream=self.stream)
        try:
            for packet in self._sound_packets(trip):
                unwanted = skips and packet.pts not in missing
                if unwanted and is_disposable(packet, prefix):
                    continue
                # What the decoder needs of an unwanted packet, parameters of later pictures, it takes from it.
                context.skip_frame = "NONREF" if unwanted else "DEFAULT"
                yield from self._sound_frames(packet.decode())
                missing.discard(packet.pts)
                if not missing:
                    break
            yield from self._sound_frames(context.decode(None))
        except (av.FFmpegError, ValueError) as error:
            raise _UnsureError from error

    def _sound_packets(self, trip: _Trip) -> Iterator[Any]:
        found: list[str] = []
        first = trip.start is not None
        clock = KnownClock(self.index.shifts)
        for packet in packets(self.container, [self.stream], self.reader.source, found, clock):
            self.reader.source.check_deadline()
            if packet.pts is None or packet.is_corrupt or (first and packet.pts > trip.targets[0]):
                raise _UnsureError
            first = False
            yield packet
        if found:
            raise _UnsureError

    def _sound_frames(self, frames: list[Any]) -> Iterator[Any]:
        for frame in frames:
            # Of an interlaced frame the second field may lie in a packet of its own.
            if frame.pts is None or frame.is_corrupt or frame.interlaced_frame:
                raise _UnsureError
            if frame.width * frame.height > self.reader.limits.max_pixels:
                raise _UnsureError
            self.reader.frames_decoded += 1
            yield frame

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
        if self.reader._frames_between(position, int(keys[key, 0])) <= _FRAMES_WORTH_A_SEEK:
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
        clock = KnownClock(self.index.shifts)
        for packet in packets(self.container, [self.stream], self.reader.source, self.reader.problems, clock):
            self.reader.source.check_deadline()
            yield packet
        yield None
