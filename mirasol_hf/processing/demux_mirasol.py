"""Opening a container, choosing its streams, and the times of everything in them.

The packets of both streams are listed once without decoding. Headers are not trusted: frame counts, frame rates and
durations in them are often wrong, the time stamps of packets seldom.
"""

import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from heapq import heappop, heappush
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.stream import Discard, Disposition

from .box_scan_mirasol import check_boxes
from .clock_mirasol import Clock, ContinuousClock, Shifts
from .media_limits_mirasol import MediaError, MediaLimits
from .media_source_mirasol import MediaSource

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Progress = Callable[[float], None]

# A last frame that claims to stay longer than this is given the usual duration instead.
_LONGEST_FRAME_SECONDS = 3600.0
# Sound packets that may be decoded to learn when the sound really starts.
_PACKETS_TO_FIRST_SOUND = 64
_DEMUX_FAILURES = 16
_CLOCK_ROUNDING = 0.05
_JUMP_SECONDS = 3600.0
_SMALL_BYTES = 2**28
# Frames are stored out of order by this many at most.
_REORDERED_FRAMES = 32
# Different durations of packets that are counted.
_DURATIONS = 4096
JUMP = "time stamps jump; the parts follow each other without a gap"


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


class ShownTimes:
    """Times of frames in a container (AVI) that numbers its packets and does not know when they are shown.

    Frames leave the decoder in the order in which they are shown, so each gets the earliest number that is left.
    """

    def __init__(self) -> None:
        self._times: list[int] = []

    def note(self, packet: Any) -> None:
        """Take the time of a packet that goes into the decoder."""
        if packet.dts is not None:
            heappush(self._times, packet.dts)
        if len(self._times) > _REORDERED_FRAMES:
            # More than any decoder holds back: these frames were lost.
            heappop(self._times)

    def next(self, own: int | None) -> int | None:
        """Time of the frame that comes out; `own` if no packet had one."""
        return heappop(self._times) if self._times else own


def open_container(source: MediaSource, limits: MediaLimits) -> Any:
    """Open a checked source with FFmpeg behind the protective options.

    Returns:
        `av.container.InputContainer`; codecs are not open yet, so their options can still be set.

    Raises:
        MediaError: if FFmpeg does not recognise the file.
    """
    source.seek(0)
    return open_stream(source, limits, limits.formats)


def open_stream(source: Any, limits: MediaLimits, formats: str) -> Any:
    """As `open_container`, from where the source is; one without `seek` is read in one pass.

    Args:
        source: what FFmpeg reads through; errors name its `label`.
        limits: bounds of the file.
        formats: demuxers that may be used.
    """
    options = {
        "format_whitelist": formats,
        "protocol_whitelist": "none",
        "max_streams": str(limits.max_streams),
        "max_pixels": str(limits.max_pixels),
        "max_samples": str(limits.max_sampling_rate),
    }
    try:
        return av.open(source, mode="r", options=options, metadata_errors="replace", buffer_size=1 << 16)
    except (av.FFmpegError, UnicodeError) as error:
        raise MediaError(f"{source.label}: not a readable media file ({_cause(error)})") from error


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


def choose_streams(container: Any, limits: MediaLimits, problems: list[str]) -> tuple[Any | None, Any | None]:
    """The picture and the sound stream that are read; all others are skipped by the demuxer."""
    video = _choose(container.streams.video, problems, "video")
    audio = _choose(container.streams.audio, problems, "audio")
    audio = audio if audio is None or _audio_allowed(audio, limits, problems) else None
    _keep_only(container, [stream for stream in (video, audio) if stream is not None])
    return video, audio


def packets(container: Any, streams: list[Any], source: Any, problems: list[str], clock: Clock) -> Iterator[Any]:
    """Packets of the streams in file order, past damaged places, without the empty ones that end a stream.

    Args:
        container: `av.container.InputContainer`.
        streams: the streams of it.
        source: what it reads, for its deadline.
        problems: list that an early end is added to.
        clock: puts the packets on one clock.
    """
    failures = 0
    while failures < _DEMUX_FAILURES:
        try:
            for packet in container.demux(streams):
                if packet.size:
                    clock.set(packet)
                    yield packet
            return
        except IndexError:
            # A stream that begins in mid-file (FLV, MPEG-TS) is none of the chosen; PyAV stumbles over its packets.
            source.check_deadline()
        except (EOFError, av.error.EOFError):
            break
        except av.FFmpegError as error:
            source.check_deadline()
            failures += 1
            cause = _cause(error)
    add_problem(problems, f"reading stopped early ({cause if failures else 'end of file inside a packet'})")


def is_cut(packet: Any, source: Any) -> bool:
    """Whether a packet is damaged; the last one of a file without a length (`open_ended`) is only shorter."""
    return bool(packet.is_corrupt) and not source.open_ended


