"""AVScenes clips for training, rendered straight to tensors: no file is written and none decoded.

Legend: K chunks, F frames per chunk, H, W image, S spectrogram steps per chunk, M mel bins, Q questions per clip.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, Sampler

from mirasol_hf.data.avscenes import Question, Scene, sample_scene
from mirasol_hf.processing.chunk_plan_mirasol import plan_chunks
from mirasol_hf.processing.feature_extraction_mirasol import MirasolFeatureExtractor
from mirasol_hf.processing.processing_mirasol import MirasolProcessor
from mirasol_hf.training.event_windows import choose_event_window, event_questions
from mirasol_hf.training.recipe import Augmentation, Stage

# Scenes of different seeds lie this far apart, farther than any run is long.
SCENES_PER_SEED = 100_000_000
KINDS_BY_SOUND = frozenset(
    {"heard", "sound_after", "sound_before", "sound_first", "sound_last", "count_sounds", "count_sound"}
)
KINDS_BY_BOTH = frozenset({"color_during", "shape_during", "sound_during", "named_sound"})


def clip_tensors(
    scene: Scene, processor: MirasolProcessor, num_chunks: int, end: float | None = None, start: float = 0.0
) -> dict[str, Any]:
    """Render a scene as the processor would read its file.

    Args:
        scene: the scene.
        processor: gives the size of frames, frames per chunk, and the audio features.
        num_chunks: K.
        end: second at which the last window ends; `None` for the scene's own end. A file may end a little later.
        start: second at which the first window starts.

    Returns:
        `frames` uint8 `[K,F,H,W,3]`, `input_features` float32 `[K,S,M]`, `video_mask [K]` and `audio_mask [K]` int64.
    """
    video = processor.video_processor
    plan = plan_chunks(start, end or scene.duration, num_chunks=num_chunks, frames_per_chunk=video.num_frames)
    size = video.size["height"]
    frames = scene.render_frames(plan.frame_times.reshape(-1), size)
    sound = torch.from_numpy(scene.render_audio(processor.feature_extractor.sampling_rate))
    features, audio_mask = processor.feature_extractor.extract_chunks(sound, plan.windows)
    return {
        "frames": torch.from_numpy(frames).view(num_chunks, video.num_frames, size, size, 3),
        "input_features": features,
        "video_mask": torch.ones(num_chunks, dtype=torch.long),
        "audio_mask": audio_mask,
    }


class AVScenesClips(Dataset[dict[str, Any]]):
    """Clips of a curriculum: clip i is the same for the same seed, whatever came before it.

    Clips are numbered through all stages, `stage.steps * stage.batch_size * accumulation` of them in each. An item
    is a row for `MirasolDataCollator`, with Q prompts and answers.
    """

    def __init__(
        self,
        processor: MirasolProcessor,
        stages: Sequence[Stage],
        seed: int = 0,
        split: str = "train",
        augmentation: Augmentation | None = None,
        accumulation: int = 1,
    ) -> None:
        self.processor = processor
        self.stages = tuple(stages)
        self.seed = seed
        self.split = split
        self.augmentation = augmentation
        self.ends = list(accumulate(stage.steps * stage.batch_size * accumulation for stage in self.stages))

    def __len__(self) -> int:
        return self.ends[-1]

    def stage_of(self, index: int) -> Stage:
        """Return the stage that clip `index` belongs to."""
        return self.stages[bisect_right(self.ends, index)]

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        stage = self.stage_of(index)
        rng = np.random.default_rng((self.seed, index))
        events = None if stage.num_events is None else int(rng.integers(stage.num_events[0], stage.num_events[1] + 1))
        scene = sample_scene(
            self.split,
            self.seed * SCENES_PER_SEED + index,
            min_seconds=stage.min_seconds,
            max_seconds=stage.max_seconds,
            num_events=events,
        )
        chunks = int(rng.choice(stage.num_chunks))
        if stage.window == "event":
            event, start, end = choose_event_window(scene, rng)
            row, questions = clip_tensors(scene, self.processor, chunks, end, start), event_questions(event, rng)
        else:
            padding = 0.0 if self.augmentation is None else float(rng.uniform(0.0, self.augmentation.padding_seconds))
            row = clip_tensors(scene, self.processor, chunks, scene.duration + padding)
            questions = scene.questions(families=stage.families, seed=int(rng.integers(2**31)))
        needs = None
        if self.augmentation is not None:
            left = augment(row, self.augmentation, rng, self.processor.feature_extractor)
            needs = left if self.augmentation.answerable_only else None
        questions = answerable(questions, needs)[: stage.questions]
        row["prompt"] = [self.processor.build_prompt(q.question, q.context) for q in questions]
        row["answer"] = [question.answer for question in questions]
        row["family"] = [question.family for question in questions]
        return row


class StageBatches(Sampler[list[int]]):
    """Batches of consecutive clips, each of its stage's batch size."""

    def __init__(self, stages: Sequence[Stage], accumulation: int = 1) -> None:
        self.stages = tuple(stages)
        self.accumulation = accumulation

    def __len__(self) -> int:
        return sum(stage.steps for stage in self.stages) * self.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        first = 0
        for stage in self.stages:
            for _ in range(stage.steps * self.accumulation):
                yield list(range(first, first + stage.batch_size))
                first += stage.batch_size


