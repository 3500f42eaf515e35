"""The learning rate of a curriculum: cosine cycles, each with its own warm-up."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

from mirasol_hf.training.recipe import Stage


def cosine_cycles(stages: Sequence[Stage], warmup_steps: int) -> Callable[[int], float]:
    """Make the factor on the peak learning rate, as `LambdaLR` takes it.

    A cycle rises from 0 to its peak in `warmup_steps` and falls to 0 along a half cosine, as
    `transformers.get_cosine_schedule_with_warmup` does. A stage with `restart` begins a new cycle at that share of the
    peak (warm restarts, arXiv 1608.03983, equation 5); the others go on with the running one.

    Args:
        stages: the curriculum.
        warmup_steps: of every cycle.
    """
    starts, peaks, first = [0], [1.0], 0
    for stage in stages:
        if stage.restart is not None:
            starts, peaks = ([*starts, first], [*peaks, stage.restart]) if first else ([0], [stage.restart])
        first += stage.steps
    ends = [*starts[1:], first]

    def factor(step: int) -> float:
        cycle = bisect_right(starts, step) - 1
        start, end, peak = starts[cycle], ends[cycle], peaks[cycle]
        done = step - start
        if done < warmup_steps:
            return peak * done / warmup_steps
        progress = min((done - warmup_steps) / max(end - start - warmup_steps, 1), 1.0)
        return peak * 0.5 * (1.0 + math.cos(math.pi * progress))

    return factor
