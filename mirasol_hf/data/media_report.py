"""A record of bad media files that any number of processes write."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class BadFile:
    """One meeting with a file that could not be read, or only in part.

    Attributes:
        file: its path, or how errors call it.
        kind: class of the error, or `"MediaWarning"` for a file that was read in part.
        message: what was wrong.
        process: number of the process that met it.
    """

    file: str
    kind: str
    message: str
    process: int

    @property
    def partial(self) -> bool:
        """Whether the file was read, in part."""
        return self.kind == "MediaWarning"


class MediaReport:
    """Bad files, one JSON line each in a file that all workers append to.

    A copy of the object in another process, forked or spawned, writes to the same file: a line is written by one call
    in append mode, so lines of several processes do not mix.

    Args:
        path: where the lines go; what is there already stays. None takes a new temporary file.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        if path is None:
            handle, name = tempfile.mkstemp(prefix="mirasol-bad-files-", suffix=".jsonl")
            os.close(handle)
            path = name
        self.path = Path(path)

    def add(self, file: str, error: Exception) -> None:
        """Take note of a file."""
        entry = BadFile(file, type(error).__name__, " ".join(str(error).split()), os.getpid())
        line = (json.dumps(asdict(entry)) + "\n").encode()
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, line)
        finally:
            os.close(handle)

    def entries(self) -> list[BadFile]:
        """Every meeting so far, in the order in which they were written; a file read twice is there twice."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return [BadFile(**json.loads(line)) for line in lines]

    def __len__(self) -> int:
        """Files that could not be read, each counted once."""
        return len({entry.file for entry in self.entries() if not entry.partial})

    def __bool__(self) -> bool:
        return True

    def summary(self) -> str:
        """One line for people: how many files failed or were read in part, and why."""
        worst: dict[str, BadFile] = {}
        for entry in self.entries():
            if entry.file not in worst or not entry.partial:
                worst[entry.file] = entry
        kinds = Counter(entry.kind for entry in worst.values() if not entry.partial)
        partial = sum(entry.partial for entry in worst.values())
        causes = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
        return f"{kinds.total()} files could not be read{f' ({causes})' if causes else ''}, {partial} only in part"

    def clear(self) -> None:
        """Forget everything."""
        self.path.write_text("")