def answerable(questions: list[Question], needs: str | None) -> list[Question]:
    """The questions that a single modality can tell; all of them where there is none of that sort.

    Args:
        questions: about one clip.
        needs: `"pictures"`, `"sound"`, or `None` for a clip that has both.
    """
    return [q for q in questions if needs is None or needed_modality(q.kind) == needs] or questions


def needed_modality(kind: str) -> str:
    """Say what a kind of question needs: `"pictures"`, `"sound"` or `"both"`."""
    if kind in KINDS_BY_SOUND:
        return "sound"
    return "both" if kind in KINDS_BY_BOTH else "pictures"


def augment(
    row: dict[str, Any], how: Augmentation, rng: np.random.Generator, extractor: MirasolFeatureExtractor
) -> str | None:
    """Change a clip in place as a codec would, and drop a modality perhaps.

    Args:
        row: as `clip_tensors` makes it.
        how: what may happen to it.
        rng: draws what does.
        extractor: made the features; it knows the decibels behind them.

    Returns:
        the modality that is left if one was dropped, else `None`.
    """
    drawn = rng.random()
    left = None
    if drawn < how.drop_sound:
        row["audio_mask"] = torch.zeros_like(row["audio_mask"])
        row["input_features"] = torch.zeros_like(row["input_features"])
        left = "pictures"
    else:
        row["input_features"] = _changed_sound(row["input_features"], how, rng, extractor)
    if how.drop_sound <= drawn < how.drop_sound + how.drop_pictures:
        row["video_mask"] = torch.zeros_like(row["video_mask"])
        row["frames"] = torch.zeros_like(row["frames"])
        left = "sound"
    else:
        row["frames"] = _changed_pictures(row["frames"], how, rng)
    return left


def _changed_sound(
    features: torch.Tensor, how: Augmentation, rng: np.random.Generator, extractor: MirasolFeatureExtractor
) -> torch.Tensor:
    """Change loudness and add a noise floor."""
    decibels = features * extractor.db_scale - extractor.db_offset
    if how.gain_db:
        decibels = decibels + float(rng.uniform(-how.gain_db, how.gain_db))
    if how.sound_noise_db is not None:
        # Powers add: this is the level of the sum of the sound and a flat noise.
        floor = float(rng.uniform(how.sound_noise_db - 25.0, how.sound_noise_db))
        decibels = 10.0 * torch.log10(10.0 ** (decibels / 10.0) + 10.0 ** (floor / 10.0))
    lowest = 10.0 * math.log10(extractor.mel_floor)
    return (decibels.clamp_min(lowest) + extractor.db_offset) / extractor.db_scale


def _changed_pictures(frames: torch.Tensor, how: Augmentation, rng: np.random.Generator) -> torch.Tensor:
    """Blur slightly, shift the brightness and add noise, on uint8 frames."""
    pixels = frames.numpy()
    if rng.random() < how.blur:
        pixels = _blurred(pixels)
    shift = round(float(rng.uniform(-how.brightness, how.brightness)))
    strength = float(rng.uniform(0.0, how.picture_noise))
    table = _noise_table()
    start = int(rng.integers(0, len(table) - pixels.size)) if pixels.size < len(table) else 0
    noise = np.resize(table[start:], pixels.size).reshape(pixels.shape)
    scaled = np.rint(np.arange(-128, 128) / 32.0 * strength).astype(np.int16) + np.int16(shift)
    changed = pixels.astype(np.int16) + scaled[noise]
    return torch.from_numpy(np.clip(changed, 0, 255).astype(np.uint8))


def _blurred(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Average each pixel with its right and lower neighbours, as coarse chroma does."""
    wide = pixels.astype(np.uint16)
    wide[..., :-1, :] += wide[..., 1:, :].copy()
    wide[..., -1, :] *= 2
    wide[..., :-1, :, :] += wide[..., 1:, :, :].copy()
    wide[..., -1, :, :] *= 2
    return (wide // 4).astype(np.uint8)


@lru_cache(maxsize=1)
def _noise_table() -> npt.NDArray[np.uint8]:
    """Normal noise drawn once, 32 steps per standard deviation around 128: drawing it per clip would cost more."""
    noise = np.random.default_rng(0).standard_normal(4_000_000, dtype=np.float32)
    return np.clip(np.rint(noise * 32.0) + 128, 0, 255).astype(np.uint8)
