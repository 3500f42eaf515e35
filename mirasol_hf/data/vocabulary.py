"""What an AVScenes clip can contain, and the names its questions use for it."""

from __future__ import annotations

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 185, 60),
    "blue": (45, 90, 235),
    "yellow": (235, 215, 50),
    "purple": (165, 55, 205),
    "white": (240, 240, 240),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
MOTIONS = ("left", "right", "up", "down", "still")
SILENCE = "silence"
SOUNDS = ("low tone", "high tone", "noise", "beeps", "siren")
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five")
NAMES = (
    *("Ada", "Bob", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana"),
    *("Ivy", "Jack", "Kim", "Leo", "Mia", "Noah", "Olga", "Pam"),
)

# how often a context names no, one or two events beside the one asked for
OTHER_NAMES_PROBABILITIES = (8 / 12, 3 / 12, 1 / 12)

QUESTION_FAMILIES = ("seen", "heard", "order", "bound", "count", "context")
SPLITS = ("train", "validation", "test", "compositional")

# Every colour loses one shape and no shape loses more than two, so neither attribute alone predicts the other well.
HELD_OUT_PAIRS = frozenset(
    {
        ("red", "star"),
        ("green", "triangle"),
        ("blue", "cross"),
        ("yellow", "circle"),
        ("purple", "square"),
        ("white", "circle"),
    }
)
SEEN_PAIRS = tuple((c, s) for c in COLORS for s in SHAPES if (c, s) not in HELD_OUT_PAIRS)

# Timing rules are stated in eighths of the clip: the default clip is cut into eight chunks.
TIME_UNITS = 8
MIN_EVENT_UNITS = 1.25
MAX_GAP_UNITS = 0.5
MIDDLE_MARGIN_UNITS = 0.4
