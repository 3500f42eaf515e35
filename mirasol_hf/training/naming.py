"""Questions about the naming sentences of a context, which the text alone answers.

"The green shape is called Ada. The star is called Bob. What does Ada stand for?" has its answer, "green shape", in the
text. AVScenes itself never asks so. In training such questions teach the decoder to look a name up; that a name leads
on to something seen or heard is then one step more, where it would otherwise be two at once.
"""

from __future__ import annotations

import re

import numpy as np

from mirasol_hf.data.avscenes import Question, Scene

_SENTENCE = re.compile(r"The ([a-z ]+) is called (\w+)\.")
_WORDINGS = ("What does {name} stand for?", "What is called {name}?")


def naming_questions(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Ask what a name stands for, once for each context of the scene, contexts with several names first."""
    contexts = {q.context for q in scene.questions(families=("context",), seed=int(rng.integers(2**31))) if q.context}
    found = []
    for context in sorted(contexts, key=lambda text: (-len(_SENTENCE.findall(text)), text)):
        names = _SENTENCE.findall(context)
        words, name = names[int(rng.integers(len(names)))]
        text = _WORDINGS[int(rng.integers(len(_WORDINGS)))].format(name=name)
        found.append(Question("context", "naming", text, context, words, ()))
    return found
