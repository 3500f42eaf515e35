"""Progress bars on stderr, so that stdout holds nothing but the result."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[float, float], None]]:
    """A bar that appears with the first report and goes away at the end; only where stderr is a terminal.

    Args:
        what: the word before the bar.

    Yields:
        A function to call with how much is done and of how much.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None, visible=False)

        def report(done: float, total: float) -> None:
            progress.update(task, completed=done, total=total, visible=True)

        yield report
