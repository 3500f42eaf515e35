"""`mirasol probe`: says what media files hold."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from mirasol_hf.cli.options import JsonOption


def probe(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Video or audio files.")],
    json_output: JsonOption = False,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the sampled frames over the spectrogram into this PNG (needs matplotlib)."),
    ] = None,
    frames: Annotated[int, typer.Option(help="Pictures of each file in the plot, a multiple of 8.")] = 16,
) -> None:
    """Say what media files hold: streams, durations, rates. With --json one object for each file, a line each."""
    from mirasol_hf.processing.media_mirasol import probe_media

    if plot is not None:
        from mirasol_hf.cli.probe_plot import check_plot, draw

        check_plot(plot, frames)
    for file in files:
        found = probe_media(file)
        if json_output:
            print(json.dumps(found))
        else:
            _print_table(file, found)
    if plot is not None:
        draw(files, plot, frames)
        if not json_output:
            print(f"plot: {plot}")


def _print_table(file: str, found: dict[str, Any]) -> None:
    from rich.table import Table

    from mirasol_hf.cli.console import shown, table_console

    table = Table("property", "value")
    for key, value in found.items():
        if isinstance(value, dict):
            for inner, entry in value.items():
                table.add_row(f"{key}.{inner}", shown(entry))
        else:
            table.add_row(key, shown(value))
    console = table_console()
    console.print(file)
    console.print(table)
