"""Metrics of open-ended question answering.

The official protocols (MSRVTT-QA, MSVD-QA, ActivityNet-QA) count raw string equality over all items; `exact_match` is
that. The normalised variant is reported beside it under its own name and never in its place.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Lower-case `text` in NFKC, without punctuation, English articles and superfluous blanks."""
    folded = unicodedata.normalize("NFKC", text).lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", folded).split())


def exact_match(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Share of predictions that equal their reference character by character.

    Raises:
        ValueError: if the two differ in length or are empty.
    """
    _check(predictions, references)
    return sum(p == r for p, r in zip(predictions, references, strict=True)) / len(references)


def normalized_match(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Share of predictions that equal their reference after `normalize_answer`.

    Raises:
        ValueError: if the two differ in length or are empty.
    """
    _check(predictions, references)
    return exact_match([normalize_answer(p) for p in predictions], [normalize_answer(r) for r in references])


def majority_rate(references: Sequence[str]) -> float:
    """Share of the most frequent reference: what always giving that answer would score.

    Raises:
        ValueError: if there are no references.
    """
    _check(references, references)
    return max(references.count(answer) for answer in set(references)) / len(references)


def match_by_group(
    predictions: Sequence[str], references: Sequence[str], groups: Sequence[str]
) -> dict[str, dict[str, float | int]]:
    """Score each group of items by itself.

    Returns:
        per group, in order of first appearance: `exact_match`, `normalized_match`, `majority_rate` and `n`.

    Raises:
        ValueError: if the three differ in length or are empty.
    """
    _check(predictions, references)
    _check(groups, references)
    scores: dict[str, dict[str, float | int]] = {}
    for group in dict.fromkeys(groups):
        members = [index for index, name in enumerate(groups) if name == group]
        said, right = [predictions[i] for i in members], [references[i] for i in members]
        scores[group] = {
            "exact_match": exact_match(said, right),
            "normalized_match": normalized_match(said, right),
            "majority_rate": majority_rate(right),
            "n": len(members),
        }
    return scores


def _check(predictions: Sequence[str], references: Sequence[str]) -> None:
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} items cannot be compared with {len(references)} references")
    if not references:
        raise ValueError("there is nothing to score: no references were given")
