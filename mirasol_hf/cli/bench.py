"""`mirasol bench`: times what a user waits for."""

import json
from typing import Annotated

import typer

from mirasol_hf.cli.timing import BENCHMARKS, environment


def bench(
    name: Annotated[str, typer.Argument(help=f"One of: {', '.join(BENCHMARKS)}.")],
    repeat: Annotated[int, typer.Option(help="Runs, each in a fresh process; the median is reported.")] = 5,
) -> None:
    """Time the package and end with one JSON line: figures, device, versions, date."""
    if name not in BENCHMARKS:
        raise ValueError(f"benchmark {name!r} is not known; expected one of {', '.join(BENCHMARKS)}")
    if repeat < 1:
        raise ValueError(f"--repeat {repeat} must be at least 1")
    print((BENCHMARKS[name].__doc__ or "").split("\n\n")[0])
    figures = BENCHMARKS[name](repeat)
    for key, value in figures.items():
        print(f"  {key}: {value}")
    print(json.dumps({"benchmark": name, **figures, **environment()}))
