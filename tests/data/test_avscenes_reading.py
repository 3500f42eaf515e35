"""Training renders arrays, evaluation reads files: through the package's own reader both must be the same clip."""

import numpy as np
import pytest

from mirasol_hf.data.avscenes import sample_scene, write_scene
from mirasol_hf.processing.chunk_plan_mirasol import plan_chunks, sample_ranges
from mirasol_hf.processing.feature_extraction_mirasol import MirasolFeatureExtractor
from mirasol_hf.processing.media_mirasol import probe_media, read_media

CHUNKS, FRAMES, RATE = 8, 8, 16000


# Together these have every sound, all four sampling rates, and pictures of 64, 96 and 128 pixels.
@pytest.fixture(scope="module", params=[("test", 1), ("test", 2), ("validation", 4), ("compositional", 1)])
def clip(request, tmp_path_factory):
    """A scene, its file, and the file cut into chunks."""
    scene = sample_scene(*request.param, min_seconds=4, max_seconds=8)
    path = tmp_path_factory.mktemp("reading") / "clip.mp4"
    write_scene(scene, path)
    size = (scene.size, scene.size)
    read = read_media(path, lambda end: plan_chunks(0, end, num_chunks=CHUNKS, frames_per_chunk=FRAMES), size=size)
    return scene, path, read


def rendered_chunks(scene, plan):
    """The fast path: samples of each window of the plan."""
    sound = scene.render_audio(RATE)
    return [sound[first:last] for first, last in sample_ranges(plan.windows, RATE)]


def test_the_file_lasts_as_long_as_the_scene(clip):
    scene, path, read = clip
    facts = probe_media(path)
    assert facts["problems"] == []
    assert facts["duration"] == pytest.approx(scene.duration, abs=1e-3)
    assert read.plan.windows[-1, 1] == pytest.approx(scene.duration, abs=1e-3)
    for stream in ("video", "audio"):
        assert facts[stream]["start"] == pytest.approx(0, abs=1e-3)
        assert facts[stream]["duration"] == pytest.approx(scene.duration, abs=1e-3)
    assert facts["video"]["frames"] == scene.num_frames
    assert facts["video"]["fps"] == pytest.approx(scene.fps)
    assert (facts["video"]["width"], facts["video"]["height"]) == (scene.size, scene.size)
    assert (facts["audio"]["sampling_rate"], facts["audio"]["channels"]) == (scene.sampling_rate, 1)


def test_frames_land_on_the_same_instants(clip):
    scene, _, read = clip
    shown = np.floor(read.plan.frame_times * scene.fps + 1e-6) / scene.fps
    assert read.video_mask.all()
    assert np.allclose(read.frame_times, shown, atol=1e-6)


def test_frames_differ_by_the_codec_only(clip):
    scene, _, read = clip
    rendered = scene.render_frames(read.plan.frame_times.reshape(-1)).reshape(read.frames.shape)
    difference = np.abs(read.frames.astype(int) - rendered).mean((2, 3, 4))
    assert difference.mean() < 3.5 and difference.max() < 5


def test_frames_read_small_equal_frames_rendered_small(clip):
    scene, path, read = clip
    small = read_media(path, lambda end: read.plan, size=(64, 64)).frames
    rendered = scene.render_frames(read.plan.frame_times.reshape(-1), 64).reshape(small.shape)
    assert np.abs(small.astype(int) - rendered).mean() < 3.5


def test_every_chunk_has_as_many_samples(clip):
    scene, _, read = clip
    for (start, decoded), rendered, window in zip(read.audio, rendered_chunks(scene, read.plan), read.plan.windows):
        assert start == pytest.approx(window[0], abs=1 / RATE)
        assert abs(len(decoded) - len(rendered)) <= 1


def test_sound_differs_by_the_codec_only(clip):
    scene, _, read = clip
    decoded, rendered = np.concatenate([part for _, part in read.audio]), scene.render_audio(RATE)
    for event in scene.events:
        if event.sound == "silence":
            continue
        span = slice(int(event.sound_start * RATE) + 1, int(event.sound_end * RATE) - 1)
        agreement = np.corrcoef(decoded[span], rendered[span])[0, 1]
        # A noise rendered at another rate than it is read at may lie half a sample off.
        shifted = event.sound == "noise" and scene.sampling_rate != RATE
        assert agreement > (0.5 if shifted else 0.99), event


def test_features_of_the_sound_differ_little(clip):
    scene, _, read = clip
    extractor = MirasolFeatureExtractor(num_mel_bins=64, num_steps=32)
    fast, mask = extractor.extract_chunks(scene.render_audio(RATE), read.plan.windows)
    slow = np.zeros_like(fast)
    for k, (start, decoded) in enumerate(read.audio):
        slow[k] = extractor.extract_chunks(decoded, read.plan.windows[k : k + 1], origin=start)[0][0]
    assert mask.all()
    # One unit is 40 dB.
    difference = np.abs(fast.numpy() - slow)
    loud = fast.numpy() > fast.numpy().max() - 0.75
    assert difference[loud].mean() < 0.015
    assert difference.mean() < 0.02
