"""`mirasol eval`: measures a model on a benchmark."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mirasol_hf.cli.loading import load_pipeline
from mirasol_hf.cli.options import JsonOption, ModelOption
from mirasol_hf.cli.progress import progress_bar
from mirasol_hf.strict_json import dumps

BENCHMARKS = ("avscenes",)
_MEASURES = {
    "exact_match": "exact match",
    "normalized_match": "normalised match",
    "majority_rate": "best fixed answer",
}


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
    """Scores by family, and of the context questions by the names in their context."""
    from rich.table import Table

    from mirasol_hf.cli.console import shown, table_console

    title = f"{result['benchmark']} {result['split']}"
    if result["ablate"] is not None:
        title += f", {result['ablate']} taken away"
    table = Table("questions", "n", *_MEASURES.values(), title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, scores in result["families"].items():
        table.add_row(name, *_cells(scores))
    table.add_section()
    table.add_row("all", *_cells(result))
    if result["names_in_context"]:
        table.add_section()
        for count, scores in result["names_in_context"].items():
            table.add_row(f"context with {count} name{'s' if count != '1' else ''}", *_cells(scores))
    console = table_console()
    console.print(table)
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    console.print(f"model {shown(result['model'] or None)}; {versions}; {result['date']}")


def _cells(scores: dict[str, Any]) -> list[str]:
    return [str(scores["n"]), *(f"{scores[name]:.1%}" for name in _MEASURES)]
