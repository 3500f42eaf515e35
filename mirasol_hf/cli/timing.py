"""The measurements behind `mirasol bench`; each run is a fresh Python process, so nothing is warm but the disk."""

import datetime
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

_IMPORT_TRANSFORMERS = "from transformers import AutoModel, AutoProcessor, pipeline"

_TIME_IMPORTS = f"""
import time
begin = time.perf_counter()
{_IMPORT_TRANSFORMERS}
middle = time.perf_counter()
import mirasol_hf
print(middle - begin, time.perf_counter() - middle)
"""

_TIME_ANSWER = f"""
import sys, time
{_IMPORT_TRANSFORMERS}
import mirasol_hf
from transformers.utils import logging
logging.set_verbosity_error()
logging.disable_progress_bar()
begin = time.perf_counter()
pipe = pipeline("video-question-answering")
loaded = time.perf_counter()
pipe(sys.argv[1], sys.argv[2])
first = time.perf_counter()
pipe(sys.argv[1], sys.argv[2])
print(first - begin, loaded - begin, first - loaded, time.perf_counter() - first)
"""

CLIP_SECONDS = 10.0


def time_import(repeat: int) -> dict[str, float]:
    """Seconds that `import mirasol_hf` adds to `from transformers import AutoModel, AutoProcessor, pipeline`.

    Args:
        repeat: number of processes; the medians are returned.
    """
    runs = _run(_TIME_IMPORTS, [], repeat)
    return {"transformers_s": _median(runs, 0), "mirasol_hf_adds_s": _median(runs, 1)}


def time_answer(repeat: int) -> dict[str, float]:
    """Seconds from the end of the imports to the first answer about a 10 s clip: load, read the mp4, encode, decode.

    Args:
        repeat: number of processes; the medians are returned.
    """
    from mirasol_hf.data.avscenes import sample_scene, write_scene

    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        scene = sample_scene("test", 0, min_seconds=CLIP_SECONDS, max_seconds=CLIP_SECONDS)
        write_scene(scene, clip)
        runs = _run(_TIME_ANSWER, [str(clip), "what is shown first?"], repeat)
    names = ("first_answer_s", "of_it_loading_s", "of_it_reading_and_answering_s", "second_call_s")
    return {"clip_s": round(scene.duration, 3), **{name: _median(runs, column) for column, name in enumerate(names)}}


BENCHMARKS: dict[str, Callable[[int], dict[str, float]]] = {"import": time_import, "answer": time_answer}


def environment() -> dict[str, Any]:
    """Where and with what the figures were taken."""
    import av
    import torch
    import transformers

    from mirasol_hf.version import __version__

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"cpu ({platform.machine()})"
    return {
        "device": device,
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "mirasol_hf": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "av": av.__version__,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def _run(script: str, arguments: list[str], repeat: int) -> list[list[float]]:
    """The numbers each process prints; one more process runs first, unmeasured, to fill the disk cache."""
    runs = []
    for _ in range(repeat + 1):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False, env=_offline()
        )
        if done.returncode != 0:
            raise RuntimeError(f"the measured process failed:\n{done.stderr}")
        runs.append([float(number) for number in done.stdout.split()])
    return runs[1:]


def _offline() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1"}


def _median(runs: list[list[float]], column: int) -> float:
    return round(statistics.median(run[column] for run in runs), 3)
