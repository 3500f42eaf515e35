"""Small media files with known content: a white flash with a tone at the same moment, and corners of known colour."""

from fractions import Fraction

import av
import numpy as np

CORNERS = {"tl": (220, 20, 20), "tr": (20, 200, 20), "bl": (30, 30, 220), "br": (220, 220, 20)}


def picture(flash: bool, height: int = 48, width: int = 64) -> np.ndarray:
    """uint8 `[H, W, 3]`: grey, four coloured corners, white in the middle during a flash."""
    image = np.full((height, width, 3), 90, dtype=np.uint8)
    h, w = height // 4, width // 4
    image[:h, :w], image[:h, -w:] = CORNERS["tl"], CORNERS["tr"]
    image[-h:, :w], image[-h:, -w:] = CORNERS["bl"], CORNERS["br"]
    if flash:
        image[h:-h, w:-w] = 255
    return image


def tone(seconds: float, rate: int, beeps: list[float], length: float = 0.25, hertz: float = 1000.0) -> np.ndarray:
    """float32 `[n]`: silence with bursts of a sine."""
    times = np.arange(round(seconds * rate)) / rate
    loud = np.zeros(len(times), dtype=bool)
    for beep in beeps:
        loud |= (times >= beep) & (times < beep + length)
    return (0.5 * np.sin(2 * np.pi * hertz * times) * loud).astype(np.float32)


def write_media(
    path,
    *,
    seconds: float = 4.0,
    fps: int = 25,
    events=(0.8, 2.6),
    video: str | None = "libx264",
    audio: str | None = "aac",
    rate: int = 44100,
    channels: str = "mono",
    gop: int = 12,
    rotation: int | None = None,
    audio_delay: float = 0.0,
    options: dict[str, str] | None = None,
    pixels: str = "yuv420p",
    codec_options: dict[str, str] | None = None,
):
    """Write a file whose flashes and tones begin at `events`; returns the path."""
    with av.open(str(path), "w", options=options or {}) as container:
        streams = []
        if video:
            stream = container.add_stream(video, rate=fps, options=codec_options or {})
            stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
            stream.gop_size = gop
            if rotation is not None:
                stream.set_display_rotation(rotation)
            streams.append((stream, _frames(seconds, fps, events)))
        if audio:
            stream = container.add_stream(audio, rate=rate)
            stream.layout = channels
            streams.append((stream, _sounds(seconds - audio_delay, rate, events, channels, audio_delay, audio)))
        for stream, frames in streams:
            for frame in frames:
                for packet in stream.encode(frame):
                    container.mux(packet)
            for packet in stream.encode(None):
                container.mux(packet)
    return path


def _frames(seconds, fps, events):
    for i in range(round(seconds * fps)):
        flash = any(event <= i / fps + 1e-9 < event + 0.25 for event in events)
        frame = av.VideoFrame.from_ndarray(picture(flash), format="rgb24")
        frame.pts, frame.time_base = i, Fraction(1, fps)
        yield frame


def _sounds(seconds, rate, events, channels, delay, codec):
    wave = tone(seconds, rate, [event - delay for event in events])
    count = 2 if channels == "stereo" else 1
    kind, scale = ("s16", 32767) if codec.startswith("pcm") or codec in ("flac", "libmp3lame") else ("flt", 1)
    for first in range(0, len(wave), 1024):
        block = np.repeat(wave[first : first + 1024, None], count, axis=1).reshape(1, -1) * scale
        frame = av.AudioFrame.from_ndarray(
            block.astype(np.int16 if kind == "s16" else np.float32), format=kind, layout=channels
        )
        frame.sample_rate, frame.pts, frame.time_base = rate, first + round(delay * rate), Fraction(1, rate)
        yield frame


