"""Answers AVScenes questions by reading their words and scanning the timeline of the scene.

It shares no code with the package: the text is parsed, every referent that fits the words is followed, and all the
answers that can be defended are returned. A good question has exactly one.
"""

import re

WORDS = ("zero", "one", "two", "three", "four", "five")
SOUND = r"(low tone|high tone|noise|beeps|siren)"


def defensible_answers(scene, question, context):
    """The set of answers that fit `question` (with the names that `context` gives)."""
    text = question.lower().rstrip("?")
    names = {name.lower(): words for words, name in re.findall(r"The ([a-z ]+) is called (\w+)\.", context or "")}
    if text.startswith("how"):
        return {WORDS[_count(scene, text)]}
    wanted = _wanted(text)
    return {_value(scene, i, wanted, text) for i in _events_meant(scene, text, names, wanted)}


def overlap(first, second):
    """Seconds that two spans share."""
    return max(0.0, min(first[1], second[1]) - max(first[0], second[0]))


def sound_during(scene, start, end):
    """What is heard for the longest part of a span."""
    heard = {"nothing": end - start}
    for event in scene.events:
        if event.sound != "silence":
            seconds = overlap((event.sound_start, event.sound_end), (start, end))
            heard[event.sound] = heard.get(event.sound, 0.0) + seconds
            heard["nothing"] -= seconds
    return max(heard, key=heard.get)


def _wanted(text):
    if re.match(r"(what|which) colou?r|what is the colou?r", text):
        return "color"
    if re.match(r"(what|which) shape", text):
        return "shape"
    if re.search(r"\b(move|direction)\b", text):
        return "motion"
    assert re.search(r"\b(heard|hear)\b|which sound", text), text
    return "sound"


def _count(scene, text):
    loud = [event.sound for event in scene.events if event.sound != "silence"]
    if named := re.search(r"how (?:many times|often) (?:is|are) the " + SOUND, text):
        return loud.count(named[1])
    if "how many sounds" in text:
        return len(loud)
    kind = re.match(r"how many (?:(\w+) )?shapes", text)[1]
    return sum(kind in (None, event.color) for event in scene.events)


def _events_meant(scene, text, names, wanted):
    """Indices of the events that the words can mean; the sequence is that of what is asked about."""
    events = scene.events
    if moment := re.search(r"at the start|in the middle|at the end", text):
        second = {"at the start": 0.0, "in the middle": scene.duration / 2, "at the end": scene.duration - 1e-6}
        return [i for i, e in enumerate(events) if e.start <= second[moment[0]] < e.end]
    if end := re.search(r"\b(first|last)$", text):
        present = [i for i, e in enumerate(events) if wanted != "sound" or e.sound != "silence"]
        return [present[0 if end[1] == "first" else -1]]
    if sound := re.search(rf"(while|during|after|before) the {SOUND}\b", text):
        return _around_sound(scene, sound[1], sound[2])
    named = next((name for name in names if re.search(rf"\b{name}\b", text)), None)
    words = (
        names[named] if named else re.search(r"the ((?:\w+ )??\w+?)(?: move| go| is (?:shown|on screen)|$)", text)[1]
    )
    meant = [i for i, e in enumerate(events) if all(w in (e.color, e.shape, "shape") for w in words.split())]
    step = -1 if "before" in text else 1 if "after" in text else 0
    return [i + step for i in meant]


def _around_sound(scene, relation, sound):
    events = scene.events
    sounding = [i for i, e in enumerate(events) if e.sound != "silence"]
    places = [place for place, i in enumerate(sounding) if events[i].sound == sound]
    if relation in ("after", "before"):
        return [sounding[place + (1 if relation == "after" else -1)] for place in places]
    shown = []
    for i in (sounding[place] for place in places):
        span = (events[i].sound_start, events[i].sound_end)
        shown.append(max(range(len(events)), key=lambda j: overlap(span, (events[j].start, events[j].end))))
    return shown


def _value(scene, index, wanted, text):
    assert 0 <= index < len(scene.events), text
    event = scene.events[index]
    if wanted == "sound":
        return sound_during(scene, event.start, event.end)
    if wanted == "motion":
        return _direction(event)
    return getattr(event, wanted)


def _direction(event):
    """From where the shape is at the start and at the end, y growing downwards."""
    across, down = event.path[2] - event.path[0], event.path[3] - event.path[1]
    if max(abs(across), abs(down)) < 0.02:
        return "nowhere"
    if abs(across) > abs(down):
        return "right" if across > 0 else "left"
    return "down" if down > 0 else "up"
