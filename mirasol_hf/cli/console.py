"""Tables on stdout."""

from typing import Any

from rich.console import Console

# Piped output has no width of its own; this keeps a table's rows on one line.
_PIPED_WIDTH = 160


def table_console() -> Console:
    """A console as wide as the terminal, or wide enough for tables where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=_PIPED_WIDTH)


def shown(value: Any) -> str:
    """A value as a table shows it: numbers without the noise of their last digits, nothing as `none`."""
    if value is None or value == []:
        return "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "; ".join(map(shown, value)) if isinstance(value, (list, tuple)) else str(value)
