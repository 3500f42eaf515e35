"""Chunks one by one while their file is still coming.

One demuxer, one pass: each packet is decoded once, in the order in which it comes, and nothing is read beyond what the
present chunk needs. Memory does not grow with the stream. Legend: F frames per chunk, C, H, W image, S, M features.
"""

import math
import warnings
from collections.abc import Generator, Iterator
from fractions import Fraction
from typing import Any, NoReturn

import av
import numpy as np
import torch
from transformers.feature_extraction_utils import BatchFeature

from .audio_reader_mirasol import sound_allowed
from .box_scan_mirasol import check_boxes
from .clock_mirasol import ContinuousClock
from .demux_mirasol import (
    JUMP,
    add_problem,
    choose_streams,
    decode_packet,
    in_decoding_order,
    is_cut,
    open_stream,
    packets,
    prepare_codec,
)
from .media_index_mirasol import AudioIndex, MediaIndex, VideoIndex, check_expansion, clock_origin, note_missing_end
from .media_limits_mirasol import MediaError, MediaLimits, MediaWarning, too_many_idle_chunks
from .media_source_mirasol import MediaInput, MediaSource
from .picture_mirasol import Pictures
from .stream_feeds_mirasol import AudioFeed, IdleStreamError, Row, VideoFeed, Windows
from .stream_source_mirasol import StreamSource
from .timed_source_mirasol import can_seek

# What is held of a stream whose other half has not begun.
_WAITING_BYTES = 2**26
_WAITING_FRAMES = 4096
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
) -> "MediaChunks":
    """See [`MirasolProcessor.iter_chunks`]; arguments are checked and the source is opened at once."""
    windows = Windows(float(chunk_seconds), float(start), None if end is None else float(end))
    limits = limits if limits is not None else MediaLimits()
    opened = _open_source(source, limits)
    stream = _ChunkStream(opened, video_processor, feature_extractor, windows, limits, load_audio_from_video)
    return MediaChunks(stream, return_timestamps)


class MediaChunks(Iterator[BatchFeature]):
    """Chunks one by one; a generator that also knows the time.

    Attributes:
        seconds: how much of the media has come: to the end of the latest chunk, or of the media where they end first.
    """

    def __init__(self, stream: "_ChunkStream", return_timestamps: bool) -> None:
        self._stream, self._chunks = stream, stream.run(return_timestamps)

    @property
    def seconds(self) -> float:
        return self._stream.seconds

    def __next__(self) -> BatchFeature:
        return next(self._chunks)

    def close(self) -> None:
        """Stop reading."""
        self._chunks.close()


def _open_source(source: MediaInput, limits: MediaLimits) -> MediaSource | StreamSource:
    if hasattr(source, "read") and not can_seek(source):
        stream = StreamSource(source, limits)
        return MediaSource(stream, limits) if stream.header_last else stream
    return MediaSource(source, limits)


