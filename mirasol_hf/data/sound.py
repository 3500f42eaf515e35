"""Synthesises the sound track of an AVScenes clip."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .vocabulary import SILENCE

if TYPE_CHECKING:
    from .scene import Event, Scene

Samples = NDArray[np.float32]

_RAMP_SECONDS = 0.03
_BEEP_RAMP_SECONDS = 0.01
_SIREN_SWING_HZ = 350.0
# White noise is louder than a tone of the same peak; this is its standard deviation relative to `level`.
_NOISE_SCALE = 0.4
_NOISE_RATE = 16000
_BACKGROUND_STREAM, _EVENT_STREAM = 2, 3


def render_audio(scene: Scene, sampling_rate: int) -> Samples:
    """The whole track, mono float32 [round(duration * sampling_rate)] in [-1, 1].

    Nothing in it lies above 8 kHz, so every sampling rate of at least 16 kHz carries the same signal; only a noise
    begins on a whole sample and so may lie half a sample off. Raises `ValueError` unless `sampling_rate` is a whole
    number of 8000 to 192000 hertz.
    """
    whole = isinstance(sampling_rate, int | np.integer) and not isinstance(sampling_rate, bool)
    if not whole or not 8000 <= sampling_rate <= 192000:
        raise ValueError(f"sampling_rate must be a whole number from 8000 to 192000 hertz, got {sampling_rate!r}")
    length = scene.num_samples(sampling_rate)
    track = _noise((*scene.seed, _BACKGROUND_STREAM), scene.duration, length, sampling_rate)
    track *= np.float32(scene.noise_level)
    for number, event in enumerate(scene.events):
        if event.sound == SILENCE:
            continue
        first, last = round(event.sound_start * sampling_rate), min(round(event.sound_end * sampling_rate), length)
        track[first:last] += _event_samples(event, first, last, sampling_rate, (*scene.seed, _EVENT_STREAM, number))
    return np.clip(track, -1.0, 1.0)


def _event_samples(event: Event, first: int, last: int, rate: int, seed: tuple[int, ...]) -> Samples:
    """Samples `first` to `last` of the track as far as one event makes them."""
    count = last - first
    if event.sound == "noise":
        wave = _noise(seed, count / rate, count, rate)
        wave *= np.float32(_NOISE_SCALE)
    else:
        # Counted from the event, not from its first sample, which lies elsewhere at every sampling rate.
        seconds = np.arange(first, last) / rate - event.sound_start
        wave = np.sin(_phase(event, seconds).astype(np.float32))
        if event.sound == "beeps":
            wave *= _gate(event, seconds)
    wave *= np.float32(event.level)
    ramp = min(round(_RAMP_SECONDS * rate), count // 2)
    fade = (0.5 - 0.5 * np.cos(np.pi * (np.arange(ramp) + 0.5) / max(ramp, 1))).astype(np.float32)
    wave[:ramp] *= fade
    wave[count - ramp :] *= fade[::-1]
    return wave


def _phase(event: Event, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angle of the oscillator, wrapped so that float32 keeps its precision."""
    turns = event.pitch * seconds
    if event.sound == "siren":
        sweep = event.phase + 2 * math.pi / event.period * seconds
        turns = turns - _SIREN_SWING_HZ * event.period / (2 * math.pi) * np.cos(sweep.astype(np.float32))
    return 2 * math.pi * (turns - np.floor(turns))


def _gate(event: Event, seconds: NDArray[np.float64]) -> Samples:
    """On for the first half of every period, with soft edges; an event begins with a beep."""
    within = np.mod(seconds, event.period).astype(np.float32)
    rise = np.clip(within / _BEEP_RAMP_SECONDS, 0.0, 1.0)
    fall = np.clip((np.float32(event.period / 2) - within) / _BEEP_RAMP_SECONDS, 0.0, 1.0)
    return np.minimum(rise, fall).astype(np.float32)


def _noise(seed: tuple[int, ...], duration: float, length: int, rate: int) -> Samples:
    """White noise up to 8 kHz of standard deviation 1: the same signal at every sampling rate of 16 kHz and more."""
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    samples = rng.standard_normal(round(duration * _NOISE_RATE), np.float32)
    if rate == _NOISE_RATE and len(samples) == length:
        return samples
    spectrum = np.fft.rfft(samples)
    resampled = np.fft.irfft(spectrum[: length // 2 + 1], length) * (length / max(len(samples), 1))
    return resampled.astype(np.float32)
