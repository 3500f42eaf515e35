"""A training run that ends without a word while it writes its second checkpoint.

Usage: killed_worker.py OUTPUT
"""

import os
import sys
from pathlib import Path
from typing import Any

from transformers import Seq2SeqTrainingArguments

from mirasol_hf.training.collator import MirasolDataCollator
from mirasol_hf.training.trainer import MirasolTrainer
from tests.training.small_model import small_model, small_rows, small_tokenizer


def build(folder: Path, **changes: Any) -> MirasolTrainer:
    """Three steps over rows in their order, a checkpoint after each."""
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": 3,
        "logging_steps": 1,
        "save_steps": 1,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-2,
        "train_sampling_strategy": "sequential",
        "remove_unused_columns": False,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return MirasolTrainer(
        model=small_model(),
        args=Seq2SeqTrainingArguments(**{**settings, **changes}),
        data_collator=MirasolDataCollator(small_tokenizer()),
        train_dataset=small_rows(["red", "no", "up", "a", "two", "low"]),
        eval_dataset=small_rows(["red"]),
    )


class DyingTrainer(MirasolTrainer):
    """The process is gone when the random state of the second checkpoint is to be written: nothing cleans up."""

    def _save_rng_state(self, output_dir: str) -> None:
        if self.state.global_step == 2:
            os._exit(9)
        super()._save_rng_state(output_dir)


if __name__ == "__main__":
    run = build(Path(sys.argv[1]))
    run.__class__ = DyingTrainer
    run.train()
