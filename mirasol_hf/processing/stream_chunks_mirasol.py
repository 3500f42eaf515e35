"""Chunks one by one while their file is still coming.

One demuxer, one pass: each packet is decoded once, in the order in which it comes, and nothing is read beyond what the
present chunk needs. Memory does not grow with the stream. Legend: F frames per chunk, C, H, W image, S, M features.
"""

import math
import os
import warnings
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from statistics import median
from typing import Any

import av
import numpy as np
import torch
from transformers.feature_extraction_utils import BatchFeature

from .audio_reader_mirasol import Samples, SoundRun, finite_samples, join_pieces, sound_allowed
from .box_scan_mirasol import check_boxes
from .chunk_plan_mirasol import ChunkPlan, plan_chunks, sample_ranges
from .demux_mirasol import (
    AudioIndex,
    MediaIndex,
    VideoIndex,
    add_problem,
    check_expansion,
    choose_streams,
    clock_origin,
    decode_packet,
    note_missing_end,
    open_stream,
    packets,
    prepare_codec,
)
from .media_limits_mirasol import MediaError, MediaLimits, MediaWarning
from .media_source_mirasol import MediaInput, MediaSource
from .stream_source_mirasol import StreamSource
from .video_reader_mirasol import Pictures, rgb_picture

# Pictures are stored out of order by this many at most.
_REORDERED_FRAMES = 32
_REORDERED_SECONDS = 1.0
# What is held of a stream whose other half has not begun.
_WAITING_BYTES = 2**26
_WAITING_FRAMES = 4096
_RECENT_PACKETS = 1000
# A rest shorter than this is rounding, not a chunk.
_REST_SECONDS = 1e-6


def iter_media_chunks(
    source: MediaInput,
    video_processor: Any,
    feature_extractor: Any,
    *,
    chunk_seconds: float,
    start: float = 0.0,
    end: float | None = None,
    load_audio_from_video: bool = True,
    return_timestamps: bool = False,
    limits: MediaLimits | None = None,
) -> Iterator[BatchFeature]:
    """See [`MirasolProcessor.iter_chunks`]; arguments are checked and the source is opened at once."""
    windows = _Windows(float(chunk_seconds), float(start), None if end is None else float(end))
    limits = limits if limits is not None else MediaLimits()
    opened = _open_source(source, limits)
    stream = _ChunkStream(opened, video_processor, feature_extractor, windows, limits, load_audio_from_video)
    return stream.run(return_timestamps)


def _open_source(source: MediaInput, limits: MediaLimits) -> MediaSource | StreamSource:
    if hasattr(source, "read") and not isinstance(source, (str, os.PathLike)):
        can_seek = source.seekable() if hasattr(source, "seekable") else hasattr(source, "seek")
        if not can_seek:
            return StreamSource(source, limits)
    return MediaSource(source, limits)


class _Windows:
    """Equal windows from `start` on, without an end unless one is given; the last is cut there."""

    def __init__(self, seconds: float, start: float, end: float | None) -> None:
        if not (math.isfinite(seconds) and seconds > 0):
            raise ValueError(f"chunk_seconds must be a positive number of seconds, got {seconds}")
        if not (math.isfinite(start) and start >= 0):
            raise ValueError(f"start must be a number of seconds of at least 0, got {start}")
        if end is not None and not end > start:
            raise ValueError(f"end={end:g} s must lie after start={start:g} s")
        self.seconds, self.start, self.end = seconds, start, end
        self.count = math.inf
        if end is not None and math.isfinite(end):
            parts = (end - start) / seconds
            self.exact = parts >= 0.5 and abs(parts - round(parts)) < 1e-9 * parts
            self.count = round(parts) if self.exact else math.ceil(parts)

    def __getitem__(self, k: int) -> tuple[float, float]:
        """First and last second of chunk `k`; neighbours share an edge bit for bit."""
        return self._edge(k), self._edge(k + 1)

    def _edge(self, k: int) -> float:
        if self.end is None or self.count == math.inf:
            return self.start + k * self.seconds
        if k >= self.count:
            return self.end
        # The edges that `plan_chunks` would give.
        return self.start + (self.end - self.start) * (k / self.count) if self.exact else self.start + k * self.seconds

    def plan(self, k: int, frames_per_chunk: int) -> ChunkPlan:
        """Chunk `k` alone."""
        return plan_chunks(*self[k], num_chunks=1, frames_per_chunk=frames_per_chunk)


