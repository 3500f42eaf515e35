# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Saving a model so that nothing half-written passes for whole.

`whole_folder` stands in `processing/saving_mirasol.py` too: the two folders may not import each other.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# a model's or an adapter's file, one of its parts, or the list of these
_WEIGHTS = re.compile(r"((?:adapter_)?model)(?:-\d{5}-of-\d{5})?\.safetensors(?:\.index\.json)?")

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


def remove_other_weights(folder: str | os.PathLike, stage: str) -> None:
    """Removes from `folder` weights in another number of files than those in `stage` that will take their place.

    They would be read in place of the new ones, or beside them.
    """
    written = [found for found in map(_WEIGHTS.fullmatch, os.listdir(stage)) if found]
    for old in filter(None, map(_WEIGHTS.fullmatch, os.listdir(folder))):
        if old[1] in {new[1] for new in written} and old[0] not in {new[0] for new in written}:
            os.remove(os.path.join(folder, old[0]))
