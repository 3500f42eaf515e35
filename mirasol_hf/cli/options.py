"""Options that several commands share."""

from typing import Annotated, TypeAlias

import typer

ModelOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--model", metavar="DIR", help="Folder of a checkpoint or an adapter; the embedded one if absent."),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
