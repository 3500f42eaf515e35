"""Runs `mirasol` in this process and tells what a shell would see."""

from dataclasses import dataclass

import pytest

from mirasol_hf.cli import main


@dataclass
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def mirasol(capsys):
    """`mirasol("ask", ...)` -> exit code, stdout and stderr."""

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main([str(argument) for argument in arguments])
        code = exit_info.value.code
        captured = capsys.readouterr()
        return Ran(0 if code is None else code, captured.out, captured.err)

    return run


@pytest.fixture
def refused(mirasol):
    """Runs a command that must end in one line on stderr with exit code 2; returns the line."""

    def run(*arguments):
        ran = mirasol(*arguments)
        assert ran.code == 2, (ran.out, ran.err)
        lines = ran.err.strip().splitlines()
        assert len(lines) == 1, ran.err
        assert lines[0].startswith("mirasol: error: ")
        assert ran.out == ""
        return lines[0]

    return run