class _VideoFeed:
    """Picks the picture on screen at each wanted instant out of frames that come in order.

    Attributes:
        first: smallest time stamp so far, in ticks; None before the first packet.
        now: second at which the latest frame appears.
    """

    def __init__(self, stream: Any, windows: _Windows, frames_per_chunk: int, size: tuple[int, int]) -> None:
        self.stream, self.windows, self.frames_per_chunk, self.size = stream, windows, frames_per_chunk, size
        self.time_base = float(stream.time_base or Fraction(1, 90000))
        self.rate = float(stream.average_rate or stream.guessed_rate or 25)
        self.first: int | None = None
        self.last = (0, 0)
        self.durations: deque[int] = deque(maxlen=_RECENT_PACKETS)
        self.packets = self.untimed = self.frames = self.idle = 0
        self.settled = self.gone = False
        self.origin = 0.0
        self.now = -math.inf
        self.step = 0.0
        self.current: Any = None
        self.picture: Pictures | None = None
        self.rows: deque[list[tuple[Pictures, float]] | None] = deque()
        self.row: list[tuple[Pictures, float]] = []
        self.chunk = 0
        self._wanted = self._times(0)

    @property
    def timed(self) -> bool:
        """Whether the stream has time stamps; else frames are counted out at the nominal rate."""
        return 2 * self.untimed <= self.packets

    def note(self, packet: Any) -> None:
        """What a packet says about time."""
        pts = packet.pts if packet.pts is not None else packet.dts
        duration = max(packet.duration or 0, 0)
        self.packets += 1
        self.durations.append(duration)
        self.untimed += pts is None
        if pts is None or packet.is_discard:
            self.settled = self.settled or pts is None
            return
        self.last = max(self.last, (pts, duration)) if self.first is not None else (pts, duration)
        self.first = pts if self.first is None else min(self.first, pts)
        # Decoding times ascend and no picture is shown before it is decoded.
        reached = packet.dts is not None and packet.dts >= self.first
        self.settled = self.settled or reached or self.packets >= _REORDERED_FRAMES

    def seconds(self, ticks: float) -> float:
        """Ticks in seconds of the file."""
        return ticks * self.time_base - self.origin

    @property
    def begin(self) -> float:
        """Second at which the first frame appears, on the container's clock."""
        return 0.0 if self.first is None or not self.timed else self.first * self.time_base

    def end(self, guess: bool) -> float:
        """When the latest frame leaves the screen: as announced, else never, or with `guess` at the usual rate."""
        if not self.timed:
            return self.packets / self.rate
        pts, duration = self.last
        usual = int(median(self.durations)) if self.durations else 0
        if not duration and not guess:
            return math.inf
        return self.seconds(pts + (duration or usual)) + (0.0 if duration or usual else self.step or 0.04)

    def push(self, frame: Any) -> bool:
        """Take the next frame; False if it cannot be placed."""
        pts = frame.pts if frame.pts is not None else frame.dts
        time = self.frames / self.rate if not self.timed else None if pts is None else self.seconds(pts)
        if time is None or time < self.now - _REORDERED_SECONDS:
            return False
        # Some containers (AVI) give the times of decoding; the order of the frames is right nevertheless.
        time = max(time, self.now)
        self.frames += 1
        if self.current is None:
            self._pass_empty_chunks(time)
        else:
            self._show_until(time)
            self.step = time - self.now or self.step
        self.current, self.picture, self.now = frame, None, time
        return True

    def close_chunk(self, k: int, end: float) -> None:
        """Complete chunk `k` with what is on screen; nothing is from `end` on."""
        while self.chunk <= k:
            if self.current is None or self.windows[self.chunk][0] >= end:
                self._next_chunk(None)
            else:
                self._show_until(self.windows[self.chunk][1])

    def _times(self, k: int) -> list[float]:
        return [] if k >= self.windows.count else self.windows.plan(k, self.frames_per_chunk).frame_times[0].tolist()

    def _pass_empty_chunks(self, time: float) -> None:
        while self._wanted and self.windows[self.chunk][1] <= time:
            self._next_chunk(None)

    def _show_until(self, time: float) -> None:
        while self._wanted and self._wanted[len(self.row)] < time:
            if self.picture is None:
                self.picture = rgb_picture(self.current, *self.size)
            self.row.append((self.picture, self.now))
            if len(self.row) == len(self._wanted):
                self._next_chunk(self.row)

    def _next_chunk(self, row: list[tuple[Pictures, float]] | None) -> None:
        self.rows.append(row)
        self.row = []
        self.chunk += 1
        self._wanted = self._times(self.chunk)


