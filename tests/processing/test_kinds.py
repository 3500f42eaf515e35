"""Files of every kind this FFmpeg can write: right in time and colour, the same as a file and as a stream."""

import io
import multiprocessing
import queue as queue_module
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from av.filter import Graph
from media_maker import CORNERS, KINDS, QUIET_X265, picture, write_kinds, write_media

from mirasol_hf.processing.chunk_plan_mirasol import plan_chunks
from mirasol_hf.processing.clock_mirasol import KnownClock
from mirasol_hf.processing.demux_mirasol import packets
from mirasol_hf.processing.media_index_mirasol import index_media
from mirasol_hf.processing.media_limits_mirasol import MediaLimits
from mirasol_hf.processing.media_mirasol import MediaFile, probe_media, read_media
from mirasol_hf.processing.media_source_mirasol import MediaSource
from mirasol_hf.processing.picture_mirasol import rgb_picture
from mirasol_hf.processing.stream_feeds_mirasol import VideoFeed

EVENT = 0.4


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    return {path.name: path for path in write_kinds(folder, seconds=1.0, events=(EVENT,))}


def seen_and_heard(path):
    """Second at which the flash is shown and the tone begins, None without."""
    flash = beep = None
    with MediaFile(path) as media:
        if media.has_video:
            reader = media.video_reader()
            frames, times = reader.read(reader.times + 1e-4, 48, 64)
            bright = frames[:, 16:32, 20:44].mean((1, 2, 3)) > 180
            flash = float(times[np.flatnonzero(bright)[0]])
        if media.has_audio:
            begin, wave = next(media.audio_reader().read([[0, 16000]]))
            beep = (begin + int(np.flatnonzero(np.abs(wave) > 0.2)[0])) / 16000
    return flash, beep


@pytest.mark.parametrize("name", KINDS)
def test_flash_and_tone_come_together(kinds, name):
    flash, beep = seen_and_heard(kinds[name])
    start = probe_media(kinds[name])["video"] or {"start": 0.0}
    if flash is not None:
        # Second 0 is the start of the earliest stream, which may be sound that the encoder added.
        assert abs(flash - EVENT) <= max(0.041, start["start"] + 1e-6)
    if flash is not None and beep is not None:
        assert abs(flash - beep) < 0.03
    elif beep is not None:
        assert abs(beep - EVENT) < 0.03


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.get("video", "libx264")])
def test_colours_are_those_that_were_encoded(kinds, name):
    frame = read_media(
        kinds[name], lambda d: plan_chunks(0.0, d, num_chunks=1, frames_per_chunk=1), size=(48, 64)
    ).frames[0, 0]
    corners = {"tl": frame[5, 7], "tr": frame[5, -8], "bl": frame[-6, 7], "br": frame[-6, -8]}
    coarse = 60 if name.endswith(".gif") else 14
    for corner, colour in CORNERS.items():
        assert np.abs(corners[corner].astype(int) - colour).max() <= coarse, (corner, corners[corner])


def whole_and_streamed(processor, path, start=0.0, chunks=5):
    with MediaFile(path) as file:
        duration = file.duration
    whole = processor(videos=path, num_chunks=chunks, start=start, return_timestamps=True)
    parts = processor.iter_chunks(path, chunk_seconds=(duration - start) / chunks, start=start, return_timestamps=True)
    parts = list(parts)
    return whole, {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]}


@pytest.mark.parametrize("name", KINDS)
def test_as_a_stream_and_as_a_file(kinds, processor, name):
    whole, streamed = whole_and_streamed(processor, kinds[name])
    assert set(whole) == set(streamed)
    for key, value in whole.items():
        torch.testing.assert_close(streamed[key], value, atol=1e-12, rtol=0, msg=key)


@pytest.mark.parametrize("name", ["same.mkv", "rounded.mp4"])
def test_frames_at_the_same_instant(processor, tmp_path, name):
    """All frames claim second 0, or windows begin where frames do: the last one that has begun is on screen."""
    rate = 25 if name == "rounded.mp4" else 100_000
    path = write_media(tmp_path / name, seconds=1.2 if rate == 25 else 30 / rate, fps=rate, audio=None, events=(0.4,))
    whole, streamed = whole_and_streamed(processor, path, chunks=6)
    assert torch.equal(whole["pixel_values_videos"], streamed["pixel_values_videos"])


