"""What a stream has shown and sounded so far, cut into windows as it comes.

Legend: F frames per chunk, H, W image.
"""

import math
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, TypeAlias

from .audio_reader_mirasol import PREROLL_SECONDS, Samples, SoundRun, finite_samples, on_grid
from .chunk_plan_mirasol import SAME_INSTANT, ChunkPlan, plan_chunks, sample_ranges
from .demux_mirasol import REORDERED_FRAMES, ShownTimes, frame_second, packet_tick
from .media_index_mirasol import PacketDurations
from .picture_mirasol import Pictures, rgb_picture

# The pictures of a chunk with their seconds; one that stays on the screen is one object in all chunks.
Row: TypeAlias = list[tuple[Pictures, float]]

_REORDERED_SECONDS = 1.0
# Compressed pictures before the start that are held until it is clear that none of them is needed.
_HELD_BYTES = 2**26


class Windows:
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


class IdleStreamError(Exception):
    """A picture comes so late that too many chunks lie before it."""


class VideoFeed:
    """Picks the picture on screen at each wanted instant out of frames that come in order.

    Args:
        stream: of the container.
        windows: the chunks.
        frames_per_chunk: F.
        size: H and W.
        in_order: whether the container knows only the order of its frames.
        max_waiting: complete chunks that wait to be taken.

    Attributes:
        first: smallest time stamp so far, in ticks; None before the first packet.
        now: second at which the latest frame appears.
    """

    def __init__(
        self,
        stream: Any,
        windows: Windows,
        frames_per_chunk: int,
        size: tuple[int, int],
        in_order: bool,
        max_waiting: int,
    ) -> None:
        self.max_waiting = max_waiting
        self.stream, self.windows, self.frames_per_chunk, self.size = stream, windows, frames_per_chunk, size
        self.time_base = float(stream.time_base or Fraction(1, 90000))
        self.rate = float(stream.average_rate or stream.guessed_rate or 25)
        self.first: int | None = None
        self.last = (0, 0)
        self.durations = PacketDurations()
        self.shown_times = ShownTimes() if in_order else None
        self.packets = self.untimed = self.frames = self.idle = 0
        self.settled = self.gone = False
        self.origin = 0.0
        self.now = -math.inf
        self.step = 0.0
        self.held: list[Any] = []
        self.held_bytes = 0
        self.holding = windows.start > 0
        self.current: Any = None
        self.shown: tuple[Pictures, float] | None = None
        self.rows: deque[Row | None] = deque()
        self.row: Row = []
        self.chunk = 0
        self._wanted = self._times(0)

    @property
    def timed(self) -> bool:
        """Whether the stream has time stamps; else frames are counted out at the nominal rate."""
        return 2 * self.untimed <= self.packets

    def note(self, packet: Any) -> None:
        """What a packet says about time."""
        pts = packet_tick(packet, self.shown_times is not None)
        duration = max(packet.duration or 0, 0)
        self.packets += 1
        self.durations.note(duration)
        self.untimed += pts is None
        if pts is None or packet.is_discard:
            self.settled = self.settled or pts is None
            return
        self.last = max(self.last, (pts, duration)) if self.first is not None else (pts, duration)
        self.first = pts if self.first is None else min(self.first, pts)
        # Decoding times ascend and no picture is shown before it is decoded.
        reached = packet.dts is not None and packet.dts >= self.first
        self.settled = self.settled or reached or self.packets >= REORDERED_FRAMES

    def ready(self, packet: Any) -> list[Any]:
        """Packets to decode now that this one has come: none before the key frame from which the start is reached."""
        if not self.holding:
            return [packet]
        pts = packet_tick(packet, self.shown_times is not None)
        if packet.is_keyframe and pts is not None and self.seconds(pts) <= self.windows.start:
            self.held, self.held_bytes = [], 0
        self.held.append(packet)
        self.held_bytes += packet.size
        # No picture is shown before it is decoded, so all up to the start have come by then.
        passed = pts is None or self.seconds(packet.dts if packet.dts is not None else pts) > self.windows.start
        return self.release() if passed or self.held_bytes > _HELD_BYTES else []

    def fed(self, packet: Any) -> None:
        """Know that the packet goes into the decoder."""
        if self.shown_times is not None:
            self.shown_times.note(packet)

    def release(self) -> list[Any]:
        """The packets that are held."""
        held, self.held, self.holding = self.held, [], False
        return held

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
        usual = self.durations.usual()
        if not duration and not guess:
            return math.inf
        return self.seconds(pts + (duration or usual)) + (0.0 if duration or usual else self.step or 0.04)

    def push(self, frame: Any) -> bool:
        """Take the next frame; False if it cannot be placed.

        Raises:
            IdleStreamError: if more than `max_waiting` chunks lie before it.
        """
        pts = frame.pts if frame.pts is not None else frame.dts
        pts = pts if self.shown_times is None else self.shown_times.next(pts)
        time = self.frames / self.rate if not self.timed else None if pts is None else self.seconds(pts)
        if time is None or time < self.now - _REORDERED_SECONDS:
            return False
        # The order of the frames is right even where their times are not.
        time = max(time, self.now)
        self.frames += 1
        if self.current is None:
            self._pass_empty_chunks(time)
        else:
            self._show_until(time)
            self.step = time - self.now or self.step
        self.current, self.shown, self.now = frame, None, time
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
        while self._wanted and self._wanted[len(self.row)] < time - SAME_INSTANT:
            if self.shown is None:
                self.shown = (rgb_picture(self.current, *self.size), self.now)
            self.row.append(self.shown)
            if len(self.row) == len(self._wanted):
                self._next_chunk(self.row)

    def _next_chunk(self, row: Row | None) -> None:
        if len(self.rows) > self.max_waiting:
            raise IdleStreamError
        self.rows.append(row)
        self.row = []
        self.chunk += 1
        self._wanted = self._times(self.chunk)


