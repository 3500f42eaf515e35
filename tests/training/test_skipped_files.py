"""Training on files of which some cannot be read, in batches of which nothing would be left."""

import copy
from pathlib import Path
from typing import Any

import pytest
from transformers import Seq2SeqTrainingArguments

from mirasol_hf.data.media_dataset import MediaCollator, MediaDataset, MediaIterableDataset
from mirasol_hf.processing.media_limits_mirasol import MediaError
from mirasol_hf.training.collator import MirasolDataCollator
from mirasol_hf.training.trainer import MirasolTrainer


def _examples(clip: Path, tmp_path: Path) -> list[dict[str, Any]]:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"")
    videos = [clip, broken, broken, broken, clip, tmp_path / "missing.mp4"]
    return [{"video": path, "prompt": "what is seen?\n", "answer": f"number {i}"} for i, path in enumerate(videos)]


def _trainer(parts: Any, tmp_path: Path, data: Any, wrapped: bool = True, **changes: Any) -> MirasolTrainer:
    model, processor = parts
    collator = MirasolDataCollator(processor.tokenizer)
    settings: dict[str, Any] = {
        "output_dir": str(tmp_path / "run"),
        "max_steps": 3,
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 1,
        "train_sampling_strategy": "sequential",
        "learning_rate": 0.0,
        "save_strategy": "no",
        "logging_steps": 1,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return MirasolTrainer(
        model=copy.deepcopy(model),
        args=Seq2SeqTrainingArguments(**{**settings, **changes}),
        data_collator=MediaCollator(collator) if wrapped else collator,
        train_dataset=data,
    )


@pytest.mark.parametrize(("wrapped", "workers"), [(True, 0), (False, 1)])
def test_trainer_steps_over_files_that_cannot_be_read(
    random_parts: Any, scene_clip: Path, tmp_path: Path, wrapped: bool, workers: int
) -> None:
    data = MediaDataset(_examples(scene_clip, tmp_path), random_parts[1], on_error="skip", num_chunks=1)
    trainer = _trainer(random_parts, tmp_path, data, wrapped, dataloader_num_workers=workers)
    assert trainer.train().global_step == 3
    assert trainer.evaluate(data)["eval_loss"] > 0
    assert len(data.report) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_trainer_on_a_stream_of_files(random_parts: Any, scene_clip: Path, tmp_path: Path, workers: int) -> None:
    data = MediaIterableDataset(_examples(scene_clip, tmp_path), random_parts[1], on_error="skip", num_chunks=1)
    trainer = _trainer(random_parts, tmp_path, data, max_steps=2, dataloader_num_workers=workers)
    assert trainer.train().global_step == 2


@pytest.mark.parametrize(
    ("kind", "workers"), [(MediaDataset, 0), (MediaIterableDataset, 0), (MediaIterableDataset, 1)]
)
def test_training_without_a_readable_file_is_an_error(
    random_parts: Any, scene_clip: Path, tmp_path: Path, kind: Any, workers: int
) -> None:
    bad = _examples(scene_clip, tmp_path)[1:4]
    data = kind(bad, random_parts[1], on_error="skip", num_chunks=1)
    with pytest.raises(MediaError, match=r"none of 3 examples.*broken\.mp4"):
        _trainer(random_parts, tmp_path, data, dataloader_num_workers=workers).train()
