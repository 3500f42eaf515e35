"""Checkpoints of the Trainer, under another name until they are whole."""

from __future__ import annotations

import os
import shutil
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn
from transformers import Trainer
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import (
    PREFIX_CHECKPOINT_DIR,
    SaveStrategy,
    get_last_checkpoint,
    has_length,
    rotate_checkpoints,
)

from mirasol_hf.strict_json import dumps
from mirasol_hf.training.checkpoint_manifest import check_checkpoint, write_manifest
from mirasol_hf.training.full_disk import told_when_full
from mirasol_hf.training.run_lock import only_run

PARTIAL_PREFIX = "tmp-"
# A resumed run takes learning rate and weight decay from its optimizer's state: other arguments would have no effect.
RUN_ARGUMENTS = (
    "seed",
    "data_seed",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "train_sampling_strategy",
    "dataloader_drop_last",
    "optim",
    "learning_rate",
    "weight_decay",
)


class WholeCheckpoints(Trainer):
    """A Trainer whose folders `checkpoint-N` are whole.

    It goes on from a whole checkpoint of its own alone: damaged files and other settings are refused by name.

    A checkpoint is written in `tmp-checkpoint-N` and takes its name when all processes have written their part. What a
    run leaves there that ended meanwhile is not resumed from, and the next checkpoint of the folder removes it.
    """

    _partial: Path | None = None

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """Train, alone in the folder that checkpoints go to, from nothing or from a checkpoint of this run.

        Raises:
            ValueError: another run holds the folder, or the checkpoint is damaged or belongs to another run.
            FileNotFoundError: there is no such checkpoint.
        """
        saves = self.args.save_strategy != SaveStrategy.NO and self.is_world_process_zero()
        with only_run(self._get_output_dir(trial=trial)) if saves else nullcontext():
            checkpoint = resume_from_checkpoint
            if checkpoint is True:
                checkpoint = get_last_checkpoint(self.args.output_dir) or True
            if isinstance(checkpoint, (str, os.PathLike)):
                check_checkpoint(Path(checkpoint), self.run_settings(), self._needed_to_resume())
            return super().train(checkpoint, trial, ignore_keys_for_eval)

    def run_settings(self) -> dict[str, Any]:
        """What decides which rows and random numbers a step sees, and what the optimizer does with them."""
        rows = len(self.train_dataset) if has_length(self.train_dataset) else None
        settings = {name: getattr(self.args, name) for name in RUN_ARGUMENTS}
        if self.args.auto_find_batch_size:
            del settings["per_device_train_batch_size"]
        return {**settings, "processes": self.args.world_size, "rows": rows}

    def _needed_to_resume(self) -> list[str]:
        """Files that the library goes on without, should they be missing."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return [TRAINER_STATE_NAME]  # the others have names that depend on the processes; the manifest has them
        process = self.args.process_index
        random = "rng_state.pth" if self.args.world_size <= 1 else f"rng_state_{process}.pth"
        return [TRAINER_STATE_NAME, OPTIMIZER_NAME, SCHEDULER_NAME, random]

    def _get_output_dir(self, trial: Any) -> str:
        """Where checkpoints go: of the one that is being written, the place for what is not whole."""
        return super()._get_output_dir(trial=trial) if self._partial is None else str(self._partial)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        run = Path(self._get_output_dir(trial=trial))
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.args.should_save:
            for left_over in run.glob(f"{PARTIAL_PREFIX}{PREFIX_CHECKPOINT_DIR}-*"):
                shutil.rmtree(left_over, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        partial = self._partial = run / f"{PARTIAL_PREFIX}{name}"
        try:
            with told_when_full(run, f"{name} could not be written"):
                super()._save_checkpoint(model, trial)
                self.accelerator.wait_for_everyone()
                self._note_best(partial, run)
                if self.args.should_save:
                    self._write_state(partial / name)
                    write_manifest(partial / name, self.run_settings())
                    put_in_place(partial / name, run / name)
        finally:
            self._partial = None
            if self.args.should_save:
                shutil.rmtree(partial, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._finish_checkpoint(run, run / name)

    def _note_best(self, partial: Path, run: Path) -> None:
        """The best checkpoint, if it is the one just written, by the name that it will have."""
        best = self.state.best_model_checkpoint
        if best is not None and Path(best).parent == partial:
            self.state.best_model_checkpoint = str(run / Path(best).name)

    def _write_state(self, folder: Path) -> None:
        """The state as it is once the checkpoint has its name, without numbers that JSON does not have."""
        text = dumps(asdict(self.state), indent=2, sort_keys=True) + "\n"
        (folder / TRAINER_STATE_NAME).write_text(text, encoding="utf-8")

    def _finish_checkpoint(self, run: Path, folder: Path) -> None:
        """What the library does with a written checkpoint, which it would have done too early."""
        if self.args.push_to_hub:
            super()._push_from_checkpoint(str(folder))
        if self.args.should_save:
            rotate_checkpoints(
                output_dir=str(run),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Not before the checkpoint has its name: the upload goes on in the background."""
        if self._partial is None:
            super()._push_from_checkpoint(checkpoint_folder)


def put_in_place(written: Path, folder: Path) -> None:
    """Give a folder the name of another, which it replaces."""
    if folder.exists():
        old = written.with_name(f"old-{folder.name}")
        folder.rename(old)
        written.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        written.rename(folder)
