"""AVScenes as a `datasets.Dataset`: one row for each question, the clip as an encoded file that its rows share.

The file is written once and the rows hold its path, so eight questions about a clip cost one copy of it.
`Dataset.push_to_hub` and `embed_external_files` put the bytes into the rows where a data set must travel.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .encoding import write_scene
from .question_builder import Question
from .sampling import sample_scene
from .vocabulary import SPLITS

if TYPE_CHECKING:
    from datasets import Dataset

    from .scene import Scene

# Raised whenever rendering or encoding changes what a description looks or sounds like.
_FILE_VERSION = 1


def build_dataset(
    split: str,
    num_scenes: int,
    questions_per_scene: int | None = 6,
    *,
    first_scene: int = 0,
    families: Iterable[str] | None = None,
    question_seed: int = 0,
    min_seconds: float = 4.0,
    max_seconds: float = 64.0,
    directory: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Scenes `first_scene` … `first_scene + num_scenes - 1` of a split, with questions.

    Args:
        split: "train", "validation", "test" or "compositional".
        num_scenes: how many clips to write.
        questions_per_scene: at most that many rows for a clip, spread over the families; `None` takes them all.
        first_scene: index of the first scene.
        families: which families to ask; `None` for all six.
        question_seed: another seed asks other questions about the same clips.
        min_seconds: shortest clip, in seconds.
        max_seconds: longest clip, in seconds.
        directory: where the mp4 files go; `None` is `avscenes` in the cache folder of `datasets`. A file that is
            there already is used again: its name tells exactly which scene is in it.
        progress: called with the number of clips done and `num_scenes`.

    Returns:
        rows of `video` (`datasets.Video(decode=False)`: a dict of which `path` is the mp4), `scene_index`,
        `question`, `context` (`None` outside the family "context"), `answer`, `family` and `kind`.

    Raises:
        ValueError: if an argument is outside what `sample_scene` and `Scene.questions` allow, or `num_scenes` < 1.
        OSError: if a file cannot be written.
    """
    _check(split, num_scenes)
    wanted = None if families is None else (families,) if isinstance(families, str) else tuple(families)
    folder = _cache_folder() if directory is None else Path(directory)
    rows: list[dict[str, Any]] = []
    for done, index in enumerate(range(first_scene, first_scene + num_scenes), start=1):
        scene = sample_scene(split, index, min_seconds=min_seconds, max_seconds=max_seconds)
        # Asked before the file is written: a wrong argument must not cost a clip.
        questions = scene.questions(limit=questions_per_scene, families=wanted, seed=question_seed)
        path = _scene_file(scene, folder)
        rows += [_row(question, index, path) for question in questions]
        if progress is not None:
            progress(done, num_scenes)
    return _to_dataset(rows)


def _check(split: str, num_scenes: int) -> None:
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if isinstance(num_scenes, bool) or not isinstance(num_scenes, int) or num_scenes < 1:
        raise ValueError(f"num_scenes must be a whole number of at least 1, got {num_scenes!r}")


def _scene_file(scene: Scene, folder: Path) -> str:
    """Path of the scene's mp4, written if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(f"{_FILE_VERSION} {scene!r}".encode()).hexdigest()[:12]
    path = folder / f"{scene.split}-{scene.index:06d}-{digest}.mp4"
    if not path.is_file():
        write_scene(scene, path)
    return str(path.resolve())


def _cache_folder() -> Path:
    from datasets import config

    return Path(config.HF_DATASETS_CACHE) / "avscenes"


def _row(question: Question, scene_index: int, path: str) -> dict[str, Any]:
    return {
        "video": path,
        "scene_index": scene_index,
        "question": question.question,
        "context": question.context,
        "answer": question.answer,
        "family": question.family,
        "kind": question.kind,
    }


def _to_dataset(rows: list[dict[str, Any]]) -> Dataset:
    # Imported here: training from rendered arrays needs neither the library nor its import time.
    from datasets import Dataset, Features, Value, Video

    text = ("question", "context", "answer", "family", "kind")
    features = {
        "video": Video(decode=False),
        "scene_index": Value("int64"),
        **{name: Value("string") for name in text},
    }
    return Dataset.from_list(rows, features=Features(features))
