"""What is drawn is drawn evenly, and a context gives nothing away: there is little to guess from."""

from collections import Counter, defaultdict
from statistics import mean, median

import numpy as np
import pytest

from mirasol_hf.data.avscenes import QUESTION_FAMILIES, sample_scene
from mirasol_hf.data.vocabulary import COLORS, MOTIONS, NAMES, NUMBER_WORDS, SHAPES, SILENCE, SOUNDS
from mirasol_hf.data.wording import WORDINGS

ANSWERS = {*COLORS, *SHAPES, *SOUNDS, *NUMBER_WORDS, "nothing", "left", "right", "up", "down", "nowhere"}


@pytest.fixture(scope="module")
def scenes():
    return [sample_scene("train", index) for index in range(800)]


@pytest.fixture(scope="module")
def questions(scenes):
    return [question for scene in scenes for question in scene.questions(limit=12)]


def test_durations_are_mostly_short_and_files_differ(scenes):
    assert 8 < median(scene.duration for scene in scenes) < 12.5
    assert {scene.fps for scene in scenes} == {10, 12, 15, 20, 25}
    assert {scene.size for scene in scenes} == {64, 96, 128}
    assert {scene.sampling_rate for scene in scenes} == {16000, 22050, 32000, 44100}
    counts = Counter(len(scene.events) for scene in scenes)
    assert set(counts) == {2, 3, 4, 5} and max(counts.values()) < 0.3 * len(scenes)


def test_attributes_are_drawn_evenly(scenes):
    events = [event for scene in scenes for event in scene.events]
    for attribute, values in (("color", tuple(COLORS)), ("shape", SHAPES), ("motion", MOTIONS), ("sound", SOUNDS)):
        shares = [mean(getattr(event, attribute) == value for event in events) for value in values]
        assert max(shares) < 1.35 * min(shares), (attribute, shares)
    assert 0.08 < mean(event.sound == SILENCE for event in events) < 0.15


def test_shapes_stay_in_the_picture_and_move_where_they_say(scenes):
    directions = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}
    for event in (event for scene in scenes for event in scene.events):
        assert all(event.diameter / 2 <= place <= 1 - event.diameter / 2 for place in event.path)
        moved = np.subtract(event.path[2:], event.path[:2])
        assert tuple(np.sign(moved)) == directions[event.motion]
        assert event.motion == "still" or np.abs(moved).sum() > 0.25


def test_sounds_keep_to_their_event_loosely(scenes):
    shifts = []
    for scene in scenes:
        for event in scene.events:
            shift = np.abs([event.sound_start - event.start, event.sound_end - event.end]) / (event.end - event.start)
            assert shift.max() <= 0.15 + 1e-9
            shifts.append(shift.mean())
    assert mean(shifts) > 0.03


def test_answers_are_balanced_within_each_kind(questions):
    answers = defaultdict(Counter)
    for question in questions:
        answers[question.kind][question.answer] += 1
    for kind, counts in answers.items():
        assert counts.total() >= 100, kind
        assert max(counts.values()) / counts.total() < (0.42 if kind.startswith("count") else 0.31), (kind, counts)


def test_families_are_asked_equally_often(questions):
    counts = Counter(question.family for question in questions)
    assert set(counts) == set(QUESTION_FAMILIES)
    # A short clip may run out of questions of the smallest families.
    assert min(counts.values()) > 0.8 * max(counts.values())


def test_every_wording_name_and_spelling_is_used(questions):
    assert {question.kind for question in questions} == set(WORDINGS)
    assert all(2 <= len(wordings) <= 4 for wordings in WORDINGS.values())
    assert {question.answer for question in questions} <= ANSWERS
    contexts = " ".join(question.context for question in questions if question.context)
    assert all(f"called {name}." in contexts for name in NAMES)
    words = " ".join(question.question for question in questions)
    assert "colour" in words and "color " in words


def test_a_context_names_one_to_three_shapes_and_not_what_is_asked(questions):
    counts = Counter()
    for question in (question for question in questions if question.context is not None):
        counts[question.context.count(" is called ")] += 1
        # "named_color" and "named_color_after" ask for a colour: a context that mentions colours would rule some out.
        given = COLORS if "color" in question.kind else SHAPES if "shape" in question.kind else ()
        assert not any(value in question.context for value in given), question
    assert set(counts) == {1, 2, 3}


def test_chance_does_not_depend_on_the_split():
    """The most frequent answer of each kind in training, asked of scenes with pairs that training never saw."""
    seen, right = defaultdict(Counter), []
    for split, count in (("train", 300), ("compositional", 150)):
        for question in (q for index in range(count) for q in sample_scene(split, index).questions(limit=6)):
            if split == "train":
                seen[question.kind][question.answer] += 1
            else:
                right.append(seen[question.kind].most_common(1)[0][0] == question.answer)
    assert mean(right) < 0.3