class AudioFeed:
    """Puts decoded sound in order and hands out the samples of each window.

    Attributes:
        begin: second of the first decoded sample on the container's clock; None before it.
        front: sample up to which the sound is known.
    """

    def __init__(self, stream: Any, windows: Windows, sampling_rate: int, problems: list[str]) -> None:
        self.stream, self.windows, self.sampling_rate, self.problems = stream, windows, sampling_rate, problems
        self.begin: float | None = None
        self.first: float | None = None
        self.last = 0.0
        self.origin = 0.0
        self.idle = 0
        self.gone = False
        self.clock: float | None = None
        self.skipped = False
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

    def fed(self, packet: Any) -> None:
        """Know that the packet goes into the decoder; its frames bring their own times."""

    def skips(self, packet: Any) -> bool:
        """Whether the packet lies so far before the start that it need not be decoded."""
        if self.begin is None or packet.pts is None or not packet.duration or self.windows.start <= 0:
            return False
        end = float((packet.pts + packet.duration) * packet.time_base) - self.origin
        skipped = end < self.windows.start - PREROLL_SECONDS
        if skipped and not self.skipped:
            self.flush()
            self.skipped = True
        return skipped

    def push(self, frame: Any) -> None:
        """Take the next decoded frame; before the origin is known it waits."""
        if self.begin is None:
            second = frame_second(frame, self.stream)
            self.begin = float(self.first or 0.0) if second is None else second
        self.waiting.append(frame)

    def place(self) -> None:
        """Put the frames that wait where their time stamps say."""
        for frame in self.waiting:
            if (second := frame_second(frame, self.stream)) is not None:
                self.clock = second - self.origin
            elif self.clock is None:
                self.clock = (self.begin or 0.0) - self.origin
            start = self.clock
            assert start is not None
            if self.run is not None and not self.run.takes(frame, start):
                self.flush()
            if self.run is None:
                if self.skipped:
                    anchor = (self.begin or 0.0) - self.origin
                    frame, start = on_grid(frame, start, anchor, self.sampling_rate)
                    self.skipped = False
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

    def take(self, k: int) -> list[tuple[int, Samples]]:
        """The pieces of chunk `k`, each with the position of its first sample; what comes later for it is dropped."""
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
        return found
