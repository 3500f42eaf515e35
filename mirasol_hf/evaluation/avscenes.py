"""AVScenes as a benchmark: real mp4 files in, answers of the pipeline out, exact match per question family.

Every number comes through the whole path that a user takes: the scene is encoded (h264 and aac), the file is read
back, and `pipeline("video-question-answering")` answers. An ablation takes a stream out of the file itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import torch
import transformers

from mirasol_hf.data.avscenes import QUESTION_FAMILIES, Question, Scene, sample_scene, write_scene
from mirasol_hf.evaluation.metrics import match_by_group
from mirasol_hf.evaluation.streams import copy_stream
from mirasol_hf.training.provenance import weights_hash
from mirasol_hf.version import __version__

ABLATIONS = ("media", "sound", "pictures")
# What an ablation leaves in the file; nothing of it for "media".
_STREAM_LEFT = {"sound": ("video", ".mp4"), "pictures": ("audio", ".m4a")}


def evaluate(
    model: str | Path | Any | None = None,
    split: str = "test",
    limit: int = 1000,
    ablate: str | None = None,
    batch_size: int = 4,
    work_dir: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score a model on AVScenes.

    Args:
        model: folder or Hub name of a model with its processor, or a finished pipeline; `None` is the embedded model.
        split: `"train"`, `"validation"`, `"test"` or `"compositional"`.
        limit: number of questions, spread evenly over the families; scenes are taken in order, from scene 0.
        ablate: `"sound"` or `"pictures"` takes this stream out of the files, `"media"` asks without any file.
        batch_size: clips that are answered at once.
        work_dir: keeps the files for another evaluation; `None` uses a temporary folder.
        progress: called with the questions answered so far and their total.

    Returns:
        `exact_match` (raw string equality), `normalized_match`, `majority_rate` (what the most frequent answer of
        each family would score) and `n` over all questions and in `families`, beside the settings and versions;
        `names_in_context` has the same for the context questions by how many events their context names.

    Raises:
        ValueError: if a setting is not one of those above.
    """
    _check(split, limit, ablate)
    pipe = load_pipeline(model)
    chosen = benchmark_questions(split, limit)
    asked = [question for _, questions in chosen for question in questions]
    answers: list[str] = []
    folder = tempfile.TemporaryDirectory(prefix="avscenes-") if work_dir is None else nullcontext(str(work_dir))
    with folder as place:
        # The pipeline draws from the generator, so a file is written just before it is read.
        for results in pipe(_items(chosen, Path(place), ablate), batch_size=batch_size):
            answers += [ranked[0]["answer"] for ranked in results]
            if progress is not None:
                progress(len(answers), limit)
    return {
        "benchmark": "avscenes",
        "split": split,
        "limit": limit,
        "ablate": ablate,
        **_scores(asked, answers),
        "model": _model_name(pipe, model),
        "weights": weights_hash(pipe.model),
        "versions": {"mirasol_hf": __version__, "transformers": transformers.__version__, "torch": torch.__version__},
        "date": date.today().isoformat(),
    }


def benchmark_questions(split: str, limit: int) -> list[tuple[Scene, list[Question]]]:
    """Choose `limit` questions: one of each family per scene, from scene 0 on, none of a family above its share.

    A scene that has no question of a family leaves that family's share to later scenes.
    """
    share, rest = divmod(limit, len(QUESTION_FAMILIES))
    left = {family: share + (number < rest) for number, family in enumerate(QUESTION_FAMILIES)}
    chosen: list[tuple[Scene, list[Question]]] = []
    index = 0
    while any(left.values()):
        scene = sample_scene(split, index)
        firsts: dict[str, Question] = {}
        for question in scene.questions():
            if left[question.family]:
                firsts.setdefault(question.family, question)
        for family in firsts:
            left[family] -= 1
        if firsts:
            chosen.append((scene, list(firsts.values())))
        index += 1
    return chosen


def clip_file(scene: Scene, folder: Path, ablate: str | None = None) -> Path:
    """Return the file of a scene in `folder`, written if it is not there; `ablate` leaves out one stream."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / f"{scene.split}-{scene.index:06d}.mp4"
    if not whole.is_file():
        # A run that is broken off must not leave half a file behind for the next one.
        partial = whole.with_name(f"partial-{whole.name}")
        write_scene(scene, partial)
        partial.replace(whole)
    if ablate is None:
        return whole
    kind, suffix = _STREAM_LEFT[ablate]
    left = whole.with_name(f"{whole.stem}-{kind}{suffix}")
    if not left.is_file():
        copy_stream(whole, left, kind)
    return left


def load_pipeline(model: str | Path | Any | None) -> Any:
    """Return the pipeline of a folder or Hub name, of the embedded model for `None`; a pipeline passes through."""
    if model is not None and not isinstance(model, (str, Path)):
        return model
    import mirasol_hf  # noqa: F401  (registers the task)

    options = {} if model is None else {"model": str(model)}
    return transformers.pipeline("video-question-answering", **options)


def _items(
    chosen: Sequence[tuple[Scene, list[Question]]], folder: Path, ablate: str | None
) -> Iterator[dict[str, Any]]:
    """Yield what the pipeline is asked: one item per clip with all its questions, so the clip is encoded once."""
    for scene, questions in chosen:
        yield {
            "video": None if ablate == "media" else str(clip_file(scene, folder, ablate)),
            "question": [question.question for question in questions],
            "context": [question.context for question in questions],
        }


def _scores(asked: Sequence[Question], answers: Sequence[str]) -> dict[str, Any]:
    references = [question.answer for question in asked]
    families = match_by_group(answers, references, [question.family for question in asked])
    overall = match_by_group(answers, references, ["all"] * len(asked))["all"]
    # The rate of one answer for everything says little; what counts is the best fixed answer for each family.
    overall["majority_rate"] = sum(f["majority_rate"] * f["n"] for f in families.values()) / len(asked)
    return {
        **overall,
        "families": {name: families[name] for name in QUESTION_FAMILIES if name in families},
        "names_in_context": _by_names_in_context(asked, answers),
    }


def _by_names_in_context(asked: Sequence[Question], answers: Sequence[str]) -> dict[str, Any]:
    """Scores of the context questions: with one name nothing has to be told apart, with more the name decides."""
    rows = [(q, answer) for q, answer in zip(asked, answers, strict=True) if q.context is not None]
    if not rows:
        return {}
    counts = [str((question.context or "").count(" is called ")) for question, _ in rows]
    scores = match_by_group([answer for _, answer in rows], [question.answer for question, _ in rows], counts)
    return dict(sorted(scores.items()))


def _model_name(pipe: Any, model: Any) -> str:
    return str(model) if isinstance(model, (str, Path)) else str(getattr(pipe.model.config, "name_or_path", "") or "")


def _check(split: str, limit: int, ablate: str | None) -> None:
    splits = ("train", "validation", "test", "compositional")
    if split not in splits:
        raise ValueError(f"split must be one of {', '.join(splits)}, got {split!r}")
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ValueError(f"limit must be a whole number of at least 1, got {limit!r}")
    if ablate is not None and ablate not in ABLATIONS:
        raise ValueError(f"ablate must be one of {', '.join(ABLATIONS)}, got {ablate!r}")
