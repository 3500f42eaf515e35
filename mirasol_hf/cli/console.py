"""Tables on stdout."""

from rich.console import Console

# Piped output has no width of its own; this keeps a table's rows on one line.
_PIPED_WIDTH = 160


def table_console() -> Console:
    """A console as wide as the terminal, or wide enough for tables where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=_PIPED_WIDTH)
