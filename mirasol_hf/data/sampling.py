"""Draws AVScenes clips: `sample_scene(split, index)` always returns the same clip, and splits share no seeds."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from .scene import Dot, Event, Scene
from .vocabulary import (
    COLORS,
    HELD_OUT_PAIRS,
    MAX_GAP_UNITS,
    MIN_EVENT_UNITS,
    MOTIONS,
    SEEN_PAIRS,
    SILENCE,
    SOUNDS,
    SPLITS,
    TIME_UNITS,
)

FRAME_RATES = (10, 12, 15, 20, 25)
FILE_SIZES = (64, 96, 128)
FILE_SAMPLING_RATES = (16000, 22050, 32000, 44100)
MIN_EVENTS, MAX_EVENTS = 2, 5
SHORTEST_SECONDS, LONGEST_SECONDS = 2.0, 600.0
SILENCE_PROBABILITY = 0.12
HELD_OUT_PROBABILITY = 0.7
SOUND_JITTER = 0.15
# Fixes the whole data set; another value gives another one.
_ROOT_SEED = 20231109
# Bends the log-uniform law of durations so that the median of 4-64 s is about 10 s.
_DURATION_POWER = 1.6


def sample_scene(
    split: str,
    index: int,
    *,
    min_seconds: float = 4.0,
    max_seconds: float = 64.0,
    num_events: int | None = None,
) -> Scene:
    """Clip `index` of `split` ("train", "validation", "test", "compositional").

    Durations lie between `min_seconds` and `max_seconds` (2 to 600 s allowed), a whole number of frames, half of them
    below 10 s by default; `num_events` fixes the number of shapes (2 to 5) instead of drawing it. Raises `ValueError`
    for anything outside these limits.
    """
    _check(split, index, min_seconds, max_seconds, num_events)
    seed = (_ROOT_SEED, SPLITS.index(split), index)
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    fps = int(rng.choice(FRAME_RATES))
    duration = _draw_duration(rng, min_seconds, max_seconds, fps)
    drawn = int(rng.integers(MIN_EVENTS, MAX_EVENTS + 1))
    spans = _draw_spans(rng, duration, num_events or drawn)
    return Scene(
        split=split,
        index=index,
        seed=seed,
        duration=duration,
        fps=fps,
        size=int(rng.choice(FILE_SIZES)),
        sampling_rate=int(rng.choice(FILE_SAMPLING_RATES)),
        events=_draw_events(rng, spans, duration, split),
        background=_triple(rng.uniform(8, 42, 3)),
        gradient=(float(rng.uniform(-10, 10)), float(rng.uniform(-10, 10))),
        dots=tuple(_draw_dot(rng) for _ in range(int(rng.integers(0, 4)))),
        noise_level=10 ** (float(rng.uniform(-55, -45)) / 20),
    )


def _check(split: str, index: int, low: float, high: float, num_events: int | None) -> None:
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if isinstance(index, bool) or not isinstance(index, int | np.integer) or index < 0:
        raise ValueError(f"index must be a whole number of at least 0, got {index!r}")
    if not SHORTEST_SECONDS <= low <= high <= LONGEST_SECONDS:
        raise ValueError(
            f"min_seconds and max_seconds must satisfy {SHORTEST_SECONDS:g} <= min_seconds <= max_seconds <= "
            f"{LONGEST_SECONDS:g}, got {low!r} and {high!r}"
        )
    if num_events is None:
        return
    if isinstance(num_events, bool) or not isinstance(num_events, int) or not MIN_EVENTS <= num_events <= MAX_EVENTS:
        raise ValueError(f"num_events must be a whole number from {MIN_EVENTS} to {MAX_EVENTS}, got {num_events!r}")


def _draw_duration(rng: np.random.Generator, low: float, high: float, fps: int) -> float:
    seconds = low * (high / low) ** (rng.uniform() ** _DURATION_POWER)
    # Whole frames: the picture and the sound then end together.
    frames = min(max(round(seconds * fps), math.ceil(low * fps)), max(math.floor(high * fps), 1))
    return frames / fps


def _draw_spans(rng: np.random.Generator, duration: float, count: int) -> list[tuple[float, float]]:
    """Start and end of each event, filling the clip, with short blanks between some of them."""
    gaps = rng.uniform(0.1, 0.9 * MAX_GAP_UNITS, count - 1) * (rng.uniform(size=count - 1) < 0.5)
    slack = TIME_UNITS - count * MIN_EVENT_UNITS
    gaps *= min(1.0, 0.7 * slack / max(gaps.sum(), 1e-9))
    lengths = MIN_EVENT_UNITS + (slack - gaps.sum()) * rng.dirichlet(np.full(count, 3.0))
    edges = np.cumsum(np.column_stack([lengths, np.append(gaps, 0.0)]).ravel()) * (duration / TIME_UNITS)
    starts, ends = np.append(0.0, edges[1:-2:2]), edges[0::2]
    ends[-1] = duration
    return [(float(start), float(end)) for start, end in zip(starts, ends, strict=True)]


def _draw_events(
    rng: np.random.Generator, spans: list[tuple[float, float]], duration: float, split: str
) -> tuple[Event, ...]:
    count = len(spans)
    held_out = np.zeros(count, bool)
    if split == "compositional":
        held_out = rng.uniform(size=count) < HELD_OUT_PROBABILITY
        held_out[rng.integers(count)] = True
    pairs = _draw_pairs(rng, held_out)
    sounds = _draw_sounds(rng, count)
    sound_spans = _draw_sound_spans(rng, spans, duration)
    return tuple(
        _draw_event(rng, span, pair, sound, sound_span)
        for span, pair, sound, sound_span in zip(spans, pairs, sounds, sound_spans, strict=True)
    )


def _draw_pairs(rng: np.random.Generator, held_out: np.ndarray) -> list[tuple[str, str]]:
    """Colour and shape of each event; neighbours share neither."""
    pools = (SEEN_PAIRS, tuple(sorted(HELD_OUT_PAIRS)))
    pairs: list[tuple[str, str]] = []
    for novel in held_out:
        choices = [p for p in pools[int(novel)] if not pairs or (p[0] != pairs[-1][0] and p[1] != pairs[-1][1])]
        pairs.append(choices[int(rng.integers(len(choices)))])
    return pairs


def _draw_sounds(rng: np.random.Generator, count: int) -> list[str]:
    sounds: list[str] = []
    for _ in range(count):
        choices = [s for s in SOUNDS if not sounds or s != sounds[-1]]
        silent = rng.uniform() < SILENCE_PROBABILITY and (not sounds or sounds[-1] != SILENCE)
        sound = choices[int(rng.integers(len(choices)))]
        sounds.append(SILENCE if silent else sound)
    return sounds


def _draw_sound_spans(
    rng: np.random.Generator, spans: list[tuple[float, float]], duration: float
) -> list[tuple[float, float]]:
    """Sound follows its picture loosely; two sounds never overlap.

    A boundary moves by a share of the shorter event beside it, so that no sound reaches far into a short neighbour.
    """
    lengths = [end - start for start, end in spans]
    jittered = []
    for i, (start, end) in enumerate(spans):
        left, right = min(lengths[max(i - 1, 0) : i + 1]), min(lengths[i : i + 2])
        shift = rng.uniform(-SOUND_JITTER, SOUND_JITTER, 2) * (left, right)
        jittered.append([max(start + shift[0], 0.0), min(end + shift[1], duration)])
    for before, after in pairwise(jittered):
        if before[1] > after[0]:
            before[1] = after[0] = (before[1] + after[0]) / 2
    return [(float(start), float(end)) for start, end in jittered]


def _draw_event(
    rng: np.random.Generator,
    span: tuple[float, float],
    pair: tuple[str, str],
    sound: str,
    sound_span: tuple[float, float],
) -> Event:
    color, shape = pair
    motion = MOTIONS[int(rng.integers(len(MOTIONS)))]
    diameter = float(rng.uniform(0.42, 0.55))
    pitch, period = _draw_pitch(rng, sound)
    return Event(
        start=span[0],
        end=span[1],
        color=color,
        shape=shape,
        motion=motion,
        sound=sound,
        sound_start=sound_span[0],
        sound_end=sound_span[1],
        rgb=_shade(rng, color),
        diameter=diameter,
        rotation=float(rng.uniform(-0.2, 0.2)),
        path=_draw_path(rng, motion, diameter),
        pitch=pitch,
        period=period,
        phase=float(rng.uniform(0, 2 * math.pi)),
        level=10 ** (float(rng.uniform(-20, -8)) / 20),
    )


def _shade(rng: np.random.Generator, color: str) -> tuple[int, int, int]:
    shaded = np.clip(np.array(COLORS[color]) * rng.uniform(0.88, 1.05), 0, 250)
    return int(shaded[0]), int(shaded[1]), int(shaded[2])


def _draw_pitch(rng: np.random.Generator, sound: str) -> tuple[float, float]:
    """(pitch in hertz, period in seconds); values a sound has no use for stay 1."""
    ranges = {
        "low tone": ((200.0, 330.0), (1.0, 1.0)),
        "high tone": ((1500.0, 2400.0), (1.0, 1.0)),
        "beeps": ((650.0, 750.0), (0.35, 0.5)),
        "siren": ((830.0, 870.0), (0.85, 1.15)),
    }
    pitch_range, period_range = ranges.get(sound, ((1.0, 1.0), (1.0, 1.0)))
    return float(rng.uniform(*pitch_range)), float(rng.uniform(*period_range))


def _draw_path(rng: np.random.Generator, motion: str, diameter: float) -> tuple[float, float, float, float]:
    """Where the centre goes: along most of the free way for a motion, nowhere for "still"."""
    free = 1.0 - 1.06 * diameter
    margin = (1.0 - free) / 2
    across = margin + free * float(rng.uniform())
    if motion == "still":
        along = margin + free * float(rng.uniform())
        return across, along, across, along
    travel = free * float(rng.uniform(0.75, 1.0))
    low = margin + (free - travel) * float(rng.uniform())
    first, last = (low, low + travel) if motion in ("right", "down") else (low + travel, low)
    if motion in ("left", "right"):
        return first, across, last, across
    return across, first, across, last


def _draw_dot(rng: np.random.Generator) -> Dot:
    x, y, radius = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.015, 0.03)
    drift = rng.uniform(-0.15, 0.15, 2)
    return Dot(float(x), float(y), float(drift[0]), float(drift[1]), float(radius), int(rng.integers(60, 100)))


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])
