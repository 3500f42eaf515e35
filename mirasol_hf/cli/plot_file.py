"""The file that `--plot` names."""

from importlib.util import find_spec
from pathlib import Path


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def check_plot_file(path: Path) -> None:
    """Fails before the work rather than after it.

    Raises:
        ValueError: without matplotlib, or for a path that is no PNG in an existing folder.
    """
    if not can_plot():
        raise ValueError("--plot needs matplotlib: pip install 'mirasol_hf[plots]'")
    if path.suffix.lower() != ".png":
        raise ValueError(f"--plot {path} must end in .png")
    if not path.parent.is_dir():
        raise ValueError(f"--plot {path}: there is no folder {path.parent}")
