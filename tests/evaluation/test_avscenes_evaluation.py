"""The benchmark: which questions, which files, and what it counts."""

from pathlib import Path
from typing import Any

import av
import pytest
import torch
from transformers import Seq2SeqTrainingArguments

from mirasol_hf.data.avscenes import QUESTION_FAMILIES
from mirasol_hf.evaluation import avscenes
from mirasol_hf.evaluation.avscenes import benchmark_questions, clip_file, evaluate
from mirasol_hf.evaluation.avscenes_fast import evaluate_fast, exact_rows
from mirasol_hf.evaluation.streams import copy_stream
from mirasol_hf.training.collator import MirasolDataCollator
from mirasol_hf.training.trainer import MirasolTrainer
from tests.training.small_model import small_model, small_rows, small_tokenizer


class Oracle:
    """A pipeline that knows the right answers, but says one word too many about sound."""

    def __init__(self, split: str, limit: int) -> None:
        self.model = torch.nn.Identity()
        self.model.config = type("Config", (), {"name_or_path": "oracle"})()
        self.answers: dict[tuple[str, int], list[str]] = {}
        self.queue = [questions for _, questions in benchmark_questions(split, limit)]
        self.videos: list[Any] = []

    def __call__(self, items: Any, batch_size: int) -> Any:
        for item, questions in zip(items, self.queue, strict=True):
            self.videos.append(item["video"])
            assert item["question"] == [question.question for question in questions]
            yield [
                [{"answer": "The " + q.answer if q.family == "heard" else q.answer, "score": 1.0}] for q in questions
            ]


@pytest.mark.parametrize("limit", [1, 6, 20, 100])
def test_questions_are_spread_evenly(limit: int) -> None:
    chosen = benchmark_questions("test", limit)
    families = [question.family for _, questions in chosen for question in questions]
    counts = [families.count(family) for family in QUESTION_FAMILIES]
    assert len(families) == limit and max(counts) - min(counts) <= 1
    assert all(len({q.family for q in questions}) == len(questions) for _, questions in chosen)
    assert len({scene.index for scene, _ in chosen}) == len(chosen)


def test_scores_are_counted(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    oracle = Oracle("test", 12)
    result = evaluate(oracle, limit=12, ablate="media", work_dir=tmp_path, progress=lambda *step: seen.append(step))
    assert result["n"] == 12 and result["exact_match"] == pytest.approx(10 / 12)
    assert result["normalized_match"] == 1.0
    assert list(result["families"]) == list(QUESTION_FAMILIES)
    assert result["families"]["heard"]["exact_match"] == 0.0 and result["families"]["seen"]["exact_match"] == 1.0
    assert set(oracle.videos) == {None} and not list(tmp_path.iterdir())
    assert seen[-1] == (12, 12)
    assert result["model"] == "oracle" and result["date"] and result["versions"]["torch"] == torch.__version__


def _streams(path: Path) -> set[str]:
    with av.open(str(path)) as container:
        return {stream.type for stream in container.streams}


def test_files_and_ablations(tmp_path: Path) -> None:
    scene, _ = benchmark_questions("test", 1)[0]
    whole = clip_file(scene, tmp_path)
    assert _streams(whole) == {"video", "audio"}
    written = whole.stat().st_mtime_ns
    assert clip_file(scene, tmp_path) == whole and whole.stat().st_mtime_ns == written
    assert _streams(clip_file(scene, tmp_path, "sound")) == {"video"}
    left = clip_file(scene, tmp_path, "pictures")
    assert _streams(left) == {"audio"}
    with av.open(str(left)) as container:
        seconds = sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))
    assert seconds == pytest.approx(scene.duration, abs=0.2)
    with pytest.raises(ValueError, match="has no video stream"):
        copy_stream(left, tmp_path / "none.mp4", "video")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "dev"}, "split must be one of train, validation, test, compositional, got 'dev'"),
        ({"limit": 0}, "limit must be a whole number of at least 1, got 0"),
        ({"ablate": "words"}, "ablate must be one of media, sound, pictures, got 'words'"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(Oracle("test", 1), **settings)


def test_real_pipeline(random_folder: Path, tmp_path: Path) -> None:
    for ablate in (None, *avscenes.ABLATIONS):
        result = evaluate(random_folder, split="validation", limit=7, ablate=ablate, work_dir=tmp_path)
        assert result["n"] == 7 and 0 <= result["exact_match"] <= 1 and result["ablate"] == ablate


def test_fast_evaluation(random_parts: Any) -> None:
    model, processor = random_parts
    model.train()
    for ablate in (None, "sound", "pictures", "media"):
        scores = evaluate_fast(
            model, processor, num_clips=3, num_chunks=2, questions=6, max_seconds=5.0, batch_size=2, ablate=ablate
        )
        assert set(scores) == {*QUESTION_FAMILIES, "overall"} and all(0 <= value <= 1 for value in scores.values())
    assert model.training
    model.eval()
    with pytest.raises(ValueError, match="ablate must be one of"):
        evaluate_fast(model, processor, ablate="words")


def test_likeliest_tokens_are_what_generation_gives(tmp_path: Path) -> None:
    answers = ["up", "no", "red", "high tone", "circle", "two"]
    rows = small_rows(answers)
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(tmp_path), max_steps=80, learning_rate=1e-2, per_device_train_batch_size=2, use_cpu=True,
        remove_unused_columns=False, save_strategy="no", report_to=[], disable_tqdm=True,
    )  # fmt: skip
    collator = MirasolDataCollator(small_tokenizer(), with_prompts=True)
    trainer = MirasolTrainer(small_model(), arguments, data_collator=MirasolDataCollator(small_tokenizer()),
                             train_dataset=rows[:3])  # fmt: skip
    trainer.train()
    model = trainer.model.eval()
    batch = collator(rows)
    prompts = {"input_ids": batch.pop("prompt_input_ids"), "attention_mask": batch.pop("prompt_attention_mask")}
    media = {name: batch[name] for name in ("pixel_values_videos", "input_features", "video_mask", "audio_mask")}
    with torch.no_grad():
        hits = exact_rows(model, batch).tolist()
        tokens = model.generate(**prompts, **media, max_new_tokens=12, do_sample=False)
    ends = collator.tokenizer.eos_token_id
    generated = [row[prompts["input_ids"].shape[1] :].tolist() for row in tokens]
    said = [collator.tokenizer.decode(row[: row.index(ends)]) if ends in row else None for row in generated]
    assert hits == [answer == text for answer, text in zip(answers, said, strict=True)]
    # Half the rows were learnt and half never seen, so both outcomes occur.
    assert all(hits[:3]) and not all(hits[3:])
