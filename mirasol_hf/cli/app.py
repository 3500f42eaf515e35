"""All commands of `mirasol` in one Typer application."""

import typer

from mirasol_hf.cli.ask import ask
from mirasol_hf.cli.bench import bench
from mirasol_hf.cli.demo import demo
from mirasol_hf.cli.evaluate import evaluate
from mirasol_hf.cli.hub import hub
from mirasol_hf.cli.info import info
from mirasol_hf.cli.probe import probe
from mirasol_hf.cli.train import train

app = typer.Typer(
    name="mirasol",
    help="Answers questions about videos with their sound, with Mirasol3B models for Hugging Face Transformers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("ask")(ask)
app.command("probe")(probe)
app.command("info")(info)
app.command("demo")(demo)
app.command("train")(train)
app.command("eval")(evaluate)
app.add_typer(bench, name="bench")
app.add_typer(hub, name="hub")
