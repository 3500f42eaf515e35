"""What a sampled clip is: always the same one, within its limits, and pictured and sounded as described."""

from itertools import pairwise

import numpy as np
import pytest

from mirasol_hf.data.avscenes import HELD_OUT_PAIRS, SPLITS, Scene, sample_scene

RATE = 16000


def many(split: str, count: int = 60) -> list[Scene]:
    return [sample_scene(split, index) for index in range(count)]


@pytest.mark.parametrize("split", SPLITS)
def test_a_scene_is_fixed_by_split_and_index(split):
    first, again = (sample_scene(split, 7, min_seconds=4, max_seconds=6) for _ in range(2))
    assert first == again
    times = np.linspace(0, first.duration, 5)
    assert np.array_equal(first.render_frames(times, 64), again.render_frames(times, 64))
    assert np.array_equal(first.render_audio(RATE), again.render_audio(RATE))
    assert first.questions(seed=3) == again.questions(seed=3)


def test_splits_share_no_seed_and_no_clip():
    scenes = [scene for split in SPLITS for scene in many(split)]
    assert len({scene.seed for scene in scenes}) == len(scenes)
    assert len({scene.events for scene in scenes}) == len(scenes)


def test_held_out_pairs_are_seen_in_the_compositional_split_only():
    for split in ("train", "validation", "test"):
        for scene in many(split, 200):
            assert not {(event.color, event.shape) for event in scene.events} & HELD_OUT_PAIRS
    unseen = [{(e.color, e.shape) for e in scene.events} & HELD_OUT_PAIRS for scene in many("compositional", 200)]
    assert all(unseen)
    assert set.union(*unseen) == HELD_OUT_PAIRS


def test_every_color_and_shape_of_a_held_out_pair_is_trained_apart():
    pairs = {(event.color, event.shape) for scene in many("train", 200) for event in scene.events}
    for color, shape in HELD_OUT_PAIRS:
        assert color in {pair[0] for pair in pairs}
        assert shape in {pair[1] for pair in pairs}


@pytest.mark.parametrize("split", SPLITS)
def test_events_follow_each_other_inside_the_clip(split):
    for scene in many(split):
        events = scene.events
        assert 4 <= scene.duration <= 64
        assert 2 <= len(events) <= 5
        assert events[0].start == 0 and events[-1].end == scene.duration
        for event in events:
            assert event.end - event.start >= 1.2 * scene.duration / 8
            assert 0 <= event.sound_start < event.sound_end <= scene.duration
            heard_with_it = min(event.end, event.sound_end) - max(event.start, event.sound_start)
            assert heard_with_it >= 0.6 * (event.end - event.start)
        for before, after in pairwise(events):
            assert before.end <= after.start
            assert before.sound_end <= after.sound_start
            assert before.color != after.color and before.shape != after.shape and before.sound != after.sound


def test_durations_reach_both_limits_and_are_whole_frames():
    for index in range(60):
        scene = sample_scene("train", index, min_seconds=5, max_seconds=5.5)
        assert 5 <= scene.duration <= 5.5
        assert scene.num_frames / scene.fps == scene.duration
    lengths = [scene.duration for scene in many("train", 200)]
    assert min(lengths) < 5 and max(lengths) > 50


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_the_number_of_events_can_be_fixed(count):
    assert {len(sample_scene("train", i, num_events=count).events) for i in range(10)} == {count}


def test_pictures_show_the_described_colors():
    for index in range(12):
        scene = sample_scene("test", index, min_seconds=4, max_seconds=8)
        for event in scene.events:
            time = (event.start + event.end) / 2
            # The centre of every shape is filled, and half way along the path lies where the picture is half done.
            progress = (np.floor(time * scene.fps + 1e-6) / scene.fps - event.start) / (event.end - event.start)
            x, y = np.array(event.path[:2]) * (1 - progress) + np.array(event.path[2:]) * progress
            picture = scene.render_frames([time], 64)[0]
            assert np.abs(picture[int(y * 64), int(x * 64)].astype(int) - event.rgb).max() <= 2


