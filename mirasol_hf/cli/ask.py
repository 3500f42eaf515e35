"""`mirasol ask`: answers questions about a file."""

import json
from typing import Annotated, Any

import typer

from mirasol_hf.cli.loading import load_pipeline, model_folder
from mirasol_hf.cli.options import JsonOption, ModelOption
from mirasol_hf.cli.progress import progress_bar


def ask(
    video: Annotated[str, typer.Argument(help="A video with or without sound, or a sound file.")],
    questions: Annotated[list[str], typer.Argument(metavar="QUESTION...", help="One question or several.")],
    context: Annotated[str | None, typer.Option(help="Text the questions may refer to.")] = None,
    model: ModelOption = None,
    top_k: Annotated[int, typer.Option(help="How many different answers to each question.")] = 1,
    json_output: JsonOption = False,
) -> None:
    """Answer questions about a video; it is read and encoded once."""
    for number, question in enumerate(questions, start=1):
        if not question.strip():
            raise ValueError(f"QUESTION {number} is empty")
    if top_k < 1:
        raise ValueError(f"--top-k {top_k} must be at least 1")
    pipe = load_pipeline(model)
    with progress_bar("reading") as report:
        answers = pipe(video, list(questions), context, top_k=top_k, progress=lambda part: report(part, 1.0))
    if json_output:
        rows = [
            {"question": question, **found[0], **({"candidates": found} if top_k > 1 else {})}
            for question, found in zip(questions, answers)
        ]
        print(json.dumps({"video": video, "context": context, "model": str(model_folder(model)), "answers": rows}))
    else:
        _print_answers(questions, answers)


def _print_answers(questions: list[str], answers: list[list[dict[str, Any]]]) -> None:
    for question, found in zip(questions, answers):
        if len(questions) > 1:
            print(question)
        for entry in found:
            print(f"{entry['answer']}  ({entry['score']:.2f})")
