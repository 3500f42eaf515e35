"""How a clip is cut in time: pure functions of seconds.

Legend: K chunks, F frames per chunk.

Seconds are the only clock. K windows of equal duration cover [start, end); F frame times lie at the centres of F
equal bins of each window; the samples of a window are those between its two rounded edges. Neighbouring windows share
an edge bit for bit, so no frame and no sample is lost or counted twice.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Instants closer than this are one: an edge of a window that falls on the start of a frame may miss it by a rounding.
SAME_INSTANT = 1e-7


@dataclass(frozen=True)
class ChunkPlan:
    """Where in time the chunks of one clip lie.

    Attributes:
        windows: float64 `[K, 2]`, start and end of each chunk in seconds; `windows[k, 1] == windows[k + 1, 0]`.
        frame_times: float64 `[K, F]`, the instants in seconds at which a picture is wanted (bin centres).
    """

    windows: FloatArray
    frame_times: FloatArray

    @property
    def num_chunks(self) -> int:
        """K, the number of windows."""
        return len(self.windows)

    @property
    def frames_per_chunk(self) -> int:
        """F, the number of pictures wanted per window."""
        return int(self.frame_times.shape[1])


def plan_chunks(start: float, end: float, *, num_chunks: int, frames_per_chunk: int) -> ChunkPlan:
    """Cut `[start, end)` into `num_chunks` equal windows with `frames_per_chunk` frame times each.

    Args:
        start: first second that is covered.
        end: the second at which the last window ends; must lie after `start`.
        num_chunks: K, at least 1.
        frames_per_chunk: F, at least 1.

    Raises:
        ValueError: if a count is below 1, or the times are not finite or not in order.
    """
    _check_count("num_chunks", num_chunks)
    _check_count("frames_per_chunk", frames_per_chunk)
    if not (math.isfinite(start) and math.isfinite(end)):
        raise ValueError(f"start and end must be finite seconds, got start={start} and end={end}")
    if end <= start:
        raise ValueError(f"end must lie after start, got start={start} s and end={end} s")
    edges = start + (end - start) * (np.arange(num_chunks + 1) / num_chunks)
    edges[-1] = end
    windows = np.stack([edges[:-1], edges[1:]], axis=1)
    centres = (np.arange(frames_per_chunk) + 0.5) / frames_per_chunk
    frame_times = windows[:, :1] + (windows[:, 1:] - windows[:, :1]) * centres
    return ChunkPlan(windows, frame_times)


def resolve_num_chunks(
    duration: float,
    frames_per_chunk: int,
    num_frames: int | None = None,
    fps: float | None = None,
    num_chunks: int | None = None,
    default: int = 8,
) -> int:
    """Say how many chunks a request means.

    At most one of `num_frames` and `fps` may be given, and neither changes F, which belongs to the model.

    Args:
        duration: seconds that are covered; used with `fps` only.
        frames_per_chunk: F.
        num_frames: frames of the whole clip, a multiple of F: K = num_frames / F.
        fps: frames per second at least: K = ceil(duration * fps / F).
        num_chunks: K itself.
        default: K when nothing is asked for.

    Raises:
        ValueError: if the requests contradict each other or cannot be met with whole chunks.
    """
    _check_count("frames_per_chunk", frames_per_chunk)
    if num_frames is not None and fps is not None:
        raise ValueError(f"give num_frames or fps, not both: got num_frames={num_frames} and fps={fps}")
    if num_chunks is not None:
        _check_count("num_chunks", num_chunks)
    wanted = num_chunks if num_chunks is not None else default
    if num_frames is not None:
        wanted = _chunks_of_frames(num_frames, frames_per_chunk)
    elif fps is not None:
        if not (math.isfinite(fps) and fps > 0):
            raise ValueError(f"fps must be a positive number of frames per second, got {fps}")
        # The small slack keeps 2 s at 4 fps in one chunk of 8 although seconds are not exact in binary.
        wanted = max(1, math.ceil(duration * fps / frames_per_chunk - 1e-6))
    if num_chunks is not None and wanted != num_chunks:
        asked = f"num_frames={num_frames}" if num_frames is not None else f"fps={fps} over {duration:.3f} s"
        raise ValueError(
            f"{asked} means {wanted} chunks of {frames_per_chunk} frames, but num_chunks={num_chunks} was given; "
            "drop one of the two"
        )
    return wanted


def resolve_geometry(
    duration: float,
    frames_per_chunk: int,
    num_frames: int | None = None,
    fps: float | None = None,
    num_chunks: int | None = None,
    default: int = 8,
) -> tuple[int, int]:
    """Say how many chunks of how many frames a request means.

    As `resolve_num_chunks`, but `num_frames` and `num_chunks` together set the frames per chunk to their quotient.

    Returns:
        K and F.

    Raises:
        ValueError: as `resolve_num_chunks`, or if `num_frames` cannot be divided among the chunks.
    """
    if num_frames is None or num_chunks is None:
        chunks = resolve_num_chunks(duration, frames_per_chunk, num_frames, fps, num_chunks, default)
        return chunks, frames_per_chunk
    _check_count("num_frames", num_frames)
    _check_count("num_chunks", num_chunks)
    if fps is not None:
        raise ValueError(f"give num_frames or fps, not both: got num_frames={num_frames} and fps={fps}")
    if num_frames % num_chunks:
        raise ValueError(f"num_frames={num_frames} cannot be divided among num_chunks={num_chunks}")
    return num_chunks, num_frames // num_chunks


def plan_request(
    start: float,
    end: float,
    frames_per_chunk: int,
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    num_chunks: int | None = None,
    chunk_seconds: float | None = None,
    default: int = 8,
) -> ChunkPlan:
    """The plan of a request for `[start, end)`.

    With `chunk_seconds`, windows of that duration follow each other until the end is covered; the last may reach
    beyond it. `fps` then gives the frames per chunk, `round(fps * chunk_seconds)`, and `num_frames` is divided among
    the chunks. Without it, see `resolve_geometry`.

    Args:
        start: first second that is covered.
        end: second that the windows reach.
        frames_per_chunk: F, unless the request changes it.
        num_frames: frames of the whole clip.
        fps: frames per second.
        num_chunks: K.
        chunk_seconds: seconds per window, instead of `num_chunks`.
        default: K when nothing is asked for.

    Raises:
        ValueError: as `resolve_geometry` and `plan_chunks`, or if `chunk_seconds` is no positive number or given
            together with `num_chunks`.
    """
    if chunk_seconds is None:
        count, frames = resolve_geometry(end - start, frames_per_chunk, num_frames, fps, num_chunks, default)
        return plan_chunks(start, end, num_chunks=count, frames_per_chunk=frames)
    if num_chunks is not None:
        raise ValueError(f"give num_chunks or chunk_seconds, not both: got {num_chunks} and {chunk_seconds}")
    if not (math.isfinite(chunk_seconds) and chunk_seconds > 0):
        raise ValueError(f"chunk_seconds must be a positive number of seconds, got {chunk_seconds}")
    if not (math.isfinite(start) and math.isfinite(end) and end > start):
        raise ValueError(f"end must lie after start, got start={start} s and end={end} s")
    # The small slack keeps 3 s in three windows of 1 s although seconds are not exact in binary.
    count = max(1, math.ceil((end - start) / chunk_seconds - 1e-6))
    frames = frames_per_chunk
    if num_frames is not None:
        frames = resolve_geometry(end - start, frames_per_chunk, num_frames, fps, count)[1]
    elif fps is not None:
        resolve_num_chunks(end - start, frames_per_chunk, fps=fps)
        frames = max(1, round(fps * chunk_seconds))
    return plan_chunks(start, start + count * chunk_seconds, num_chunks=count, frames_per_chunk=frames)


def pick_frames(presentation_times: npt.ArrayLike, wanted_times: npt.ArrayLike) -> IntArray:
    """Index of the frame that is on screen at each wanted time.

    That is the last frame presented at or before it, give or take `SAME_INSTANT`; before the first it is the first.

    Args:
        presentation_times: `[N]` seconds, ascending, N at least 1.
        wanted_times: any shape, seconds.

    Returns:
        int64 array of the shape of `wanted_times`.

    Raises:
        ValueError: if there is no frame, or the times are not ascending.
    """
    times = np.asarray(presentation_times, dtype=np.float64)
    if times.ndim != 1 or len(times) == 0:
        raise ValueError(f"presentation_times must be a non-empty list of seconds, got shape {times.shape}")
    if not bool(np.all(np.diff(times) >= 0)):
        raise ValueError("presentation_times must be ascending and free of NaN")
    wanted = np.asarray(wanted_times, dtype=np.float64) + SAME_INSTANT
    found = np.searchsorted(times, wanted, side="right") - 1
    return np.maximum(found, 0).astype(np.int64)


def sample_ranges(windows: npt.ArrayLike, sampling_rate: int) -> IntArray:
    """First and one-past-last sample of each window, counted from second 0.

    Args:
        windows: `[K, 2]` seconds.
        sampling_rate: samples per second.

    Returns:
        int64 `[K, 2]`; windows that share an edge share its sample index.
    """
    return np.rint(np.asarray(windows, dtype=np.float64) * sampling_rate).astype(np.int64)


def _chunks_of_frames(num_frames: int, frames_per_chunk: int) -> int:
    _check_count("num_frames", num_frames)
    chunks, rest = divmod(num_frames, frames_per_chunk)
    if rest:
        near = max(1, round(num_frames / frames_per_chunk)) * frames_per_chunk
        raise ValueError(
            f"num_frames={num_frames} is not a multiple of the {frames_per_chunk} frames per chunk; try {near}"
        )
    return chunks


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
