"""Files joined end to end, whose time stamps jump: the parts are seen and heard one after the other."""

from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from av.format import Flags
from media_maker import write_media
from test_stream_chunks import Pipe, joined

from mirasol_hf.processing.clock_mirasol import ContinuousClock, KnownClock
from mirasol_hf.processing.media_limits_mirasol import MediaWarning
from mirasol_hf.processing.media_mirasol import MediaFile, probe_media

CODECS = {
    "ts": {},
    "mpg": {"video": "mpeg2video", "audio": "mp2"},
    "ogg": {"video": None, "audio": "libopus", "rate": 48000},
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A file of 4 s with an event at 0.8 s, and one of 3 s with an event at 1.4 s, of each kind."""
    folder = tmp_path_factory.mktemp("parts")
    for kind, codecs in CODECS.items():
        write_media(folder / f"first.{kind}", seconds=4.0, events=(0.8,), **codecs)
        write_media(folder / f"second.{kind}", seconds=3.0, events=(1.4,), **codecs)
    _remux(folder / "second.ts", folder / "ahead.ts", 5000.0)
    _remux(folder / "first.ts", folder / "high.ts", 20000.0)
    return folder


def _remux(source, target, later):
    """The same packets `later` seconds later."""
    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        streams = {stream.index: write.add_stream_from_template(stream) for stream in read.streams}
        for packet in read.demux():
            if packet.size:
                ticks = round(later / packet.time_base)
                packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
                packet.stream = streams[packet.stream_index]
                write.mux(packet)


def _join(target, *sources):
    target.write_bytes(b"".join(source.read_bytes() for source in sources))
    return target


def _onsets(path):
    """Seconds at which a flash and a tone begin, read every 40 ms."""
    with MediaFile(path) as media:
        flashes = []
        if media.has_video:
            times = np.arange(0.02, media.duration, 0.04)
            pictures, shown = media.video_reader().read(times, 48, 64)
            white = pictures[:, 24, 32, 1] > 200
            flashes = shown[1:][white[1:] & ~white[:-1]].tolist()
        ((_, sound),) = media.audio_reader().read([[0, round(media.duration * 16000)]])
    loud = np.abs(sound) > 0.2
    starts = np.flatnonzero(loud & ~np.concatenate([[False], loud[:-1]]))
    beeps = starts[np.diff(starts, prepend=-16000) > 8000] / 16000
    return flashes, beeps.tolist()


@pytest.mark.parametrize(
    "first, second",
    [("first.ts", "second.ts"), ("first.ts", "ahead.ts"), ("high.ts", "second.ts"), ("first.mpg", "second.mpg")],
)
def test_parts_follow_each_other(parts, tmp_path, first, second):
    """The second part begins where the first ended, whether its clock goes back or ahead, sound with its picture."""
    path = _join(tmp_path / f"joined{(parts / first).suffix}", parts / first, parts / second)
    facts = probe_media(path)
    assert facts["video"]["frames"] == 175
    assert facts["duration"] == pytest.approx(7.0, abs=0.12)
    assert any("jump" in problem for problem in facts["problems"])
    flashes, beeps = _onsets(path)
    assert flashes == pytest.approx([0.8, 5.4], abs=0.1)
    assert beeps == pytest.approx(flashes, abs=0.04)


def test_sound_alone_and_three_parts(parts, tmp_path):
    path = _join(tmp_path / "joined.ogg", *(parts / f"{name}.ogg" for name in ("first", "second", "first")))
    assert probe_media(path)["duration"] == pytest.approx(11.0, abs=0.1)
    assert _onsets(path)[1] == pytest.approx([0.8, 5.4, 7.8], abs=0.05)


@pytest.mark.parametrize("kind", ["ts", "mpg"])
def test_streamed_equals_whole(processor, parts, tmp_path, kind):
    """Read in one pass from a pipe, the jump is found where the list of packets finds it."""
    path = _join(tmp_path / f"joined.{kind}", parts / f"first.{kind}", parts / f"second.{kind}")
    with pytest.warns(MediaWarning, match="time stamps jump"):
        streamed = joined(list(processor.iter_chunks(Pipe(path.read_bytes()), chunk_seconds=1.0)))
    with pytest.warns(MediaWarning, match="time stamps jump"):
        whole = processor(videos=str(path), chunk_seconds=1.0)
    for name in ("pixel_values_videos", "video_mask", "input_features", "audio_mask"):
        torch.testing.assert_close(streamed[name], whole[name], rtol=0, atol=1e-5)


def _packets(stream, seconds, tick=Fraction(1, 90000)):
    for second in seconds:
        pts = round(second / tick)
        yield SimpleNamespace(
            stream_index=stream, pts=pts, dts=pts, duration=round(Fraction(1) / tick), time_base=tick
        )


def _container(flags):
    return SimpleNamespace(format=SimpleNamespace(flags=flags.value))


def _seconds(clock, packets):
    placed = []
    for packet in packets:
        clock.set(packet)
        placed.append(float(packet.pts * packet.time_base))
    return placed


def test_one_wrong_time_stamp_moves_nothing_else():
    clock = ContinuousClock(_container(Flags.ts_discont))
    assert _seconds(clock, _packets(0, [0, 1, 2, 900, 4, 5])) == [0, 1, 2, 3, 4, 5]


def test_streams_share_the_shift_of_a_jump():
    """Sound that jumps after the picture keeps its distance from it."""
    clock = ContinuousClock(_container(Flags.ts_discont))
    assert _seconds(clock, _packets(0, [0, 1, 2, 500])) == [0, 1, 2, 3]
    assert _seconds(clock, _packets(1, [0.25, 1.25, 2.25, 500.25])) == [0.25, 1.25, 2.25, 3.25]
    known = KnownClock(clock.shifts[1])
    assert _seconds(known, _packets(1, [0.25, 1.25, 2.25, 500.25])) == [0.25, 1.25, 2.25, 3.25]


def test_formats_with_a_table_of_times_are_left_alone():
    clock = ContinuousClock(_container(Flags(0)))
    assert _seconds(clock, _packets(0, [0, 1, 900, 2])) == [0, 1, 900, 2]
    assert not clock.jumped
