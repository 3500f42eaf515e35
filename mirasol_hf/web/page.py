"""The page: a video, a question, an optional context; the three most probable answers.

Needs the extra `web` (gradio).
"""

from typing import Any

from mirasol_hf.assets import SAMPLE_CLIP


def build_page(pipe: Any) -> Any:
    """Builds the page around a pipeline; it can be reused as a Space.

    Returns:
        A `gradio.Interface`, not yet launched.

    Raises:
        ImportError: gradio is not installed.
    """
    import gradio

    def answer(video: str | None, question: str, context: str) -> tuple[dict[str, float], str]:
        if video is None:
            raise gradio.Error("no video was given; upload one first", print_exception=False)
        try:
            found = pipe(video, question, context.strip() or None, top_k=3, return_unfamiliar=True)
        except (ValueError, OSError) as error:
            raise gradio.Error(str(error), print_exception=False) from error
        unlike = ", ".join(found[0]["unfamiliar"])
        notes = [note for note in (pipe.trained_on(), unlike and f"this clip is unlike those: {unlike}") if note]
        return {entry["answer"]: entry["score"] for entry in found}, "\n".join(notes)

    video = gradio.Video(label="video", sources=["upload"])
    return gradio.Interface(
        answer,
        [video, gradio.Textbox(label="question"), gradio.Textbox(label="context (optional)")],
        [gradio.Label(num_top_classes=3, label="answer"), gradio.Textbox(label="what the model knows")],
        title="Mirasol",
        description=pipe.trained_on(),
        examples=[[str(SAMPLE_CLIP), "Which shape is shown first?", ""]],
        cache_examples=False,
        flagging_mode="never",
        analytics_enabled=False,
    )
