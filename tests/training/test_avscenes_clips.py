"""Training clips: the same for the same seed, in the stages' order, close to clean under augmentation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mirasol_hf.data.avscenes import QUESTION_FAMILIES, sample_scene, write_scene
from mirasol_hf.modeling.configuration_mirasol import MirasolConfig
from mirasol_hf.processing.media_mirasol import probe_media
from mirasol_hf.processing.processing_mirasol import MirasolProcessor
from mirasol_hf.training.avscenes_data import (
    KINDS_BY_BOTH,
    KINDS_BY_SOUND,
    AVScenesClips,
    StageBatches,
    answerable,
    clip_tensors,
    needed_modality,
)
from mirasol_hf.training.collator import MirasolDataCollator
from mirasol_hf.training.recipe import Augmentation, Stage
from mirasol_hf.training.tokenizer import train_tokenizer

STAGES = (
    Stage("short", 2, 3, 4, (2,), 4.0, 4.0, (2, 3)),
    Stage("long", 3, 2, 8, (3, 4), 4.0, 8.0),
)
CLEAN = Augmentation(
    picture_noise=0.0, blur=0.0, brightness=0.0, gain_db=0.0, sound_noise_db=None, padding_seconds=0.0
)


@pytest.fixture(scope="module")
def processor() -> Any:
    return MirasolProcessor.for_config(MirasolConfig.from_preset("tiny"), train_tokenizer([""], vocab_size=259))


def test_batches_follow_the_stages() -> None:
    batches = list(StageBatches(STAGES))
    assert batches == [[0, 1, 2], [3, 4, 5], [6, 7], [8, 9], [10, 11]]
    assert len(StageBatches(STAGES)) == 5
    assert len(list(StageBatches(STAGES, accumulation=2))) == len(StageBatches(STAGES, accumulation=2)) == 10


def test_clips_follow_the_stages(processor: Any) -> None:
    clips = AVScenesClips(processor, STAGES)
    assert len(clips) == 12
    assert clips[5]["frames"].shape == (2, 8, 64, 64, 3) and clips[5]["frames"].dtype == torch.uint8
    assert clips[5]["input_features"].shape == (2, 32, 64)
    assert len(clips[5]["prompt"]) == len(clips[5]["answer"]) == 4
    assert {len(clips[index]["frames"]) for index in range(6, 12)} == {3, 4}
    with pytest.raises(IndexError, match="clip 12 of 12"):
        clips[12]


def test_a_clip_depends_on_seed_and_number_only(processor: Any) -> None:
    first, second = (AVScenesClips(processor, STAGES, seed=3, augmentation=Augmentation()) for _ in range(2))
    _ = first[0]
    for index in (1, 7):
        _assert_same(first[index], second[index])
    other = AVScenesClips(processor, STAGES, seed=4, augmentation=Augmentation())
    assert not torch.equal(other[1]["frames"], first[1]["frames"])


@pytest.mark.parametrize("index", [0, 3, 8])
def test_rendered_clip_is_what_the_processor_reads(processor: Any, tmp_path: Path, index: int) -> None:
    scene = sample_scene("validation", index, max_seconds=12.0)
    write_scene(scene, tmp_path / "clip.mp4")
    read = processor(videos=str(tmp_path / "clip.mp4"), num_chunks=8, return_tensors="pt")
    end = probe_media(tmp_path / "clip.mp4")["duration"]
    assert abs(end - scene.duration) < 0.1
    rendered = clip_tensors(scene, processor, 8, end)
    pictures = processor.video_processor.normalize_frames(rendered["frames"])
    for mask in ("video_mask", "audio_mask"):
        assert torch.equal(read[mask][0], rendered[mask])
    # Values span -1 .. 1; a frame that is one too late moves an edge and shows here at once.
    picture_error = (read["pixel_values_videos"][0] - pictures).abs()
    assert picture_error.mean() < 0.03 and picture_error.flatten(2).mean(-1).max() < 0.05
    # 0.1 is 4 dB: aac keeps loud parts and may drop the faint noise.
    sound_error = (read["input_features"][0] - rendered["input_features"]).abs()
    assert sound_error[rendered["input_features"] > 0.0].mean() < 0.1


def test_workers_change_nothing(processor: Any) -> None:
    clips = AVScenesClips(processor, STAGES, augmentation=Augmentation())
    collator = MirasolDataCollator(processor.tokenizer, video_processor=processor.video_processor)
    loader = DataLoader(clips, batch_sampler=StageBatches(STAGES), collate_fn=collator, num_workers=1)
    batches = list(loader)
    assert len(batches) == 5
    _assert_same(batches[3], collator([clips[8], clips[9]]))


def test_augmentation_stays_within_codec_error(processor: Any) -> None:
    clean = AVScenesClips(processor, STAGES, augmentation=CLEAN)[0]
    _assert_same(clean, AVScenesClips(processor, STAGES, augmentation=CLEAN)[0])
    for changes in (
        {"picture_noise": 3.0},
        {"brightness": 6.0},
        {"blur": 1.0},
        {"gain_db": 3.0},
        {"sound_noise_db": -55.0},
    ):
        changed = AVScenesClips(processor, STAGES, augmentation=replace(CLEAN, **changes))[0]
        pictures = changed["frames"].float() - clean["frames"].float()
        assert pictures.pow(2).mean().sqrt() < 12.0
        # Only shapes' edges may change much, not whole areas.
        assert pictures.abs().median() <= 6.0
        if "gain_db" in changes:
            assert (changed["input_features"] - clean["input_features"]).abs().max() <= 3.0 / 40 + 1e-5
        if "sound_noise_db" in changes:
            assert (changed["input_features"] - clean["input_features"]).min() >= -1e-5


@pytest.mark.parametrize(
    ("option", "mask", "media"),
    [("drop_sound", "audio_mask", "input_features"), ("drop_pictures", "video_mask", "frames")],
)
def test_dropped_modality(processor: Any, option: str, mask: str, media: str) -> None:
    clips = AVScenesClips(processor, STAGES, augmentation=replace(CLEAN, **{option: 1.0}))
    row = clips[7]
    assert row[mask].eq(0).all() and row[media].eq(0).all()
    other = "video_mask" if mask == "audio_mask" else "audio_mask"
    assert row[other].eq(1).all()
    allowed = {"seen", "order", "count", "context"} if mask == "audio_mask" else {"heard", "order", "count"}
    assert set(row["family"]) <= allowed


def test_questions_of_what_is_left() -> None:
    for index in range(20):
        scene = sample_scene("train", index)
        for needs in ("pictures", "sound"):
            picked = answerable(scene.questions(seed=5), needs)
            assert picked and {needed_modality(question.kind) for question in picked} == {needs}
    questions = sample_scene("train", 0).questions()
    assert answerable(questions, None) == questions
    both = [question for question in questions if needed_modality(question.kind) == "both"]
    assert answerable(both, "sound") == both


def test_every_kind_of_the_generator_is_known() -> None:
    kinds = {question.kind for index in range(60) for question in sample_scene("train", index).questions()}
    assert kinds >= KINDS_BY_SOUND | KINDS_BY_BOTH
    for kind in kinds:
        # A kind that speaks of sound needs it.
        if "sound" in kind or "heard" in kind or "during" in kind:
            assert needed_modality(kind) in ("sound", "both")
        else:
            assert needed_modality(kind) == "pictures"


def test_families_of_a_stage(processor: Any) -> None:
    asked = AVScenesClips(processor, [Stage("all", 1, 1, 6, (2,))])[0]["family"]
    assert set(asked) == set(QUESTION_FAMILIES)
    some = AVScenesClips(processor, [Stage("some", 1, 1, 6, (2,), families=("seen", "heard"))])[0]["family"]
    assert set(some) == {"seen", "heard"}


def test_event_windows_show_one_event_and_ask_about_it(processor: Any) -> None:
    stage = Stage("events", 1, 30, 4, (2,), window="event")
    clips = AVScenesClips(processor, [stage], seed=2, augmentation=CLEAN)
    for index in range(30):
        row = clips[index]
        assert row["frames"].shape[0] == 2
        scene = sample_scene("train", 2 * 100_000_000 + index)
        color, shape, motion, sound = row["answer"]
        assert any(
            (event.color, event.shape) == (color, shape)
            and motion in (event.motion, "nowhere")
            and sound in (event.sound, "nothing")
            for event in scene.events
        )
        # the shape never leaves the screen: every frame has pixels far brighter than any background
        assert row["frames"].amax(dim=(2, 3, 4)).min() > 120
    with pytest.raises(ValueError, match="window must be 'clip' or 'event', got 'shot'"):
        Stage("odd", 1, window="shot")


def _assert_same(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, second[name]), name
        else:
            assert np.array_equal(value, second[name]), name
