"""`mirasol hub`: folders for the Hugging Face Hub."""

import sys
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
        Path | None,
        typer.Option(
            help="training_result.json for the card; that of --model if absent, where it is about these weights."
        ),
    ] = None,
    evaluation: Annotated[
        list[Path] | None, typer.Option(help="Output of `mirasol eval --json` for the card.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name on the card; that of DIR if absent.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write into DIR though it holds something.")] = False,
) -> None:
    """Write model, processor, code and model card into one folder."""
    from mirasol_hf.cli.loading import model_folder
    from mirasol_hf.hub.card import read_json
    from mirasol_hf.hub.export import export as write
    from mirasol_hf.training.provenance import weights_hash

    pipe = load_pipeline(model)
    beside = model_folder(model) / "training_result.json"
    if training_result is None and beside.is_file():
        if read_json(beside, "recipe").get("weights") == weights_hash(pipe.model):
            training_result = beside
        else:
            print(f"mirasol: note: {beside} is about other weights; not on the card", file=sys.stderr)
    write(
        pipe,
        folder,
        with_code=code,
        max_shard_size=max_shard_size,
        training_result=training_result,
        evaluations=list(evaluation or ()),
        name=name,
        overwrite=overwrite,
    )
    print(f"saved in {folder}")
