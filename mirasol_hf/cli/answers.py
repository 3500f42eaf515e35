"""Answers of the pipeline as JSON and as text."""

import sys
from typing import Any

# the least probability that is not printed as 0.00
_LEAST = 0.005


def answer_rows(questions: list[str], answers: list[list[dict[str, Any]]], top_k: int) -> list[dict[str, Any]]:
    """One row per question for JSON; with `candidates` where more than one answer was asked for."""
    return [
        {"question": question, **found[0], **({"candidates": found} if top_k > 1 else {})}
        for question, found in zip(questions, answers)
    ]


def without_unfamiliar(told: list[list[dict[str, Any]]]) -> tuple[list[list[dict[str, Any]]], list[str]]:
    """Answers to one clip, and in what the clip is unlike those of the training, which stands beside each of them."""
    answers = [[{key: entry[key] for key in ("answer", "score")} for entry in found] for found in told]
    return answers, told[0][0]["unfamiliar"]


def print_answers(questions: list[str], answers: list[list[dict[str, Any]]]) -> None:
    """Answers with their scores, under their questions where there are several.

    After the best, only those are printed whose probability does not round to 0.00.
    """
    for question, found in zip(questions, answers):
        if len(questions) > 1:
            print(question)
        for entry in [found[0], *(entry for entry in found[1:] if entry["score"] >= _LEAST)]:
            print(f"{entry['answer']}  ({entry['score']:.2f})")


def print_limits(video: str, trained_on: str | None, unfamiliar: list[str]) -> None:
    """On stderr, below the answers: what the model knows at all, and in what the clip is unlike that."""
    if trained_on is not None:
        print(f"mirasol: note: {trained_on}", file=sys.stderr)
    if unfamiliar:
        print(
            f"mirasol: warning: {video} is unlike the clips of the training: {', '.join(unfamiliar)}", file=sys.stderr
        )
