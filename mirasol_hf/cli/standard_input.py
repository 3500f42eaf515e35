"""Media that come through a pipe."""

import sys
from typing import BinaryIO

STANDARD_INPUT = "-"


def media_source(video: str) -> str | BinaryIO:
    """What is read for a VIDEO argument: a path, or for `-` the standard input.

    Raises:
        ValueError: the standard input is closed.
    """
    if video != STANDARD_INPUT:
        return video
    if sys.stdin is None:
        raise ValueError("standard input is closed, and VIDEO is -; a file of that name is ./-")
    return sys.stdin.buffer


def media_name(video: str) -> str:
    """How messages call a VIDEO argument."""
    return "standard input" if video == STANDARD_INPUT else video
