"""The description of one AVScenes clip: everything random is decided here, rendering only follows it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .question_builder import Question, build_questions
from .rendering import render_frames
from .sound import render_audio


@dataclass(frozen=True)
class Event:
    """One shape on screen with the sound bound to it.

    `start`, `end` (seconds) bound the picture, `sound_start`, `sound_end` the sound. Positions and `diameter` are
    fractions of the picture, `path` is (x, y) at the start and (x, y) at the end. `pitch` is in hertz (the centre of
    a siren's sweep), `period` in seconds, `level` the peak amplitude of a full-scale signal of 1.
    """

    start: float
    end: float
    color: str
    shape: str
    motion: str
    sound: str
    sound_start: float
    sound_end: float
    rgb: tuple[int, int, int]
    diameter: float
    rotation: float
    path: tuple[float, float, float, float]
    pitch: float
    period: float
    phase: float
    level: float


@dataclass(frozen=True)
class Dot:
    """A dim distractor: position (fractions of the picture), drift (fractions a second), radius, grey value."""

    x: float
    y: float
    drift_x: float
    drift_y: float
    radius: float
    grey: int


@dataclass(frozen=True)
class Scene:
    """One clip, fixed by (`split`, `index`); `duration` is in seconds, `size` in pixels (the file is square)."""

    split: str
    index: int
    seed: tuple[int, ...]
    duration: float
    fps: int
    size: int
    sampling_rate: int
    events: tuple[Event, ...]
    background: tuple[float, float, float]
    gradient: tuple[float, float]
    dots: tuple[Dot, ...]
    noise_level: float

    @property
    def num_frames(self) -> int:
        """Frames in the file."""
        return round(self.duration * self.fps)

    def num_samples(self, sampling_rate: int) -> int:
        """Samples per channel that the whole clip has at `sampling_rate` hertz."""
        return math.floor(self.duration * sampling_rate + 0.5)

    def render_frames(self, times: ArrayLike, size: int | None = None) -> NDArray[np.uint8]:
        """The pictures on screen at `times` (seconds, [n]) as uint8 [n, size, size, 3]; see `rendering`."""
        return render_frames(self, times, self.size if size is None else size)

    def render_audio(self, sampling_rate: int = 16000) -> NDArray[np.float32]:
        """The whole sound track, mono float32 [num_samples(sampling_rate)] in [-1, 1]; see `sound`."""
        return render_audio(self, sampling_rate)

    def questions(
        self, limit: int | None = None, families: Iterable[str] | None = None, seed: int = 0
    ) -> list[Question]:
        """Unambiguous questions about the clip, the same for the same arguments; see `question_builder`."""
        return build_questions(self, limit=limit, families=families, seed=seed)
