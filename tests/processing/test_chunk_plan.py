import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirasol_hf.processing.chunk_plan_mirasol import (
    SAME_INSTANT,
    pick_frames,
    plan_chunks,
    plan_request,
    resolve_geometry,
    resolve_num_chunks,
    sample_ranges,
)
from mirasol_hf.processing.clips_mirasol import FramesClip, SoundClip

seconds = st.floats(0.0, 1e5, allow_nan=False)
lengths = st.floats(1e-3, 4e4, allow_nan=False)


@settings(max_examples=200, deadline=None)
@given(seconds, lengths, st.integers(1, 80), st.integers(1, 64))
def test_windows_cover_the_span_without_gap_or_overlap(start, length, chunks, frames):
    plan = plan_chunks(start, start + length, num_chunks=chunks, frames_per_chunk=frames)
    assert plan.windows.shape == (chunks, 2) and plan.frame_times.shape == (chunks, frames)
    assert plan.windows[0, 0] == start and plan.windows[-1, 1] == start + length
    assert np.array_equal(plan.windows[1:, 0], plan.windows[:-1, 1])
    assert (plan.windows[:, 1] >= plan.windows[:, 0]).all()
    assert np.allclose(np.diff(plan.windows, axis=1), length / chunks, rtol=1e-6, atol=1e-7)


@settings(max_examples=200, deadline=None)
@given(st.floats(0.0, 1e4), st.floats(0.5, 1e4), st.integers(1, 40), st.integers(1, 64))
def test_frame_times_lie_in_their_window_in_order(start, length, chunks, frames):
    plan = plan_chunks(start, start + length, num_chunks=chunks, frames_per_chunk=frames)
    assert (plan.frame_times > plan.windows[:, :1]).all() and (plan.frame_times < plan.windows[:, 1:]).all()
    assert (np.diff(plan.frame_times.reshape(-1)) > 0).all()


@settings(max_examples=200, deadline=None)
@given(st.floats(0.0, 1e4), st.floats(1e-3, 1e4), st.integers(1, 64), st.sampled_from([8000, 16000, 44100]))
def test_every_sample_belongs_to_exactly_one_window(start, length, chunks, rate):
    plan = plan_chunks(start, start + length, num_chunks=chunks, frames_per_chunk=1)
    ranges = sample_ranges(plan.windows, rate)
    assert np.array_equal(ranges[1:, 0], ranges[:-1, 1])
    assert ranges[0, 0] == round(start * rate) and ranges[-1, 1] == round((start + length) * rate)
    assert np.abs(ranges / rate - plan.windows).max() <= 0.5 / rate + 1e-9


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(0.0, 100.0), min_size=1, max_size=40).map(sorted),
    st.lists(st.floats(-5.0, 110.0), min_size=1, max_size=40),
)
def test_the_frame_on_screen_is_the_last_one_before(presented, wanted):
    for index, instant in zip(pick_frames(presented, wanted), wanted):
        shown = [i for i, time in enumerate(presented) if time <= instant + SAME_INSTANT]
        assert index == (shown[-1] if shown else 0)


def test_variable_frame_rate_is_picked_by_time_not_by_index():
    presented = [0.0, 0.1, 0.2, 2.0, 2.1]
    assert pick_frames(presented, [0.15, 1.0, 1.99, 2.05, 9.0]).tolist() == [1, 2, 2, 3, 4]


def test_number_of_chunks():
    assert resolve_num_chunks(10.0, 8, default=8) == 8
    assert resolve_num_chunks(10.0, 8, num_frames=128) == 16
    assert resolve_num_chunks(10.0, 8, num_chunks=5) == 5
    assert resolve_num_chunks(2.0, 8, fps=4) == 1
    assert resolve_num_chunks(2.1, 8, fps=4) == 2
    assert resolve_num_chunks(0.04, 8, fps=1) == 1
    assert resolve_geometry(10.0, 8, num_frames=32, num_chunks=2) == (2, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_frames": 12}, "multiple of the 8"),
        ({"num_frames": 16, "fps": 2}, "not both"),
        ({"fps": 0}, "fps must be"),
        ({"fps": float("nan")}, "fps must be"),
        ({"num_chunks": 0}, "num_chunks"),
        ({"num_chunks": 2, "fps": 4}, "num_chunks=2"),
        ({"num_chunks": True}, "num_chunks"),
    ],
)
def test_requests_that_cannot_be_met(arguments, message):
    with pytest.raises(ValueError, match=message):
        resolve_num_chunks(10.0, 8, **arguments)


@pytest.mark.parametrize(("start", "end"), [(1.0, 1.0), (2.0, 1.0), (0.0, float("inf")), (float("nan"), 1.0)])
def test_spans_that_are_none(start, end):
    with pytest.raises(ValueError, match="start"):
        plan_chunks(start, end, num_chunks=2, frames_per_chunk=8)