@pytest.mark.parametrize("name", ["long.mkv", "long.ts", "long.avi", "long.mp4"])
def test_a_stream_from_a_late_start_decodes_little(processor, tmp_path, monkeypatch, name):
    sound = {"audio": "pcm_s16le" if name.endswith(("avi", "mkv")) else "aac"}
    if name.endswith("ts"):
        sound = {"audio": "libmp3lame"}
    path = write_media(tmp_path / name, seconds=8.0, **sound)
    decoded = []
    push = VideoFeed.push
    monkeypatch.setattr(VideoFeed, "push", lambda feed, frame: decoded.append(frame.pts) or push(feed, frame))
    whole, streamed = whole_and_streamed(processor, path, start=6.3)
    assert torch.equal(whole["pixel_values_videos"], streamed["pixel_values_videos"])
    torch.testing.assert_close(streamed["input_features"], whole["input_features"], atol=2e-3, rtol=0)
    assert len(decoded) < 60


def interlaced_picture(path, codec, pixels, top_first, options):
    """A bar that moves between the two fields of each frame; returns what the first field of frame 4 shows."""

    def moment(seconds):
        image = np.full((96, 128, 3), 60, dtype=np.uint8)
        left = int(10 + seconds * 400) % 100
        image[:, left : left + 16] = 230
        return image

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 96, pixels
        if codec == "mpeg2video":
            stream.bit_rate = 8_000_000
        for i in range(8):
            woven, later = moment(i / 25), moment(i / 25 + 0.02)
            woven[int(top_first) :: 2] = later[int(top_first) :: 2]
            frame = av.VideoFrame.from_ndarray(woven, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            for packet in stream.encode(_marked(frame, pixels, top_first)):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return moment(4 / 25)


def _marked(frame, pixels, top_first):
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    parts = [graph.add("format", "pix_fmts=yuv444p"), graph.add("setfield", "tff" if top_first else "bff")]
    for left, right in zip([source, *parts], [*parts, graph.add("buffersink")]):
        left.link_to(right)
    graph.configure()
    graph.push(frame)
    return graph.pull()


@pytest.mark.parametrize("top_first", [True, False])
@pytest.mark.parametrize(
    ("codec", "pixels"), [("libx264", "yuv420p"), ("libx264", "yuv420p10le"), ("mpeg2video", "yuv420p")]
)
def test_interlaced_frames_show_one_moment(tmp_path, codec, pixels, top_first):
    options = {"flags": "+ildct+ilme"}
    if codec == "libx264":
        options = {"x264-params": "tff=1" if top_first else "bff=1", "qp": "10"}
    truth = interlaced_picture(tmp_path / "clip.mkv", codec, pixels, top_first, options).astype(int)
    with av.open(str(tmp_path / "clip.mkv")) as container:
        frame = [*container.decode(video=0)][4]
    assert frame.interlaced_frame
    woven = np.abs(frame.to_ndarray(format="rgb24").astype(int) - truth).mean()
    assert np.abs(rgb_picture(frame, 96, 128).astype(int) - truth).mean() < 2.0 < 8.0 < woven


@pytest.mark.parametrize("pixels", ["yuv420p10le", "yuv422p10le", "yuv444p"])
def test_depth_and_sampling_leave_the_colours(tmp_path, pixels):
    codec, options = ("libx265", QUIET_X265) if pixels == "yuv420p10le" else ("libx264", {"qp": "10"})
    path = tmp_path / "clip.mkv"
    write_media(path, seconds=0.4, video=codec, audio=None, pixels=pixels, codec_options=options)
    plan = plan_chunks(0.0, 0.4, num_chunks=1, frames_per_chunk=1)
    frame = read_media(path, lambda _: plan, size=(48, 64)).frames[0, 0].astype(int)
    assert np.abs(frame - picture(False))[2:10, 2:14].max() < 12


@pytest.mark.parametrize("rate", [8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 96000])
def test_sound_of_any_rate_stays_in_time(tmp_path, rate):
    """Two minutes here; the drift of ten would be five times this bound, still under 5 ms."""
    path = write_media(
        tmp_path / "long.wav", seconds=120.0, video=None, audio="pcm_s16le", rate=rate, events=(1.0, 119.0)
    )
    with MediaFile(path) as file:
        whole = np.concatenate(
            [wave for _, wave in file.audio_reader().read([[k * 160000, (k + 1) * 160000] for k in range(12)])]
        )
        _, part = next(file.audio_reader().read([[118 * 16000, 120 * 16000]]))
    loud = np.flatnonzero(np.abs(whole) > 0.1)
    assert abs(int(loud[0]) / 16000 - 1.0) < 1e-3
    assert abs(int(loud[loud > 32000][0]) / 16000 - 119.0) < 1e-3
    assert len(whole) == 120 * 16000
    assert np.abs(part - whole[118 * 16000 :]).max() < 1e-4


def test_the_index_of_hours_is_small(tmp_path):
    """Eight bytes for each picture and sixteen for each key frame, whatever they say about durations."""
    path = tmp_path / "long.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 16, 16, "yuv420p", 600
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        packets = [packet for i in range(600) for packet in stream.encode(_at(frame, i))]
        for k in range(100):
            for i, packet in enumerate(packets):
                again = av.Packet(bytes(packet))
                again.stream, again.is_keyframe, again.time_base = stream, i == 0, Fraction(1, 25)
                again.pts = again.dts = k * 600 + i
                container.mux(again)
    index = index_media(MediaSource(path, MediaLimits()), MediaLimits())
    assert len(index.video.pts) == 60_000 and len(index.video.keys) == 100
    assert index.video.pts.nbytes + index.video.keys.nbytes < 500_000
    with MediaFile(path) as file:
        reader = file.video_reader()
        reader.read(np.linspace(1.0, 2390.0, 8), 16, 16)
    assert reader.frames_decoded < 8 * 601


def _at(frame, i):
    frame.pts, frame.time_base = i, Fraction(1, 25)
    return frame


def _digest(path, threads, queue):
    torch.set_num_threads(threads)
    plan = lambda duration: plan_chunks(0.0, duration, num_chunks=3, frames_per_chunk=8)  # noqa: E731
    clip = read_media(path, plan, size=(96, 128), limits=MediaLimits(max_threads=threads))
    queue.put((clip.frames.tobytes(), clip.frame_times.tobytes(), [wave.tobytes() for _, wave in clip.audio]))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_same_bits_from_workers_and_any_number_of_threads(tmp_path, method):
    path = _large(tmp_path / "large.mp4")
    context = multiprocessing.get_context(method)
    results: list[tuple] = []
    for threads in (1, 3, 8) if method == "fork" else (2,):
        queue = context.Queue()
        worker = context.Process(target=_digest, args=(path, threads, queue))
        worker.start()
        results.append(queue.get(timeout=120))
        worker.join()
    local = queue_module.Queue()
    _digest(path, 1, local)
    results.append(local.get())
    assert all(result == results[0] for result in results[1:]) and len(results) >= 2


def _large(path):
    """A clip of pictures large enough for decoding threads, with content that moves."""
    noise = np.random.default_rng(7)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 640, 360, "yuv420p", 12
        sound = container.add_stream("aac", rate=44100)
        sound.layout = "mono"
        for i in range(40):
            small = noise.integers(0, 255, (36, 64, 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(np.kron(small, np.ones((10, 10, 1), np.uint8)), format="rgb24")
            container.mux(stream.encode(_at(frame, i)))
        for i in range(60):
            wave = (noise.standard_normal((1, 1024)) * 0.2).astype(np.float32)
            block = av.AudioFrame.from_ndarray(wave, format="flt", layout="mono")
            block.sample_rate, block.pts, block.time_base = 44100, i * 1024, Fraction(1, 44100)
            container.mux(sound.encode(block))
        container.mux(stream.encode(None))
        container.mux(sound.encode(None))
    return path


def test_a_gif_from_memory_is_a_video(kinds):
    facts = probe_media(io.BytesIO(kinds["pictures.gif"].read_bytes()))
    assert facts["video"]["frames"] == 25 and facts["audio"] is None


@pytest.mark.parametrize("name", ["h264_aac.flv", "mpeg2_mp3.ts"])
def test_a_stream_that_begins_in_mid_file_is_passed_over(kinds, name):
    """PyAV raises IndexError for each of its packets; here for every fifth of those that are read."""
    with av.open(str(kinds[name])) as container:
        expected = [(packet.stream_index, packet.dts) for packet in container.demux() if packet.size]
    with av.open(str(kinds[name])) as container:
        late = _LateStream(container)
        source = MediaSource(kinds[name], MediaLimits())
        read = packets(late, list(container.streams), source, [], KnownClock([]))
        found = [(packet.stream_index, packet.dts) for packet in read]
    assert late.raised > 5 and found == [packet for i, packet in enumerate(expected) if i % 5 != 4]


class _LateStream:
    """A container in which every fifth packet belongs to a stream that nobody knows yet."""

    def __init__(self, container):
        self.container, self.count, self.raised = container, 0, 0

    def demux(self, streams):
        for packet in self.container.demux(streams):
            if packet.size:
                self.count += 1
                if self.count % 5 == 0:
                    self.raised += 1
                    raise IndexError("list index out of range")
            yield packet


def test_colours_described_by_an_unknown_number_are_as_good_as_not_described():
    frames = [av.VideoFrame.from_ndarray(picture(True), format="rgb24").reformat(format="yuv422p10le") for _ in "ab"]
    frames[0].colorspace, frames[1].colorspace = 66, 2
    unknown, unnamed = (rgb_picture(frame, 32, 32) for frame in frames)
    assert np.array_equal(unknown, unnamed)
