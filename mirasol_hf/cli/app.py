"""All commands of `mirasol` in one Typer application."""

from typing import Annotated

import typer

from mirasol_hf.cli.ask import ask
from mirasol_hf.cli.bench import bench
from mirasol_hf.cli.demo import demo
from mirasol_hf.cli.evaluate import evaluate
from mirasol_hf.cli.hub import hub
from mirasol_hf.cli.info import info
from mirasol_hf.cli.probe import probe
from mirasol_hf.cli.train import train
from mirasol_hf.cli.web import web
from mirasol_hf.version import __version__

app = typer.Typer(
    name="mirasol",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"mirasol_hf {__version__}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Answers questions about videos with their sound, with Mirasol3B models for Hugging Face Transformers."""


app.command("ask")(ask)
app.command("probe")(probe)
app.command("info")(info)
app.command("demo")(demo)
app.command("web")(web)
app.command("train")(train)
app.command("eval")(evaluate)
app.add_typer(bench, name="bench")
app.add_typer(hub, name="hub")
