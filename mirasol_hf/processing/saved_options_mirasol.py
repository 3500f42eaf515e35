"""Options of a saved processor: numbers within bounds, and errors that name the file they come from.

`cut` stands in `modeling/checkpoint_files_mirasol.py` too: the two folders may not import each other.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

# what a processor is loaded from
_FILES = (
    "config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
_MUST_HOLD = {"tokenizer.json": {"added_tokens", "model"}}


def check_numbers(owner: str, values: Mapping[str, Any], bounds: Mapping[str, tuple[float, float]]) -> None:
    """Refuses numbers that nothing can be computed with, or that cost time and memory beyond any use.

    Args:
        owner: the class whose options they are, for the error.
        values: number, or list of numbers, of each option.
        bounds: smallest and largest value of each; whole numbers must be whole where both bounds are.

    Raises:
        ValueError: a value is no number, not finite, or out of its bounds.
    """
    for name, (low, high) in bounds.items():
        value = values[name]
        kinds = (int,) if isinstance(low, int) and isinstance(high, int) else (int, float)
        for number in value if isinstance(value, (list, tuple)) and value else [value]:
            if isinstance(number, bool) or not isinstance(number, kinds) or not low <= number <= high:
                kind = "a whole number" if kinds == (int,) else "a number"
                raise ValueError(f"{owner}: {name}={cut(repr(value))} must be {kind} from {low:g} to {high:g}")


def cut(text: Any, length: int = 60) -> str:
    """A text in one line of at most so many characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


@contextmanager
def naming_file(
    source: Any, given: Mapping[str, Any], files: Sequence[str] = (), needed: Sequence[str] = ()
) -> Iterator[None]:
    """Turns what is raised while a processor is loaded into a ValueError that names the file.

    Args:
        source: folder, file or repository.
        given: keywords of the caller, whose misspelt names stay a TypeError.
        files: names of the files that may have been read; the first that is there is named.
        needed: names of files that are always there.

    Raises:
        ValueError: a file is damaged, or an option in it is wrong.
        OSError: there is no such file.
    """
    try:
        yield
    except (MemoryError, ImportError):  # nothing is wrong with the file
        raise
    except Exception as error:
        broken = broken_file(source)
        if broken is not None:
            raise ValueError(broken) from error
        if os.fspath(source) in str(error) and type(error) is ValueError:  # named by a part already
            raise
        missing = [name for name in needed if not os.path.isfile(os.path.join(source, name))]
        if missing and os.path.isdir(source):
            lack = f"{os.fspath(source)} holds no {', '.join(missing)}"
            raise ValueError(f"{lack}; expected what a processor saves") from error
        whole = os.path.join(source, "processor_config.json")
        if type(error) is OSError and os.path.isfile(whole):  # the library's, for a part that it looks for elsewhere
            raise ValueError(f"{whole} lacks a part of the processor, or its tokenizer is missing") from error
        if isinstance(error, OSError):
            raise
        if isinstance(error, TypeError) and any(name in str(error) for name in given):
            raise
        # the tokenizers library raises nothing more special
        names = ("tokenizer.json",) if type(error) is Exception else files
        paths = [path for path in (os.path.join(source, name) for name in names) if os.path.isfile(path)]
        raise ValueError(f"{cut(error, 180)} (while loading {[*paths, os.fspath(source)][0]})") from error


def broken_file(source: Any) -> str | None:
    """What is wrong with a file that a processor is loaded from, if it is not JSON or lacks what must be in it."""
    files = [os.fspath(source)] if os.path.isfile(source) else [os.path.join(source, name) for name in _FILES]
    for path in filter(os.path.isfile, files):
        try:
            with open(path, encoding="utf-8") as file:
                found = json.load(file)
        except (ValueError, RecursionError) as error:
            return f"{path} is not JSON: {cut(error, 100)}"
        if not isinstance(found, dict):
            return f"{path} holds {cut(json.dumps(found))}, expected a JSON object"
        lacking = sorted(_MUST_HOLD.get(os.path.basename(path), set()) - set(found))
        if lacking:
            return f"{path} lacks {', '.join(lacking)}"
    return None
