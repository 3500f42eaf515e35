"""The file that `--plot` names."""

from pathlib import Path


def check_plot_file(path: Path) -> None:
    """Fails before the work rather than after it.

    Raises:
        ValueError: without matplotlib, or for a path that is no PNG in an existing folder.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ValueError("--plot needs matplotlib: pip install 'mirasol_hf[plots]'") from None
    if path.suffix.lower() != ".png":
        raise ValueError(f"--plot {path} must end in .png")
    if not path.parent.is_dir():
        raise ValueError(f"--plot {path}: there is no folder {path.parent}")
