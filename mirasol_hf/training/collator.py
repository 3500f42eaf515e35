"""Batches for training: ragged clips and several questions per clip become padded tensors with labels.

Legend: B clips, K chunks, T text rows (all questions of all clips), L text length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from mirasol_hf.processing.video_processing_mirasol import MirasolVideoProcessor
from mirasol_hf.training.row_columns import MEDIA_RANKS, RANKS, check_columns

IGNORED_LABEL = -100
MEDIA_AND_MASK = (("pixel_values_videos", "video_mask"), ("input_features", "audio_mask"))


@dataclass
class MirasolDataCollator:
    """Collate rows of one clip each into a batch for `MirasolForConditionalGeneration`.

    A row holds the media of one clip, without a batch dimension: `pixel_values_videos [K,F,C,H,W]` (or `frames
    [K,F,H,W,3]` uint8, which are normalised here), `input_features [K,S,M]`, `video_mask [K]`, `audio_mask [K]`; any
    of them may be missing. A leading dimension of one, as the processor returns it, is taken off. Its text is `prompt`
    with `answer`: two strings, or two lists of equal length for several questions about the clip.

    Clips encoded beforehand, while the time-aligned part is frozen, come as `media_hidden_states [K·m,D]` (and
    `media_attention_mask [K·m]`) in place of the raw media, in all rows of a batch or in none.

    Other columns are left out, if they are annotations such as an id, a type or a box. Media that are not decoded (a
    path in `video`, say; `MediaDataset` reads it) or whose name is not known are refused.

    The batch holds the text padded on the right (or left), `labels` that are -100 on prompts and padding and cover
    each answer with its end token, and clips padded at the end to the longest one. As soon as one clip has not exactly
    one question, `media_index [T]` names the clip of each text row.

    Attributes:
        tokenizer: the model's tokenizer; it must have an end and a padding token.
        max_length: longest prompt with answer in tokens; a longer row is refused. `None` takes the tokenizer's limit.
        video_processor: normalises `frames`; needed only for rows that have them.
        packed: put all questions of a clip into one row instead, one behind the other: no token is spent on padding
            between them. `position_ids` restart at each, by which the model keeps them apart; there is then no
            `attention_mask` and no `media_index`.
        padding_side: `"right"` or `"left"`, where the text is padded; the loss is the same.
        with_prompts: also return `prompt_input_ids` and `prompt_attention_mask`, padded on the left, for generation.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int | None = None
    video_processor: MirasolVideoProcessor | None = None
    with_prompts: bool = False
    packed: bool = False
    padding_side: str = "right"

    def __post_init__(self) -> None:
        for name in ("eos_token_id", "pad_token_id"):
            if getattr(self.tokenizer, name) is None:
                raise ValueError(f"the tokenizer has no {name}: training needs an end and a padding token")
        if self.padding_side not in ("left", "right"):
            raise ValueError(f"padding_side must be 'left' or 'right', got {self.padding_side!r}")
        if self.packed and self.padding_side == "left":
            raise ValueError("packed rows are padded on the right: padding_side='left' cannot be combined with packed")
        if self.packed and self.with_prompts:
            raise ValueError("with_prompts needs one row a question: it cannot be combined with packed")

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Return one batch of `features`.

        Raises:
            ValueError: if a row has no text, unequal numbers of prompts and answers, too long a text, or media that
                are not taken, or if the clips' shapes disagree in more than their number of chunks.
        """
        if not features:
            raise ValueError("cannot collate an empty list of rows")
        questions = [_questions(row, index) for index, row in enumerate(features)]
        for index, row in enumerate(features):
            check_columns(row, index)
        if self.packed:
            batch = self._packed_text(questions)
        else:
            batch = self._text([pair for pairs in questions for pair in pairs])
        clips = [_without_batch_dimension(row) for row in features]
        batch.update(_encoded_media(clips))
        for media, mask in MEDIA_AND_MASK:
            batch.update(self._media(clips, media, mask))
        if not self.packed and any(len(pairs) != 1 for pairs in questions):
            owners = [clip for clip, pairs in enumerate(questions) for _ in pairs]
            batch["media_index"] = torch.tensor(owners, dtype=torch.long)
        return batch

    def _text(self, pairs: Sequence[tuple[str, str]]) -> dict[str, torch.Tensor]:
        prompts, rows = self._tokens(pairs)
        longest = max(len(row) for row in rows)
        batch = {
            "input_ids": torch.full((len(rows), longest), self.tokenizer.pad_token_id, dtype=torch.long),
            "attention_mask": torch.zeros(len(rows), longest, dtype=torch.long),
            "labels": torch.full((len(rows), longest), IGNORED_LABEL, dtype=torch.long),
        }
        for index, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
            first = 0 if self.padding_side == "right" else longest - len(row)
            batch["input_ids"][index, first : first + len(row)] = torch.tensor(row)
            batch["attention_mask"][index, first : first + len(row)] = 1
            batch["labels"][index, first + len(prompt) : first + len(row)] = torch.tensor(row[len(prompt) :])
        if self.with_prompts:
            padded = self.tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
            batch["prompt_input_ids"] = padded["input_ids"]
            batch["prompt_attention_mask"] = padded["attention_mask"]
        return batch

    def _tokens(self, pairs: Sequence[tuple[str, str]]) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids of each prompt, and of each prompt with its answer and end."""
        prompts = self.tokenizer([prompt for prompt, _ in pairs])["input_ids"]
        answers = self.tokenizer([answer for _, answer in pairs], add_special_tokens=False)["input_ids"]
        eos = self.tokenizer.eos_token_id
        rows = [prompt + answer + [eos] for prompt, answer in zip(prompts, answers, strict=True)]
        self._check_lengths(rows, pairs)
        return prompts, rows

    def _packed_text(self, questions: Sequence[Sequence[tuple[str, str]]]) -> dict[str, torch.Tensor]:
        """One row a clip; the padding at its end counts as one more text, so that nothing else attends to it."""
        columns: dict[str, list[list[int]]] = {"input_ids": [], "labels": [], "position_ids": []}
        for pairs in questions:
            prompts, rows = self._tokens(pairs)
            columns["input_ids"].append([token for row in rows for token in row])
            columns["position_ids"].append([place for row in rows for place in range(len(row))])
            columns["labels"].append(
                [
                    label
                    for prompt, row in zip(prompts, rows, strict=True)
                    for label in [IGNORED_LABEL] * len(prompt) + row[len(prompt) :]
                ]
            )
        longest = max(map(len, columns["input_ids"]))
        for ids, labels, places in zip(*columns.values(), strict=True):
            missing = longest - len(ids)
            ids.extend([self.tokenizer.pad_token_id] * missing)
            labels.extend([IGNORED_LABEL] * missing)
            places.extend(range(missing))
        return {name: torch.tensor(rows) for name, rows in columns.items()}

    def _check_lengths(self, rows: Sequence[Sequence[int]], pairs: Sequence[tuple[str, str]]) -> None:
        limit = self.tokenizer.model_max_length if self.max_length is None else self.max_length
        for row, (prompt, answer) in zip(rows, pairs, strict=True):
            if len(row) > limit:
                raise ValueError(
                    f"prompt with answer takes {len(row)} tokens, more than the {limit} allowed: "
                    f"{prompt!r}, {answer!r}"
                )

    def _media(self, clips: Sequence[Mapping[str, Any]], media: str, mask: str) -> dict[str, torch.Tensor]:
        """Pad one modality to `[B, K, ...]` with its mask `[B, K]`; nothing if no clip has it."""
        values = [self._chunks(clip, media) for clip in clips]
        present = [value for value in values if value is not None]
        if not present:
            return {}
        shapes = {tuple(value.shape[1:]) for value in present}
        if len(shapes) > 1:
            raise ValueError(f"{media} of the rows disagree in more than their chunks: {sorted(shapes)}")
        longest = max(num_chunks(clip) for clip in clips)
        padded = present[0].new_zeros(len(clips), longest, *present[0].shape[1:])
        padded_mask = torch.zeros(len(clips), longest, dtype=torch.long)
        for index, (clip, value) in enumerate(zip(clips, values, strict=True)):
            if value is None:
                continue
            padded[index, : len(value)] = value
            given = clip.get(mask)
            padded_mask[index, : len(value)] = 1 if given is None else torch.as_tensor(given)
        if media == "pixel_values_videos" and padded.dtype == torch.uint8:
            if self.video_processor is None:
                raise ValueError("rows with uint8 'frames' need MirasolDataCollator(video_processor=...)")
            padded = self.video_processor.normalize_frames(padded)
        return {media: padded, mask: padded_mask}

    def _chunks(self, clip: Mapping[str, Any], media: str) -> torch.Tensor | None:
        value = clip.get(media)
        if media == "pixel_values_videos" and value is None:
            value = clip.get("frames")
        return None if value is None else torch.as_tensor(value)