def packet_tick(packet: Any, in_order: bool) -> int | None:
    """When the frame of a packet is shown; where only the order is known, the number of the packet."""
    tick: int | None = packet.pts if packet.pts is not None and not in_order else packet.dts
    return tick


def in_decoding_order(container: Any) -> bool:
    """Whether the container knows only when its packets are decoded."""
    return str(container.format.name) == "avi"


def decode_packet(packet: Any) -> list[Any]:
    """Frames of one packet; a packet that cannot be decoded raises `av.FFmpegError` and reading can go on."""
    return list(packet.decode())


def add_problem(problems: list[str], text: str) -> None:
    """Note a problem once."""
    if text not in problems:
        problems.append(text)


def prepare_codec(stream: Any, limits: MediaLimits) -> None:
    """Set the limits and threads of a stream's decoder; call before its first packet is decoded."""
    context = stream.codec_context
    # The options given on opening reach the probe only, not the decoders used later.
    context.options = {"max_pixels": str(limits.max_pixels), "max_samples": str(limits.max_sampling_rate)}
    large = stream.type == "video" and context.width * context.height > 320 * 240
    context.thread_type = "AUTO" if large else "NONE"
    context.thread_count = min(limits.max_threads, os.cpu_count() or 1) if large else 1


def stream_at(container: Any, index: int) -> Any:
    """The stream of that index; all others are skipped by the demuxer."""
    stream = container.streams[index]
    _keep_only(container, [stream])
    return stream


def _keep_only(container: Any, chosen: list[Any]) -> None:
    wanted = {stream.index for stream in chosen}
    for stream in container.streams:
        if stream.index not in wanted:
            stream.discard = Discard.all


def _choose(streams: Any, problems: list[str], kind: str) -> Any | None:
    """The default stream of a kind, else the first; never cover art, never one without a decoder."""
    real = [s for s in streams if not s.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails)]
    usable = [s for s in real if s.codec_context is not None]
    if len(usable) < len(real):
        add_problem(problems, f"a {kind} stream has no decoder")
    default = [s for s in usable if s.disposition & Disposition.default]
    return (default or usable or [None])[0]


def _audio_allowed(stream: Any, limits: MediaLimits, problems: list[str]) -> bool:
    context = stream.codec_context
    rate, channels = context.sample_rate or 0, context.channels or 0
    if not limits.min_sampling_rate <= rate <= limits.max_sampling_rate:
        add_problem(problems, f"the sound has {rate} samples per second, outside the limits")
        return False
    if not 1 <= channels <= limits.max_channels:
        add_problem(problems, f"the sound has {channels} channels, outside the limits")
        return False
    return True


class _VideoLister:
    """Collects the packets of the video stream, in eight bytes for each and sixteen more for each key frame."""

    def __init__(self, stream: Any, in_order: bool) -> None:
        self.stream = stream
        self.in_order = in_order
        self.pts = array("q")
        self.keys = array("q")
        self.durations: Counter[int] = Counter()
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
            if len(self.durations) < _DURATIONS or duration in self.durations:
                self.durations[duration] += 1
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
        usual = usual_duration(self.durations) or self._usual_gap(pts, time_base)
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


def usual_duration(durations: Counter[int]) -> int:
    """The median of counted durations; 0 if there is none."""
    left = durations.total() / 2
    for duration in sorted(durations):
        left -= durations[duration]
        if left <= 0:
            return duration
    return 0


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
                self.decoded = frame.pts * float(frame.time_base) if frame.pts is not None else self.first

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

    Raises:
        MediaError: naming the file.
    """
    if 4 * seconds * samples_per_second > max(_SMALL_BYTES, limits.max_expansion * size):
        raise MediaError(
            f"{label}: {seconds:.0f} s of sound in {size} bytes unpack to more than "
            f"MediaLimits.max_expansion={limits.max_expansion:g} times the file"
        )


def note_missing_end(container: Any, index: MediaIndex) -> None:
    """Say so when the header of a format that knows its length promises more than is there."""
    if not set(container.format.name.split(",")) & {"mov", "matroska", "flac", "mp3"}:
        return
    promised, found = 0.0, 0.0
    for part in (index.video, index.audio):
        if part is None:
            continue
        stream = container.streams[part.stream]
        if stream.duration and stream.time_base:
            promised = max(promised, float(stream.duration * stream.time_base))
        if isinstance(part, VideoIndex):
            found = max(found, float(part.seconds(part.end - part.pts[0])))
        else:
            found = max(found, part.end - part.start)
    if promised == 0.0 and "matroska" in container.format.name and container.duration:
        promised = container.duration / av.time_base
    if found < promised - max(0.5, 0.03 * promised) and promised < 1e6:
        add_problem(index.problems, f"the file ends early: {promised:.2f} s promised, {found:.2f} s there")


def _cause(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
