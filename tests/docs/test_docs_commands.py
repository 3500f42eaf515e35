"""Commands of the console application that the pages show have the options they are shown with."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from mirasol_hf.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
SHOWN = re.compile(r"\bmirasol ([a-z]+)((?: +[^`\n#]*)?)")  # as far as the line, the code span or a comment goes


def options_of(command: Any) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}


def unknown_options(text: str) -> list[str]:
    """What the commands of a text are shown with and do not have."""
    commands = typer.main.get_command(app).commands
    faults = []
    for match in SHOWN.finditer(text):
        command, words = commands.get(match[1]), match[2].split()
        if command is None:
            continue
        inner = getattr(command, "commands", {})
        if inner and words and words[0] in inner:
            command = inner[words[0]]
        known = options_of(command)
        faults += [f"{match[0].strip()}: {word}" for word in re.findall(r"--[a-z-]+", match[2]) if word not in known]
    return faults


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_have_the_options_they_are_shown_with(page: Path) -> None:
    assert unknown_options(page.read_text(encoding="utf-8")) == []


def test_an_option_that_does_not_exist_is_found() -> None:
    assert unknown_options("`mirasol demo --index 3` and\nmirasol hub export DIR --no-code --cod  # --x") == [
        "mirasol demo --index 3: --index",
        "mirasol hub export DIR --no-code --cod: --cod",
    ]
