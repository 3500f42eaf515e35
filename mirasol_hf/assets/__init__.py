"""What ships with the package: the embedded trained checkpoint and a sample clip with its questions.

The files are read from disk on demand; this module only says where they are.
"""

from pathlib import Path

_FOLDER = Path(__file__).resolve().parent

EMBEDDED_MODEL: Path = _FOLDER / "avscenes-tiny"
"""Folder of the embedded default checkpoint: config, weights, tokenizer and processor."""

SAMPLE_CLIP: Path = _FOLDER / "sample.mp4"
"""A short AVScenes clip with sound."""

SAMPLE_QUESTIONS: Path = _FOLDER / "sample.json"
"""Questions about the sample clip, each with family, context and true answer."""
