"""One way of reading one file, timed in a process that does nothing else.

`python -m mirasol_hf.cli.decode_worker '{"method": "mirasol", "file": "film.mp4", ...}'` takes the arguments of
`measure` and ends with one JSON line. All ways end with the same things: `frames` pictures spread evenly over the
file, and its sound.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import torch

# Imported before the clock starts and before memory is first read, whatever the method.
from transformers.video_utils import load_video

from mirasol_hf.cli.peak_memory import peak_resident_mib
from mirasol_hf.processing.chunk_plan_mirasol import ChunkPlan, pick_frames, plan_chunks
from mirasol_hf.processing.feature_extraction_mirasol import MirasolFeatureExtractor
from mirasol_hf.processing.media_limits_mirasol import MediaLimits
from mirasol_hf.processing.media_mirasol import MediaFile
from mirasol_hf.processing.video_processing_mirasol import MirasolVideoProcessor

SAMPLING_RATE = 16000
FRAMES_PER_CHUNK = 8


@dataclass
class Job:
    """What is read.

    Attributes:
        file: path.
        frames: pictures, spread evenly.
        size: rows and columns they are resized to.
        part: a method that decodes everything stops after so many seconds of film; None for the whole.
        threads: of the video decoder, at most.
    """

    file: str
    frames: int
    size: int
    part: float | None
    threads: int


@dataclass
class Done:
    """What was read: pictures decoded, samples given out, seconds by step, and the share of the film reached."""

    decoded: int
    samples: int
    steps: dict[str, float]
    share: float = 1.0

    @property
    def seconds(self) -> float:
        """Time for the whole film, from the share that was decoded."""
        return sum(self.steps.values()) + (1.0 / self.share - 1.0) * self.steps["pictures"]


def measure(method: str, file: str, frames: int, size: int, part: float | None, threads: int) -> dict[str, Any]:
    """Reads a file once.

    Args:
        method: a key of `METHODS`.
        file: path.
        frames: pictures, a multiple of eight.
        size: rows and columns of a picture.
        part: a method that decodes everything stops after so many seconds of film, and the time of the whole is
            computed; None for the whole.
        threads: of the video decoder, at most.

    Returns:
        `seconds` (with `extrapolated` true where a part was measured and the whole computed from it); `steps`, the
        seconds of its steps as measured; `cpu_seconds` of all threads as measured; `frames_decoded`, `samples`,
        `frames_per_second` and `samples_per_second` that come out; `peak_mib` of the process, `loaded_mib` before the
        file was opened, and `bytes_read` (None where the system does not count them).
    """
    run = METHODS[method](Job(file, frames, size, part, threads))
    loaded, before, busy = peak_resident_mib(), _bytes_read(), time.process_time()
    done = run()
    busy = time.process_time() - busy
    after = _bytes_read()
    seconds = done.seconds
    return {
        "seconds": round(seconds, 3),
        "extrapolated": done.share < 1.0,
        "cpu_seconds": round(busy, 3),
        "steps": {name: round(spent, 3) for name, spent in done.steps.items()},
        "frames_decoded": done.decoded,
        "frames_per_second": round(frames / seconds, 2),
        "samples": done.samples,
        "samples_per_second": round(done.samples / seconds),
        "peak_mib": peak_resident_mib(),
        "loaded_mib": loaded,
        "bytes_read": None if before is None or after is None else after - before,
    }


def _read_with_mirasol(job: Job) -> Callable[[], Done]:
    """The package: index, seek, decode, resize, normalise; sound to 16 kHz mono and on to log-mel features."""
    video = MirasolVideoProcessor(size=job.size, num_frames=FRAMES_PER_CHUNK)
    extractor = MirasolFeatureExtractor()

    def run() -> Done:
        clock = _Clock()
        with MediaFile(job.file, MediaLimits(max_threads=job.threads)) as media:
            clock.note("index")
            plan = _plan(media.duration, job)
            if video.read_chunks(media, plan) is None:
                raise ValueError(f"{job.file}: no picture can be decoded")
            clock.note("pictures")
            samples = 0
            for window, pieces in zip(plan.windows, media.read_sound(plan, SAMPLING_RATE), strict=True):
                sound = list(pieces)
                extractor.extract_pieces(sound, window)
                samples += sum(len(wave) for _, wave in sound)
            clock.note("sound")
            return Done(media.frames_decoded, samples, clock.steps)

    return run


def _read_groups_only(job: Job) -> Callable[[], Done]:
    """The floor: libav decodes each group of pictures from its key frame to the wanted picture, and the sound.

    Which these are is known before the clock starts; nothing is converted, resized or resampled.
    """
    with MediaFile(job.file) as media:
        index = media.index.video
        if index is None:
            raise ValueError(f"{job.file}: no pictures")
        wanted = _plan(media.duration, job).frame_times.reshape(-1) + media.index.origin
        shown = pick_frames(index.seconds(index.pts), wanted)
        targets = np.unique(index.pts[shown]).tolist()
        groups = index.keys[np.searchsorted(index.keys[:, 0], targets, "right") - 1, 0].tolist()

    def run() -> Done:
        clock, decoded = _Clock(), 0
        with av.open(job.file) as container:
            stream = _video_stream(container, job.threads)
            frames: Iterator[Any] = container.decode(stream)
            reached, group = -1, None
            for target, start in zip(targets, groups, strict=True):
                if start != group and start > reached:
                    container.seek(start, stream=stream)
                    frames = container.decode(stream)
                group = start
                while reached < target:
                    reached = next(frames).pts
                    decoded += 1
        clock.note("pictures")
        with av.open(job.file) as container:
            samples = sum(frame.samples for frame in container.decode(audio=0))
        clock.note("sound")
        return Done(decoded, samples, clock.steps)

    return run


def _decode_everything(job: Job) -> Callable[[], Done]:
    """Every picture and all the sound; the wanted pictures are resized by libswscale."""
    count, share = _frame_count(job)
    wanted = set(_even_indices(count, job.frames).tolist())

    def run() -> Done:
        clock = _Clock()
        with av.open(job.file) as container:
            stream = _video_stream(container, job.threads)
            for i, frame in enumerate(islice(container.decode(stream), count)):
                if i in wanted:
                    frame.reformat(width=job.size, height=job.size, format="rgb24").to_ndarray()
        clock.note("pictures")
        samples = _whole_sound(job.file)
        clock.note("sound")
        return Done(count, samples, clock.steps, share)

    return run


def _read_with_transformers(job: Job) -> Callable[[], Done]:
    """`transformers.video_utils.load_video(backend="pyav")`, torch resizing, and the sound as `load_audio` gives it.

    `load_audio` itself reads no sound from mp4 or webm without torchcodec; PyAV stands in for its decoder. The indices
    of the frames are given, because the number of frames that `load_video` relies on is 0 in webm.
    """
    count, share = _frame_count(job)
    indices = _even_indices(count, job.frames)

    def run() -> Done:
        clock = _Clock()
        frames, _ = load_video(job.file, backend="pyav", sample_indices_fn=lambda metadata, **kwargs: indices)
        pixels = torch.from_numpy(frames).movedim(-1, 1)
        for picture in pixels:
            torch.nn.functional.interpolate(picture[None].float(), (job.size, job.size), mode="bilinear")
        clock.note("pictures")
        samples = _whole_sound(job.file)
        clock.note("sound")
        return Done(int(indices[-1]) + 1, samples, clock.steps, share)

    return run


METHODS: dict[str, Callable[[Job], Callable[[], Done]]] = {
    "mirasol": _read_with_mirasol,
    "floor": _read_groups_only,
    "everything": _decode_everything,
    "transformers": _read_with_transformers,
}


class _Clock:
    """Seconds by step."""

    def __init__(self) -> None:
        self.steps: dict[str, float] = {}
        self._last = time.perf_counter()

    def note(self, step: str) -> None:
        """End a step."""
        now = time.perf_counter()
        self.steps[step], self._last = now - self._last, now


def _plan(duration: float, job: Job) -> ChunkPlan:
    chunks = job.frames // FRAMES_PER_CHUNK
    return plan_chunks(0.0, duration, num_chunks=chunks, frames_per_chunk=FRAMES_PER_CHUNK)


def _video_stream(container: Any, threads: int) -> Any:
    stream = container.streams.video[0]
    stream.thread_type, stream.thread_count = "AUTO", threads
    return stream


def _frame_count(job: Job) -> tuple[int, float]:
    """Frames of the part that is decoded, and which share of the film that is."""
    with MediaFile(job.file) as media:
        total = len(media.video_reader().times)
        share = 1.0 if job.part is None else min(1.0, job.part / media.duration)
    return max(job.frames, round(total * share)), max(job.frames / total, share)


def _even_indices(count: int, frames: int) -> npt.NDArray[np.int64]:
    return ((np.arange(frames) + 0.5) * count / frames).astype(np.int64)


def _whole_sound(file: str) -> int:
    """All of the sound as 16 kHz mono; the number of samples."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLING_RATE)
    parts = []
    with av.open(file) as container:
        for frame in chain(container.decode(audio=0), [None]):
            parts += [out.to_ndarray()[0] for out in resampler.resample(frame)]
    return len(np.concatenate(parts))


def _bytes_read() -> int | None:
    """Bytes that this process has read so far, from the disk or its cache."""
    counts = Path("/proc/self/io")
    if not counts.exists():
        return None
    return next(int(line.split()[1]) for line in counts.read_text().splitlines() if line.startswith("rchar:"))


def main(arguments: list[str]) -> None:
    """Reads the arguments of `measure` as JSON and prints what it returns."""
    parameters: dict[str, Any] = json.loads(arguments[0])
    print(json.dumps(measure(**parameters)))


if __name__ == "__main__":
    main(sys.argv[1:])
