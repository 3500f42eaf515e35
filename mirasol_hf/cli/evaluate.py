"""`mirasol eval`: measures a model on a benchmark."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mirasol_hf.cli.loading import load_pipeline
from mirasol_hf.cli.options import JsonOption, ModelOption
from mirasol_hf.cli.progress import progress_bar
from mirasol_hf.strict_json import dumps

BENCHMARKS = ("avscenes",)


def evaluate(
    benchmark: Annotated[str, typer.Argument(help=f"One of: {', '.join(BENCHMARKS)}.")],
    split: Annotated[str, typer.Option(help="One of: train, validation, test, compositional.")] = "test",
    limit: Annotated[int, typer.Option(help="Number of questions.")] = 1000,
    model: ModelOption = None,
    ablate: Annotated[
        str | None, typer.Option(help="Take something away from the files: media, sound or pictures.")
    ] = None,
    work_dir: Annotated[
        Path | None, typer.Option(help="Keep the clips in this folder for another run; a temporary one if absent.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Measure exact match on a benchmark, through real files and the pipeline."""
    if benchmark not in BENCHMARKS:
        raise ValueError(f"BENCHMARK {benchmark!r} is not known; expected one of {', '.join(BENCHMARKS)}")
    if work_dir is not None and work_dir.exists() and not work_dir.is_dir():
        raise ValueError(f"--work-dir {work_dir} is a file, expected a folder")

    from mirasol_hf.evaluation.avscenes import evaluate as run

    pipe = load_pipeline(model)
    with progress_bar("answering") as advance:
        result = run(model=pipe, split=split, limit=limit, ablate=ablate, work_dir=work_dir, progress=advance)
    if json_output:
        print(dumps(result))
    else:
        _print_table(result)


def _print_table(result: dict[str, Any]) -> None:
    from rich.table import Table

    from mirasol_hf.cli.console import table_console

    table = Table("measure", "value")
    for key, value in _flat(result):
        table.add_row(key, f"{value:.4f}" if isinstance(value, float) else str(value))
    table_console().print(table)


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        rows += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return rows
