"""Sound with many channels, or channels in an order of the file's own; each file is read in a process of its own."""

import itertools
import struct

import av
import numpy as np
import pytest
from child import in_child
from media_maker import write_channels

from mirasol_hf.processing.audio_reader_mirasol import on_grid
from mirasol_hf.processing.demux_mirasol import frame_second
from mirasol_hf.processing.media_mirasol import MediaFile, probe_media

FAMILY = {"options": {"mapping_family": "255"}}


def loudness(path, begin=0.1, end=0.4):
    """Amplitude of the tone in a part of the file, and how many samples there are."""
    with MediaFile(path) as media:
        _, wave = next(media.audio_reader().read([[round(begin * 16000), round(end * 16000)]]))
        probe_media(path)
    return float(np.sqrt(2 * np.mean(np.square(wave)))), len(wave)


def kinds(folder):
    """Files with what their loudness must be: the mean of the channels."""
    codecs = {"pcm_s16le": "wav", "pcm_u8": "wav", "pcm_f64le": "mkv", "pcm_s24be": "caf"}
    for channels in (9, 11, 13, 20, 48):
        gains = np.arange(channels) >= channels // 2
        yield write_channels(folder / f"{channels}.mka", "libopus", gains, **FAMILY), 0.5 * gains.mean()
    for (codec, ending), channels in itertools.product(codecs.items(), (9, 64)):
        gains = np.arange(channels) >= channels // 2
        yield write_channels(folder / f"{channels}_{codec}.{ending}", codec, gains), 0.5 * gains.mean()
    yield write_channels(folder / "long.wav", "pcm_s64le", [1.0] * 11, rate=44100), 0.5


def test_channels_that_ffmpeg_cannot_mix_are_averaged(tmp_path):
    files = list(kinds(tmp_path))
    heard = in_child(lambda: [loudness(path) for path, _ in files])
    wrong = [
        f"{path.name}: {found} instead of {mean}"
        for (path, mean), (found, length) in zip(files, heard, strict=True)
        if abs(found - mean) > 0.02 or length != 4800
    ]
    assert not wrong


def test_of_ambisonic_sound_the_channel_of_all_directions_is_heard(tmp_path):
    options = {"options": {"mapping_family": "2"}, "layout": "ambisonic 2"}
    around = write_channels(tmp_path / "around.mka", "libopus", [1.0] + [0.0] * 8, **options)
    behind = write_channels(tmp_path / "behind.mka", "libopus", [1.0] + [-1.0] * 8, **options)
    for loud, _ in in_child(lambda: [loudness(around), loudness(behind)]):
        assert abs(loud - 0.5) < 0.03


@pytest.mark.parametrize("labels", [(2, 1), (1, 1), (0xFFFF0001, 0xFFFF0002)])
def test_channels_in_an_order_of_their_own(tmp_path, labels):
    """PyAV frees the list of such channels twice."""
    path = _labelled(write_channels(tmp_path / "clip.caf", "pcm_s16be", [1.0, 0.0], layout="stereo"), labels)
    (loud, length), facts = in_child(lambda: (loudness(path), probe_media(path)))
    assert abs(loud - 0.25) < 0.01 and length == 4800
    assert facts["audio"]["channels"] == 2


def _labelled(path, labels):
    """The CAF file with a channel layout that describes each channel by one of Apple's labels."""
    content = path.read_bytes()
    at = content.index(b"chan") + 4
    size = int.from_bytes(content[at : at + 8], "big")
    layout = struct.pack(">3I", 0, 0, len(labels)) + b"".join(struct.pack(">2I3f", n, 0, 0, 0, 0) for n in labels)
    path.write_bytes(content[:at] + len(layout).to_bytes(8, "big") + layout + content[at + 8 + size :])
    return path


@pytest.mark.parametrize("kind", ["fltp", "flt", "s64p"])
def test_the_cut_behind_a_seek_takes_any_frame(kind):
    def cut():
        frame = av.AudioFrame(kind, "11 channels", 1000)
        frame.sample_rate, frame.pts = 44100, 7
        found, second = on_grid(frame, 10.0001, 0.0, 16000)
        return found.samples, found.layout.nb_channels, second * 44100

    samples, channels, place = in_child(cut)
    assert channels == 11 and 0 < samples < 1000 and abs(place % 441) < 1e-6 and place >= 441000


def test_a_frame_from_the_end_of_a_decoder_has_a_time(tmp_path):
    """It has a time stamp, but no unit of its own."""
    path = write_channels(tmp_path / "clip.mka", "pcm_s16le", [1.0])
    with av.open(str(path)) as container:
        frame = av.AudioFrame("s16", "mono", 10)
        frame.pts = 250
        assert np.isnan(frame.time) and frame_second(frame, container.streams.audio[0]) == 0.25
        frame.pts = None
        assert frame_second(frame, container.streams.audio[0]) is None
