"""A quick look at the accuracy on AVScenes while training: rendered tensors, one forward pass per batch.

Greedy decoding gives the reference exactly if, with the reference before it, each next token of answer and end is the
likeliest. So one forward pass counts the exact matches that `generate` would give, without generating.
"""

from __future__ import annotations

from typing import Any

import torch

from mirasol_hf.processing.processing_mirasol import MirasolProcessor
from mirasol_hf.training.avscenes_data import AVScenesClips
from mirasol_hf.training.collator import IGNORED_LABEL, MirasolDataCollator
from mirasol_hf.training.recipe import Stage

ABLATIONS = ("media", "sound", "pictures")
_REMOVED: dict[str, tuple[str, ...]] = {
    "sound": ("input_features", "audio_mask"),
    "pictures": ("pixel_values_videos", "video_mask"),
}
_REMOVED["media"] = (*_REMOVED["sound"], *_REMOVED["pictures"], "media_index")


@torch.no_grad()
def evaluate_fast(
    model: Any,
    processor: MirasolProcessor,
    *,
    split: str = "validation",
    num_clips: int = 64,
    num_chunks: int = 8,
    questions: int = 12,
    min_seconds: float = 4.0,
    max_seconds: float = 64.0,
    batch_size: int = 16,
    ablate: str | None = None,
) -> dict[str, float]:
    """Return the exact match of each question family, and `overall`, on clips of `split`.

    Args:
        model: a `MirasolForConditionalGeneration`; its training mode is restored.
        processor: the processor of the model.
        split: of AVScenes.
        num_clips: scenes, from scene 0 on.
        num_chunks: chunks per clip, K.
        questions: most questions per clip, over all families alike.
        min_seconds: shortest clip.
        max_seconds: longest clip.
        batch_size: clips per forward pass.
        ablate: `"sound"`, `"pictures"` or `"media"` leaves these out.

    Raises:
        ValueError: if `ablate` is none of these.
    """
    if ablate is not None and ablate not in ABLATIONS:
        raise ValueError(f"ablate must be one of {', '.join(ABLATIONS)} or None, got {ablate!r}")
    stage = Stage("fast", 1, num_clips, questions, (num_chunks,), min_seconds, max_seconds)
    clips = AVScenesClips(processor, [stage], split=split)
    collator = MirasolDataCollator(processor.tokenizer, video_processor=processor.video_processor)
    hits: dict[str, list[bool]] = {}
    was_training = model.training
    model.eval()
    for first in range(0, num_clips, batch_size):
        rows = [clips[index] for index in range(first, min(first + batch_size, num_clips))]
        batch = {name: value.to(model.device) for name, value in collator(rows).items()}
        for name in _REMOVED.get(ablate or "", ()):
            batch.pop(name, None)
        right = exact_rows(model, batch)
        families = [family for row in rows for family in row["family"]]
        for family, hit in zip(families, right.tolist(), strict=True):
            hits.setdefault(family, []).append(hit)
    model.train(was_training)
    scores = {family: sum(values) / len(values) for family, values in sorted(hits.items())}
    count = sum(len(values) for values in hits.values())
    return {**scores, "overall": sum(sum(values) for values in hits.values()) / count}


def exact_rows(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Say of each text row of a training batch whether its labelled tokens are all the likeliest ones: bool `[T]`."""
    labels = batch["labels"][:, 1:]
    predicted = model(**{name: value for name, value in batch.items() if name != "labels"}).logits[:, :-1].argmax(-1)
    return ((predicted == labels) | (labels == IGNORED_LABEL)).all(-1)
