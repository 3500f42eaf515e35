"""Reading the sound of wanted windows as one channel at the model's rate.

Every decoded piece is put where its time stamp says; within a run samples are counted, so that rounded time stamps
neither stretch nor tear the sound.
"""

import math
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.filter import Graph

from .clock_mirasol import KnownClock
from .demux_mirasol import (
    add_problem,
    decode_packet,
    frame_second,
    open_container,
    packets,
    prepare_codec,
    stream_at,
)
from .media_index_mirasol import AudioIndex
from .media_limits_mirasol import MediaLimits
from .media_source_mirasol import MediaSource

Samples = npt.NDArray[np.float32]

# Decoders need some packets before the first wanted sample to reach their full state.
PREROLL_SECONDS = 0.5
# Containers whose index leads to the right packet; others are read from the start.
_SEEKABLE = {"mov", "matroska", "webm", "wav", "w64", "avi", "flac"}
# A jump in the time stamps beyond the first value, or a lasting difference beyond the second, restarts the count.
_HARD_SECONDS = 0.04
_SOFT_SECONDS = 0.004
_LOUDEST = 1e3
# Resampled sound is handed on in pieces of this many samples: fewer and larger than the frames of the codec.
_PIECE = 8192
# Samples that go into the resampler together; each call has its price.
_GATHERED = 32768


class AudioReader:
    """Mono samples of one audio stream.

    Args:
        source: the file.
        index: its sound, from `index_media`.
        origin: the container's second that counts as 0.
        formats: names of the container.
        limits: bounds of the file.
        problems: list that what goes wrong is added to.
        sampling_rate: samples per second that come out.
    """

    def __init__(
        self,
        source: MediaSource,
        index: AudioIndex,
        origin: float,
        formats: str,
        limits: MediaLimits,
        problems: list[str],
        sampling_rate: int = 16000,
    ) -> None:
        self.source = source
        self.index = index
        self.origin = origin
        self.formats = set(formats.split(","))
        self.limits = limits
        self.problems = problems
        self.sampling_rate = sampling_rate

    def read(self, ranges: npt.ArrayLike) -> Iterator[tuple[int, Samples]]:
        """The sound of each range of samples as one array, one after the other, holding no more than one of them.

        Args:
            ranges: int64 `[K, 2]` first and one-past-last sample, counted from second 0; ascending, not overlapping.

        Yields:
            Position of the first sample that is there and float32 `[n]`; gaps inside are zero, an empty array means
            that there is no sound in the range.
        """
        wanted = np.asarray(ranges, dtype=np.int64).reshape(-1, 2)
        for begin, pieces in zip(wanted[:, 0].tolist(), self.read_pieces(wanted), strict=True):
            yield join_pieces(begin, list(pieces))

    def read_pieces(self, ranges: npt.ArrayLike) -> Iterator[Iterator[tuple[int, Samples]]]:
        """The sound of each range as it is decoded, holding no more than one piece.

        Args:
            ranges: as for `read`.

        Yields:
            For each range its pieces, to be used up before the next range: position of the first sample and float32
            `[n]`, in order. Where no piece lies there is no sound.
        """
        wanted = np.asarray(ranges, dtype=np.int64).reshape(-1, 2)
        rest = _Rest(self._pieces(int(wanted[0, 0]), int(wanted[-1, 1])) if len(wanted) else iter(()))
        for begin, end in wanted.tolist():
            yield rest.within(begin, end)

    def _pieces(self, begin: int, end: int) -> Iterator[tuple[int, Samples]]:
        """Consecutive runs of samples that overlap `[begin, end)`, cleaned, never going back."""
        front = begin
        for position, data in self._resampled(begin / self.sampling_rate, end / self.sampling_rate):
            if position + len(data) <= front:
                continue
            data = data[max(0, front - position) :]
            position = max(front, position)
            front = position + len(data)
            yield position, finite_samples(data, self.problems)

    def _resampled(self, begin: float, end: float) -> Iterator[tuple[int, Samples]]:
        run: SoundRun | None = None
        first = True
        for frame, start in self._frames(begin, end):
            if run is not None and not run.takes(frame, start):
                yield from run.finish()
                run = None
            if run is None:
                if not sound_allowed(frame, self.limits):
                    continue
                if first:
                    frame, start = on_grid(frame, start, self.index.start - self.origin, self.sampling_rate)
                run, first = SoundRun(frame, start, self.sampling_rate, _PIECE), False
            yield from run.push(frame)
        if run is not None:
            yield from run.finish()

    def _frames(self, begin: float, end: float) -> Iterator[tuple[Any, float]]:
        """Decoded frames that matter for `[begin, end)` seconds, each with its start in seconds of the file."""
        with open_container(self.source, self.limits) as container:
            stream = stream_at(container, self.index.stream)
            prepare_codec(stream, self.limits)
            self._seek(container, stream, begin)
            clock = self.index.start - self.origin
            wanted = self._ticks(begin - PREROLL_SECONDS, stream), self._ticks(end + PREROLL_SECONDS, stream)
            idle = 0
            for packet in self._packets_and_flush(container, stream):
                if packet is not None and (pts := packet.pts) is not None:
                    # So far before the wanted sound it need not be decoded.
                    if begin > 0.0 and packet.duration and pts + packet.duration < wanted[0]:
                        continue
                    if pts > wanted[1]:
                        return
                idle += 1
                for frame in self._decode(stream, packet):
                    if frame.samples == 0:
                        continue
                    idle = 0
                    if (second := frame_second(frame, stream)) is not None:
                        clock = second - self.origin
                    yield frame, clock
                    clock += frame.samples / frame.sample_rate
                    if clock > end + PREROLL_SECONDS:
                        return
                if idle > self.limits.max_idle_packets:
                    add_problem(self.problems, "the sound was given up after packets without a sample")
                    return

    def _seek(self, container: Any, stream: Any, begin: float) -> None:
        target = begin - 2 * PREROLL_SECONDS
        if target <= max(0.0, self.index.start - self.origin) or not self.formats & _SEEKABLE:
            return
        try:
            container.seek(int((target + self.origin) / stream.time_base), stream=stream)
        except (av.FFmpegError, OSError):
            container.seek(0)

    def _ticks(self, second: float, stream: Any) -> float:
        return (second + self.origin) / float(stream.time_base or 1)

    def _decode(self, stream: Any, packet: Any | None) -> list[Any]:
        try:
            return decode_packet(packet) if packet is not None else list(stream.codec_context.decode(None))
        except (av.FFmpegError, ValueError):
            add_problem(self.problems, "some of the sound is damaged")
            return []

    def _packets_and_flush(self, container: Any, stream: Any) -> Iterator[Any | None]:
        for packet in packets(container, [stream], self.source, self.problems, KnownClock(self.index.shifts)):
            self.source.check_deadline()
            yield packet
        yield None