class _AudioFeed:
    """Puts decoded sound in order and hands out the samples of each window.

    Attributes:
        begin: second of the first decoded sample on the container's clock; None before it.
        front: sample up to which the sound is known.
    """

    def __init__(self, stream: Any, windows: _Windows, sampling_rate: int, problems: list[str]) -> None:
        self.stream, self.windows, self.sampling_rate, self.problems = stream, windows, sampling_rate, problems
        self.begin: float | None = None
        self.first: float | None = None
        self.last = 0.0
        self.origin = 0.0
        self.idle = 0
        self.gone = False
        self.clock: float | None = None
        self.run: SoundRun | None = None
        self.waiting: list[Any] = []
        self.pieces: deque[tuple[int, Samples]] = deque()
        self.front = self.range(0)[0]

    def range(self, k: int) -> tuple[int, int]:
        """First and one-past-last sample of chunk `k`."""
        begin, end = sample_ranges([self.windows[k]], self.sampling_rate)[0].tolist()
        return begin, end

    def note(self, packet: Any) -> None:
        """What a packet says about time."""
        pts = packet.pts if packet.pts is not None else packet.dts
        tick = float(self.stream.time_base or packet.time_base)
        start = pts * tick if pts is not None else self.last
        end = start + max(packet.duration or 0, 0) * tick
        self.last = end if self.first is None else max(self.last, end)
        if self.first is None or start < self.first:
            self.first = start

    def push(self, frame: Any) -> None:
        """Take the next decoded frame; before the origin is known it waits."""
        if self.begin is None:
            timed = frame.pts is not None
            self.begin = float(frame.pts * frame.time_base) if timed else float(self.first or 0.0)
        self.waiting.append(frame)

    def place(self) -> None:
        """Put the frames that wait where their time stamps say."""
        for frame in self.waiting:
            if frame.pts is not None and frame.time_base is not None:
                self.clock = float(frame.pts * frame.time_base) - self.origin
            elif self.clock is None:
                self.clock = (self.begin or 0.0) - self.origin
            start = self.clock
            assert start is not None
            if self.run is not None and not self.run.takes(frame, start):
                self.flush()
            if self.run is None:
                self.run = SoundRun(frame, start, self.sampling_rate)
            self._keep(self.run.push(frame))
            self.clock = start + frame.samples / frame.sample_rate
        self.waiting.clear()

    def flush(self) -> None:
        """End the run of sound: what comes next begins anew."""
        if self.run is not None:
            self._keep(self.run.finish())
        self.run = None

    def _keep(self, pieces: Iterator[tuple[int, Samples]]) -> None:
        for position, data in pieces:
            if position + len(data) <= self.front:
                continue
            data = finite_samples(data[max(0, self.front - position) :], self.problems)
            self.pieces.append((max(self.front, position), data))
            self.front = max(self.front, position) + len(data)

    def take(self, k: int) -> tuple[int, Samples]:
        """Position of the first real sample of chunk `k` and its samples; what comes later for it is dropped."""
        begin, end = self.range(k)
        found = []
        while self.pieces and self.pieces[0][0] < end:
            position, data = self.pieces.popleft()
            part = data[max(0, begin - position) : end - position]
            if len(part):
                found.append((max(position, begin), part))
            if position + len(data) > end:
                self.pieces.appendleft((end, data[end - position :]))
                break
        self.front = max(self.front, end)
        return join_pieces(begin, found)


