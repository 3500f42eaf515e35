"""Special files, holes, objects without an end: an error or a part of them, soon and in little memory.

What takes long or much is bounded by the limits; the tests set them low where the default is for real files.
"""

import io
import os
import struct
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import pytest
from media_maker import write_media

from mirasol_hf.processing.media_limits_mirasol import MediaError, MediaLimits, MediaWarning
from mirasol_hf.processing.media_mirasol import probe_media

SPECIAL = [
    *("/sys/kernel/uevent_seqnum", "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/kernel/notes"),
    *("/proc/self/ns/net", "/proc/self/status", "/proc/self/mem", "/proc/dma", "/proc/kmsg", "/proc/self/pagemap"),
    *("/dev/zero", "/dev/urandom", "/dev/null", "/dev/full", "/dev/tty"),
]
HOLE = 256 << 30


def ways_to_read(processor):
    return probe_media, lambda source: processor(videos=source), lambda source: list(processor.iter_chunks(source))


@contextmanager
def in_little_memory(limit=100_000_000):
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("path", SPECIAL)
def test_special_files_are_refused_by_name(processor, path):
    if not os.path.exists(path):
        pytest.skip("this system has none")
    for read in ways_to_read(processor):
        with pytest.raises((ValueError, OSError), match=path):
            read(path)


class Lying(io.BytesIO):
    """Announces more than it holds, as the files of sysfs do."""

    def seek(self, offset, whence=0):
        return 4096 if whence == 2 else super().seek(offset, whence)


@pytest.mark.parametrize("content", [b"", b"7\n", b"\0\0\0\x20ftypisom", b"\0\0\0\x40moov" + bytes(7)])
def test_a_file_that_holds_less_than_it_announces(processor, content):
    for read in ways_to_read(processor):
        with pytest.raises(MediaError, match="Lying"):
            read(Lying(content))


class Endless:
    """A file object that never ends and cannot seek; it may give less than was asked for."""

    def __init__(self, start=b"", fill=b"\0", most=1 << 20):
        self.start, self.fill, self.most = start, fill, most

    def read(self, count=-1):
        if self.start:
            data, self.start = self.start[: min(count, self.most)], self.start[min(count, self.most) :]
            return data
        return self.fill * (min(count, self.most) if count >= 0 else self.most)


@pytest.mark.parametrize("most", [1000, 1 << 30])
@pytest.mark.parametrize("fill", [b"\0", b"x", b"\xff"])
def test_an_object_without_an_end(processor, fill, most):
    limits = MediaLimits(max_stream_bytes=8_000_000)
    with in_little_memory():
        for read in (lambda source: processor(videos=source, limits=limits), lambda s: probe_media(s, limits)):
            with pytest.raises(MediaError, match=r"Endless.*max_stream_bytes=8000000 "):
                read(Endless(fill=fill, most=most))
        with pytest.raises(MediaError, match="Endless"):
            list(processor.iter_chunks(Endless(fill=fill, most=most), limits=limits))


def test_an_mp4_whose_media_do_not_end(processor):
    start = struct.pack(">I4s8s", 16, b"ftyp", b"isomiso2") + struct.pack(">I4sQ", 1, b"mdat", 1 << 60)
    with in_little_memory(), pytest.raises(MediaError, match=r"Endless.*max_stream_bytes=8000000 "):
        processor.iter_chunks(Endless(start), limits=MediaLimits(max_stream_bytes=8_000_000))


def test_boxes_before_the_header_that_do_not_end(processor):
    box = struct.pack(">I4s", 1 << 16, b"free") + bytes((1 << 16) - 8)
    start = struct.pack(">I4s8s", 16, b"ftyp", b"isomiso2") + 100 * box
    with in_little_memory(), pytest.raises(MediaError, match=r"Endless.*max_header_bytes=2000000 "):
        processor.iter_chunks(Endless(start), limits=MediaLimits(max_header_bytes=2_000_000))


def test_an_object_that_gives_little_at_a_time_is_read_whole(media):
    class Little(io.RawIOBase):
        content = io.BytesIO((media / "clip.mp4").read_bytes())

        def readable(self):
            return True

        def readinto(self, buffer):
            data = self.content.read(min(len(buffer), 777))
            buffer[: len(data)] = data
            return len(data)

    assert probe_media(Little()) == probe_media(media / "clip.mp4")


SPARSE = {
    "hole.mp3": {"video": None, "audio": "libmp3lame"},
    "hole.wav": {"video": None, "audio": "pcm_s16le"},
    "hole.flac": {"video": None, "audio": "flac"},
    "hole.mkv": {},
}


@pytest.mark.parametrize("name", SPARSE)
def test_a_hole_ends_the_file(processor, tmp_path, name):
    path = write_media(tmp_path / name, seconds=1.0, **SPARSE[name])
    length, content = probe_media(path)["duration"], path.read_bytes()
    try:
        os.truncate(path, HOLE)
    except OSError:
        pytest.skip("this file system has no sparse files of that size")
    limits = MediaLimits() if name == "hole.mp3" else MediaLimits(max_empty_bytes=1 << 20)
    with in_little_memory():
        facts = probe_media(path, limits)
        assert facts["duration"] == pytest.approx(length, abs=0.1)
        assert "zeros" in facts["problems"][-1]
        for source in (path, Endless(content)):
            with pytest.warns(MediaWarning, match="zeros"):
                assert 1 <= len(list(processor.iter_chunks(source, limits=limits))) <= 2
        with pytest.warns(MediaWarning, match="zeros"):
            processor(videos=path, num_chunks=2, limits=limits)


def test_tables_in_a_hole_are_not_read(tmp_path):
    """A box of 120 GB costs its writer nothing."""
    path = tmp_path / "tables.mp4"
    for kind in (b"stsc", b"elst", b"stts"):
        table = struct.pack(">I4sQ4xI", 1, kind, 120 << 30, 0xFFFFFFFF)
        track = b"".join(struct.pack(">I4sQ", 1, name, 120 << 30) for name in (b"moov", b"trak"))
        path.write_bytes(struct.pack(">I4s8s", 16, b"ftyp", b"isomiso2") + track + table)
        try:
            os.truncate(path, HOLE)
        except OSError:
            pytest.skip("this file system has no sparse files of that size")
        with in_little_memory(), pytest.raises(MediaError, match=f"tables.mp4.*{kind.decode()}.*max_packets"):
            probe_media(path)


@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(5, "Input/output error"), RuntimeError("the line is dead")]
)
def test_what_ends_the_reading_of_a_file_is_raised(media, capfd, error, after):
    class Broken(io.BytesIO):
        reads = 0

        def read(self, count=-1):
            self.reads += 1
            if self.reads > after:
                raise error
            return super().read(count)

    with pytest.raises(MediaError if isinstance(error, OSError) else type(error)) as raised:
        probe_media(Broken((media / "clip.mkv").read_bytes()))
    if isinstance(error, OSError):
        assert str(raised.value) == "<file object Broken>: cannot be read (Input/output error)"
    assert not capfd.readouterr().err  # nothing on its way is lost or printed


def test_an_object_that_gives_no_bytes(processor):
    class Words:
        def read(self, count=-1):
            return "words"

    for read in ways_to_read(processor):
        with pytest.raises(MediaError, match=r"Words.*str, expected bytes"):
            read(Words())


class Once(io.BytesIO):
    """A file object that cannot seek."""

    def seekable(self):
        return False


def test_the_temporary_file_is_closed(media):
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    probe_media(Once((media / "clip.mp4").read_bytes()))
    if before:
        assert len(os.listdir("/proc/self/fd")) == before
