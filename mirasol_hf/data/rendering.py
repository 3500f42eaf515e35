"""Paints AVScenes pictures straight into arrays, so that training needs no video file.

Shapes are signed distance functions evaluated on a small patch around each shape, one call for all frames of an
event; the edge is anti-aliased over one pixel, which makes a picture rendered at 64 px equal to one rendered larger
and scaled down by area.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from .scene import Event, Scene

Array = NDArray[np.float32]

# Cells of the static background texture along one side, and its amplitude in grey levels.
_TEXTURE_CELLS = 9
_TEXTURE_AMPLITUDE = 5.0
_TEXTURE_STREAM = 1


def render_frames(scene: Scene, times: ArrayLike, size: int) -> NDArray[np.uint8]:
    """The pictures on screen at `times` (seconds, [n]) as uint8 RGB [n, size, size, 3].

    A file shows frame floor(t * fps) at time t and holds the first and the last one beyond its ends; so does this.
    Raises `ValueError` when `times` is not one-dimensional and finite, or `size` is not 8 to 4096 pixels.
    """
    seconds = np.asarray(times, np.float64)
    if seconds.ndim != 1 or not np.isfinite(seconds).all():
        raise ValueError(f"times must be finite seconds of shape [n], got shape {seconds.shape}: {times!r}")
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or not 8 <= size <= 4096:
        raise ValueError(f"size must be a whole number of pixels from 8 to 4096, got {size!r}")
    # The small shift keeps times that are frame times, but for rounding, on their own frame.
    shown = np.clip(np.floor(seconds * scene.fps + 1e-6), 0, scene.num_frames - 1)
    clock = shown / scene.fps
    frames = np.empty((len(clock), size, size, 3), np.uint8)
    frames[:] = _background(scene, size)
    _paint_dots(frames, scene, clock)
    for event in scene.events:
        rows = np.flatnonzero((clock >= event.start) & (clock < event.end))
        if len(rows):
            _paint_event(frames, event, rows, clock[rows])
    return frames


def _background(scene: Scene, size: int) -> NDArray[np.uint8]:
    position = (np.arange(size, dtype=np.float32) + 0.5) / size
    rng = np.random.default_rng(np.random.SeedSequence((*scene.seed, _TEXTURE_STREAM)))
    cells = rng.uniform(-_TEXTURE_AMPLITUDE, _TEXTURE_AMPLITUDE, (_TEXTURE_CELLS, _TEXTURE_CELLS)).astype(np.float32)
    # Bilinear interpolation as two small matrix products.
    nodes = np.arange(_TEXTURE_CELLS, dtype=np.float32)
    weights = np.maximum(0.0, 1.0 - np.abs(position[:, None] * (_TEXTURE_CELLS - 1) - nodes))
    texture = weights @ cells @ weights.T
    slope_x, slope_y = scene.gradient
    grey = texture + slope_x * (position[None, :] - 0.5) + slope_y * (position[:, None] - 0.5)
    return np.clip(grey[..., None] + np.asarray(scene.background, np.float32), 0, 255).astype(np.uint8)


def _paint_dots(frames: NDArray[np.uint8], scene: Scene, clock: NDArray[np.float64]) -> None:
    size = frames.shape[1]
    for dot in scene.dots:
        center = np.stack([_bounce(dot.x + dot.drift_x * clock), _bounce(dot.y + dot.drift_y * clock)], -1)
        _blend(frames, np.arange(len(clock)), center * size, dot.radius * size, _circle, (dot.grey,) * 3)


def _bounce(position: NDArray[np.float64]) -> NDArray[np.float64]:
    """Folds any position into [0, 1] as if it were reflected by the borders."""
    return 1.0 - np.abs(1.0 - np.mod(position, 2.0))


def _paint_event(frames: NDArray[np.uint8], event: Event, rows: NDArray[np.intp], clock: NDArray[np.float64]) -> None:
    size = frames.shape[1]
    progress = ((clock - event.start) / (event.end - event.start))[:, None]
    center = np.array(event.path[:2]) * (1 - progress) + np.array(event.path[2:]) * progress
    radius = event.diameter / 2 * size
    cos, sin = math.cos(event.rotation), math.sin(event.rotation)
    distance = _DISTANCES[event.shape]

    def rotated(x: Array, y: Array, radius: float) -> Array:
        return distance(cos * x + sin * y, cos * y - sin * x, radius)

    _blend(frames, rows, center * size, radius, rotated, event.rgb)


def _blend(
    frames: NDArray[np.uint8],
    rows: NDArray[np.intp],
    center: NDArray[np.float64],
    radius: float,
    distance: Callable[[Array, Array, float], Array],
    rgb: tuple[int, int, int],
) -> None:
    """Lays one shape over `frames[rows]` [n, size, size, 3]; `center` [n, 2] and `radius` are in pixels."""
    size = frames.shape[1]
    side = min(math.ceil(2.1 * radius) + 3, size)
    origin = np.clip(np.floor(center - side / 2), 0, size - side).astype(np.intp)
    offset = (origin - center + 0.5).astype(np.float32)
    steps = np.arange(side, dtype=np.float32)
    x = offset[:, 0, None, None] + steps[None, None, :]
    y = offset[:, 1, None, None] + steps[None, :, None]
    cover = np.clip(0.5 - distance(x, y, radius), 0.0, 1.0)[..., None]
    color = np.asarray(rgb, np.float32)
    for row, (left, top), alpha in zip(rows, origin, cover, strict=True):
        patch = frames[row, top : top + side, left : left + side]
        # Half a level more: the assignment to uint8 cuts off.
        patch[...] = patch + alpha * (color - patch) + np.float32(0.5)


def _circle(x: Array, y: Array, radius: float) -> Array:
    return np.sqrt(x * x + y * y) - np.float32(0.95 * radius)


def _square(x: Array, y: Array, radius: float) -> Array:
    return np.maximum(np.abs(x), np.abs(y)) - np.float32(0.8 * radius)


def _triangle(x: Array, y: Array, radius: float) -> Array:
    # Point up; lowered a little so that its bounding circle sits on the centre of the patch.
    y = y - np.float32(0.18 * radius)
    slanted = np.float32(math.sqrt(0.75)) * np.abs(x) - np.float32(0.5) * y
    return np.maximum(slanted, y) - np.float32(0.58 * radius)


def _star(x: Array, y: Array, radius: float) -> Array:
    """Five points: the plane is folded into one of ten equal sectors, where the outline is one straight edge."""
    x, y = np.abs(x), -y
    cos, sin = np.float32(math.cos(0.2 * math.pi)), np.float32(math.sin(0.2 * math.pi))
    for normal_x, normal_y in ((cos, -sin), (-cos, -sin)):
        beyond = 2 * np.maximum(normal_x * x + normal_y * y, 0)
        x, y = x - beyond * normal_x, y - beyond * normal_y
    x = np.abs(x)
    notch = 0.45 * radius
    edge_x, edge_y = notch * math.sin(0.2 * math.pi), notch * math.cos(0.2 * math.pi) - radius
    length = math.hypot(edge_x, edge_y)
    return (y - np.float32(radius)) * np.float32(edge_x / length) - x * np.float32(edge_y / length)


def _cross(x: Array, y: Array, radius: float) -> Array:
    arm, width = np.float32(0.95 * radius), np.float32(0.32 * radius)
    x, y = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(x - arm, y - width), np.maximum(x - width, y - arm))


_DISTANCES: dict[str, Callable[[Array, Array, float], Array]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
}
