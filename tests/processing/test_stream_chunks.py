"""iter_chunks: the values of the whole file, as the bytes come and no earlier, from anything that can be read."""

import io
import os
import struct
import threading
import time
import warnings

import av
import numpy as np
import pytest
import torch
from media_maker import write_media

from mirasol_hf.modeling.media_cache_mirasol import MirasolMediaCache
from mirasol_hf.processing.media_limits_mirasol import MediaError, MediaLimits, MediaWarning
from mirasol_hf.processing.media_mirasol import MediaFile

FRAGMENTED = {"movflags": "frag_keyframe+empty_moov"}


class Pipe(io.RawIOBase):
    """Bytes that come once, at most `step` at a time, and how many were taken."""

    def __init__(self, content, step=4096):
        self.content, self.step, self.taken = content, step, 0

    def readable(self):
        return True

    def readinto(self, buffer):
        part = self.content[self.taken : self.taken + min(self.step, len(buffer))]
        buffer[: len(part)] = part
        self.taken += len(part)
        return len(part)


@pytest.fixture(scope="module")
def streams(media, tmp_path_factory):
    """Files that a pipe can carry."""
    folder = tmp_path_factory.mktemp("streams")
    write_media(folder / "frag.mp4", options=FRAGMENTED)
    write_media(folder / "clip.ts")
    write_media(folder / "clip.flv")
    write_media(folder / "clip.avi", audio="libmp3lame")
    write_media(folder / "late.mkv", audio_delay=0.5)
    write_media(folder / "long.mkv", seconds=30.0, audio="libopus", rate=48000)
    for name in ("clip.mkv", "clip.webm", "faststart.mp4", "frames.h264", "sound.wav", "sound.mp3", "sound.ogg"):
        (folder / name).symlink_to(media / name)
    return folder


def duration(path):
    with MediaFile(path) as file:
        return file.duration


def joined(chunks):
    return {name: torch.cat([chunk[name] for chunk in chunks], dim=1) for name in chunks[0]}


def assert_equals_whole(processor, path, source, num_chunks):
    whole = processor(videos=path, num_chunks=num_chunks, return_timestamps=True)
    chunks = processor.iter_chunks(source, chunk_seconds=duration(path) / num_chunks, return_timestamps=True)
    streamed = joined(list(chunks))
    assert set(streamed) == set(whole)
    for name in whole:
        if name in ("chunk_seconds", "video_timestamps"):
            # k · (duration / K) and duration · (k / K) may differ in the last bit.
            torch.testing.assert_close(streamed[name], whole[name], atol=1e-12, rtol=0)
        else:
            assert torch.equal(streamed[name], whole[name]), name


PIPED = (
    *("frag.mp4", "faststart.mp4", "clip.mkv", "clip.webm", "clip.ts", "clip.flv", "late.mkv"),
    *("frames.h264", "sound.wav", "sound.mp3", "sound.ogg"),
)


@pytest.mark.parametrize("name", PIPED)
def test_a_pipe_gives_what_the_whole_file_gives(processor, streams, name):
    assert_equals_whole(processor, streams / name, Pipe((streams / name).read_bytes()), 8)


@pytest.mark.parametrize("name", ["clip.mp4", "stereo.mp4", "clip.mov", "late.mp4", "silent.mp4", "sound.m4a"])
@pytest.mark.parametrize("num_chunks", [1, 3, 8])
def test_a_file_gives_what_the_call_gives(processor, media, name, num_chunks):
    assert_equals_whole(processor, media / name, media / name, num_chunks)


def test_a_container_without_presentation_times(processor, streams):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chunks = joined(list(processor.iter_chunks(streams / "clip.avi", chunk_seconds=0.5, return_timestamps=True)))
    times = chunks["video_timestamps"].flatten()
    assert (times.diff() >= 0).all()
    # The last packet of sound reaches beyond the pictures.
    assert chunks["video_mask"][0].tolist() == [1] * 8 + [0]


