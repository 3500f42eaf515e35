"""Clips with questions whose true answers are known: the sample that ships, and one rendered on the spot."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mirasol_hf.assets import SAMPLE_CLIP, SAMPLE_QUESTIONS

if TYPE_CHECKING:
    from mirasol_hf.data.avscenes import Scene

# The spot-rendered clip comes from the test split, of which the model saw nothing; the index can be chosen.
SPOT_SPLIT = "test"


@dataclass(frozen=True)
class AskedQuestion:
    """A question about a clip and its true answer."""

    family: str
    question: str
    context: str | None
    answer: str


@dataclass(frozen=True)
class AskedClip:
    """A clip and the questions to ask about it."""

    path: Path
    title: str
    questions: tuple[AskedQuestion, ...]


def sample_clip() -> AskedClip:
    """The clip that ships with the package, with at least one question of each family.

    Raises:
        OSError: the installation lacks the clip or its questions.
        ValueError: the questions' file is not what `write_sample` writes.
    """
    for path in (SAMPLE_CLIP, SAMPLE_QUESTIONS):
        if not path.is_file():
            raise FileNotFoundError(f"{path.name} is missing from the installed package (assets)")
    stored = json.loads(SAMPLE_QUESTIONS.read_text(encoding="utf-8"))
    try:
        questions = tuple(AskedQuestion(**entry) for entry in stored["questions"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{SAMPLE_QUESTIONS.name} is not a file of questions: {error}") from error
    return AskedClip(SAMPLE_CLIP, f"the sample clip ({SAMPLE_CLIP.name})", questions)


@contextmanager
def spot_clip(index: int) -> Iterator[AskedClip]:
    """Renders scene `index` of the test split to a temporary mp4 that exists inside the `with` block.

    Raises:
        ValueError: `index` is negative.
    """
    from mirasol_hf.data.avscenes import sample_scene, write_scene

    scene = sample_scene(SPOT_SPLIT, index, max_seconds=16)
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"scene-{index}.mp4"
        write_scene(scene, path)
        title = f"a clip rendered on the spot (test scene {index}, {scene.duration:.1f} s)"
        yield AskedClip(path, title, questions_of_each_family(scene))


def questions_of_each_family(scene: "Scene") -> tuple[AskedQuestion, ...]:
    """One question of every family that the scene allows."""
    from mirasol_hf.data.avscenes import question_families

    asked = (question for family in question_families for question in scene.questions(limit=1, families=(family,)))
    return tuple(AskedQuestion(q.family, q.question, q.context, q.answer) for q in asked)


def write_sample(index: int, split: str = SPOT_SPLIT, folder: Path = SAMPLE_CLIP.parent) -> AskedClip:
    """Makes the two files of the sample: the clip as mp4 and its questions as JSON.

    Args:
        index: number of the scene in its split.
        split: which split the scene is from.
        folder: where `sample.mp4` and `sample.json` go.

    Raises:
        ValueError: the scene has no question of some family.
    """
    from mirasol_hf.data.avscenes import question_families, sample_scene, write_scene

    scene = sample_scene(split, index, max_seconds=16)
    questions = questions_of_each_family(scene)
    missing = set(question_families) - {question.family for question in questions}
    if missing:
        raise ValueError(f"scene {index} of {split} has no question of {', '.join(sorted(missing))}; take another")
    path = folder / SAMPLE_CLIP.name
    write_scene(scene, path)
    stored: dict[str, Any] = {
        "split": split,
        "index": index,
        "duration": scene.duration,
        "questions": [vars(question) for question in questions],
    }
    (folder / SAMPLE_QUESTIONS.name).write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
    return AskedClip(path, f"scene {index} of {split}", questions)