class _ChunkStream:
    """One pass through a source."""

    def __init__(
        self,
        source: MediaSource | StreamSource,
        video_processor: Any,
        feature_extractor: Any,
        windows: _Windows,
        limits: MediaLimits,
        own_sound: bool,
    ) -> None:
        self.source, self.windows, self.limits = source, windows, limits
        self.video_processor, self.feature_extractor = video_processor, feature_extractor
        self.problems = source.problems if isinstance(source, StreamSource) else []
        self.video: _VideoFeed | None = None
        self.audio: _AudioFeed | None = None
        self.origin: float | None = None
        self.waiting: list[Any] = []
        self.waiting_bytes = 0
        try:
            self.container = self._open()
            self._choose(own_sound)
        except BaseException:
            source.close()
            raise

    def _open(self) -> Any:
        formats = self.limits.formats
        if isinstance(self.source, StreamSource):
            formats = self.source.formats
        else:
            check_boxes(self.source, self.limits)
        try:
            container = open_stream(self.source, self.limits, formats)
        except MediaError:
            self._raise_failure()
            raise
        self._raise_failure()
        return container

    def _raise_failure(self) -> None:
        if isinstance(self.source, StreamSource):
            self.source.raise_failure()

    def _choose(self, own_sound: bool) -> None:
        video, audio = choose_streams(self.container, self.limits, self.problems)
        if video is not None:
            prepare_codec(video, self.limits)
            if isinstance(self.source, StreamSource) and video.codec_context.thread_type.name != "NONE":
                # Threads per frame would hold some pictures back until later ones come.
                video.codec_context.thread_type = "SLICE"
            own = self.video_processor
            self.video = _VideoFeed(video, self.windows, own.num_frames, own._height_width({}))
        if audio is not None and own_sound:
            prepare_codec(audio, self.limits)
            rate = self.feature_extractor.sampling_rate
            self.audio = _AudioFeed(audio, self.windows, rate, self.problems)
        if self.video is None and self.audio is None:
            self._refuse("neither pictures nor sound can be read")

    def _refuse(self, cause: str) -> None:
        raise MediaError("; ".join([f"{self.source.label}: {cause}", *self.problems]))

    def run(self, return_timestamps: bool) -> Iterator[BatchFeature]:
        """The chunks, as soon as each is complete."""
        k = 0
        try:
            for packet in self._packets():
                self._feed(packet)
                while k < self.windows.count and self._complete(k):
                    yield self._build(k, return_timestamps)
                    self.source.renew_deadline()
                    k += 1
                if k >= self.windows.count:
                    break
            else:
                self._finish()
            last = self._end()
            while k < self.windows.count and self.windows[k][0] < last - _REST_SECONDS:
                self._close_chunk(k, last)
                yield self._build(k, return_timestamps)
                self.source.renew_deadline()
                k += 1
            if k == 0:
                self._nothing(last)
        finally:
            self.container.close()
            self.source.close()
        if self.problems:
            warnings.warn(f"{self.source.label}: {'; '.join(self.problems)}", MediaWarning, stacklevel=2)

    def _packets(self) -> Iterator[Any]:
        chosen = [feed.stream for feed in (self.video, self.audio) if feed is not None]
        for count, packet in enumerate(packets(self.container, chosen, self.source, self.problems)):
            self.source.check_deadline()
            if count >= self.limits.max_packets:
                self._refuse(f"more than MediaLimits.max_packets={self.limits.max_packets} packets")
            if packet.is_corrupt:
                add_problem(self.problems, "some packets are damaged or cut off")
            yield packet
        self._raise_failure()

    def _feed(self, packet: Any) -> None:
        video, audio = self.video, self.audio
        if audio is not None and packet.stream_index == audio.stream.index:
            audio.note(packet)
            self._hear(self._decode(packet, audio, "some of the sound is damaged"))
        elif video is not None:
            video.note(packet)
            if self.origin is None:
                self.waiting.append(packet)
                self.waiting_bytes += packet.size
            else:
                self._see(self._decode(packet, video, "some pictures are damaged"))
        if self.origin is None and self._may_begin():
            self._begin()
        self._check_size()

    def _decode(self, packet: Any | None, feed: Any, trouble: str) -> list[Any]:
        if feed.gone:
            return []
        feed.idle += 1
        try:
            frames = decode_packet(packet) if packet is not None else list(feed.stream.codec_context.decode(None))
        except (av.FFmpegError, ValueError, EOFError):
            add_problem(self.problems, trouble)
            return []
        if feed.idle > self.limits.max_idle_packets:
            feed.gone = True
            add_problem(self.problems, f"the {feed.stream.type} stream was given up after packets without content")
        return frames

    def _hear(self, frames: list[Any]) -> None:
        assert self.audio is not None
        for frame in frames:
            if frame.samples and sound_allowed(frame, self.limits):
                self.audio.idle = 0
                self.audio.push(frame)
        if self.origin is not None:
            self.audio.place()

    def _see(self, frames: list[Any]) -> None:
        assert self.video is not None
        for frame in frames:
            if frame.width * frame.height > self.limits.max_pixels:
                continue
            self.video.idle = 0
            if not self.video.push(frame):
                add_problem(self.problems, "time stamps go back; pictures that came too late are left out")

    def _may_begin(self) -> bool:
        """Whether second 0 is known: both streams have begun, or one for so long that the other will not."""
        video, audio = self.video, self.audio
        if (video is None or video.settled) and (audio is None or audio.begin is not None):
            return True
        seen = 0.0 if video is None or video.first is None else (video.last[0] - video.first) * video.time_base
        heard = 0.0 if audio is None or audio.first is None else audio.last - audio.first
        held = 0 if audio is None else len(audio.waiting)
        many = self.waiting_bytes > _WAITING_BYTES or held > _WAITING_FRAMES
        return many or max(seen, heard) > self.limits.max_skew

    def _begin(self) -> None:
        video, audio = self.video, self.audio
        starts = [video.begin] if video is not None and (video.first is not None or video.untimed) else []
        starts += [audio.begin] if audio is not None and audio.begin is not None else []
        if not starts:
            if self.waiting_bytes > _WAITING_BYTES:
                self._refuse("no picture and no sound begins")
            return
        self.origin = clock_origin(self.container, min(starts))
        if audio is not None:
            audio.origin = self.origin
            audio.place()
        if video is not None:
            video.origin = self.origin
            for packet in self.waiting:
                self._see(self._decode(packet, video, "some pictures are damaged"))
        self.waiting.clear()

    def _check_size(self) -> None:
        if self.origin is None:
            return
        heard = 0.0 if self.audio is None or self.audio.clock is None else self.audio.clock
        seen = 0.0 if self.video is None else self.video.now
        if max(heard, seen) > self.limits.max_duration:
            self._refuse(f"lasts longer than MediaLimits.max_duration={self.limits.max_duration:g} s")
        if self.audio is not None:
            context = self.audio.stream.codec_context
            length = heard - ((self.audio.begin or 0.0) - self.origin)
            rate = context.sample_rate * context.channels
            check_expansion(self.source.label, length, rate, self.source.size, self.limits)

    def _complete(self, k: int) -> bool:
        """Whether nothing more can come for chunk `k`, or not in time."""
        if self.origin is None:
            return False
        video, audio, late = self.video, self.audio, self.windows[k][1] + self.limits.max_skew
        seen = video is None or video.gone or video.chunk > k
        heard = audio is None or audio.gone or audio.front >= audio.range(k)[1]
        if not seen and video is not None and audio is not None and audio.clock is not None and audio.clock >= late:
            video.close_chunk(k, video.end(guess=False))
            seen = True
        if not heard and audio is not None and video is not None and video.now >= late:
            audio.flush()
            heard = True
        if seen and heard:
            self._close_chunk(k, math.inf if video is None else video.end(guess=False))
        return seen and heard

    def _close_chunk(self, k: int, last: float) -> None:
        if self.video is not None and self.video.chunk <= k:
            self.video.close_chunk(k, min(last, self.video.end(guess=last != math.inf)))

    def _finish(self) -> None:
        """Take out what the decoders still hold."""
        if self.origin is None:
            self._begin()
        if self.video is not None:
            self._see(self._decode(None, self.video, "some pictures are damaged"))
        if self.audio is not None:
            self._hear(self._decode(None, self.audio, "some of the sound is damaged"))
            self.audio.flush()
        if self.video is not None and self.video.current is None:
            add_problem(self.problems, "the video stream holds no picture")
        if self.audio is not None and self.audio.begin is None:
            add_problem(self.problems, "the audio stream holds no sound that can be decoded")
        self._note_missing_end()

    def _end(self) -> float:
        """Second at which the last stream ends."""
        ends = [self.video.end(guess=True)] if self.video is not None and self.video.current is not None else []
        if self.audio is not None and self.audio.begin is not None:
            ends.append(max(self.audio.last, self.audio.begin) - self.audio.origin)
        return max(ends, default=0.0)

    def _note_missing_end(self) -> None:
        index = MediaIndex(problems=self.problems)
        video, audio = self.video, self.audio
        if video is not None and video.first is not None and video.timed:
            base = video.stream.time_base or Fraction(1, 90000)
            end = round((video.end(guess=True) + video.origin) / float(base))
            pts, keys = np.asarray([video.first]), np.zeros((0, 2), np.int64)
            index.video = VideoIndex(video.stream.index, base, True, pts, keys, end)
        if audio is not None and audio.begin is not None:
            index.audio = AudioIndex(audio.stream.index, 0, 0, audio.begin, max(audio.last, audio.begin))
        note_missing_end(self.container, index)

    def _nothing(self, last: float) -> None:
        if last > 0:
            raise ValueError(
                f"start={self.windows.start:g} s lies outside {self.source.label}, which lasts {last:g} s"
            )
        self._refuse("neither pictures nor sound can be read")

    def _build(self, k: int, return_timestamps: bool) -> BatchFeature:
        plan = self.windows.plan(k, self.video_processor.num_frames)
        data: dict[str, torch.Tensor] = {}
        times = torch.from_numpy(plan.frame_times)
        if self.video is not None:
            row = self.video.rows.popleft()
            if row is None:
                height, width = self.video.size
                pixels = torch.zeros(plan.frames_per_chunk, 3, height, width)
            else:
                frames = torch.from_numpy(np.stack([picture for picture, _ in row]))
                pixels = self.video_processor.normalize_frames(frames)
                times = torch.tensor([[time for _, time in row]], dtype=torch.float64)
            data["pixel_values_videos"] = pixels[None, None]
            data["video_mask"] = torch.tensor([[int(row is not None)]])
        if self.audio is not None:
            position, samples = self.audio.take(k)
            second = position / self.audio.sampling_rate
            features, mask = self.feature_extractor.extract_chunks(samples, plan.windows, origin=second)
            data["input_features"], data["audio_mask"] = features[None], mask[None]
        if return_timestamps:
            data["video_timestamps"] = times[None]
        data["chunk_seconds"] = torch.from_numpy(plan.windows)[None]
        return BatchFeature(data)