def write_channels(path, codec: str, gains, *, layout: str | None = None, rate: int = 48000, **stream_options):
    """Half a second of a 440 Hz tone of amplitude 0.5, in each channel times its own gain; returns the path."""
    layout = layout or f"{len(gains)} channels"
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate // 2) / rate)
    samples = (wave[:, None] * np.asarray(gains)).astype(np.float32)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, **stream_options)
        stream.layout = layout
        for first in range(0, len(samples), 1024):
            block = av.AudioFrame.from_ndarray(samples[first : first + 1024].reshape(1, -1), "flt", layout)
            block.sample_rate, block.pts, block.time_base = rate, first, Fraction(1, rate)
            container.mux(stream.encode(block))
        container.mux(stream.encode(None))
    return path


def write_sparse(path, pictures, sounds, *, video="mpeg4", audio="pcm_s16le", rate=16000, **options):
    """A file with pictures at some seconds and a second of a tone from each of others; returns the path."""
    with av.open(str(path), "w", options={key: str(value) for key, value in options.items()}) as container:
        packets = []
        if pictures:
            stream = container.add_stream(video, rate=25)
            stream.width, stream.height, stream.pix_fmt, stream.codec_context.time_base = 64, 48, "yuv420p", _TICK
            for second in pictures:
                frame = av.VideoFrame.from_ndarray(picture(False), format="rgb24")
                frame.pts, frame.time_base = round(second * 25), _TICK
                packets += stream.encode(frame)
            packets += stream.encode(None)
        if sounds:
            stream = container.add_stream(audio, rate=rate)
            stream.layout = "mono"
            for second in sounds:
                wave = tone(1.0, rate, [0.0], 1.0).reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(wave, "flt", "mono")
                frame.sample_rate, frame.pts, frame.time_base = rate, round(second * rate), Fraction(1, rate)
                packets += stream.encode(frame)
            packets += stream.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


_TICK = Fraction(1, 25)

FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
QUIET_X265 = {"x265-params": "log-level=none"}
# Name, and what differs from a clip of 25 pictures in H.264 with mono AAC at 44.1 kHz.
KINDS = {
    "h264_aac.mp4": {},
    "bframes.mp4": {"codec_options": {"bf": "3"}, "options": {"movflags": "faststart"}},
    "fragments.mp4": {"options": FRAGMENTED},
    "hevc_10bit.mp4": {
        "video": "libx265",
        "pixels": "yuv420p10le",
        "codec_options": {"x265-params": "log-level=none"},
    },
    "av1.mp4": {"video": "libsvtav1", "audio": None},
    "mpeg4_mp3.avi": {"video": "mpeg4", "audio": "libmp3lame"},
    "bframes.avi": {"video": "mpeg4", "audio": "pcm_s16le", "codec_options": {"bf": "2"}},
    "mjpeg_pcm.avi": {"video": "mjpeg", "audio": "pcm_s16le", "pixels": "yuvj420p"},
    "prores_pcm.mov": {"video": "prores_ks", "audio": "pcm_s16le", "pixels": "yuv422p10le"},
    "alpha.mov": {"video": "qtrle", "audio": None, "pixels": "argb"},
    "h264_flac.mkv": {"audio": "flac"},
    "ffv1_opus.mkv": {"video": "ffv1", "audio": "libopus", "rate": 48000},
    "vp9_opus.webm": {"video": "libvpx-vp9", "audio": "libopus", "rate": 48000},
    "vp8_opus.webm": {"video": "libvpx", "audio": "libopus", "rate": 48000},
    "h264_aac.ts": {},
    "mpeg2_mp3.ts": {"video": "mpeg2video", "audio": "libmp3lame"},
    "h264_aac.flv": {},
    "pictures.gif": {"video": "gif", "audio": None, "pixels": "rgb8"},
    "raw.h264": {"audio": None},
    "sound.wav": {"video": None, "audio": "pcm_s16le", "rate": 8000},
    "sound.flac": {"video": None, "audio": "flac"},
    "sound.mp3": {"video": None, "audio": "libmp3lame"},
    "sound.ogg": {"video": None, "audio": "libopus", "rate": 48000},
    "sound.m4a": {"video": None},
    "sound.aac": {"video": None},
}


def write_kinds(folder, seconds: float = 1.0, events=(0.4,)):
    """One small file of every kind; returns their paths."""
    return [write_media(folder / name, seconds=seconds, events=events, **what) for name, what in KINDS.items()]
