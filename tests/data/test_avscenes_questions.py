"""Questions: true by an independent reading, balanced, about held-out pairs where they must be."""

from collections import Counter, defaultdict

import pytest

from mirasol_hf.data.avscenes import HELD_OUT_PAIRS, QUESTION_FAMILIES, SPLITS, Question, Scene, sample_scene
from tests.data.avscenes_oracle import defensible_answers

KINDS = {
    "seen": {"seen_color", "seen_shape", "seen_motion"},
    "heard": {"heard"},
    "order": {
        *("color_after", "color_before", "shape_after", "shape_before", "sound_after", "sound_before"),
        *("color_first", "color_last", "shape_first", "shape_last", "sound_first", "sound_last"),
    },
    "bound": {"color_during", "shape_during", "sound_during"},
    "count": {"count_shapes", "count_color", "count_sounds", "count_sound"},
    "context": {
        *("named_sound", "named_color", "named_shape", "named_motion"),
        *("named_color_after", "named_shape_after"),
    },
}


def asked(split: str, count: int, limit: int | None = None) -> list[tuple[Scene, Question]]:
    scenes = [sample_scene(split, index) for index in range(count)]
    return [(scene, question) for scene in scenes for question in scene.questions(limit=limit)]


@pytest.mark.parametrize("split", SPLITS)
def test_every_answer_follows_from_the_events(split):
    kinds = defaultdict(set)
    for scene, question in asked(split, 80):
        answers = defensible_answers(scene, question.question, question.context)
        assert answers == {question.answer}, f"{split} {scene.index}: {question}"
        kinds[question.family].add(question.kind)
    assert kinds == KINDS


def test_questions_are_short_and_in_the_documented_form():
    for _, question in asked("train", 40):
        assert question.question[0].isupper() and question.question.endswith("?")
        assert 1 <= len(question.answer.split()) <= 3 and question.answer == question.answer.lower()
        assert (question.context is not None) == (question.family == "context")


def test_every_compositional_question_refers_to_a_held_out_pair():
    for scene, question in asked("compositional", 60):
        events = [scene.events[i] for i in question.targets]
        assert {(event.color, event.shape) for event in events} & HELD_OUT_PAIRS


def test_targets_are_the_events_the_answer_depends_on():
    for scene, question in asked("test", 40):
        if question.family in ("seen", "bound") or question.kind in ("named_color", "named_shape"):
            (target,) = (scene.events[i] for i in question.targets)
            asked_for = question.kind.split("_")[1 if question.kind.startswith(("seen", "named")) else 0]
            value = getattr(target, asked_for)
            assert question.answer == {"still": "nowhere", "silence": "nothing"}.get(value, value)


@pytest.fixture(scope="module")
def guesses():
    """What a guesser learns from 300 training clips: answers counted by kind and by the words of the question."""
    by_kind, by_words = defaultdict(Counter), defaultdict(Counter)
    for _, question in asked("train", 300, limit=6):
        by_kind[question.kind][question.answer] += 1
        by_words[question.question][question.answer] += 1
    return by_kind, by_words, [question for _, question in asked("test", 200, limit=6)]


def test_guessing_from_the_kind_of_question_stays_below_forty_percent(guesses):
    by_kind, _, tested = guesses
    right = [q.answer == by_kind[q.kind].most_common(1)[0][0] for q in tested]
    assert sum(right) / len(right) < 0.40


def test_guessing_from_the_words_of_a_question_stays_below_forty_percent(guesses):
    by_kind, by_words, tested = guesses
    right = [q.answer == (by_words[q.question] or by_kind[q.kind]).most_common(1)[0][0] for q in tested]
    assert sum(right) / len(right) < 0.40


def test_a_limit_spreads_over_the_families():
    for index in range(30):
        questions = sample_scene("train", index).questions(limit=6)
        assert len(questions) == 6
        assert len({question.family for question in questions}) == 6


def test_families_select_and_never_change_questions():
    scene = sample_scene("train", 3)
    everything = scene.questions()
    for family in QUESTION_FAMILIES:
        assert scene.questions(families=[family]) == [q for q in everything if q.family == family]


def test_another_seed_asks_otherwise():
    scene = sample_scene("train", 3)
    assert scene.questions(limit=6) != scene.questions(limit=6, seed=1)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": True}, "limit"),
        ({"limit": 2.5}, "limit"),
        ({"seed": -1}, "seed"),
        ({"seed": 0.5}, "seed"),
        ({"families": ["smelt"]}, "families"),
        ({"families": []}, "families"),
    ],
)
def test_wrong_requests_are_refused(options, named):
    with pytest.raises(ValueError, match=named):
        sample_scene("train", 0).questions(**options)
