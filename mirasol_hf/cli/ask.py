"""`mirasol ask`: answers questions about a file."""

import json
from typing import Annotated

import typer

from mirasol_hf.cli.answers import answer_rows, print_answers, print_limits, without_unfamiliar
from mirasol_hf.cli.ask_stream import answer_stream
from mirasol_hf.cli.loading import load_pipeline, model_folder
from mirasol_hf.cli.options import JsonOption, ModelOption
from mirasol_hf.cli.progress import progress_bar
from mirasol_hf.cli.standard_input import media_name, media_source

_CHUNK_SECONDS = 1.0
_STREAM_HELP = (
    "Read the video as it comes, in one pass, and answer at the end (and --every SECONDS). With --json each answer "
    "is one line."
)
_CHUNK_HELP = (
    f"With --stream: duration of a chunk (default {_CHUNK_SECONDS:g}). The embedded model was trained on clips of 8 "
    "equal chunks: its answers are meant for clips streamed whole with the duration of the clip divided by 8."
)


def ask(
    video: Annotated[
        str, typer.Argument(help="A video with or without sound, or a sound file; - is the standard input.")
    ],
    questions: Annotated[list[str], typer.Argument(metavar="QUESTION...", help="One question or several.")],
    context: Annotated[str | None, typer.Option(help="Text the questions may refer to.")] = None,
    model: ModelOption = None,
    top_k: Annotated[int, typer.Option(help="How many different answers to each question.")] = 1,
    json_output: JsonOption = False,
    stream: Annotated[bool, typer.Option("--stream", help=_STREAM_HELP)] = False,
    every: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="With --stream: answer each time so much more has come.")
    ] = None,
    chunk_seconds: Annotated[float | None, typer.Option(metavar="SECONDS", help=_CHUNK_HELP)] = None,
) -> None:
    """Answer questions about a video; it is read and encoded once."""
    from mirasol_hf.pipelines.video_question_answering_mirasol import check_top_k

    for number, question in enumerate(questions, start=1):
        if not question.strip():
            raise ValueError(f"QUESTION {number} is empty")
    check_top_k(top_k, "--top-k")
    if not stream and (every is not None or chunk_seconds is not None):
        raise ValueError("--every and --chunk-seconds need --stream")
    if stream:
        answer_stream(
            video,
            questions,
            context,
            model=model,
            top_k=top_k,
            every=every,
            chunk_seconds=_CHUNK_SECONDS if chunk_seconds is None else chunk_seconds,
            json_output=json_output,
        )
        return
    pipe = load_pipeline(model)
    with progress_bar("reading") as report:
        told = pipe(
            media_source(video),
            list(questions),
            context,
            top_k=top_k,
            return_unfamiliar=True,
            progress=lambda part: report(part, 1.0),
        )
    answers, unfamiliar = without_unfamiliar(told)
    if json_output:
        print(
            json.dumps(
                {
                    "video": video,
                    "context": context,
                    "model": str(model_folder(model)),
                    "trained_on": pipe.model.config.trained_on,
                    "unfamiliar": unfamiliar,
                    "answers": answer_rows(questions, answers, top_k),
                }
            )
        )
    else:
        print_answers(questions, answers)
        print_limits(media_name(video), pipe.trained_on(), unfamiliar)
