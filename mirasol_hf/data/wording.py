"""How AVScenes questions are worded: a few paraphrases for every kind, British and American spelling mixed."""

from __future__ import annotations

from .vocabulary import SILENCE

MOMENTS = ("at the start", "in the middle", "at the end")

# Fields: moment, shape ("triangle", "red shape", "red triangle"), color, name, and from `sound_words` the sound.
WORDINGS: dict[str, tuple[str, ...]] = {
    "seen_color": (
        "what colour is shown {moment}?",
        "what color is the shape {moment}?",
        "which colour is on screen {moment}?",
    ),
    "seen_shape": (
        "what shape is shown {moment}?",
        "which shape is shown {moment}?",
        "which shape is on screen {moment}?",
    ),
    "seen_motion": (
        "which way does the {shape} move?",
        "where does the {shape} move?",
        "in which direction does the {shape} go?",
    ),
    "heard": (
        "what is heard {moment}?",
        "which sound is heard {moment}?",
        "what does one hear {moment}?",
    ),
    "color_after": ("which colour comes after the {shape}?", "what color is shown right after the {shape}?"),
    "color_before": ("which colour comes before the {shape}?", "what color is shown right before the {shape}?"),
    "shape_after": ("which shape comes after the {shape}?", "what shape is shown right after the {shape}?"),
    "shape_before": ("which shape comes before the {shape}?", "what shape is shown right before the {shape}?"),
    "sound_after": ("what is heard after the {sound}?", "which sound comes right after the {sound}?"),
    "sound_before": ("what is heard before the {sound}?", "which sound comes right before the {sound}?"),
    "color_first": ("which colour comes first?", "what color is shown first?"),
    "color_last": ("which colour comes last?", "what color is shown last?"),
    "shape_first": ("which shape comes first?", "what shape is shown first?"),
    "shape_last": ("which shape comes last?", "what shape is shown last?"),
    "sound_first": ("which sound comes first?", "what is heard first?"),
    "sound_last": ("which sound comes last?", "what is heard last?"),
    "color_during": (
        "which colour is shown while the {sound} {sounds}?",
        "what color is shown while the {sound} {is_heard}?",
        "what colour does one see during the {sound}?",
    ),
    "shape_during": (
        "which shape is shown while the {sound} {sounds}?",
        "what shape is shown while the {sound} {is_heard}?",
        "what shape does one see during the {sound}?",
    ),
    "sound_during": (
        "what is heard while the {shape} is shown?",
        "which sound is heard while the {shape} is on screen?",
        "what does one hear during the {shape}?",
    ),
    "count_shapes": (
        "how many shapes are shown?",
        "how many shapes appear in the clip?",
        "how many shapes does one see?",
    ),
    "count_color": ("how many {color} shapes are shown?", "how many {color} shapes appear in the clip?"),
    "count_sounds": ("how many sounds are heard?", "how many sounds does one hear in the clip?"),
    "count_sound": ("how many times {is_heard_inverted}?", "how often {is_heard_inverted}?"),
    "named_sound": (
        "what is heard while {name} is shown?",
        "what does one hear while {name} is on screen?",
        "which sound is heard during {name}?",
    ),
    "named_color": ("what colour is {name}?", "what is the color of {name}?", "which colour does {name} have?"),
    "named_shape": ("what shape is {name}?", "which shape does {name} have?"),
    "named_motion": ("which way does {name} move?", "where does {name} move?"),
    "named_color_after": ("which colour comes after {name}?", "what color is shown right after {name}?"),
    "named_shape_after": ("which shape comes after {name}?", "what shape is shown right after {name}?"),
}


def sound_words(sound: str) -> dict[str, str]:
    """The fields that name a sound in a wording, with the verb in the right number."""
    if sound.endswith("beeps"):
        return {"sound": sound, "sounds": "sound", "is_heard": "are heard", "is_heard_inverted": "are the beeps heard"}
    return {"sound": sound, "sounds": "sounds", "is_heard": "is heard", "is_heard_inverted": f"is the {sound} heard"}


def sound_answer(sound: str) -> str:
    """What is heard: the sound's name, "nothing" in silence."""
    return "nothing" if sound == SILENCE else sound


def motion_answer(motion: str) -> str:
    """Which way something moves: the direction, "nowhere" when it stands still."""
    return "nowhere" if motion == "still" else motion


def named(words: str, name: str) -> str:
    """The context sentence that gives a name to what `words` mean."""
    return f"The {words} is called {name}."