def test_given_an_end_the_windows_are_those_of_the_plan(processor, media):
    path = media / "clip.mp4"
    whole = processor(videos=path, num_chunks=3, start=0.7, end=3.1, return_timestamps=True)
    chunks = list(processor.iter_chunks(path, chunk_seconds=0.8, start=0.7, end=3.1, return_timestamps=True))
    streamed = joined(chunks)
    assert torch.equal(streamed["chunk_seconds"], whole["chunk_seconds"])
    assert torch.equal(streamed["video_timestamps"], whole["video_timestamps"])
    assert torch.equal(streamed["pixel_values_videos"], whole["pixel_values_videos"])
    # The call seeks, so its sound decoder starts elsewhere.
    torch.testing.assert_close(streamed["input_features"], whole["input_features"], atol=2e-3, rtol=0)


def test_windows_have_a_fixed_duration_and_an_end_cuts_the_last(processor, media):
    seconds = [c["chunk_seconds"][0, 0].tolist() for c in processor.iter_chunks(media / "clip.mp4", chunk_seconds=1.5)]
    assert seconds == [[0.0, 1.5], [1.5, 3.0], [3.0, 4.5]]
    chunks = processor.iter_chunks(media / "clip.mp4", chunk_seconds=1.5, end=2.5)
    assert [c["chunk_seconds"][0, 0].tolist() for c in chunks] == [[0.0, 1.5], [1.5, 2.5]]


def test_names_shapes_and_types(processor, media):
    chunk = next(processor.iter_chunks(media / "clip.mp4", chunk_seconds=0.5))
    found = {name: (tuple(value.shape), value.dtype) for name, value in chunk.items()}
    assert found == {
        "pixel_values_videos": ((1, 1, 8, 3, 64, 64), torch.float32),
        "video_mask": ((1, 1), torch.int64),
        "input_features": ((1, 1, 32, 64), torch.float32),
        "audio_mask": ((1, 1), torch.int64),
        "chunk_seconds": ((1, 1, 2), torch.float64),
    }
    silent = next(processor.iter_chunks(media / "clip.mp4", load_audio_from_video=False))
    assert "input_features" not in silent


def test_a_modality_that_ends_early_is_masked(processor, tmp_path):
    path = write_media(tmp_path / "late.mkv", seconds=3.0, audio_delay=1.5)
    chunks = joined(list(processor.iter_chunks(Pipe(path.read_bytes()), chunk_seconds=0.5)))
    # The last packet of sound is filled up with silence, so a seventh window has sound alone.
    assert chunks["video_mask"][0].tolist() == [1] * 6 + [0]
    assert chunks["audio_mask"][0].tolist() == [0] * 3 + [1] * 4
    assert not chunks["input_features"][0, :3].any()


def test_nothing_is_read_ahead(processor, streams):
    content = (streams / "long.mkv").read_bytes()
    source = Pipe(content)
    taken = []
    for chunk in processor.iter_chunks(source, chunk_seconds=1.0):
        taken.append(source.taken)
        assert chunk["chunk_seconds"][0, 0, 1] == len(taken)
    assert len(taken) >= 30
    # After half of the chunks at most half of the bytes and what probing and one cluster take.
    assert taken[0] < 0.35 * len(content)
    assert taken[14] < 0.75 * len(content)


