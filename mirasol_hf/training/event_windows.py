"""The first part of the AVScenes curriculum: windows that hold one event, and what is seen and heard in them.

With a single event in view there is nothing to place in time, so the towers learn shapes, colours, motions and sounds
from a few thousand windows; clips with several events are then about time, order and reference alone.
"""

from __future__ import annotations

import numpy as np

from mirasol_hf.data.avscenes import Event, Question, Scene
from mirasol_hf.data.wording import MOMENTS, WORDINGS, motion_answer, sound_answer


def choose_event_window(scene: Scene, rng: np.random.Generator) -> tuple[Event, float, float]:
    """Choose an event and the seconds `(start, end)` during which it is both seen and heard."""
    event = scene.events[int(rng.integers(len(scene.events)))]
    return event, max(event.start, event.sound_start), min(event.end, event.sound_end)


def event_questions(event: Event, rng: np.random.Generator) -> list[Question]:
    """Ask for the colour, shape, motion and sound of the only event in view, in the wordings of whole clips."""
    references = (event.shape, f"{event.color} shape", f"{event.color} {event.shape}")
    asked = (
        ("seen", "seen_color", event.color),
        ("seen", "seen_shape", event.shape),
        ("seen", "seen_motion", motion_answer(event.motion)),
        ("heard", "heard", sound_answer(event.sound)),
    )
    questions = []
    for family, kind, answer in asked:
        wordings = WORDINGS[kind]
        text = wordings[int(rng.integers(len(wordings)))].format(
            moment=MOMENTS[int(rng.integers(len(MOMENTS)))], shape=references[int(rng.integers(len(references)))]
        )
        questions.append(Question(family, kind, text[0].upper() + text[1:], None, answer, (0,)))
    return questions
