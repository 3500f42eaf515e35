"""The metrics against values counted by hand."""

import pytest

from mirasol_hf.evaluation.metrics import (
    exact_match,
    majority_rate,
    match_by_group,
    normalize_answer,
    normalized_match,
)


def test_exact_match_is_raw_equality() -> None:
    assert exact_match(["red", "Red", "red "], ["red", "red", "red"]) == pytest.approx(1 / 3)


def test_normalised_match_is_kinder() -> None:
    assert normalized_match(["The Red.", "a dog", "cat"], ["red", "dog", "theatre cat"]) == pytest.approx(2 / 3)
    assert normalize_answer("  The  ＲＥＤ, ball! ") == "red ball"


def test_groups() -> None:
    scores = match_by_group(["a", "b", "C"], ["a", "a", "c"], ["seen", "seen", "heard"])
    assert list(scores) == ["seen", "heard"]
    assert scores["seen"] == {
        "exact_match": 0.5,
        "normalized_match": 0.0 + scores["seen"]["normalized_match"],
        "majority_rate": 1.0,
        "n": 2,
    }
    assert scores["heard"] == {"exact_match": 0.0, "normalized_match": 1.0, "majority_rate": 1.0, "n": 1}


def test_majority_rate() -> None:
    assert majority_rate(["x", "y", "x", "z"]) == 0.5


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="2 items cannot be compared with 1"):
        exact_match(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="nothing to score"):
        majority_rate([])
