"""In place of the library's downloads for its tests: every address becomes a local file of the same kind."""

import wave
from pathlib import Path
from urllib.parse import urlparse

import numpy as np

SOUND = {".mp3", ".wav", ".flac"}
PICTURE = {".png", ".jpg", ".jpeg"}


def url_to_local_path(url: str) -> str:
    """The package's sample clip for a film, a second of noise for a sound, a grey picture for a picture."""
    from mirasol_hf import SAMPLE_CLIP

    suffix = Path(urlparse(url).path).suffix.lower()
    folder = Path(__file__).resolve().parent / "media"
    if suffix in SOUND:
        return str(_sound(folder / f"{Path(urlparse(url).path).stem}.wav"))
    if suffix in PICTURE:
        return str(_picture(folder / f"{Path(urlparse(url).path).stem}.png"))
    return str(SAMPLE_CLIP)


def _sound(path: Path) -> Path:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = np.random.default_rng(0).normal(0, 3000, 16_000).astype("<i2")
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 16_000, len(samples), "NONE", ""))
            file.writeframes(samples.tobytes())
    return path


def _picture(path: Path) -> Path:
    from PIL import Image

    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48), (128, 128, 128)).save(path)
    return path