class _Rest:
    """Pieces of sound that are given out range by range; one that reaches beyond its range is cut there."""

    def __init__(self, pieces: Iterator[tuple[int, Samples]]) -> None:
        self.pieces = pieces
        self.held: tuple[int, Samples] | None = None

    def within(self, begin: int, end: int) -> Iterator[tuple[int, Samples]]:
        """What lies in `[begin, end)`."""
        while True:
            self.held = self.held if self.held is not None else next(self.pieces, None)
            if self.held is None or self.held[0] >= end:
                return
            position, data = self.held
            self.held = (end, data[end - position :]) if position + len(data) > end else None
            part = data[max(0, begin - position) : end - position]
            if len(part):
                yield max(position, begin), part


def on_grid(frame: Any, start: float, anchor: float, sampling_rate: int) -> tuple[Any, float]:
    """Cut the first frame after a seek so that it begins at an instant that both rates share.

    Only then do the samples of a span lie exactly where reading the whole file would have put them. `anchor` is the
    second at which the sound begins.
    """
    rate = frame.sample_rate
    period = rate // math.gcd(rate, sampling_rate)
    place = round((start - anchor) * rate)
    skip = -place % period
    if place <= 0 or not 0 < skip < frame.samples:
        return frame, start
    fifo = av.AudioFifo()
    frame.pts = None  # the samples are counted here
    fifo.write(frame)
    fifo.read(skip)
    return fifo.read(), anchor + (place + skip) / rate


def sound_allowed(frame: Any, limits: MediaLimits) -> bool:
    """Whether rate and channels of a decoded frame are within the limits."""
    inside = limits.min_sampling_rate <= frame.sample_rate <= limits.max_sampling_rate
    return inside and frame.layout.nb_channels <= limits.max_channels


