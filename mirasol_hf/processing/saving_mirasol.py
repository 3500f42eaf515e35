"""Saving a processor or a part of one so that nothing half-written passes for whole.

`whole_folder` stands in `modeling/model_saving_mirasol.py` too: the two folders may not import each other.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

# without these the library opens no folder
_ENTRIES = {"config.json", "adapter_config.json", "processor_config.json"}


@contextmanager
def whole_folder(folder: str | os.PathLike) -> Iterator[str]:
    """Gives a temporary folder inside `folder`, from which all files move into it at the end.

    Inside, since a folder may be a file system of its own, or its parent read-only. What opens the folder
    (`config.json`) goes first and comes last, so that a save that is killed while the files move leaves nothing that
    passes for a whole one; an error before that leaves all as it was. What a killed save left is removed by the next
    one (of the same process where several work together).

    Raises:
        ValueError: `folder` is a file.
    """
    if os.path.isfile(folder):
        raise ValueError(f"save_directory {os.fspath(folder)!r} is a file, expected a folder")
    target = os.path.abspath(folder)
    is_new = not os.path.isdir(target)
    os.makedirs(target, exist_ok=True)
    prefix = f".tmp-{os.environ.get('RANK', '0')}-"
    for name in os.listdir(target):
        if name.startswith(prefix):
            shutil.rmtree(os.path.join(target, name), ignore_errors=True)
    stage = tempfile.mkdtemp(prefix=prefix, dir=target)
    try:
        yield stage
        for name in _ENTRIES.intersection(os.listdir(stage)):
            with suppress(FileNotFoundError):
                os.remove(os.path.join(target, name))
        _move(stage, target)
        is_new = False
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        if is_new:
            with suppress(OSError):
                os.rmdir(target)


def _move(source: str, target: str) -> None:
    """Files take the place of those of their name; folders are gone through, and keep what else they hold."""
    os.makedirs(target, exist_ok=True)
    for name in sorted(os.listdir(source), key=lambda name: (name in _ENTRIES, name)):
        path, place = os.path.join(source, name), os.path.join(target, name)
        if os.path.isdir(path):
            _move(path, place)
        else:
            os.replace(path, place)


def save_whole(
    save: Callable, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any
) -> list[str] | None:
    """Saves through `whole_folder`, which see for what is raised.

    Args:
        save: `save_pretrained` of the library.
        save_directory, push_to_hub, kwargs: its arguments.

    Returns:
        The paths of the files that the library names.
    """
    if push_to_hub:
        kwargs.setdefault("repo_id", os.path.basename(os.path.abspath(save_directory)))
    with whole_folder(save_directory) as stage:
        files = save(stage, push_to_hub=push_to_hub, **kwargs)
    shown = os.fspath(save_directory)
    return None if files is None else [os.path.join(shown, os.path.relpath(file, stage)) for file in files]
