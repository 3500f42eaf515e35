"""Writes the folder that goes to the Hub: weights, processor, the code to run them, and the model card."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mirasol_hf.hub.card import model_card, read_json
from mirasol_hf.modeling.model_saving_mirasol import remove_other_weights, whole_folder
from mirasol_hf.pipelines.remote_code import save_with_code
from mirasol_hf.training.provenance import weights_hash

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
    overwrite: bool = False,
) -> Path:
    """Write all that a Hub repository of a model needs; it appears under its name when it is whole.

    Args:
        pipe: a video question answering pipeline.
        folder: where to; a new or an empty folder, unless `overwrite`.
        with_code: also the code, so that `trust_remote_code=True` works where this package is not installed.
        max_shard_size: split the weights into files of at most this size, such as `"5GB"`; the library's 50 GB if
            `None`.
        training_result: `training_result.json` of the run, for the card; of this model's weights.
        evaluations: files that `mirasol eval --json` wrote, for the card; of this model's weights.
        name: the model's name on the card; that of `folder` if `None`.
        overwrite: replace what another export left in the folder; other files stay.

    Returns:
        the folder.

    Raises:
        ValueError: `folder` is a file or holds something, or one of the JSON files is not what it should be, or is
            about other weights.
        OSError: a file cannot be read or written.
    """
    target = Path(folder)
    if target.is_file():
        raise ValueError(f"cannot export into {str(target)!r}: it is a file, expected a folder")
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise ValueError(f"{str(target)!r} is not empty; export into another folder, or overwrite it (--overwrite)")
    weights = weights_hash(pipe.model) if training_result is not None or evaluations else None
    card = model_card(
        pipe.model,
        name=target.resolve().name if name is None else name,
        training_result=None if training_result is None else _result(training_result, "recipe", weights),
        evaluations=[_result(path, "exact_match", weights) for path in evaluations or ()],
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


def _result(path: str | os.PathLike[str], key: str, weights: str | None) -> dict[str, Any]:
    """What a run or an evaluation wrote, if it is about these weights."""
    result = read_json(path, key)
    of = result.get("weights")
    if of is None or of != weights:
        other = "does not say of which weights it is" if of is None else f"is about other weights ({str(of)[:8]}…)"
        raise ValueError(f"{os.fspath(path)} {other}; those of this model are {str(weights)[:8]}…: measure them anew")
    return result
