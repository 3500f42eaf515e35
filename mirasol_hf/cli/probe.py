"""`mirasol probe`: says what a media file holds."""

import json
from typing import Annotated, Any

import typer

from mirasol_hf.cli.options import JsonOption


def probe(
    file: Annotated[str, typer.Argument(help="A video or audio file.")],
    json_output: JsonOption = False,
) -> None:
    """Say what a media file holds: streams, durations, rates."""
    from mirasol_hf.processing.media_mirasol import probe_media

    found = probe_media(file)
    if json_output:
        print(json.dumps(found))
    else:
        _print_table(file, found)


def _print_table(file: str, found: dict[str, Any]) -> None:
    from rich.table import Table

    from mirasol_hf.cli.console import table_console

    table = Table("property", "value")
    for key, value in found.items():
        if isinstance(value, dict):
            for inner, entry in value.items():
                table.add_row(f"{key}.{inner}", str(entry))
        else:
            table.add_row(key, str(value))
    console = table_console()
    console.print(file)
    console.print(table)