def test_pictures_rendered_small_equal_large_ones_scaled_down():
    scene = sample_scene("test", 2, min_seconds=4, max_seconds=6)
    times = np.linspace(0, scene.duration, 8)
    large = scene.render_frames(times, 256).reshape(8, 64, 4, 64, 4, 3).mean((2, 4))
    assert np.abs(scene.render_frames(times, 64) - large).mean() < 0.7


def test_sound_is_loud_where_described_and_quiet_elsewhere():
    for index in range(12):
        scene = sample_scene("test", index, min_seconds=4, max_seconds=8)
        sound = scene.render_audio(RATE)
        clock = np.arange(len(sound)) / RATE
        elsewhere = np.ones(len(sound), dtype=bool)
        background = scene.noise_level
        for event in scene.events:
            within = (clock >= event.sound_start) & (clock < event.sound_end)
            if event.sound == "silence":
                continue
            elsewhere &= ~within
            assert np.sqrt(np.mean(sound[within] ** 2)) > 5 * background
        if elsewhere.sum() > 100:
            assert np.sqrt(np.mean(sound[elsewhere] ** 2)) < 1.5 * background


def test_tones_are_the_same_signal_at_every_rate():
    compared = set()
    for index in range(8):
        scene = sample_scene("test", index, min_seconds=4, max_seconds=6)
        once, twice = scene.render_audio(RATE), scene.render_audio(2 * RATE)[::2]
        for event in scene.events:
            # Two renderings of a noise may be half a sample apart, which is nothing to hear but much to correlate.
            if event.sound in ("noise", "silence"):
                continue
            span = slice(int(event.sound_start * RATE) + 1, int(event.sound_end * RATE) - 1)
            assert np.corrcoef(once[span], twice[span])[0, 1] > 0.999
            compared.add(event.sound)
    assert compared == {"low tone", "high tone", "beeps", "siren"}


def test_times_beyond_the_clip_show_its_first_and_last_frame():
    scene = sample_scene("train", 0, min_seconds=4, max_seconds=6)
    last = (scene.num_frames - 1) / scene.fps
    outside = scene.render_frames([-3.0, scene.duration, scene.duration + 9], 64)
    inside = scene.render_frames([0.0, last, last], 64)
    assert np.array_equal(outside, inside)


@pytest.mark.parametrize(
    ("split", "index", "options", "named"),
    [
        ("dev", 0, {}, "split"),
        ("train", -1, {}, "index"),
        ("train", True, {}, "index"),
        ("train", 1.5, {}, "index"),
        ("train", 0, {"min_seconds": 1}, "min_seconds"),
        ("train", 0, {"min_seconds": 9, "max_seconds": 8}, "max_seconds"),
        ("train", 0, {"max_seconds": 601}, "max_seconds"),
        ("train", 0, {"max_seconds": float("nan")}, "max_seconds"),
        ("train", 0, {"num_events": 1}, "num_events"),
        ("train", 0, {"num_events": 6}, "num_events"),
    ],
)
def test_scenes_outside_the_limits_are_refused(split, index, options, named):
    with pytest.raises(ValueError, match=named):
        sample_scene(split, index, **options)


@pytest.mark.parametrize(
    ("times", "size", "named"),
    [([[0.0]], 64, "times"), ([float("nan")], 64, "times"), ([0.0], 7, "size"), ([0.0], 64.0, "size")],
)
def test_pictures_that_cannot_be_rendered_are_refused(times, size, named):
    with pytest.raises(ValueError, match=named):
        sample_scene("train", 0).render_frames(times, size)


@pytest.mark.parametrize("rate", [0, 7999, 192001, 16000.0, True])
def test_sampling_rates_outside_the_limits_are_refused(rate):
    with pytest.raises(ValueError, match="sampling_rate"):
        sample_scene("train", 0).render_audio(rate)
