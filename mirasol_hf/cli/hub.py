"""`mirasol hub`: folders for the Hugging Face Hub."""

from pathlib import Path
from typing import Annotated

import typer

from mirasol_hf.cli.loading import load_pipeline
from mirasol_hf.cli.options import ModelOption

hub = typer.Typer(help="Folders for the Hugging Face Hub.", no_args_is_help=True, rich_markup_mode=None)


@hub.callback()
def _group() -> None:
    """Folders for the Hugging Face Hub."""


@hub.command("export")
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write.")],
    model: ModelOption = None,
    code: Annotated[bool, typer.Option(help="Also the code, for use without this package.")] = True,
    max_shard_size: Annotated[str | None, typer.Option(help="Largest weight file, such as 5GB.")] = None,
    training_result: Annotated[
        Path | None, typer.Option(help="training_result.json for the card; that of --model if absent.")
    ] = None,
    evaluation: Annotated[
        list[Path] | None, typer.Option(help="Output of `mirasol eval --json` for the card.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name on the card; that of DIR if absent.")] = None,
) -> None:
    """Write model, processor, code and model card into one folder."""
    from mirasol_hf.cli.loading import model_folder
    from mirasol_hf.hub.export import export as write

    pipe = load_pipeline(model)
    beside = model_folder(model) / "training_result.json"
    result = training_result if training_result is not None else beside if beside.is_file() else None
    write(
        pipe,
        folder,
        with_code=code,
        max_shard_size=max_shard_size,
        training_result=result,
        evaluations=list(evaluation or ()),
        name=name,
    )
    print(f"saved in {folder}")
