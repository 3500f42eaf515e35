"""The console command `mirasol`."""

import sys
import warnings
from collections.abc import Sequence
from typing import Any


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and ends the process.

    Bad input (`ValueError`, `OSError`) is told in one line on stderr with exit code 2; anything else is a fault of the
    package and keeps its traceback.

    Args:
        arguments: the words after `mirasol`; `None` takes those of the process.
    """
    from mirasol_hf.cli.app import app

    warnings.showwarning = _show_warning
    try:
        app(args=None if arguments is None else list(arguments), prog_name="mirasol")
    except (ValueError, OSError) as error:
        print(f"mirasol: error: {one_line(error)}", file=sys.stderr)
        raise SystemExit(2) from None


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """What was read in part is told like an error, in one line; warnings of libraries are not for this user."""
    from mirasol_hf.processing.media_limits_mirasol import MediaWarning

    if issubclass(category, MediaWarning):
        print(f"mirasol: warning: {' '.join(str(message).split())}", file=sys.stderr)


def one_line(error: BaseException) -> str:
    """What the error says, without line breaks; an error without words gives its class name."""
    return " ".join(str(error).split()) or type(error).__name__
