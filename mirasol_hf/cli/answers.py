"""Answers of the pipeline as JSON and as text."""

from typing import Any


def answer_rows(questions: list[str], answers: list[list[dict[str, Any]]], top_k: int) -> list[dict[str, Any]]:
    """One row per question for JSON; with `candidates` where more than one answer was asked for."""
    return [
        {"question": question, **found[0], **({"candidates": found} if top_k > 1 else {})}
        for question, found in zip(questions, answers)
    ]


def print_answers(questions: list[str], answers: list[list[dict[str, Any]]]) -> None:
    """Answers with their scores, under their questions where there are several."""
    for question, found in zip(questions, answers):
        if len(questions) > 1:
            print(question)
        for entry in found:
            print(f"{entry['answer']}  ({entry['score']:.2f})")
