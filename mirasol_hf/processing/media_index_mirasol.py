"""What a media file holds: when each of its pictures is shown, and when its sound begins and ends.

The packets of both streams are listed once without decoding. Headers are not trusted: frame counts, frame rates and
durations in them are often wrong, the time stamps of packets seldom.
"""

from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from .box_scan_mirasol import check_boxes
from .clock_mirasol import ContinuousClock, Shifts
from .demux_mirasol import (
    JUMP,
    add_problem,
    choose_streams,
    decode_packet,
    frame_second,
    in_decoding_order,
    is_cut,
    open_container,
    packet_tick,
    packets,
    prepare_codec,
)
from .media_limits_mirasol import MediaError, MediaLimits
from .media_source_mirasol import MediaSource

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Progress = Callable[[float], None]

# A last frame that claims to stay longer than this is given the usual duration instead.
_LONGEST_FRAME_SECONDS = 3600.0
# Sound packets that may be decoded to learn when the sound really starts.
_PACKETS_TO_FIRST_SOUND = 64
_CLOCK_ROUNDING = 0.05
_JUMP_SECONDS = 3600.0
_SMALL_BYTES = 2**28
# Samples per second that sound takes once it is read; slower sound grows to it.
_READ_RATE = 16000
# Different durations of packets that are counted.
_DURATIONS = 4096


@dataclass
class VideoIndex:
    """Every visible frame of a video stream as its packets announce it.

    Attributes:
        stream: index of the stream in the container.
        time_base: seconds per tick.
        timed: False if the stream has no time stamps; then ticks are counted out at the nominal rate.
        pts: int64 `[N]`, ascending presentation times in ticks.
        keys: int64 `[n, 2]`, presentation and decoding time of the frames that reading can start at, ascending.
        end: the tick at which the last frame leaves the screen.
        pixel_ratio: width of a stored pixel divided by its height.
        in_order: whether the times of packets, taken in ascending order, are those of the frames as they are shown.
        shifts: where the time stamps jump and by how much they are put right, see [`ContinuousClock`].
    """

    stream: int
    time_base: Fraction
    timed: bool
    pts: IntArray
    keys: IntArray
    end: int
    pixel_ratio: float = 1.0
    in_order: bool = False
    shifts: Shifts = field(default_factory=list)

    def is_shared(self, tick: int) -> bool:
        """Whether several frames claim to appear at this tick."""
        place = int(np.searchsorted(self.pts, tick))
        return place + 1 < len(self.pts) and bool(self.pts[place + 1] == tick)

    def seconds(self, ticks: npt.ArrayLike) -> FloatArray:
        """Ticks in seconds of the container's clock."""
        return np.asarray(np.asarray(ticks, dtype=np.float64) * float(self.time_base))


@dataclass
class AudioIndex:
    """When a sound stream begins and ends, in seconds of the container's clock; `shifts` as in [`VideoIndex`]."""

    stream: int
    sampling_rate: int
    channels: int
    start: float
    end: float
    shifts: Shifts = field(default_factory=list)


@dataclass
class MediaIndex:
    """What a file holds.

    Attributes:
        video: pictures, or None.
        audio: sound, or None.
        format: names of the container.
        origin: second 0 of the file on the container's clock, the earliest start of its streams.
        duration: seconds from there to the end of the stream that ends last.
        problems: what is wrong with the file, in words.
    """

    video: VideoIndex | None = None
    audio: AudioIndex | None = None
    format: str = ""
    origin: float = 0.0
    duration: float = 0.0
    problems: list[str] = field(default_factory=list)


def index_media(source: MediaSource, limits: MediaLimits, progress: Progress | None = None) -> MediaIndex:
    """List the packets of the picture and of the sound.

    Args:
        source: the file.
        limits: its bounds.
        progress: called with the fraction of the file that is listed.

    Raises:
        MediaError: if the file holds neither pictures nor sound, or exceeds a limit.
    """
    check_boxes(source, limits)
    with open_container(source, limits) as container:
        index = MediaIndex(format=container.format.name)
        video, audio = choose_streams(container, limits, index.problems)
        if video is not None or audio is not None:
            _list_packets(container, video, audio, source, limits, index, progress)
            note_missing_end(container, index)
            _set_span(container, index)
            _check_expansion(source, limits, index)
    if index.video is None and index.audio is None:
        raise MediaError("; ".join([f"{source.label}: neither pictures nor sound can be read", *index.problems]))
    if index.duration > limits.max_duration:
        raise MediaError(
            f"{source.label}: lasts {index.duration:.0f} s, more than MediaLimits.max_duration={limits.max_duration:g}"
        )
    return index


