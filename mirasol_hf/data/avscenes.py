"""AVScenes: procedural clips with sound, and questions about them, to learn from without a download.

`sample_scene(split, index)` describes a clip. From the description, `Scene.render_frames` and `Scene.render_audio`
make arrays directly (training), `write_scene` makes a real mp4 (evaluation), `Scene.questions` asks, and
`build_dataset` collects all of it in a `datasets.Dataset`.
"""

from __future__ import annotations

from .dataset import build_dataset
from .encoding import scene_to_bytes, write_scene
from .question_builder import Question
from .sampling import sample_scene
from .scene import Dot, Event, Scene
from .vocabulary import HELD_OUT_PAIRS, QUESTION_FAMILIES, SPLITS

question_families = QUESTION_FAMILIES

__all__ = [
    "HELD_OUT_PAIRS",
    "QUESTION_FAMILIES",
    "SPLITS",
    "Dot",
    "Event",
    "Question",
    "Scene",
    "build_dataset",
    "question_families",
    "sample_scene",
    "scene_to_bytes",
    "write_scene",
]
