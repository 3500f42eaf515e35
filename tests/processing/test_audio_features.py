import sys

import numpy as np
import pytest
import torch
from child import in_child
from media_maker import tone

from mirasol_hf.processing.chunk_plan_mirasol import plan_chunks
from mirasol_hf.processing.feature_extraction_mirasol import MirasolFeatureExtractor

RATE = 16000


@pytest.fixture(scope="module")
def extractor():
    return MirasolFeatureExtractor()


def windows(seconds, chunks):
    return plan_chunks(0.0, seconds, num_chunks=chunks, frames_per_chunk=8).windows


def sine(hertz, seconds=4.0):
    return np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE).astype(np.float32)


@pytest.mark.parametrize("hertz", [150.0, 440.0, 1000.0, 3000.0, 7000.0])
def test_full_scale_sine_is_about_zero_decibels_in_its_own_bin(extractor, hertz):
    features, mask = extractor.extract_chunks(sine(hertz), windows(4.0, 4))
    loudest = features[1:3].amax(-1) * 40 - 40
    assert mask.tolist() == [1, 1, 1, 1]
    assert ((loudest > -4.0) & (loudest < 4.0)).all()
    bins = features[1:3].argmax(-1)
    assert (bins == bins[0, 0]).all()


def test_silence_is_the_floor_and_finite(extractor):
    features, _ = extractor.extract_chunks(np.zeros(RATE, dtype=np.float32), windows(1.0, 2))
    assert torch.equal(features, torch.full_like(features, -1.0))


def test_a_step_covers_its_share_of_the_window(extractor):
    """A burst in one 62.5 ms step raises this step, its neighbours at most by the window's overlap, no other."""
    wave = np.zeros(2 * RATE, dtype=np.float32)
    wave[10 * 1000 : 11 * 1000] = sine(1000.0)[:1000]
    features, _ = extractor.extract_chunks(wave, windows(2.0, 1))
    loud = features[0].amax(-1) > -0.5
    assert loud[10] and not loud[:9].any() and not loud[12:].any()


def test_chunks_depend_on_their_own_samples_only(extractor):
    wave = np.random.default_rng(0).normal(0, 0.1, 4 * RATE).astype(np.float32)
    whole, _ = extractor.extract_chunks(wave, windows(4.0, 4))
    other = wave.copy()
    other[: 2 * RATE] = 0
    changed, _ = extractor.extract_chunks(other, windows(4.0, 4))
    alone, _ = extractor.extract_chunks(wave[2 * RATE : 3 * RATE], windows(4.0, 4)[2:3], origin=2.0)
    assert torch.equal(whole[2:], changed[2:]) and torch.equal(whole[2:3], alone)
    assert not torch.equal(whole[:2], changed[:2])


def test_windows_without_samples_are_masked(extractor):
    wave = sine(500.0, 1.0)
    features, mask = extractor.extract_chunks(wave, windows(4.0, 8), origin=1.25)
    assert mask.tolist() == [0, 0, 1, 1, 1, 0, 0, 0]
    assert torch.equal(features[mask == 0], torch.zeros_like(features[mask == 0]))


@pytest.mark.parametrize("seconds", [0.006, 0.05, 0.31, 7.7, 130.0])
def test_any_duration_gives_the_same_shape(extractor, seconds):
    wave = sine(700.0, seconds)
    features, mask = extractor.extract_chunks(wave, windows(seconds, 3))
    assert features.shape == (3, 32, 64) and mask.sum() == 3
    assert torch.isfinite(features).all()


def test_a_long_chunk_is_what_it_would_be_in_one_piece(extractor, monkeypatch):
    """Whatever the pieces its sound comes in, gaps of any length between them."""
    chance = np.random.default_rng(3)
    position, pieces, wave = 700, [], np.zeros(150 * RATE, np.float32)
    while position < len(wave):
        part = chance.normal(0, 0.1, int(chance.choice((1, 37, 5000, 400_000)))).astype(np.float32)
        part = part[: len(wave) - position]
        wave[position : position + len(part)] = part
        pieces.append((position + 3 * RATE, part))
        position += len(part) + int(chance.choice((0, 1, 399, 400, 401, 9000, 300_000)))
    window = (3.0, 153.0)
    features, mask = extractor.extract_pieces(iter(pieces), window)
    monkeypatch.setattr("mirasol_hf.processing.feature_extraction_mirasol.FRAMES_PER_BLOCK", 10**9)
    whole, _ = extractor.extract_chunks(wave, [window], origin=3.0)
    assert len(pieces) > 10 and mask.tolist() == [1] and (whole > -1).any() and (whole == -1).any()
    assert torch.allclose(features, whole, atol=1e-5)


@pytest.mark.skipif(sys.platform != "linux", reason="the child's memory limit needs /proc")
def test_time_without_sound_costs_nothing(extractor):
    """Two days with a tone at either end; the window of samples alone would be 11 GB."""
    end = 170_000 * RATE
    pieces = [(0, sine(440.0, 1.0)), (end - RATE, sine(1000.0, 1.0))]
    features = in_child(lambda: extractor.extract_pieces(pieces, (0.0, 170_000.0))[0].numpy(), headroom=3 * 10**8)
    assert np.flatnonzero(features[0].max(-1) > -1).tolist() == [0, 31]
    mask = extractor.extract_pieces(pieces, (2.0, 169_998.0))[1]
    assert mask.tolist() == [0]


def test_rounded_window_lengths_do_not_change_neighbours(extractor):
    """Windows whose sample counts differ by one give what each gives alone."""
    wave = sine(300.0, 1.0)
    cut = windows(1.0, 7)
    together, _ = extractor.extract_chunks(wave, cut)
    for k in range(7):
        alone, _ = extractor.extract_chunks(wave, cut[k : k + 1])
        assert torch.equal(together[k : k + 1], alone)


def test_pitch_and_moment_are_readable(extractor):
    low = extractor.extract_chunks(tone(2.0, RATE, [1.0], 0.5, 400.0), windows(2.0, 2))[0]
    high = extractor.extract_chunks(tone(2.0, RATE, [1.0], 0.5, 2000.0), windows(2.0, 2))[0]
    assert low[0].max() < -0.9 and low[1].max() > 0
    assert low[1, 5].argmax() < high[1, 5].argmax()


def test_128_bins_have_no_empty_filter():
    noise = np.random.default_rng(1).normal(0, 0.1, RATE).astype(np.float32)
    features, _ = MirasolFeatureExtractor(num_mel_bins=128, num_steps=96).extract_chunks(noise, windows(1.0, 1))
    assert features.shape == (1, 96, 128) and (features > -1).all()


def test_call_on_waveforms(extractor):
    out = extractor([sine(500.0, 1.0), sine(500.0, 2.0)], sampling_rate=RATE, num_chunks=2, return_tensors="pt")
    assert out["input_features"].shape == (2, 2, 32, 64) and out["audio_mask"].tolist() == [[1, 1], [1, 1]]
    with pytest.raises(ValueError, match="sampling_rate=8000"):
        extractor(sine(500.0), sampling_rate=8000)
    with pytest.raises(ValueError, match="one-dimensional"):
        extractor.extract_chunks(np.zeros((2, 10), np.float32), windows(1.0, 1))