class PacketDurations:
    """Counts the durations of packets, a bounded number of different ones."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def note(self, duration: int) -> None:
        """Take the duration of one more packet, in ticks."""
        if len(self._counts) < _DURATIONS or duration in self._counts:
            self._counts[duration] += 1

    def usual(self) -> int:
        """The median; 0 if there is none."""
        left = self._counts.total() / 2
        for duration in sorted(self._counts):
            left -= self._counts[duration]
            if left <= 0:
                return duration
        return 0


class _VideoLister:
    """Collects the packets of the video stream, in eight bytes for each and sixteen more for each key frame."""

    def __init__(self, stream: Any, in_order: bool) -> None:
        self.stream = stream
        self.in_order = in_order
        self.pts = array("q")
        self.keys = array("q")
        self.durations = PacketDurations()
        self.untimed = 0
        self.last_end = (0, 0)

    def add(self, packet: Any) -> None:
        pts = packet_tick(packet, self.in_order)
        duration = max(packet.duration or 0, 0)
        if pts is None:
            self.untimed += 1
            return
        if packet.is_keyframe:
            self.keys.extend((pts, min(pts, packet.dts if packet.dts is not None else pts)))
        if not packet.is_discard:
            self.pts.append(pts)
            self.durations.note(duration)
            if len(self.pts) == 1 or (pts, duration) > self.last_end:
                self.last_end = (pts, duration)

    def index(self) -> VideoIndex | None:
        time_base = self.stream.time_base or Fraction(1, 90000)
        ratio = float(self.stream.sample_aspect_ratio or 1)
        if self.untimed > len(self.pts):
            return self._counted(self.untimed + len(self.pts), ratio)
        if not self.pts:
            return None
        pts = np.sort(np.frombuffer(self.pts, dtype=np.int64))
        usual = self.durations.usual() or self._usual_gap(pts, time_base)
        last = self.last_end[1] or usual
        if last * time_base > _LONGEST_FRAME_SECONDS:
            last = usual if usual * time_base <= _LONGEST_FRAME_SECONDS else self._usual_gap(pts, time_base)
        keys = np.frombuffer(self.keys, dtype=np.int64).reshape(-1, 2)
        keys = keys[np.lexsort((keys[:, 1], keys[:, 0]))]
        return VideoIndex(self.stream.index, time_base, True, pts, keys, int(pts[-1]) + last, ratio, self.in_order)

    def _counted(self, frames: int, ratio: float) -> VideoIndex:
        """A stream without time stamps: frames follow each other at the nominal rate."""
        rate = self.stream.average_rate or self.stream.guessed_rate or Fraction(25)
        pts = np.arange(frames, dtype=np.int64)
        return VideoIndex(self.stream.index, 1 / Fraction(rate), False, pts, np.zeros((0, 2), np.int64), frames, ratio)

    @staticmethod
    def _usual_gap(pts: IntArray, time_base: Fraction) -> int:
        gaps = np.diff(pts)
        gaps = gaps[gaps > 0]
        return int(np.median(gaps)) if len(gaps) else max(1, round(Fraction(1, 25) / time_base))


class _AudioLister:
    """Collects the packets of the audio stream."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.first: float | None = None
        self.decoded: float | None = None
        self.end = 0.0
        self.tries = 0
        self.packets = 0
        self.tick = float(stream.time_base) if stream.time_base else None

    def add(self, packet: Any) -> None:
        if self.decoded is not None and self.tick is not None and packet.pts is not None:
            # Of a stream whose beginning is known, only the end is of interest.
            self.end = max(self.end, (packet.pts + max(packet.duration or 0, 0)) * self.tick)
            return
        self.packets += 1
        tick = self.tick if self.tick is not None else float(packet.time_base)
        pts = packet.pts if packet.pts is not None else packet.dts
        start = pts * tick if pts is not None else self.end
        end = start + max(packet.duration or 0, 0) * tick
        self.end = end if self.packets == 1 else max(self.end, end)
        if not packet.is_discard:
            self.first = start if self.first is None else min(self.first, start)
        # Encoder delay is cut off by the decoder, so only the first decoded frame says when the sound starts. Hidden
        # packets are decoded too: the decoder drops their samples itself.
        if self.decoded is None and self.tries < _PACKETS_TO_FIRST_SOUND:
            self.tries += not packet.is_discard
            self._decode(packet)

    def _decode(self, packet: Any) -> None:
        try:
            frames = decode_packet(packet)
        except (av.FFmpegError, ValueError):
            return
        for frame in frames:
            if frame.samples and self.decoded is None:
                second = frame_second(frame, self.stream)
                self.decoded = self.first if second is None else second

    def index(self) -> AudioIndex | None:
        if self.first is None or (self.decoded is None and self.tries):
            return None
        start = self.decoded if self.decoded is not None else self.first
        context = self.stream.codec_context
        return AudioIndex(self.stream.index, context.sample_rate, context.channels, start, max(self.end, start))


