"""Saving that leaves nothing half-written: files appear in their folder when all of them are whole."""

import os
import shutil
import uuid
from collections.abc import Callable
from typing import Any


def save_whole(
    save: Callable, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any
) -> list[str] | None:
    """Saves under a temporary name beside `save_directory` and moves the files there when all are whole.

    A run that is broken off thus leaves what was there before.

    Args:
        save: `save_pretrained` of the library.
        save_directory, push_to_hub, kwargs: its arguments.

    Returns:
        The paths of the files that the library names.

    Raises:
        ValueError: `save_directory` is a file.
    """
    if os.path.isfile(save_directory):
        raise ValueError(f"save_directory {os.fspath(save_directory)!r} is a file, expected a folder")
    target = os.path.abspath(save_directory)
    parent, name = os.path.split(target)
    if push_to_hub:
        kwargs.setdefault("repo_id", name)
    os.makedirs(parent, exist_ok=True)
    partial = os.path.join(parent, f".{name}.{uuid.uuid4().hex}.partial")
    try:
        os.makedirs(partial)
        files = save(partial, push_to_hub=push_to_hub, **kwargs)
        move_files(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shown = os.fspath(save_directory)
    return None if files is None else [os.path.join(shown, os.path.relpath(file, partial)) for file in files]


def move_files(source: str, target: str) -> None:
    """Files take the place of those of their name; folders are gone through, and keep what else they hold."""
    os.makedirs(target, exist_ok=True)
    for name in sorted(os.listdir(source)):
        path, place = os.path.join(source, name), os.path.join(target, name)
        if os.path.isdir(path):
            move_files(path, place)
        else:
            os.replace(path, place)
