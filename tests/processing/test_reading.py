import io

import numpy as np
import pytest
from media_maker import CORNERS, write_media

from mirasol_hf.processing.chunk_plan_mirasol import plan_chunks
from mirasol_hf.processing.media_limits_mirasol import MediaError, MediaLimits, MediaWarning
from mirasol_hf.processing.media_mirasol import MediaFile, probe_media, read_media

EVENTS = (0.8, 2.6)


def plan_of(chunks=4, frames=8):
    return lambda duration: plan_chunks(0.0, duration, num_chunks=chunks, frames_per_chunk=frames)


def dense(path, fps=50, **kwargs):
    """The file with pictures every 1/fps seconds and all of its sound: frames, times, sound from second 0."""
    clip = read_media(
        path,
        lambda d: plan_chunks(0.0, d, num_chunks=1, frames_per_chunk=max(1, round(d * fps))),
        size=(48, 64),
        **kwargs,
    )
    wave = np.zeros(0, np.float32)
    if clip.audio is not None:
        begin, data = clip.audio[0]
        wave = np.concatenate([np.zeros(round(begin * 16000), np.float32), data])
    return clip, wave


def onsets(flags, times):
    flags = np.asarray(flags)
    return [float(times[i]) for i in np.flatnonzero(flags & ~np.r_[False, flags[:-1]])]


def sound_onsets(wave, rate=16000):
    level = np.abs(wave).reshape(-1)
    loud = np.array([level[i : i + 80].max() > 0.2 for i in range(0, len(level) - 80, 80)])
    quiet_before = np.array([not loud[max(0, i - 8) : i].any() for i in range(len(loud))])
    return [i * 80 / rate for i in np.flatnonzero(loud & quiet_before)]


@pytest.mark.parametrize(
    "name", ["clip.mp4", "stereo.mp4", "clip.mkv", "clip.webm", "clip.mov", "late.mp4", "faststart.mp4"]
)
def test_flash_and_tone_are_simultaneous(media, name):
    clip, wave = dense(media / name)
    times = clip.plan.frame_times[0]
    middle = clip.frames[0][:, 16:32, 20:44].mean((1, 2, 3))
    flashes, tones = onsets(middle > 180, clip.frame_times[0]), sound_onsets(wave)
    assert len(flashes) == len(tones) == 2
    for event, flash, beep in zip(EVENTS, flashes, tones):
        assert abs(flash - event) < 0.021 and abs(beep - event) < 0.02 and abs(flash - beep) < 0.04
    assert (np.abs(clip.frame_times[0] - times) < 0.041).all()


@pytest.mark.parametrize("name", ["sound.wav", "sound.flac", "sound.mp3", "sound.m4a", "sound.ogg"])
def test_sound_files(media, name):
    clip, wave = dense(media / name)
    assert clip.frames is None and not clip.video_mask.any()
    assert abs(len(wave) / 16000 - 4.0) < 0.06
    found = sound_onsets(wave)
    assert len(found) == 2 and np.allclose(found, EVENTS, atol=0.02)
    assert 0.45 < np.abs(wave).max() < 0.56


def test_loudness_does_not_depend_on_the_number_of_channels(media):
    mono, stereo = dense(media / "clip.mp4")[1], dense(media / "stereo.mp4")[1]
    assert abs(np.abs(mono).max() - np.abs(stereo).max()) < 0.03


def test_rotation_is_applied(media):
    frame = read_media(media / "clip.mov", plan_of(1, 1), size=(64, 48)).frames[0, 0]
    corners = {"tl": frame[3, 3], "tr": frame[3, -4], "bl": frame[-4, 3], "br": frame[-4, -4]}
    info = probe_media(media / "clip.mov")["video"]
    # What stood top left is now where a quarter turn in the stated direction takes it.
    expected = {90: "tr", 270: "bl"}[info["rotation"]]
    assert np.abs(corners[expected].astype(int) - CORNERS["tl"]).max() < 40
    assert (info["width"], info["height"]) == (48, 64)


def test_probe(media):
    facts = probe_media(media / "late.mp4")
    assert facts["problems"] == []
    assert abs(facts["duration"] - 4.0) < 0.05
    video, audio = facts["video"], facts["audio"]
    assert (video["width"], video["height"], video["frames"], video["rotation"]) == (64, 48, 100, 0)
    assert abs(video["fps"] - 25) < 1e-6 and video["start"] == 0.0 and abs(video["duration"] - 4.0) < 1e-6
    assert (audio["sampling_rate"], audio["channels"]) == (44100, 1)
    assert abs(audio["start"] - 0.5) < 0.03
    assert probe_media(media / "silent.mp4")["audio"] is None
    assert probe_media(media / "sound.flac")["video"] is None


def test_stream_without_time_stamps(media):
    clip, _ = dense(media / "frames.h264")
    flashes = onsets(clip.frames[0][:, 16:32, 20:44].mean((1, 2, 3)) > 180, clip.frame_times[0])
    assert np.allclose(flashes, [0.8], atol=0.021)


def test_every_kind_of_source_gives_the_same_pixels(media):
    path = media / "clip.mp4"
    content = path.read_bytes()
    with path.open("rb") as file:
        sources = [str(path), path, content, bytearray(content), io.BytesIO(content), file, _Pipe(content)]
        clips = [read_media(source, plan_of(), size=(32, 32)) for source in sources]
        assert not file.closed
    for clip in clips[1:]:
        assert np.array_equal(clip.frames, clips[0].frames)
        for (at, one), (there, other) in zip(clip.audio, clips[0].audio):
            assert at == there and np.array_equal(one, other)