class SoundRun:
    """Sound without a gap: one resampler, samples counted from the first time stamp.

    Args:
        frame: the first one; it says what comes in.
        start: second at which it begins.
        rate: samples per second that come out.
        piece: samples of each array that comes out but the last; None hands on what is ready.
    """

    def __init__(self, frame: Any, start: float, rate: int, piece: int | None = None) -> None:
        self.kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        self.start = start
        self.taken = 0
        self.converted = 0
        self.gathered = av.AudioFifo()
        self.drift = 0.0
        self.position = round(start * rate)
        self.rate = rate
        self.unit = Fraction(1, frame.sample_rate)
        self.piece = piece
        self.resampler = self._new_resampler()
        self.mixer: Graph | None = None

    def _new_resampler(self) -> Any:
        # Without a ceiling the mix of loud channels would exceed full scale, by 3 dB for plain stereo.
        options = {"rematrix_maxval": "1.0"}
        return av.AudioResampler(format="flt", layout="mono", rate=self.rate, frame_size=self.piece, options=options)

    def takes(self, frame: Any, start: float) -> bool:
        """Whether the frame continues this run."""
        if (frame.format.name, frame.layout.name, frame.sample_rate) != self.kind:
            return False
        late = start - (self.start + self.taken / frame.sample_rate)
        self.drift = 0.9 * self.drift + 0.1 * late
        return abs(late) <= _HARD_SECONDS and abs(self.drift) <= _SOFT_SECONDS

    def push(self, frame: Any) -> Iterator[tuple[int, Samples]]:
        """Resampled pieces that are ready."""
        # The first frame goes in alone: it shows whether FFmpeg can mix these channels.
        gathers = self.piece is not None and self.taken > 0 and self.mixer is None and frame.layout.nb_channels <= 8
        self.taken += frame.samples
        if not gathers:
            yield from self._flush()
            yield from self._convert(frame, self.taken - frame.samples)
            return
        frame.pts = None  # the samples are counted here
        self.gathered.write(frame)
        if self.taken - self.converted >= _GATHERED:
            yield from self._flush()

    def finish(self) -> Iterator[tuple[int, Samples]]:
        """What the resampler still holds."""
        yield from self._flush()
        yield from self._placed(self.resampler.resample(None))

    def _flush(self) -> Iterator[tuple[int, Samples]]:
        frame = self.gathered.read()
        if frame is not None:
            yield from self._convert(frame, self.converted)

    def _convert(self, frame: Any, taken: int) -> Iterator[tuple[int, Samples]]:
        frame.pts, frame.time_base = taken, self.unit
        self.converted = taken + frame.samples
        if self.mixer is None:
            try:
                out = self.resampler.resample(frame)
            except (av.FFmpegError, ValueError):
                # A channel layout that FFmpeg has no mixing matrix for.
                self.resampler, self.mixer = self._new_resampler(), _channel_mixer(frame)
        if self.mixer is not None:
            self.mixer.push(frame)
            out = self.resampler.resample(self.mixer.pull())
        yield from self._placed(out)

    def _placed(self, frames: list[Any]) -> Iterator[tuple[int, Samples]]:
        for frame in frames:
            if frame is not None and frame.samples:
                data = frame.to_ndarray().reshape(-1).astype(np.float32, copy=False)
                yield self.position, data
                self.position += len(data)


def finite_samples(data: Samples, problems: list[str]) -> Samples:
    """The samples, cut to [-1, 1] where they are not finite or absurdly loud, which is noted as a problem."""
    if bool(np.all(np.abs(data) <= _LOUDEST)):
        return data
    add_problem(problems, "the sound has samples that are not finite or absurdly loud; they are cut")
    return np.clip(np.nan_to_num(data, nan=0.0, posinf=_LOUDEST, neginf=-_LOUDEST), -1.0, 1.0)


def _channel_mixer(frame: Any) -> Graph:
    """A filter that makes one channel of frames like this one, in float32: the mean of all channels.

    Of an ambisonic sound it is the first channel alone, which hears all directions alike.
    """
    layout = frame.layout
    channels = 1 if re.fullmatch(r"ambisonic \d+", layout.name) else layout.nb_channels
    graph = Graph()
    source = graph.add_abuffer(
        sample_rate=frame.sample_rate, format=frame.format, layout=layout, time_base=Fraction(1, frame.sample_rate)
    )
    mean = "+".join(f"c{channel}" for channel in range(channels))
    chain = ("aformat", "sample_fmts=flt"), ("pan", f"mono|c0<{mean}"), ("abuffersink", None)
    graph.link_nodes(source, *(graph.add(name, options) for name, options in chain)).configure()
    return graph


def join_pieces(begin: int, found: list[tuple[int, Samples]]) -> tuple[int, Samples]:
    """One array from pieces in order, zeros between them."""
    if not found:
        return begin, np.zeros(0, dtype=np.float32)
    if len(found) == 1:
        return found[0]
    first, last = found[0][0], found[-1][0] + len(found[-1][1])
    whole = np.zeros(last - first, dtype=np.float32)
    for position, part in found:
        whole[position - first : position - first + len(part)] = part
    return first, whole


def resample_array(waveform: Samples, rate: int, to_rate: int) -> Samples:
    """Bring a mono waveform to another rate with the same resampler that files go through.

    Args:
        waveform: float32 `[n]`.
        rate: its samples per second.
        to_rate: samples per second that come out.

    Returns:
        float32 `[round(n * to_rate / rate)]`, up to one sample.
    """
    if rate == to_rate or len(waveform) == 0:
        return waveform
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(waveform.reshape(1, -1)), format="flt", layout="mono")
    frame.sample_rate = rate
    run = SoundRun(frame, 0.0, to_rate)
    parts = [data for _, data in (*run.push(frame), *run.finish())]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
