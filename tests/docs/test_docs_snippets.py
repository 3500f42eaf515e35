"""Runs the Python code of README, model card and docs/, block after block, as one who reads the page would.

A page's blocks share their names and a working directory with the files that pages talk about; the standard input is
a clip. A block whose fence says ```` ```python notest ```` is shown and not run. A page with the comment
`<!-- snippets: slow -->` runs with the slow tests.
"""

import logging
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

import mirasol_hf

DOCS = Path(__file__).resolve().parents[2] / "docs"
FENCE = re.compile(r"^```python([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CLIPS = ("clip.mp4", "a.mp4", "b.mp4")  # copies of the sample clip


def python_blocks(page: Path) -> list[tuple[int, str]]:
    """The line number and the code of each block that is run."""
    text = page.read_text(encoding="utf-8")
    blocks = []
    for match in FENCE.finditer(text):
        if "notest" not in match[1].split():
            blocks.append((text.count("\n", 0, match.start(2)), match[2]))
    return blocks


def pages() -> list[Any]:
    found = []
    for page in (DOCS.parent / "README.md", DOCS.parent / "model_card.md", *sorted(DOCS.glob("*.md"))):
        if python_blocks(page):
            slow = "<!-- snippets: slow -->" in page.read_text(encoding="utf-8")
            found.append(pytest.param(page, id=page.stem, marks=pytest.mark.slow if slow else ()))
    return found


def run_page(page: Path) -> dict[str, Any]:
    """Runs a page in the working directory; an error names the page and its line."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for line, code in python_blocks(page):
        exec(compile("\n" * line + code, str(page), "exec"), names)
    return names


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in CLIPS:
        shutil.copy(mirasol_hf.SAMPLE_CLIP, tmp_path / name)
    times = np.arange(16_000) / 16_000
    soundfile.write(tmp_path / "sound.wav", 0.1 * np.sin(2 * np.pi * 440 * times), 16_000)
    monkeypatch.chdir(tmp_path)
    with open("clip.mp4", "rb") as clip, warnings.catch_warnings():
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=clip))
        warnings.simplefilter("ignore", FutureWarning)  # the library's own, from its experimental parts
        # torch 2.13 logs a warning that cannot be formatted when it loads a program with a cache among its inputs
        monkeypatch.setattr(logging.getLogger("torch._export.serde.serialize"), "disabled", True)
        yield tmp_path


@pytest.mark.parametrize("page", pages())
def test_page(page: Path, workplace: Path) -> None:
    run_page(page)


def test_blocks_and_their_lines(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A\n\n```python\nfirst = 1\n```\n```sh\nls\n```\n```python notest\nboom\n```\n\n```python\nfirst / 0\n```\n"
    )
    assert python_blocks(page) == [(3, "first = 1\n"), (13, "first / 0\n")]
    with pytest.raises(ZeroDivisionError) as error:
        run_page(page)
    assert error.traceback[-1].path == page and error.traceback[-1].lineno == 13
