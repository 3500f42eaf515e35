"""The rendered arrays show what the events say, and the encoded file shows the arrays."""

import io

import av
import numpy as np
import pytest

from mirasol_hf import SAMPLE_CLIP
from mirasol_hf.data.avscenes import sample_scene, scene_to_bytes, write_scene
from mirasol_hf.data.vocabulary import COLORS

SECONDS = {"max_seconds": 8}


@pytest.fixture(scope="module", params=[0, 1, 2])
def encoded(request):
    scene = sample_scene("test", request.param, **SECONDS)
    return scene, scene_to_bytes(scene)


def decode_frames(data):
    """(seconds [n], pictures uint8 [n, H, W, 3])"""
    with av.open(io.BytesIO(data)) as container:
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    return np.array([time for time, _ in frames]), np.stack([picture for _, picture in frames])


def decode_sound(data):
    """Samples from second 0 on, at the rate of the file."""
    with av.open(io.BytesIO(data)) as container:
        frames = list(container.decode(audio=0))
    assert frames[0].time == 0
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def band_levels(samples, rate, bands=24, window=0.1):
    """Level in dB of each band below 7 kHz in each tenth of a second."""
    size = int(window * rate)
    blocks = samples[: len(samples) // size * size].reshape(-1, size) * np.hanning(size).astype(np.float32)
    power = np.abs(np.fft.rfft(blocks))[:, : int(7000 * window)] ** 2
    parts = np.array_split(power, bands, axis=1)
    return 10 * np.log10(np.stack([part.mean(1) for part in parts], 1) / size + 1e-7)


def test_the_file_holds_the_rendered_pictures_at_their_times(encoded):
    scene, data = encoded
    times, pictures = decode_frames(data)
    assert np.allclose(times, np.arange(scene.num_frames) / scene.fps, atol=1e-6)
    rendered = scene.render_frames(times)
    assert pictures.shape == rendered.shape == (scene.num_frames, scene.size, scene.size, 3)
    difference = np.abs(pictures.astype(int) - rendered).mean((1, 2, 3))
    assert difference.mean() < 2.5 and difference.max() < 6
    # One frame off would show.
    assert np.abs(pictures[1:].astype(int) - rendered[:-1]).mean() > difference.mean()


def test_the_file_holds_the_rendered_sound_without_delay(encoded):
    scene, data = encoded
    decoded, rendered = decode_sound(data), scene.render_audio(scene.sampling_rate)
    assert len(rendered) <= len(decoded) < len(rendered) + 2048
    decoded = decoded[: len(rendered)]
    assert np.corrcoef(decoded, rendered)[0, 1] > 0.995
    levels = band_levels(decoded, scene.sampling_rate), band_levels(rendered, scene.sampling_rate)
    loud = levels[1] > -50
    assert np.abs(levels[0] - levels[1])[loud].mean() < 0.5


def test_the_file_says_what_it_is(encoded):
    scene, data = encoded
    with av.open(io.BytesIO(data)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert container.format.name.startswith("mov,mp4")
        assert (video.codec_context.name, video.pix_fmt, video.width) == ("h264", "yuv420p", scene.size)
        assert (audio.codec_context.name, audio.rate, audio.channels) == ("aac", scene.sampling_rate, 1)
        assert video.average_rate == scene.fps
        assert container.duration / av.time_base == pytest.approx(scene.duration, abs=0.1)


def test_a_pipe_can_carry_the_clip(encoded):
    for data in (encoded[1], SAMPLE_CLIP.read_bytes()):
        assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_the_bytes_are_the_same_each_time(encoded, tmp_path):
    scene, data = encoded
    assert scene_to_bytes(scene) == data
    path = tmp_path / "clip.mp4"
    path.write_text("old")
    write_scene(scene, path)
    assert path.read_bytes() == data
    assert [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    scene = sample_scene("test", 0, **SECONDS)
    with pytest.raises(FileNotFoundError, match="missing"):
        write_scene(scene, tmp_path / "missing" / "clip.mp4")
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        write_scene(scene, tmp_path)


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    scene = sample_scene("test", 0, **SECONDS)
    monkeypatch.setattr("mirasol_hf.data.encoding._pictures", lambda scene: iter([np.zeros((3, 3), np.uint8)]))
    with pytest.raises(Exception):  # noqa: B017 (whatever the encoder says)
        write_scene(scene, tmp_path / "clip.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_picture_is_the_same_at_every_size():
    scene = sample_scene("test", 4, **SECONDS)
    times = np.linspace(0.1, scene.duration - 0.1, 12)
    small, large = scene.render_frames(times, 64), scene.render_frames(times, 128)
    reduced = large.reshape(12, 64, 2, 64, 2, 3).mean((2, 4))
    assert np.abs(reduced - small).mean() < 1.0


def test_the_frame_on_screen_is_shown():
    scene = sample_scene("test", 4, **SECONDS)
    numbers = np.arange(scene.num_frames)
    exact = scene.render_frames(numbers / scene.fps, 32)
    assert np.array_equal(scene.render_frames((numbers + 0.99) / scene.fps, 32), exact)
    beyond = scene.render_frames([-1.0, scene.duration + 5.0], 32)
    assert np.array_equal(beyond, exact[[0, -1]])
    assert scene.render_frames([], 32).shape == (0, 32, 32, 3)


def test_the_right_colour_is_where_the_event_is():
    names, anchors = list(COLORS), np.array(list(COLORS.values()))
    for index in range(40):
        scene = sample_scene("train", index)
        middles = [(event.start + event.end) / 2 for event in scene.events]
        for event, picture in zip(scene.events, scene.render_frames(middles, 64), strict=True):
            bright = picture[picture.max(-1) > 130].astype(int)
            assert 0.05 < len(bright) / 64**2 < 0.3
            nearest = np.abs(bright[:, None] - anchors).sum(-1).argmin(1)
            assert names[np.bincount(nearest).argmax()] == event.color


def test_blanks_between_events_show_no_shape():
    blanks = 0
    for index in range(40):
        scene = sample_scene("train", index)
        for before, after in zip(scene.events, scene.events[1:], strict=False):
            number = np.ceil(before.end * scene.fps)
            if number / scene.fps < after.start:
                assert scene.render_frames([number / scene.fps], 64).max() < 130
                blanks += 1
    assert blanks > 10


def test_shapes_cover_what_their_outline_encloses():
    """Share of the circle around each shape that it fills, which tells the five apart."""
    filled = {}
    for index in range(60):
        scene = sample_scene("train", index)
        for event in scene.events:
            picture = scene.render_frames([(event.start + event.end) / 2], 128)[0]
            disc = np.pi * (event.diameter * 64) ** 2
            filled.setdefault(event.shape, []).append((picture.max(-1) > 130).sum() / disc)
    expected = {"circle": 0.90, "square": 0.81, "triangle": 0.56, "star": 0.42, "cross": 0.64}
    for shape, share in expected.items():
        assert np.mean(filled[shape]) == pytest.approx(share, rel=0.15), shape
        assert np.std(filled[shape]) < 0.03


def test_sound_has_its_pitch_and_silence_its_floor():
    """Centre of the spectrum in the middle of each event."""
    ranges = {"low tone": (150, 400), "high tone": (1400, 2500), "beeps": (600, 800), "siren": (480, 1220)}
    seen = set()
    for index in range(25):
        scene = sample_scene("train", index, max_seconds=10)
        track = scene.render_audio()
        for event in scene.events:
            first, last = (int(second * 16000) for second in (event.sound_start, event.sound_end))
            part = track[first:last]
            seen.add(event.sound)
            if event.sound == "silence":
                part = track[int((event.sound_start + 0.01) * 16000) : last - 160]
                assert np.sqrt(np.mean(part**2)) < 10 ** (-44 / 20)
                continue
            assert np.sqrt(np.mean(part**2)) > 10 ** (-36 / 20)
            power = np.abs(np.fft.rfft(part * np.hanning(len(part)))) ** 2
            hertz = np.fft.rfftfreq(len(part), 1 / 16000)
            if event.sound == "noise":
                assert power[hertz > 3000].sum() > 0.4 * power.sum()
                continue
            low, high = ranges[event.sound]
            inside = (hertz >= low) & (hertz <= high)
            assert power[inside].sum() > 0.9 * power.sum(), event.sound
    assert len(seen) == 6


def test_beeps_come_and_go():
    scene = next(s for s in (sample_scene("train", i) for i in range(50)) if s.events[0].sound == "beeps")
    event, track = scene.events[0], scene.render_audio()
    blocks = track[int(event.sound_start * 16000) : int(event.sound_end * 16000)]
    loudness = np.abs(blocks[: len(blocks) // 400 * 400]).reshape(-1, 400).max(1)
    on = loudness > event.level / 2
    assert 0.35 < on.mean() < 0.65
    beeps = np.sum(on[1:] & ~on[:-1]) + on[0]
    assert beeps == pytest.approx((event.sound_end - event.sound_start) / event.period, abs=1)


def test_every_sampling_rate_carries_the_same_sound():
    scene = sample_scene("train", 2, **SECONDS)
    low, high = scene.render_audio(16000), scene.render_audio(48000)
    assert low.dtype == high.dtype == np.float32 and len(high) == 3 * len(low)
    assert np.abs(low).max() <= 1
    spectra = band_levels(low, 16000), band_levels(high, 48000)
    count = min(len(part) for part in spectra)
    assert np.abs(spectra[0][:count] - (spectra[1][:count] - 10 * np.log10(3))).mean() < 0.5