def test_a_chunk_comes_before_the_writer_has_gone_on(processor, streams):
    """The writer sends the rest only when the first chunk has arrived: with reading ahead this would hang."""
    content = (streams / "clip.ts").read_bytes()
    head, write = os.pipe()
    arrived = threading.Event()

    def send():
        with os.fdopen(write, "wb") as file:
            file.write(content[: len(content) * 4 // 5])
            file.flush()
            assert arrived.wait(30)
            file.write(content[len(content) * 4 // 5 :])

    writer = threading.Thread(target=send, daemon=True)
    writer.start()
    with os.fdopen(head, "rb") as source:
        chunks = processor.iter_chunks(source, chunk_seconds=0.5)
        first = next(chunks)
        arrived.set()
        rest = list(chunks)
    writer.join(10)
    assert first["chunk_seconds"].tolist() == [[[0.0, 0.5]]]
    assert len(rest) >= 7


def test_closing_early_leaves_the_rest_in_the_pipe(processor, streams):
    source = Pipe((streams / "long.mkv").read_bytes())
    chunks = processor.iter_chunks(source, chunk_seconds=1.0)
    next(chunks)
    chunks.close()
    assert source.taken < len(source.content)
    assert not source.closed


@pytest.mark.parametrize("name", ["frag.mp4", "faststart.mp4", "clip.mkv", "clip.ts", "sound.wav"])
@pytest.mark.parametrize("part", [0.55, 0.8])
def test_a_cut_off_stream_gives_what_was_whole(processor, streams, name, part):
    content = (streams / name).read_bytes()
    whole = list(processor.iter_chunks(streams / name, chunk_seconds=0.25))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        chunks = list(processor.iter_chunks(Pipe(content[: int(len(content) * part)]), chunk_seconds=0.25))
    assert 0 < len(chunks) < len(whole)
    # The last chunks may hold the break; all before are untouched.
    for left, right in zip(chunks[:-3], whole):
        assert all(torch.equal(left[key], right[key]) for key in left)
    if name != "clip.ts":  # transport streams have no end that could be missing
        assert any(issubclass(entry.category, MediaWarning) for entry in caught)


def test_values_out_of_range_are_refused_at_once(processor, media):
    path = media / "clip.mp4"
    for options, named in (
        ({"chunk_seconds": 0}, "chunk_seconds"),
        ({"chunk_seconds": float("nan")}, "chunk_seconds"),
        ({"start": -1.0}, "start"),
        ({"start": 2.0, "end": 2.0}, "end"),
    ):
        with pytest.raises(ValueError, match=named):
            processor.iter_chunks(path, **options)
    with pytest.raises(ValueError, match=r"start=9 s lies outside"):
        list(processor.iter_chunks(path, start=9.0))


@pytest.mark.parametrize("content", [b"", b"#EXTM3U\nfile:///etc/passwd\n", b"no film at all " * 999, bytes(5000)])
def test_streams_that_are_no_media(processor, content):
    with pytest.raises(MediaError, match="Pipe"):
        list(processor.iter_chunks(Pipe(content)))


def test_an_mp4_with_its_header_last_is_stored_and_read_as_a_file(processor, media):
    path = media / "clip.mp4"
    content = path.read_bytes()
    assert content.index(b"mdat") < content.index(b"moov")
    assert_equals_whole(processor, path, Pipe(content), 4)
    with pytest.raises(MediaError, match=f"Pipe.*max_stream_bytes={len(content) - 1} "):
        processor.iter_chunks(Pipe(content), limits=MediaLimits(max_stream_bytes=len(content) - 1))
    with pytest.raises(MediaError, match=r"Pipe.*not a readable media file"):
        processor.iter_chunks(Pipe(content[: content.index(b"moov") - 4]))


@pytest.mark.parametrize(("name", "label"), [(0, "standard input"), ("<stdin>", "standard input"), (5, "Pipe")])
def test_messages_call_the_source_by_a_name(processor, name, label):
    for content in (b"no film at all", box(b"ftyp", b"isomiso2") + box(b"mdat", bytes(99))):
        source = Pipe(content)
        source.name = name
        for read in (processor.iter_chunks, lambda source: processor(videos=source)):
            with pytest.raises(MediaError, match=f"^(<file object )?{label}>?: "):
                read(source)
            source.taken = 0


def test_a_text_stream_is_refused(processor):
    class Text(io.StringIO):
        def seekable(self):
            return False

    with pytest.raises(MediaError, match="rb"):
        processor.iter_chunks(Text("words"))


def box(kind, body):
    return struct.pack(">I4s", 8 + len(body), kind) + body


def nested(content, kinds):
    for kind in reversed(kinds):
        content = box(kind, content)
    return content


HOSTILE = {
    "table": nested(struct.pack(">IIII", 0, 1, 2**30, 0)[:12], [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsz"]),
    "fragment": nested(struct.pack(">II", 0, 2**30), [b"moof", b"traf", b"trun"]),
    "hidden": box(b"free", struct.pack(">I4s", 100, b"mvhd")),
    "large": struct.pack(">I4s", 2**30, b"moov"),
    "tiny": struct.pack(">I4s", 3, b"moov"),
    "deep": nested(b"", [b"moov"] * 100),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_header_boxes_are_checked_before_they_are_read(processor, kind):
    content = box(b"ftyp", b"isomiso2") + HOSTILE[kind] + bytes(1000)
    with pytest.raises(MediaError, match="refused"):
        list(processor.iter_chunks(Pipe(content)))


def test_mp4_behind_unknown_boxes_is_not_read_unchecked(processor, streams):
    content = box(b"zzzz", b"12345678") + (streams / "faststart.mp4").read_bytes()
    with pytest.raises(MediaError, match="not a readable media file"):
        list(processor.iter_chunks(Pipe(content)))


def test_limits_hold(processor, streams):
    content = (streams / "long.mkv").read_bytes()
    for limits, named in (
        (MediaLimits(max_duration=5.0), "max_duration"),
        (MediaLimits(max_packets=50), "max_packets"),
    ):
        with pytest.raises(MediaError, match=named):
            list(processor.iter_chunks(Pipe(content), limits=limits))
    with pytest.raises(TimeoutError, match="max_seconds"):
        list(processor.iter_chunks(Pipe(content), limits=MediaLimits(max_seconds=1e-9)))


def test_an_announced_end_far_away_is_refused(processor, tmp_path):
    path = tmp_path / "announced.mkv"
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        black = np.zeros((64, 64, 3), np.uint8)
        packets = [p for _ in range(20) for p in stream.encode(av.VideoFrame.from_ndarray(black))]
        packets += stream.encode(None)
        packets[-1].duration = int(100 / packets[-1].time_base)
        container.mux(packets)
    limits = MediaLimits(max_duration=5.0)
    for source in (path, Pipe(path.read_bytes())):
        given = 0
        with pytest.raises(MediaError, match="max_duration"):
            for _ in processor.iter_chunks(source, limits=limits):
                given += 1
        assert given <= 5


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("the line is dead"), OSError("reset by peer")])
@pytest.mark.parametrize("after", [0, 5_000, 40_000])
def test_what_interrupts_reading_is_raised(processor, streams, error, after):
    class Broken(Pipe):
        def readinto(self, buffer):
            if self.taken >= after:
                raise error
            return super().readinto(buffer)

    with pytest.raises(type(error)) as raised:
        list(processor.iter_chunks(Broken((streams / "long.mkv").read_bytes())))
    assert raised.value is error


def test_waiting_for_the_writer_does_not_use_up_the_time(processor, streams):
    class Slow(Pipe):
        def readinto(self, buffer):
            time.sleep(2.2 if not self.taken else 0)
            return super().readinto(buffer)

    source = Slow((streams / "frag.mp4").read_bytes(), step=50_000)
    assert len(list(processor.iter_chunks(source, limits=MediaLimits(max_seconds=2.0)))) >= 4


@torch.no_grad()
def test_features_streamed_equal_those_of_the_whole_clip(random_parts, streams):
    model, processor = random_parts
    path = streams / "clip.mkv"
    whole = model.encode_media(**processor(videos=path, num_chunks=8, return_tensors="pt")).media_hidden_states
    cache, states = MirasolMediaCache(), []
    for chunk in processor.iter_chunks(Pipe(path.read_bytes()), chunk_seconds=duration(path) / 8):
        chunk.pop("chunk_seconds")
        states.append(model.encode_media(**chunk, media_cache=cache).media_hidden_states)
    torch.testing.assert_close(torch.cat(states, dim=1), whole, atol=1e-5, rtol=0)