class _Pipe:
    """A stream that can only be read."""

    def __init__(self, content):
        self.inner = io.BytesIO(content)

    def read(self, count=-1):
        return self.inner.read(count)

    def seekable(self):
        return False


def test_sparse_reading_seeks_and_gives_the_pixels_of_reading_on(tmp_path):
    path = write_media(tmp_path / "long.mp4", seconds=20.0, gop=25, audio=None)
    with MediaFile(path) as media:
        reader = media.video_reader()
        wanted = np.array([1.01, 9.51, 18.77])
        sparse, times = reader.read(wanted, 48, 64)
        assert reader.frames_decoded < 120
        whole = media.video_reader()
        whole._may_seek = False
        slow, slow_times = whole.read(wanted, 48, 64)
        assert whole.frames_decoded > 2 * reader.frames_decoded
    assert np.array_equal(sparse, slow) and np.array_equal(times, slow_times)
    assert np.allclose(times, [1.0, 9.48, 18.76])


def test_sound_of_a_late_span_equals_the_same_part_of_all(media):
    for name in ("clip.mp4", "sound.mp3", "clip.mkv"):
        with MediaFile(media / name) as file:
            whole = next(file.audio_reader().read([[0, 64000]]))[1]
            begin, part = next(file.audio_reader().read([[40000, 48000]]))
        assert begin == 40000 and len(part) == 8000
        # Matroska rounds its time stamps to milliseconds, so there the span may lie up to half of one elsewhere.
        if name.endswith("mkv"):
            assert abs(sound_onsets(part)[0] - sound_onsets(whole[40000:48000])[0]) < 0.006
        else:
            assert np.abs(part - whole[40000:48000]).max() < 1e-4


def test_chunks_of_sound_are_what_one_piece_would_be(media):
    with MediaFile(media / "clip.mp4") as file:
        whole = next(file.audio_reader().read([[0, 60000]]))[1]
        parts = list(file.audio_reader().read([[k * 7500, (k + 1) * 7500] for k in range(8)]))
    assert np.array_equal(np.concatenate([data for _, data in parts]), whole)


def test_sound_does_not_drift_over_ten_minutes(tmp_path):
    path = write_media(
        tmp_path / "long.wav", seconds=600.0, video=None, audio="pcm_s16le", rate=11025, events=(1.0, 599.0)
    )
    with MediaFile(path) as file:
        begin, data = next(file.audio_reader().read([[598 * 16000, 600 * 16000]]))
    assert abs(begin / 16000 + np.flatnonzero(np.abs(data) > 0.1)[0] / 16000 - 599.0) < 0.005


def test_truncated_file_gives_what_is_there_with_a_warning(media):
    with pytest.warns(MediaWarning, match=r"cut\.mp4"):
        clip = read_media(media / "cut.mp4", plan_of(), size=(32, 32))
    assert clip.video_mask.any() and clip.problems


def test_damaged_packets_cost_only_themselves(media, tmp_path):
    content = bytearray((media / "faststart.mp4").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 800] = b"\xff" * 800
    (tmp_path / "damaged.mp4").write_bytes(content)
    with pytest.warns(MediaWarning, match=r"damaged\.mp4"):
        clip, _ = dense(tmp_path / "damaged.mp4")
    assert clip.frame_times[0].max() > 3.8


def test_progress_grows_to_one(media):
    seen = []
    read_media(media / "clip.mp4", plan_of(), progress=seen.append)
    assert seen == sorted(seen) and seen[-1] == pytest.approx(1.0) and len(seen) > 5


def test_limits(media):
    with pytest.raises(MediaError, match="max_duration"):
        probe_media(media / "clip.mp4", MediaLimits(max_duration=1.0))
    with pytest.raises(MediaError, match=r"silent\.mp4"):
        probe_media(media / "silent.mp4", MediaLimits(max_pixels=1000))
    with pytest.raises(MediaError, match="max_packets"):
        probe_media(media / "clip.mp4", MediaLimits(max_packets=10))
    with pytest.raises(MediaError, match="outside the limits"):
        probe_media(media / "sound.wav", MediaLimits(max_sampling_rate=8000))
    with pytest.raises(TimeoutError, match="max_seconds"):
        probe_media(media / "clip.mp4", MediaLimits(max_seconds=-1.0))
    with pytest.raises(MediaError, match="not a readable"):
        probe_media(media / "clip.mp4", MediaLimits(formats="wav"))


def test_mp4_that_claims_too_many_samples_is_refused_before_opening(media, tmp_path):
    content = bytearray((media / "silent.mp4").read_bytes())
    at = content.index(b"stsz") + 4
    content[at + 4 : at + 12] = (1).to_bytes(4, "big") + (2**28).to_bytes(4, "big")
    (tmp_path / "bomb.mp4").write_bytes(content)
    with pytest.raises(MediaError, match=r"bomb\.mp4.*stsz"):
        probe_media(tmp_path / "bomb.mp4")


def test_playlists_open_nothing(media, tmp_path):
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile {media / 'clip.mp4'}\n")
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:1,\n{media / 'clip.mp4'}\n#EXT-X-ENDLIST\n")
    for name in ("list.mp4", "list.m3u8"):
        with pytest.raises(MediaError, match=name):
            probe_media(tmp_path / name)
