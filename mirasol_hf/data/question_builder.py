"""Asks questions about an AVScenes clip whose answers follow from its events alone.

Six families, each needing another part of a model: `seen` and `heard` at a moment, `order` in time, sight `bound` to
sound, `count` over the clip, and `context` (a name given in text). A question is asked only where exactly one answer
is right, and what is asked is drawn so that guessing from the question's words stays near chance: attributes are
uniform, counting questions pick the wanted count before the thing to count, and the names in a context never spell
out attributes of the kind that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .vocabulary import (
    COLORS,
    HELD_OUT_PAIRS,
    MIDDLE_MARGIN_UNITS,
    NAMES,
    NUMBER_WORDS,
    OTHER_NAMES_PROBABILITIES,
    QUESTION_FAMILIES,
    SILENCE,
    SOUNDS,
    TIME_UNITS,
)
from .wording import MOMENTS, WORDINGS, motion_answer, named, sound_answer, sound_words

if TYPE_CHECKING:
    from .scene import Event, Scene

_QUESTION_STREAM = 4


@dataclass(frozen=True)
class Question:
    """One question with its only right answer (one to three lower-case words).

    `kind` names the sort of question within its `family`, `targets` the indices of the events that it is about.
    """

    family: str
    kind: str
    question: str
    context: str | None
    answer: str
    targets: tuple[int, ...]


@dataclass(frozen=True)
class _Fact:
    """What can be asked: the values for a wording of `kind`, the answer, the events it refers to."""

    values: dict[str, str]
    answer: str
    targets: tuple[int, ...]
    context: str | None = None


_Finder = Callable[["Scene", np.random.Generator], list[_Fact]]


def build_questions(
    scene: Scene, *, limit: int | None = None, families: Iterable[str] | None = None, seed: int = 0
) -> list[Question]:
    """At most `limit` questions about `scene`, spread evenly over `families` (all six by default).

    The same arguments give the same list; another `seed` draws other questions and wordings. In a compositional
    scene every question refers to an event with a held-out pair. Raises `ValueError` for an unknown family, a
    `limit` below 1 or a negative `seed`.
    """
    wanted = _check(limit, families, seed)
    rng = np.random.default_rng(np.random.SeedSequence((*scene.seed, _QUESTION_STREAM, seed)))
    # Every family is drawn whatever was asked for, so that `families` selects and never changes questions.
    queues = {family: _family_questions(scene, family, rng) for family in QUESTION_FAMILIES}
    order = [QUESTION_FAMILIES[i] for i in rng.permutation(len(QUESTION_FAMILIES))]
    turns = [queues[family] for family in order if family in wanted]
    longest = max((len(queue) for queue in turns), default=0)
    spread = [queue[turn] for turn in range(longest) for queue in turns if turn < len(queue)]
    return spread[:limit]


def _check(limit: int | None, families: Iterable[str] | None, seed: int) -> tuple[str, ...]:
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ValueError(f"limit must be None or a whole number of at least 1, got {limit!r}")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed must be a whole number of at least 0, got {seed!r}")
    wanted = QUESTION_FAMILIES if families is None else (families,) if isinstance(families, str) else tuple(families)
    unknown = [family for family in wanted if family not in QUESTION_FAMILIES]
    if unknown or not wanted:
        raise ValueError(f"families must be some of {', '.join(QUESTION_FAMILIES)}, got {wanted!r}")
    return wanted


def _family_questions(scene: Scene, family: str, rng: np.random.Generator) -> list[Question]:
    """All questions of a family in random order, the kinds taking turns."""
    kinds = list(_FINDERS[family])
    queues = []
    for kind in (kinds[i] for i in rng.permutation(len(kinds))):
        facts = [fact for fact in _FINDERS[family][kind](scene, rng) if _allowed(scene, fact)]
        queues.append([_ask(family, kind, facts[i], rng) for i in rng.permutation(len(facts))])
    longest = max(len(queue) for queue in queues)
    return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]


def _allowed(scene: Scene, fact: _Fact) -> bool:
    if scene.split != "compositional":
        return True
    return any((scene.events[i].color, scene.events[i].shape) in HELD_OUT_PAIRS for i in fact.targets)


def _ask(family: str, kind: str, fact: _Fact, rng: np.random.Generator) -> Question:
    wordings = WORDINGS[kind]
    text = wordings[int(rng.integers(len(wordings)))].format(**fact.values)
    return Question(family, kind, text[0].upper() + text[1:], fact.context, fact.answer, fact.targets)


def _unique(scene: Scene, attribute: str) -> list[int]:
    """Events whose value of `attribute` no other event shares."""
    values = [getattr(event, attribute) for event in scene.events]
    return [i for i, value in enumerate(values) if values.count(value) == 1]


def _references(scene: Scene, hidden: str | None = None, pairs: bool = True) -> list[tuple[int, str]]:
    """(event, words that mean only this event): its shape, its colour, and both where `pairs` allows.

    The attribute `hidden` is never spoken of.
    """
    found = []
    if hidden != "shape":
        found += [(i, scene.events[i].shape) for i in _unique(scene, "shape")]
    if hidden != "color":
        found += [(i, f"{scene.events[i].color} shape") for i in _unique(scene, "color")]
    if pairs and hidden is None:
        both = [f"{event.color} {event.shape}" for event in scene.events]
        found += [(i, words) for i, words in enumerate(both) if both.count(words) == 1]
    return found


def _moments(scene: Scene, sound: bool) -> list[tuple[int, str]]:
    """(event, moment) for the start, the end, and the middle where it lies well inside an event."""
    last = len(scene.events) - 1
    found = [(0, MOMENTS[0]), (last, MOMENTS[2])]
    middle, margin = scene.duration / 2, MIDDLE_MARGIN_UNITS * scene.duration / TIME_UNITS
    for i, event in enumerate(scene.events):
        start, end = max(event.start, event.sound_start), min(event.end, event.sound_end)
        if not sound:
            start, end = event.start, event.end
        if start + margin <= middle <= end - margin:
            found.append((i, MOMENTS[1]))
    return found


def _at_moment(attribute: str) -> _Finder:
    def find(scene: Scene, rng: np.random.Generator) -> list[_Fact]:
        moments = _moments(scene, sound=attribute == "sound")
        return [_Fact({"moment": moment}, _value(scene.events[i], attribute), (i,)) for i, moment in moments]

    return find


def _value(event: Event, attribute: str) -> str:
    """The answer for an attribute of an event."""
    value: str = getattr(event, attribute)
    if attribute == "sound":
        return sound_answer(value)
    return motion_answer(value) if attribute == "motion" else value


def _of_shape(attribute: str) -> _Finder:
    """Motion or sound of an event that the words single out."""

    def find(scene: Scene, rng: np.random.Generator) -> list[_Fact]:
        references = _references(scene)
        return [_Fact({"shape": words}, _value(scene.events[i], attribute), (i,)) for i, words in references]

    return find


def _neighbour(attribute: str, step: int) -> _Finder:
    """Colour or shape of the event before (`step` -1) or after (+1) another one."""

    def find(scene: Scene, rng: np.random.Generator) -> list[_Fact]:
        facts = []
        for i, words in _references(scene, hidden=attribute):
            if 0 <= i + step < len(scene.events):
                answer = getattr(scene.events[i + step], attribute)
                facts.append(_Fact({"shape": words}, answer, (i, i + step)))
        return facts

    return find


def _neighbour_sound(step: int) -> _Finder:
    def find(scene: Scene, rng: np.random.Generator) -> list[_Fact]:
        facts = []
        for i in _unique(scene, "sound"):
            j = i + step
            # Across a silent event "what is heard next" has two defensible answers: not asked.
            if scene.events[i].sound == SILENCE or not 0 <= j < len(scene.events) or scene.events[j].sound == SILENCE:
                continue
            facts.append(_Fact(sound_words(scene.events[i].sound), scene.events[j].sound, (i, j)))
        return facts

    return find


def _extreme(attribute: str, index: int) -> _Finder:
    """The first (`index` 0) or last (-1) colour, shape or sound."""

    def find(scene: Scene, rng: np.random.Generator) -> list[_Fact]:
        event = scene.events[index]
        if attribute == "sound" and event.sound == SILENCE:
            return []
        return [_Fact({}, getattr(event, attribute), (index % len(scene.events),))]

    return find


def _during_sound(attribute: str) -> _Finder:
    def find(scene: Scene, rng: np.random.Generator) -> list[_Fact]:
        loud = [i for i in _unique(scene, "sound") if scene.events[i].sound != SILENCE]
        events = scene.events
        return [_Fact(sound_words(events[i].sound), getattr(events[i], attribute), (i,)) for i in loud]

    return find


def _count_events(scene: Scene, rng: np.random.Generator) -> list[_Fact]:
    return [_Fact({}, NUMBER_WORDS[len(scene.events)], tuple(range(len(scene.events))))]


def _count_sounds(scene: Scene, rng: np.random.Generator) -> list[_Fact]:
    loud = tuple(i for i, event in enumerate(scene.events) if event.sound != SILENCE)
    return [_Fact({}, NUMBER_WORDS[len(loud)], loud)]


def _count_of(attribute: str) -> _Finder:
    """How many events have one colour or sound: zero, one, or more than one, wanted about equally often.

    A colour or sound seldom comes twice, so that is tried for more often, and nothing is asked when it fails.
    """

    def find(scene: Scene, rng: np.random.Generator) -> list[_Fact]:
        values = [getattr(event, attribute) for event in scene.events]
        low, high = ((0, 0), (1, 1), (2, len(values)))[int(rng.choice(3, p=(0.23, 0.23, 0.54)))]
        names = tuple(COLORS) if attribute == "color" else SOUNDS
        fitting = [name for name in names if low <= values.count(name) <= high]
        if not fitting:
            return []
        name = fitting[int(rng.integers(len(fitting)))]
        targets = tuple(i for i, value in enumerate(values) if value == name)
        words = {"color": name} if attribute == "color" else sound_words(name)
        return [_Fact(words, NUMBER_WORDS[len(targets)], targets)]

    return find


def _with_name(attribute: str, step: int) -> _Finder:
    """Asks for an attribute of a named event, or of its neighbour when `step` is not 0."""

    def find(scene: Scene, rng: np.random.Generator) -> list[_Fact]:
        # A context never speaks of what is asked for: it could rule out answers.
        hidden = attribute if attribute in ("color", "shape") else None
        references = _references(scene, hidden=hidden, pairs=False)
        asked = [r for r in references if 0 <= r[0] + step < len(scene.events)]
        return [_named_fact(scene, attribute, step, r, references, rng) for r in asked]

    return find


def _named_fact(
    scene: Scene,
    attribute: str,
    step: int,
    asked: tuple[int, str],
    references: list[tuple[int, str]],
    rng: np.random.Generator,
) -> _Fact:
    """Names the event of `asked` and up to two others of `references`, in random order, and asks for the first."""
    index, _ = asked
    others = [r for r in references if r[0] != index]
    extra = min(int(rng.choice(3, p=OTHER_NAMES_PROBABILITIES)), len({i for i, _ in others}))
    chosen: list[tuple[int, str]] = [asked]
    for i in rng.permutation(len(others)):
        if len(chosen) <= extra and others[i][0] not in [event for event, _ in chosen]:
            chosen.append(others[i])
    names = [NAMES[i] for i in rng.permutation(len(NAMES))[: len(chosen)]]
    sentences = [named(phrase, name) for (_, phrase), name in zip(chosen, names, strict=True)]
    context = " ".join(sentences[i] for i in rng.permutation(len(sentences)))
    target = index + step
    answer = _value(scene.events[target], attribute)
    return _Fact({"name": names[0]}, answer, tuple(sorted({index, target})), context)


_FINDERS: dict[str, dict[str, _Finder]] = {
    "seen": {
        "seen_color": _at_moment("color"),
        "seen_shape": _at_moment("shape"),
        "seen_motion": _of_shape("motion"),
    },
    "heard": {"heard": _at_moment("sound")},
    "order": {
        "color_after": _neighbour("color", 1),
        "color_before": _neighbour("color", -1),
        "shape_after": _neighbour("shape", 1),
        "shape_before": _neighbour("shape", -1),
        "sound_after": _neighbour_sound(1),
        "sound_before": _neighbour_sound(-1),
        "color_first": _extreme("color", 0),
        "color_last": _extreme("color", -1),
        "shape_first": _extreme("shape", 0),
        "shape_last": _extreme("shape", -1),
        "sound_first": _extreme("sound", 0),
        "sound_last": _extreme("sound", -1),
    },
    "bound": {
        "color_during": _during_sound("color"),
        "shape_during": _during_sound("shape"),
        "sound_during": _of_shape("sound"),
    },
    "count": {
        "count_shapes": _count_events,
        "count_color": _count_of("color"),
        "count_sounds": _count_sounds,
        "count_sound": _count_of("sound"),
    },
    "context": {
        "named_sound": _with_name("sound", 0),
        "named_color": _with_name("color", 0),
        "named_shape": _with_name("shape", 0),
        "named_motion": _with_name("motion", 0),
        "named_color_after": _with_name("color", 1),
        "named_shape_after": _with_name("shape", 1),
    },
}