@settings(max_examples=200, deadline=None)
@given(st.floats(0.0, 1e4), st.floats(1e-3, 4e4), st.floats(0.05, 600.0), st.integers(1, 64))
def test_windows_of_a_given_duration_cover_the_span(start, length, duration, frames):
    if length / duration > 2e5:
        duration = length / 2e5
    plan = plan_request(start, start + length, frames, chunk_seconds=duration)
    assert plan.windows[0, 0] == start and plan.frames_per_chunk == frames
    assert plan.windows[-1, 1] >= start + length - 2e-6 * duration
    assert plan.windows[-1, 0] < start + length
    assert np.array_equal(plan.windows[1:, 0], plan.windows[:-1, 1])
    assert np.allclose(np.diff(plan.windows, axis=1), duration, rtol=1e-6, atol=1e-7)


def test_requests_in_seconds():
    assert plan_request(0.0, 3.0, 8, chunk_seconds=1.0).frame_times.shape == (3, 8)
    assert plan_request(0.0, 3.01, 8, chunk_seconds=1.0).frame_times.shape == (4, 8)
    assert plan_request(0.0, 3.0, 8, chunk_seconds=1.0, fps=4).frame_times.shape == (3, 4)
    assert plan_request(0.0, 3.0, 8, chunk_seconds=1.0, num_frames=48).frame_times.shape == (3, 16)
    assert plan_request(0.0, 0.04, 8, chunk_seconds=30.0).windows.tolist() == [[0.0, 30.0]]
    assert plan_request(0.0, 8.0, 8, num_frames=32).frame_times.shape == (4, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chunk_seconds": 1.0, "num_chunks": 3}, "not both"),
        ({"chunk_seconds": 0.0}, "positive"),
        ({"chunk_seconds": float("nan")}, "positive"),
        ({"chunk_seconds": 1.0, "fps": -1.0}, "fps must be"),
        ({"chunk_seconds": 1.0, "fps": 2.0, "num_frames": 9}, "not both"),
        ({"chunk_seconds": 1.0, "num_frames": 8}, "cannot be divided"),
    ],
)
def test_requests_in_seconds_that_cannot_be_met(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan_request(0.0, 3.0, 8, **arguments)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 4000), min_size=1, max_size=30, unique=True).map(sorted),
    st.integers(1, 500),
    st.integers(0, 5000),
    st.integers(1, 5000),
    st.integers(1, 12),
    st.integers(1, 6),
)
def test_pictures_lie_in_their_window_and_masks_say_what_is_real(ticks, last, begin, length, chunks, frames):
    """Frames at whole milliseconds, each a picture of its own number; windows anywhere."""
    pictures = np.repeat(np.arange(len(ticks), dtype=np.uint8), 12).reshape(-1, 2, 2, 3)
    clip = FramesClip(pictures, np.array(ticks) / 1000, (ticks[-1] + last) / 1000)
    plan = plan_chunks(begin / 1000, (begin + length) / 1000, num_chunks=chunks, frames_per_chunk=frames)
    on_screen = [low < clip.end and high > clip.times[0] for low, high in plan.windows]
    found = clip.read_pictures(plan, 2, 2)
    if found is None:
        assert not any(on_screen)
        return
    shown, times, mask = found
    assert mask.tolist() == on_screen
    numbers = shown[..., 0, 0, 0].numpy()
    for k in np.flatnonzero(mask):
        for f, wanted in enumerate(plan.frame_times[k]):
            begun = [i for i, tick in enumerate(ticks) if tick / 1000 <= wanted + SAME_INSTANT]
            assert numbers[k, f] == (begun[-1] if begun else 0)
            assert times[k, f] == clip.times[numbers[k, f]]
    assert not numbers[~mask].any()


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 20_000), st.integers(0, 30_000), st.integers(1, 30_000), st.integers(1, 40))
def test_samples_lie_in_their_window_and_none_is_lost_or_doubled(samples, begin, length, chunks):
    wave = np.arange(1, samples + 1, dtype=np.float32)
    plan = plan_chunks(begin / 16000, (begin + length) / 16000, num_chunks=chunks, frames_per_chunk=1)
    chunks_of_one = [list(pieces) for pieces in SoundClip(wave, 16000).read_sound(plan, 16000)]
    parts = [(position / 16000, part) for ((position, part),) in chunks_of_one]
    for (second, part), (low, high) in zip(parts, plan.windows):
        assert len(part) == 0 or low - 1 / 16000 <= second <= second + len(part) / 16000 <= high + 1 / 16000
    assert np.array_equal(np.concatenate([part for _, part in parts]), wave[begin : begin + length])
