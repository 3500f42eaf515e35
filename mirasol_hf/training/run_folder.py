"""The folder of a run by a recipe: where its files lie, and what a run that starts there may replace."""

from __future__ import annotations

import shutil
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

CHECKPOINTS = "checkpoints"
RESULT_FILE = "training_result.json"
_MODEL_FILES = ("config.json", "adapter_config.json", "*.safetensors")


def where_to_start(folder: Path, resume: bool, overwrite: bool) -> str | None:
    """The checkpoint that a run goes on from; None for one that starts anew. Nothing is changed.

    Args:
        folder: of the run.
        resume: go on from the newest checkpoint, if there is one.
        overwrite: start anew, whatever the folder holds.

    Raises:
        ValueError: the folder holds a finished run, checkpoints or a model that would be lost.
    """
    if resume and overwrite:
        raise ValueError("--resume goes on with the run in the folder, --overwrite starts anew: give one of them")
    if overwrite:
        return None
    if (folder / RESULT_FILE).exists():
        todo = "nothing is left to resume" if resume else "train into another folder"
        raise ValueError(f"{folder} holds a finished run ({RESULT_FILE}): {todo}, or start anew with --overwrite")
    checkpoints = folder / CHECKPOINTS
    newest = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    if newest is not None and not resume:
        raise ValueError(f"{checkpoints} holds checkpoints: go on with --resume, or start anew with --overwrite")
    model = next((file for pattern in _MODEL_FILES for file in folder.glob(pattern)), None)
    if newest is None and model is not None:
        raise ValueError(f"{folder} holds a model ({model.name}): train into another folder, or give --overwrite")
    return newest


def clear(folder: Path) -> None:
    """Take the traces of an earlier run away, by which what it left would pass for the next one's.

    Its model stays until another is saved over it.
    """
    (folder / RESULT_FILE).unlink(missing_ok=True)
    for checkpoint in (folder / CHECKPOINTS).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        shutil.rmtree(checkpoint)
