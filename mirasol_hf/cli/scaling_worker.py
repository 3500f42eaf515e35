"""Seconds and peak memory of one pass, in a process that does nothing else.

`python -m mirasol_hf.cli.scaling_worker measure '{"preset": "tiny", ...}'` takes the name of a function of this module
and its arguments, and ends with one JSON line.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mirasol_hf.cli.peak_memory import peak_resident_mib
from mirasol_hf.cli.scaling_models import build_encoder, encoder_config, random_media, run_stream

_WARM_UP_CHUNKS = 2
_RAGGED_REPEATS = 3


def measure(
    preset: str, encoder: str, frames: int, streamed: bool, window: int | None, dtype: str
) -> dict[str, float | str]:
    """Encodes noise of that many frames once, after a warm-up of two chunks.

    Returns:
        `seconds`, `frames_per_second`, `peak_mib` of the process (of the device's tensors on a GPU), `loaded_mib`
        before any media, and for a stream the frames per second of its first and last quarter.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = encoder_config(preset, encoder, window)
    model = build_encoder(encoder, config, device, dtype)
    chunks = frames // config.video_config.num_frames
    loaded = peak_mib(device)
    with torch.no_grad():
        warm_up = random_media(config, 1, device, dtype)
        if streamed:
            list(run_stream(model, warm_up, _WARM_UP_CHUNKS))
            calls = list(run_stream(model, warm_up, chunks))
            seconds = sum(calls)
        else:
            model(*warm_up)
            media = random_media(config, chunks, device, dtype)
            calls, seconds = [], _seconds(lambda: model(*media), device)
    result: dict[str, float | str] = {
        "seconds": round(seconds, 4),
        "frames_per_second": round(frames / seconds, 1),
        "loaded_mib": loaded,
        "peak_mib": peak_mib(device),
    }
    quarter = len(calls) // 4
    if quarter:
        for name, part in (("first", calls[:quarter]), ("last", calls[-quarter:])):
            speed = config.video_config.num_frames / statistics.fmean(part)
            result[f"{name}_quarter_frames_per_second"] = round(speed, 1)
    return result


@torch.no_grad()
def measure_ragged(preset: str, encoder: str, lengths: list[int], dtype: str) -> dict[str, dict[str, Any]]:
    """Encodes clips of different lengths as one batch, and what that may be held against.

    Args:
        preset: `"tiny"`, `"base"` or `"3b"`.
        encoder: one of the Combiners.
        lengths: chunks of each clip.
        dtype: of weights and media.

    Returns:
        `flops` and `seconds` (median of three), each of the `batch`, of its clips one after the other (`singles`),
        and of as many clips of the longest length (`rectangle`).
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = encoder_config(preset, encoder)
    model = build_encoder(encoder, config, device, dtype)
    longest = max(lengths)
    video, spectrogram = random_media(config, longest, device, dtype, clips=len(lengths))
    mask = torch.arange(longest, device=device)[None] < torch.tensor(lengths, device=device)[:, None]

    def singles() -> None:
        for row, length in enumerate(lengths):
            model(video[row : row + 1, :length], spectrogram[row : row + 1, :length])

    passes = {
        "batch": lambda: model(video, spectrogram, None, mask),
        "singles": singles,
        "rectangle": lambda: model(video, spectrogram),
    }
    flops = {name: _flops(run) for name, run in passes.items()}  # also warms up
    rounds = [{name: _seconds(run, device) for name, run in passes.items()} for _ in range(_RAGGED_REPEATS)]
    seconds = {name: round(statistics.median(taken[name] for taken in rounds), 4) for name in passes}
    return {"flops": flops, "seconds": seconds}


def _seconds(run: Callable[[], Any], device: str) -> float:
    begin = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def _flops(run: Callable[[], Any]) -> int:
    # which chunks exist must be known, so not on "meta"; of fused attention the counter misses the CPU's kernel
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def peak_mib(device: str) -> float:
    """Peak memory so far: of this process, or of the tensors on the GPU."""
    if device == "cuda":
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return peak_resident_mib()


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {"measure": measure, "measure_ragged": measure_ragged}


def main(arguments: list[str]) -> None:
    """Runs the named measure with its arguments as JSON, and prints what it returns."""
    name, parameters = arguments
    print(json.dumps(MEASURES[name](**json.loads(parameters))))


if __name__ == "__main__":
    main(sys.argv[1:])
