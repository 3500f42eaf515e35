"""`mirasol demo`: the embedded model answers questions whose true answers are known."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirasol_hf.cli.loading import load_pipeline
from mirasol_hf.cli.options import ModelOption

if TYPE_CHECKING:
    from mirasol_hf.demo.showcase import AskedClip
    from mirasol_hf.pipelines.video_question_answering_mirasol import VideoQuestionAnsweringPipeline


def demo(
    model: ModelOption = None,
    scene: Annotated[int, typer.Option(help="Which unseen test scene to render on the spot.")] = 1,
) -> None:
    """Ask about the clip that ships and about one rendered on the spot; show answers and truth."""
    from mirasol_hf.demo.showcase import sample_clip, spot_clip

    if scene < 0:
        raise ValueError(f"--scene {scene} must be at least 0")
    pipe = load_pipeline(model)
    results = [_show(pipe, sample_clip())]
    with spot_clip(scene) as clip:
        results.append(_show(pipe, clip))
    right, asked = (sum(column) for column in zip(*results))
    print(f"{right} of {asked} answers are right.")


def _show(pipe: "VideoQuestionAnsweringPipeline", clip: "AskedClip") -> tuple[int, int]:
    """Prints a table of one clip's questions; returns how many answers are right, and of how many."""
    from rich.table import Table

    from mirasol_hf.cli.console import table_console

    answers = pipe(str(clip.path), [q.question for q in clip.questions], [q.context for q in clip.questions])
    table = Table("family", "question", "answer", "truth", "", title=clip.title, title_justify="left")
    right = 0
    for asked, (best, *_) in zip(clip.questions, answers):
        is_right = best["answer"] == asked.answer
        right += is_right
        table.add_row(asked.family, _wording(asked), best["answer"], asked.answer, "right" if is_right else "wrong")
    table_console().print(table)
    return right, len(clip.questions)


def _wording(asked: Any) -> str:
    return asked.question if asked.context is None else f"({asked.context}) {asked.question}"
