"""A small web page around the pipeline: `python -m mirasol_hf.demo.app [MODEL_FOLDER]`.

Needs the extra `demo` (gradio). `build_app` can be reused as a Space.
"""

import argparse
from typing import Any

from mirasol_hf.assets import SAMPLE_CLIP
from mirasol_hf.cli.loading import load_pipeline


def build_app(model: str | None = None) -> Any:
    """The page: a video, a question, an optional context; the three most probable answers.

    Args:
        model: folder of a checkpoint; `None` is the embedded one.

    Returns:
        A `gradio.Interface`, not yet launched.

    Raises:
        ImportError: gradio is not installed.
    """
    import gradio

    pipe = load_pipeline(model)

    def answer(video: str | None, question: str, context: str) -> dict[str, float]:
        try:
            found = pipe(video, question, context.strip() or None, top_k=3)
        except (ValueError, OSError) as error:
            raise gradio.Error(str(error)) from error
        return {entry["answer"]: entry["score"] for entry in found}

    return gradio.Interface(
        answer,
        [gradio.Video(label="video"), gradio.Textbox(label="question"), gradio.Textbox(label="context (optional)")],
        gradio.Label(num_top_classes=3, label="answer"),
        title="Mirasol",
        description="The embedded model knows AVScenes only: coloured shapes that move and sound.",
        examples=[[str(SAMPLE_CLIP), "Which shape is shown first?", ""]],
        cache_examples=False,
    )


def main() -> None:
    """Starts the page on this machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="folder of a checkpoint; the embedded one if absent")
    build_app(parser.parse_args().model).launch()


if __name__ == "__main__":
    main()
