"""`mirasol bench decode`: the files are what they claim, every way reads the same, and the figures are those read."""

import json

import av
import numpy as np
import pytest

from mirasol_hf.cli import decode_bench, decode_worker
from mirasol_hf.cli.decode_bench import DecodeBench, compare, describe
from mirasol_hf.cli.decode_media import FRAMES_PER_SECOND, INTERVALS, FileKind, make_file
from mirasol_hf.processing.media_mirasol import MediaFile


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("decode")


def _kind(codec="h264", seconds=4, interval="short"):
    return FileKind(seconds, 64, codec, interval, piece_seconds=2)


@pytest.mark.parametrize("codec", ["h264", "vp9"])
def test_long_files_repeat_the_short_one(folder, codec) -> None:
    piece, path = (make_file(_kind(codec, seconds), folder) for seconds in (2, 6))
    with MediaFile(path) as media, MediaFile(piece) as short:
        assert media.problems == []
        assert media.duration == pytest.approx(6.0, abs=0.15)
        video, part = media.video_reader(), short.video_reader()
        gap = 1 / FRAMES_PER_SECOND
        np.testing.assert_allclose(np.diff(video.times), gap, atol=2e-3)
        assert len(video.times) == 6 * FRAMES_PER_SECOND == 3 * len(part.times)
        assert len(video.index.keys) == 6
        read, once = video.read(video.times + gap / 2, 32, 56), part.read(part.times + gap / 2, 32, 56)
        assert read is not None and once is not None
        np.testing.assert_array_equal(read[0], np.concatenate([once[0]] * 3))
        ((_, wave),) = list(media.audio_reader().read([[0, 96000]]))
        assert len(wave) == pytest.approx(96000, abs=400)
        assert np.abs(wave[: len(wave) // 1600 * 1600]).reshape(-1, 1600).max(1).min() > 0.1


def test_files_are_made_once(folder) -> None:
    path = make_file(_kind(), folder)
    written = path.stat().st_mtime_ns
    assert make_file(_kind(), folder) == path
    assert path.stat().st_mtime_ns == written
    assert not list(folder.glob("unfinished*"))


def test_key_frames_lie_where_the_interval_says(folder) -> None:
    path = make_file(FileKind(20, 48, "h264", "long"), folder)
    with av.open(str(path)) as container:
        keys = [i for i, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]
    assert keys == [0, INTERVALS["long"]]


@pytest.mark.parametrize("method", decode_worker.METHODS)
def test_every_way_reads_all_of_it(folder, method) -> None:
    path = make_file(_kind(seconds=8), folder)
    got = decode_worker.measure(method, str(path), 16, 32, None, 1)
    assert not got["extrapolated"]
    assert got["seconds"] == pytest.approx(sum(got["steps"].values()), abs=0.01)
    frames = 8 * FRAMES_PER_SECOND
    assert 16 <= got["frames_decoded"] <= frames
    if method == "everything":
        assert got["frames_decoded"] == frames
    rate = 48000 if method == "floor" else 16000
    assert got["samples"] == pytest.approx(8 * rate, rel=0.02)
    assert got["peak_mib"] >= got["loaded_mib"] > 0
    assert got["bytes_read"] is None or got["bytes_read"] > path.stat().st_size / 4


def test_floor_decodes_from_key_frames_to_wanted_pictures(folder) -> None:
    path = make_file(_kind(seconds=16), folder)
    got = decode_worker.measure("floor", str(path), 8, 32, None, 1)
    # The middle of each of eight spans of two seconds is the first frame of a group.
    assert got["frames_decoded"] == 8
    own = decode_worker.measure("mirasol", str(path), 8, 32, None, 1)
    assert own["frames_decoded"] == 8


@pytest.mark.parametrize("method", ["everything", "transformers"])
def test_a_part_is_multiplied_up_and_says_so(folder, method) -> None:
    path = make_file(_kind(seconds=8), folder)
    got = decode_worker.measure(method, str(path), 16, 32, 2.0, 1)
    assert got["extrapolated"]
    assert got["frames_decoded"] <= 2 * FRAMES_PER_SECOND + 1
    pictures, sound = got["steps"]["pictures"], got["steps"]["sound"]
    assert got["seconds"] == pytest.approx(4 * pictures + sound, rel=0.05, abs=0.02)


@pytest.mark.slow
def test_command_ends_with_one_json_line(mirasol, monkeypatch, folder) -> None:
    monkeypatch.setattr(
        decode_bench, "make_file", lambda kind, where: make_file(_kind(kind.codec, kind.seconds // 5), where)
    )
    ran = mirasol(
        *("bench", "decode", "--folder", folder, "--seconds", "10,20", "--heights", "64", "--codecs", "h264"),
        *("--intervals", "short", "--methods", "mirasol", "--frames", "8", "--size", "32"),
    )
    assert ran.code == 0, ran.err
    *table, last = ran.out.splitlines()
    result = json.loads(last)
    assert not any(line.startswith("{") for line in table)
    assert [(row["film_s"], row["method"]) for row in result["rows"]] == [(10, "mirasol"), (20, "mirasol")]
    assert {"ratios", "device", "decoder_threads", "av", "transformers", "date"} <= set(result)


def test_comparison_is_with_the_same_file() -> None:
    def row(film, method, seconds, peak):
        kind = {"codec": "vp9", "height": 480, "interval": "long", "film_s": film}
        return {**kind, "method": method, "seconds": seconds, "peak_mib": peak}

    rows = [row(10, "mirasol", 1.0, 100.0), row(10, "floor", 0.5, 80.0), row(600, "mirasol", 2.0, 130.0)]
    rows += [row(600, "everything", 30.0, 90.0), {**row(600, "floor", 0, 0), "failed": "no"}]
    short, long = compare(rows)
    assert (short["times_the_floor"], short["mib_above_shortest"]) == (2.0, 0.0)
    assert (long["faster_than_everything"], long["mib_above_shortest"]) == (15.0, 30.0)
    assert "times_the_floor" not in long
    assert describe(long) == "vp9 480p long 600 s: 15.0 times as fast as everything, +30 MiB against the shortest file"


def test_a_process_that_fails_is_a_row(folder, tmp_path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no film")
    bench = DecodeBench(folder, frames=8)
    row = decode_bench.measure_row(bench, _kind(), broken, "mirasol")
    assert "broken.mp4" in row["failed"]


def test_bad_options_are_refused(refused) -> None:
    assert "'av1'" in refused("bench", "decode", "--codecs", "av1")
    assert "'medium'" in refused("bench", "decode", "--intervals", "medium")
    assert "'decord'" in refused("bench", "decode", "--methods", "decord")
    assert "multiple of 8" in refused("bench", "decode", "--frames", "12")
    assert "15 s" in refused("bench", "decode", "--seconds", "15")
    assert "--repeat 0" in refused("bench", "decode", "--repeat", "0")
    assert "nothing to measure" in refused("bench", "decode", "--seconds", "")
