"""What a checkpoint holds and which run it belongs to: written last, and checked before a run goes on from it.

Sizes tell a file that was cut or emptied. What its format can tell, it tells by itself: JSON parses, safetensors has a
header that fits the file, an archive of torch has a checksum for each tensor.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.trainer import OPTIMIZER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, sort_checkpoints

from mirasol_hf.modeling.checkpoint_files_mirasol import cut, no_safetensors, shortly
from mirasol_hf.strict_json import dumps

MANIFEST = "checkpoint_manifest.json"
# what JSON, safetensors and archives raise whose bytes are wrong: also places before the file, methods unheard of
_UNREADABLE = (ValueError, TypeError, KeyError, EOFError, OSError, RuntimeError, SafetensorError, zipfile.BadZipFile)
_ARCHIVES = (".pt", ".pth", ".bin")
# settings told in an error, and letters of each
_SHOWN = 3
_LONGEST = 40


class DamagedCheckpoint(ValueError):
    """A file of a checkpoint is missing or not whole; the message names it, and the checkpoint to go on from."""


def write_manifest(folder: Path, run: Mapping[str, Any]) -> None:
    """Note the files of a whole checkpoint, and the settings of its run."""
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    text = dumps({"run": run, "files": files}, indent=2, sort_keys=True) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def check_checkpoint(folder: Path, run: Mapping[str, Any], needed: Sequence[str]) -> None:
    """Refuse to go on from a checkpoint that is damaged or belongs to another run.

    Args:
        folder: the checkpoint. One without manifest, which another Trainer wrote, is checked as far as its files tell.
        run: the settings of the run that would go on; those that the checkpoint does not note are not compared.
        needed: names of files without which training would begin with a new optimizer, schedule or random state.

    Raises:
        FileNotFoundError: there is no such folder.
        DamagedCheckpoint: a file is missing or damaged.
        ValueError: the settings of the run differ, or its weights are a pickle.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no checkpoint {folder}")
    if not any(folder.glob("*.safetensors")):  # the library's Trainer would read a pickle instead
        refusal = no_safetensors(folder, FileNotFoundError())
        if isinstance(refusal, ValueError):
            raise refusal
    damage = find_damage(folder, needed)
    if damage is not None:
        raise DamagedCheckpoint(f"{folder}/{damage}; {_way_back(folder, needed)}")
    noted = _manifest(folder)["run"]
    here = json.loads(dumps(run))
    other = [name for name in noted if name in here and noted[name] != here[name]]
    if other:
        told = ", ".join(
            f"{name} {shortly(noted[name], _LONGEST)} (here {shortly(here[name], _LONGEST)})"
            for name in other[:_SHOWN]
        )
        more = f" and {len(other) - _SHOWN} more" if len(other) > _SHOWN else ""
        raise ValueError(f"{folder} belongs to another run, with {told}{more}: resume with those, or start anew")


def find_damage(folder: Path, needed: Sequence[str]) -> str | None:
    """The first file of a checkpoint that is missing or not whole, and what is wrong with it; None if all are."""
    try:
        files = _manifest(folder)["files"]
    except (ValueError, TypeError, KeyError) as error:
        return f"{MANIFEST} is damaged: {error}"
    for name in needed:
        if not (folder / name).is_file():
            alone = files and OPTIMIZER_NAME not in files
            return f"{name} is missing" + (": the weights alone were saved (save_only_model)" if alone else "")
    for name, size in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, expected {size}"
    for path in sorted(folder.rglob("*")):
        fault = _fault(path)
        if fault is not None:
            return f"{path.relative_to(folder).as_posix()} is damaged: {fault}"
    return None


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest; one that says nothing where there is none."""
    path = folder / MANIFEST
    if not path.exists():
        return {"run": {}, "files": {}}
    manifest = json.loads(path.read_text(encoding="utf-8"))
    return {"run": dict(manifest["run"]), "files": dict(manifest["files"])}


def _fault(path: Path) -> str | None:
    """What the format of a file says against it."""
    try:
        if path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            if path.name == TRAINER_STATE_NAME and not isinstance(content["global_step"], int):
                return "its global_step is no number"
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt"):
                pass
        elif path.suffix in _ARCHIVES:
            with zipfile.ZipFile(path) as archive:
                record = archive.testzip()
            return None if record is None else f"the checksum of {record} does not fit"
    except _UNREADABLE as error:
        return cut(error) or type(error).__name__
    return None


def _way_back(folder: Path, needed: Sequence[str]) -> str:
    """The newest other checkpoint of the run that is whole."""
    for other in reversed(sort_checkpoints(str(folder.parent), PREFIX_CHECKPOINT_DIR)):
        if Path(other) != folder and find_damage(Path(other), needed) is None:
            return f"remove the folder to go on from {other}, which is whole"
    return "no other checkpoint beside it is whole"
