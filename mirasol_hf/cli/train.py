"""`mirasol train`: trains a model by a recipe."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[str, typer.Option(help="Name of a recipe that ships with the package, or a recipe file.")],
    output_dir: Annotated[
        Path | None, typer.Option(help="Folder for the model and its checkpoints; runs/RECIPE if absent.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in the folder, if there is one.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start anew, though the folder holds a model or a run.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Start even where the model in training needs more memory than is free.")
    ] = False,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Recipe entries to replace.")
    ] = None,
) -> None:
    """Train a model by a recipe."""
    from mirasol_hf.training.train import run_recipe

    folder = Path("runs") / Path(recipe).stem if output_dir is None else output_dir
    run_recipe(recipe, folder, resume, overrides or [], overwrite, force)
    print(f"saved in {folder}")