def _list_packets(
    container: Any,
    video: Any | None,
    audio: Any | None,
    source: MediaSource,
    limits: MediaLimits,
    index: MediaIndex,
    progress: Progress | None,
) -> None:
    listers: dict[int, Any] = {}
    if video is not None:
        listers[video.index] = _VideoLister(video, in_decoding_order(container))
    if audio is not None:
        prepare_codec(audio, limits)
        listers[audio.index] = _AudioLister(audio)
    clock = ContinuousClock(container)
    streams = [stream for stream in (video, audio) if stream is not None]
    for count, packet in enumerate(packets(container, streams, source, index.problems, clock)):
        listers[packet.stream_index].add(packet)
        if count >= limits.max_packets:
            raise MediaError(f"{source.label}: more than MediaLimits.max_packets={limits.max_packets} packets")
        if packet.is_corrupt and is_cut(packet, source):
            add_problem(index.problems, "some packets are damaged or cut off")
        if count % 256 == 0:
            source.check_deadline()
            if progress is not None:
                progress(min(1.0, source.tell() / source.size))
    if video is not None:
        index.video = listers[video.index].index()
        if index.video is None:
            add_problem(index.problems, "the video stream holds no picture")
    if audio is not None:
        index.audio = listers[audio.index].index()
        if index.audio is None:
            add_problem(index.problems, "the audio stream holds no sound that can be decoded")
    for part in (index.video, index.audio):
        if part is not None:
            part.shifts = clock.shifts[part.stream]
    if clock.jumped:
        add_problem(index.problems, JUMP)


def _set_span(container: Any, index: MediaIndex) -> None:
    """Second 0 and the length of the file."""
    spans = []
    if index.video is not None:
        spans.append((float(index.video.seconds(index.video.pts[0])), float(index.video.seconds(index.video.end))))
    if index.audio is not None:
        spans.append((index.audio.start, index.audio.end))
    if not spans:
        return
    index.origin = clock_origin(container, min(start for start, _ in spans))
    index.duration = max(end for _, end in spans) - index.origin
    if index.video is not None and bool(np.any(np.diff(index.video.pts) * index.video.time_base > _JUMP_SECONDS)):
        add_problem(index.problems, "no picture comes for more than an hour")


def clock_origin(container: Any, earliest: float) -> float:
    """The container's second that counts as 0, from the earliest start of the streams that are read."""
    if container.start_time is None:
        return earliest
    # The container's own start differs by a rounding of its clock; a far one belongs to another stream.
    declared = float(container.start_time / av.time_base)
    return declared if abs(declared - earliest) < _CLOCK_ROUNDING else earliest


def _check_expansion(source: MediaSource, limits: MediaLimits, index: MediaIndex) -> None:
    """Refuse sound that was packed far beyond what real sound allows."""
    if index.audio is None:
        return
    seconds = index.audio.end - index.audio.start
    check_expansion(source.label, seconds, index.audio.sampling_rate * index.audio.channels, source.size, limits)


def check_expansion(label: str, seconds: float, samples_per_second: int, size: int, limits: MediaLimits) -> None:
    """Refuse `seconds` of sound that come out of `size` bytes if no real sound is packed that far.

    Time between the first sound and the last counts, as few time stamps are all that fills it.

    Raises:
        MediaError: naming the file.
    """
    if 4 * seconds * max(samples_per_second, _READ_RATE) > max(_SMALL_BYTES, limits.max_expansion * size):
        raise MediaError(
            f"{label}: {seconds:.0f} s of sound in {size} bytes unpack to more than "
            f"MediaLimits.max_expansion={limits.max_expansion:g} times the file"
        )


def note_missing_end(container: Any, index: MediaIndex) -> None:
    """Say so when the header of a format that knows its length promises more than is there."""
    if not set(container.format.name.split(",")) & {"mov", "matroska", "flac", "mp3"}:
        return
    promised, found, latest = 0.0, 0.0, 0.0
    for part in (index.video, index.audio):
        if part is None:
            continue
        stream = container.streams[part.stream]
        if stream.duration and stream.time_base:
            promised = max(promised, float(stream.duration * stream.time_base))
        if isinstance(part, VideoIndex):
            start, end = part.seconds([part.pts[0], part.end]).tolist()
        else:
            start, end = part.start, part.end
        found, latest = max(found, end - start), max(latest, end)
    if promised == 0.0 and "matroska" in container.format.name and container.duration:
        # Counted from the container's second 0, whenever the streams begin.
        promised, found = container.duration / av.time_base, latest
    if found < promised - max(0.5, 0.03 * promised) and promised < 1e6:
        add_problem(index.problems, f"the file ends early: {promised:.2f} s promised, {found:.2f} s there")
