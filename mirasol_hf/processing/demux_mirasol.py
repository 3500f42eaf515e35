"""Opening a container, choosing its streams, and the packets of these in file order."""

import os
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Any

import av
from av.stream import Discard, Disposition

from .clock_mirasol import Clock
from .media_limits_mirasol import MediaError, MediaLimits
from .media_source_mirasol import MediaSource
from .timed_source_mirasol import BUFFER_BYTES

_DEMUX_FAILURES = 16
# Frames are stored out of order by this many at most.
REORDERED_FRAMES = 32
JUMP = "time stamps jump; the parts follow each other without a gap"


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
        if len(self._times) > REORDERED_FRAMES:
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
    source.packet_found()  # whoever looked at it before has searched for none
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
        container = av.open(source, mode="r", options=options, metadata_errors="replace", buffer_size=BUFFER_BYTES)
    except (av.FFmpegError, UnicodeError) as error:
        source.raise_failure()
        raise MediaError(f"{source.label}: not a readable media file ({_cause(error)})") from error
    source.raise_failure()
    for stream in container.streams.audio:
        _forget_channel_order(stream.codec_context)
    return container


def _forget_channel_order(context: Any | None) -> None:
    """Number the channels of a decoder that is not open yet, where the file lists them in an order of its own.

    A list of channels lies in memory that PyAV frees each time the layout is looked at, by its own code for each
    frame too; a layout that has a name, or is only a number, has no such memory.
    """
    if context is None:
        return
    layout = context.layout
    name = layout.name
    if layout.nb_channels:
        listed = "+" in name or " channels (" in name
        context.layout = f"{layout.nb_channels} channels" if listed else name


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
        source: what it reads.
        problems: list that an early end is added to.
        clock: puts the packets on one clock.
    """
    failures = 0
    while failures < _DEMUX_FAILURES:
        try:
            for packet in container.demux(streams):
                if packet.size:
                    source.packet_found()
                    clock.set(packet)
                    yield packet
            source.raise_failure()
            if source.empty_from < source.size:
                add_problem(problems, f"from byte {source.empty_from} on there are only zeros")
            return
        except IndexError:
            # A stream that begins in mid-file (FLV, MPEG-TS) is none of the chosen; PyAV stumbles over its packets.
            source.check_deadline()
        except (EOFError, av.error.EOFError):
            source.raise_failure()
            break
        except av.FFmpegError as error:
            source.raise_failure()
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


def frame_second(frame: Any, stream: Any) -> float | None:
    """The container's second at which a decoded frame begins; None if it does not say.

    Frames that leave the decoder at the very end have no unit of time of their own, and a `time` that is no number.
    """
    unit = frame.time_base or stream.time_base
    return None if frame.pts is None or not unit else float(frame.pts * unit)


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


def _cause(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
