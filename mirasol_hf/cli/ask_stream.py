"""`mirasol ask --stream`: answers while the video is still coming."""

import json
import math
import sys
from typing import TYPE_CHECKING, Any

from mirasol_hf.cli.answers import answer_rows, print_answers, print_limits
from mirasol_hf.cli.loading import load_pipeline, model_folder
from mirasol_hf.cli.standard_input import media_name, media_source

if TYPE_CHECKING:
    from mirasol_hf.pipelines.video_question_answering_mirasol import VideoQuestionAnsweringPipeline


def answer_stream(
    video: str,
    questions: list[str],
    context: str | None,
    *,
    model: str | None,
    top_k: int,
    every: float | None,
    chunk_seconds: float,
    json_output: bool,
) -> None:
    """Encode chunk after chunk and print answers about all that has come.

    Args:
        video: path, or `-` for the standard input.
        questions: what is asked each time.
        context: text the questions may refer to.
        model: checkpoint folder; the embedded one if absent.
        top_k: how many different answers to each question.
        every: seconds of media between answers; `None` answers at the end only.
        chunk_seconds: duration of a chunk.
        json_output: print one JSON object a line.

    Raises:
        ValueError, OSError: a number out of range, or media that cannot be read.
    """
    for name, value in (("--every", every), ("--chunk-seconds", chunk_seconds)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} {value} must be a positive number of seconds")
    pipe = load_pipeline(model)
    told = {"video": video, "context": context, "model": str(model_folder(model))}
    told["trained_on"] = pipe.model.config.trained_on
    # What cannot be asked is told before anything is read.
    pipe.preprocess({"video": None, "question": list(questions), "context": context})
    stream = _EncodedStream(pipe)

    def answer(final: bool) -> None:
        answers = pipe.answer_features(stream.features(), list(questions), context, top_k=top_k)
        if json_output:
            rows = answer_rows(questions, answers, top_k)
            row = {**told, "seconds": stream.seconds, "chunks": stream.num_chunks, "final": final}
            print(json.dumps({**row, "unfamiliar": stream.unfamiliar(), "answers": rows}))
        else:
            print(f"[{stream.seconds:.2f} s]")
            print_answers(questions, answers)
        # Whoever reads this waits for it.
        sys.stdout.flush()

    due, answered = every, 0
    chunks = pipe.processor.iter_chunks(media_source(video), chunk_seconds=chunk_seconds)
    for chunk in chunks:
        stream.add(chunk, chunks.seconds)
        if every is not None and due is not None and stream.seconds >= due - 1e-6:
            answer(final=False)
            answered = stream.num_chunks
            due = every * (math.floor(stream.seconds / every + 1e-6) + 1)
    # As text, what was the answer about everything is not said again; a line of JSON says that it was.
    if json_output or stream.num_chunks > answered:
        answer(final=True)
    if not json_output:
        print_limits(media_name(video), pipe.trained_on(), stream.unfamiliar())


class _EncodedStream:
    """Features of the stream so far, as far as the text attends to them.

    Attributes:
        seconds: media time that has come.
    """

    def __init__(self, pipe: "VideoQuestionAnsweringPipeline") -> None:
        from mirasol_hf.modeling.media_cache_mirasol import MirasolMediaCache, MirasolMediaFeatures

        self.pipe = pipe
        self.cache = MirasolMediaCache()
        self.kept = MirasolMediaFeatures(pipe.model.config)
        self.seconds = 0.0
        self._traits: dict[str, tuple[float, int]] = {}  # sum and number of the chunks' values

    @property
    def num_chunks(self) -> int:
        """Chunks so far."""
        return self.cache.num_chunks

    def add(self, chunk: Any, seconds: float) -> None:
        """Encode the next chunk, with which so many seconds have come."""
        import torch

        chunk = dict(chunk)
        self.seconds = seconds
        chunk.pop("chunk_seconds")
        for name, value in self.pipe.processor.media_traits(chunk).items():
            total, count = self._traits.get(name, (0.0, 0))
            self._traits[name] = (total + value, count + 1)
        place = self.pipe.device
        media = {
            name: value.to(place, self.pipe.dtype if value.is_floating_point() else None)
            for name, value in chunk.items()
        }
        with torch.inference_mode():
            self.kept.add(self.pipe.model.encode_media(**media, media_cache=self.cache))

    def unfamiliar(self) -> list[str]:
        """In what that which has come is unlike the clips of the model's training."""
        return self.pipe.unfamiliar_traits({name: total / count for name, (total, count) in self._traits.items()})

    def features(self) -> dict[str, Any]:
        """What the text attends to."""
        return self.kept.joined()