class _ChunkStream:
    """One pass through a source."""

    def __init__(
        self,
        source: MediaSource | StreamSource,
        video_processor: Any,
        feature_extractor: Any,
        windows: Windows,
        limits: MediaLimits,
        own_sound: bool,
    ) -> None:
        self.source, self.windows, self.limits = source, windows, limits
        self.video_processor, self.feature_extractor = video_processor, feature_extractor
        self.problems = source.problems if isinstance(source, StreamSource) else []
        self.video: VideoFeed | None = None
        self.audio: AudioFeed | None = None
        self.origin: float | None = None
        self.seconds = 0.0
        self.idle_chunks = 0
        self.last_news = windows.start
        self.last_shown: tuple[Pictures, float] | None = None
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
            in_order = in_decoding_order(self.container)
            waiting = self.limits.max_idle_chunks + math.ceil(self.limits.max_skew / self.windows.seconds)
            self.video = VideoFeed(video, self.windows, own.num_frames, own._height_width({}), in_order, waiting)
        if audio is not None and own_sound:
            prepare_codec(audio, self.limits)
            rate = self.feature_extractor.sampling_rate
            self.audio = AudioFeed(audio, self.windows, rate, self.problems)
        if self.video is None and self.audio is None:
            self._refuse("neither pictures nor sound can be read")

    def _refuse(self, cause: str) -> NoReturn:
        raise MediaError("; ".join([f"{self.source.label}: {cause}", *self.problems]))

    def run(self, return_timestamps: bool) -> Generator[BatchFeature, None, None]:
        """The chunks, as soon as each is complete."""
        k = 0
        try:
            for packet in self._packets():
                self._feed(packet)
                while k < self.windows.count and self._complete(k):
                    self.seconds = self.windows[k][1]
                    yield self._build(k, return_timestamps)
                    self.source.renew_deadline()
                    k += 1
                if k >= self.windows.count:
                    break
            else:
                self._finish()
            last = self._end()
            self._check_size(last)
            while k < self.windows.count and self.windows[k][0] < last - _REST_SECONDS:
                self._close_chunk(k, last)
                self.seconds = min(self.windows[k][1], last)
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
        clock = ContinuousClock(self.container)
        for count, packet in enumerate(packets(self.container, chosen, self.source, self.problems, clock)):
            self.source.check_deadline()
            if clock.jumped:
                add_problem(self.problems, JUMP)
            if count >= self.limits.max_packets:
                self._refuse(f"more than MediaLimits.max_packets={self.limits.max_packets} packets")
            if is_cut(packet, self.source):
                add_problem(self.problems, "some packets are damaged or cut off")
            yield packet
        self._raise_failure()

    def _feed(self, packet: Any) -> None:
        video, audio = self.video, self.audio
        if audio is not None and packet.stream_index == audio.stream.index:
            audio.note(packet)
            if self.origin is None or not audio.skips(packet):
                self._hear(self._decode(packet, audio, "some of the sound is damaged"))
        elif video is not None:
            video.note(packet)
            if self.origin is None:
                self.waiting.append(packet)
                self.waiting_bytes += packet.size
            else:
                self._offer(packet)
        if self.origin is None and self._may_begin():
            self._begin()
        self._check_size()

    def _offer(self, packet: Any) -> None:
        assert self.video is not None
        for ready in self.video.ready(packet):
            self._see(self._decode(ready, self.video, "some pictures are damaged"))

    def _decode(self, packet: Any | None, feed: Any, trouble: str) -> list[Any]:
        if feed.gone:
            return []
        feed.idle += 1
        if packet is not None:
            feed.fed(packet)
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
            try:
                placed = self.video.push(frame)
            except IdleStreamError:
                self._refuse_idle()
            if not placed:
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
                self._offer(packet)
        self.waiting.clear()

    def _check_size(self, last: float | None = None) -> None:
        """Refuse what lasts too long: what was decoded and, given the `last` second, what packets only announced."""
        if self.origin is None:
            return
        heard = 0.0 if self.audio is None or self.audio.clock is None else self.audio.clock
        if last is not None and self.audio is not None:
            heard = max(heard, self.audio.last - self.origin)
        seen = 0.0 if self.video is None else self.video.now
        if max(heard, seen, last or 0.0) > self.limits.max_duration:
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
            for packet in self.video.release():
                self._see(self._decode(packet, self.video, "some pictures are damaged"))
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
        row = self.video.rows.popleft() if self.video is not None else None
        if self.video is not None:
            if row is None:
                # One zero that stands for all of them: hours without a picture cost nothing.
                pixels = torch.zeros(()).expand(plan.frames_per_chunk, 3, *self.video.size)
            else:
                frames = torch.from_numpy(np.stack([picture for picture, _ in row]))
                pixels = self.video_processor.normalize_frames(frames)
                times = torch.tensor([[time for _, time in row]], dtype=torch.float64)
            data["pixel_values_videos"] = pixels[None, None]
            data["video_mask"] = torch.tensor([[int(row is not None)]])
        heard = False
        if self.audio is not None:
            features, mask = self.feature_extractor.extract_pieces(self.audio.take(k), plan.windows[0])
            data["input_features"], data["audio_mask"] = features[None], mask[None]
            heard = bool(mask[0])
        self._count_idle(k, row, heard)
        if return_timestamps:
            data["video_timestamps"] = times[None]
        data["chunk_seconds"] = torch.from_numpy(plan.windows)[None]
        return BatchFeature(data)

    def _count_idle(self, k: int, row: Row | None, heard: bool) -> None:
        """Refuse a stream in which nothing happens for too long: a chunk costs as much as if something did."""
        begin, end = self.windows[k]
        if heard or (row is not None and row[-1] is not self.last_shown):
            self.last_news = end
        self.last_shown = self.last_shown if row is None else row[-1]
        self.idle_chunks += begin > self.last_news + self.limits.max_skew
        if self.idle_chunks > self.limits.max_idle_chunks:
            self._refuse_idle()

    def _refuse_idle(self) -> NoReturn:
        self._refuse(too_many_idle_chunks(self.limits, self.windows.seconds))