def _encoded_media(clips: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Pad features that were encoded beforehand to `[B, N, D]` with their mask `[B, N]`; nothing without any."""
    given = [clip.get("media_hidden_states") for clip in clips]
    if all(value is None for value in given):
        return {}
    raw = [name for clip in clips for name in ("pixel_values_videos", "frames", "input_features") if name in clip]
    if raw or any(value is None for value in given):
        raise ValueError("media_hidden_states must be in all rows of a batch, and raw media then in none")
    features = [torch.as_tensor(value) for value in given]
    masks = [clip.get("media_attention_mask") for clip in clips]
    longest = max(len(value) for value in features)
    states = features[0].new_zeros(len(clips), longest, features[0].shape[-1])
    mask = torch.zeros(len(clips), longest, dtype=torch.long)
    for index, (value, present) in enumerate(zip(features, masks, strict=True)):
        states[index, : len(value)] = value
        mask[index, : len(value)] = 1 if present is None else torch.as_tensor(present)
    return {"media_hidden_states": states, "media_attention_mask": mask}


def _questions(row: Mapping[str, Any], index: int) -> list[tuple[str, str]]:
    """Return the (prompt, answer) pairs of a row."""
    if not isinstance(row, Mapping):
        raise ValueError(f"row {index} is a {type(row).__name__}, expected a mapping with 'prompt' and 'answer'")
    for name in ("prompt", "answer"):
        if name not in row:
            hint = "" if set(row) & {"prompt", "answer"} else "; a Trainer keeps it with remove_unused_columns=False"
            if name == "prompt" and "question" in row:
                hint = "; processor.build_prompt(question, context) makes one"
            raise ValueError(f"row {index} has no {name!r}; its keys are {sorted(row)}{hint}")
    prompts, answers = row["prompt"], row["answer"]
    if isinstance(prompts, str) and isinstance(answers, str):
        return [(prompts, answers)]
    if isinstance(prompts, str) or isinstance(answers, str) or len(prompts) != len(answers) or not len(prompts):
        raise ValueError(
            f"row {index}: 'prompt' and 'answer' must both be strings or lists of the same length above zero, "
            f"got {prompts!r} and {answers!r}"
        )
    return list(zip(prompts, answers, strict=True))


def _without_batch_dimension(row: Mapping[str, Any]) -> dict[str, Any]:
    """Take off the leading dimension of one that a processor call for a single clip leaves on its outputs."""
    clip = dict(row)
    for name, rank in RANKS.items():
        value = clip.get(name)
        if value is None:
            continue
        value = torch.as_tensor(value)
        if value.ndim == rank + 1 and value.shape[0] == 1:
            value = value[0]
        if value.ndim != rank:
            raise ValueError(f"{name} of one clip must have {rank} dimensions, got shape {tuple(value.shape)}")
        clip[name] = value
    return clip


def num_chunks(clip: Mapping[str, Any]) -> int:
    """Return the number of chunks of a row, or of its features where it was encoded beforehand; 0 without media."""
    clip = _without_batch_dimension(clip)
    return max((len(clip[name]) for name in MEDIA_RANKS if clip.get(name) is not None), default=0)
