"""Writes the folder that goes to the Hub: weights, processor, the code to run them, and the model card."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mirasol_hf.hub.card import model_card, read_json
from mirasol_hf.modeling.model_saving_mirasol import remove_other_weights, whole_folder
from mirasol_hf.pipelines.remote_code import save_with_code

CARD_FILE = "README.md"


def export(
    pipe: Any,
    folder: str | os.PathLike[str],
    *,
    with_code: bool = True,
    max_shard_size: str | None = None,
    training_result: str | os.PathLike[str] | None = None,
    evaluations: list[str | os.PathLike[str]] | None = None,
    name: str | None = None,
) -> Path:
    """Write all that a Hub repository of a model needs; it appears under its name when it is whole.

    Args:
        pipe: a video question answering pipeline.
        folder: where to; what another export left there is replaced, other files stay.
        with_code: also the code, so that `trust_remote_code=True` works where this package is not installed.
        max_shard_size: split the weights into files of at most this size, such as `"5GB"`; the library's 50 GB if
            `None`.
        training_result: `training_result.json` of the run, for the card.
        evaluations: files that `mirasol eval --json` wrote, for the card.
        name: the model's name on the card; that of `folder` if `None`.

    Returns:
        the folder.

    Raises:
        ValueError: `folder` is a file, or one of the JSON files is not what it should be.
        OSError: a file cannot be read or written.
    """
    target = Path(folder)
    if target.is_file():
        raise ValueError(f"cannot export into {str(target)!r}: it is a file, expected a folder")
    card = model_card(
        pipe.model,
        name=target.resolve().name if name is None else name,
        training_result=None if training_result is None else read_json(training_result, "recipe"),
        evaluations=[read_json(path, "exact_match") for path in evaluations or ()],
        with_code=with_code,
    )
    sizes = {} if max_shard_size is None else {"max_shard_size": max_shard_size}
    with whole_folder(target) as stage:
        if with_code:
            save_with_code(pipe, stage, **sizes)
        else:
            pipe.save_pretrained(stage, **sizes)
        Path(stage, CARD_FILE).write_text(str(card), encoding="utf-8")
        remove_other_weights(target, stage)
    return target
