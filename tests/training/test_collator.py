"""The collator: labels counted by hand, ragged clips, several questions per clip."""

from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from mirasol_hf.processing.video_processing_mirasol import MirasolVideoProcessor
from mirasol_hf.training.collator import MirasolDataCollator
from mirasol_hf.training.tokenizer import train_tokenizer
from tests.training.small_model import small_model, small_rows, small_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    # 259 entries: no merges, so that one ASCII character is one token and counting is easy.
    return train_tokenizer([""], vocab_size=259)


def _clip(num_chunks: int, **text: object) -> dict[str, object]:
    return {
        "pixel_values_videos": torch.full((num_chunks, 2, 3, 4, 4), float(num_chunks)),
        "input_features": torch.full((num_chunks, 5, 6), float(num_chunks)),
        "video_mask": torch.ones(num_chunks, dtype=torch.long),
        "audio_mask": torch.ones(num_chunks, dtype=torch.long),
        **text,
    }


def test_labels_by_hand(tokenizer: PreTrainedTokenizerFast) -> None:
    batch = MirasolDataCollator(tokenizer)([{"prompt": "ab?\n", "answer": "red"}, {"prompt": "c\n", "answer": "no"}])

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    first = [1, *ids("ab?\n"), *ids("red"), 2]
    second = [1, *ids("c\n"), *ids("no"), 2]
    assert len(first) == 9 and len(second) == 6
    assert batch["input_ids"].tolist() == [first, [*second, 0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1] * 9, [1] * 6 + [0] * 3]
    assert batch["labels"].tolist() == [[-100] * 5 + first[5:], [-100] * 3 + second[3:] + [-100] * 3]
    assert int((batch["labels"] != -100).sum()) == (3 + 1) + (2 + 1)
    assert set(batch) == {"input_ids", "attention_mask", "labels"}


def test_packed_rows_by_hand(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [_clip(1, prompt=["ab\n", "c\n"], answer=["red", "no"]), _clip(1, prompt=["d\n"], answer=["x"])]
    batch = MirasolDataCollator(tokenizer, packed=True)(rows)

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    first = [1, *ids("ab\n"), *ids("red"), 2, 1, *ids("c\n"), *ids("no"), 2]
    second = [1, *ids("d\n"), *ids("x"), 2]
    padding = len(first) - len(second)
    assert batch["input_ids"].tolist() == [first, second + [0] * padding]
    assert batch["position_ids"].tolist() == [
        [*range(8), *range(6)],
        [*range(5), *range(padding)],
    ]
    labels = [[-100] * 4 + first[4:8] + [-100] * 3 + first[11:], [-100] * 3 + second[3:] + [-100] * padding]
    assert batch["labels"].tolist() == labels
    assert not {"media_index", "attention_mask"} & set(batch)
    with pytest.raises(ValueError, match="with_prompts needs one row a question"):
        MirasolDataCollator(tokenizer, packed=True, with_prompts=True)


@torch.no_grad()
def test_packed_loss_equals_one_row_a_question() -> None:
    rows = small_rows(["red", "two", "low"])
    for index, row in enumerate(rows):
        count = index + 1
        row["prompt"] = [f"what is {index} and {number}?\n" for number in range(count)]
        row["answer"] = [row["answer"] + "!" * number for number in range(count)]
    model, tokenizer = small_model().eval(), small_tokenizer()
    apart = model(**MirasolDataCollator(tokenizer)(rows))
    packed = model(**MirasolDataCollator(tokenizer, packed=True)(rows))
    for name in ("loss", "text_loss", "latent_loss"):
        torch.testing.assert_close(packed[name], apart[name], atol=1e-5, rtol=0)


def test_ragged_chunks_and_media_index(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [
        _clip(3, prompt=["a\n", "b\n", "c\n"], answer=["1", "2", "3"]),
        _clip(1, prompt="d\n", answer="4"),
    ]
    batch = MirasolDataCollator(tokenizer)(rows)
    assert batch["media_index"].tolist() == [0, 0, 0, 1]
    assert batch["input_ids"].shape[0] == 4
    assert batch["pixel_values_videos"].shape == (2, 3, 2, 3, 4, 4)
    assert batch["input_features"].shape == (2, 3, 5, 6)
    assert batch["video_mask"].tolist() == batch["audio_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["pixel_values_videos"][1, 0].eq(1).all() and batch["pixel_values_videos"][1, 1:].eq(0).all()


def test_one_question_each_needs_no_index(tokenizer: PreTrainedTokenizerFast) -> None:
    batch = MirasolDataCollator(tokenizer)(
        [_clip(2, prompt=["a\n"], answer=["1"]), _clip(2, prompt="b\n", answer="2")]
    )
    assert "media_index" not in batch


def test_missing_modality(tokenizer: PreTrainedTokenizerFast) -> None:
    silent = _clip(2, prompt="a\n", answer="1")
    del silent["input_features"], silent["audio_mask"]
    batch = MirasolDataCollator(tokenizer)([silent, _clip(1, prompt="b\n", answer="2")])
    assert batch["audio_mask"].tolist() == [[0, 0], [1, 0]]
    assert batch["input_features"][0].eq(0).all()
    assert "input_features" not in MirasolDataCollator(tokenizer)([silent])


def test_processor_outputs_with_batch_dimension(tokenizer: PreTrainedTokenizerFast) -> None:
    row = {name: value[None] for name, value in _clip(2).items()}
    batch = MirasolDataCollator(tokenizer)([{**row, "prompt": "a\n", "answer": "1"}])
    assert batch["pixel_values_videos"].shape == (1, 2, 2, 3, 4, 4)
    assert batch["video_mask"].tolist() == [[1, 1]]


def test_uint8_frames_are_normalised(tokenizer: PreTrainedTokenizerFast) -> None:
    row = {"frames": torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1, 1).expand(2, 2, 4, 4, 3)}
    row |= {"prompt": "a\n", "answer": "1"}
    batch = MirasolDataCollator(tokenizer, video_processor=MirasolVideoProcessor())([row])
    assert batch["pixel_values_videos"].shape == (1, 2, 2, 3, 4, 4)
    assert batch["pixel_values_videos"][0, 0].eq(-1).all() and batch["pixel_values_videos"][0, 1].eq(1).all()
    assert batch["video_mask"].tolist() == [[1, 1]]
    with pytest.raises(ValueError, match="video_processor"):
        MirasolDataCollator(tokenizer)([row])


def test_prompts_for_generation_are_left_padded(tokenizer: PreTrainedTokenizerFast) -> None:
    collator = MirasolDataCollator(tokenizer, with_prompts=True)
    batch = collator([{"prompt": "ab\n", "answer": "1"}, {"prompt": "c\n", "answer": "2"}])
    assert batch["prompt_attention_mask"].tolist() == [[1, 1, 1, 1], [0, 1, 1, 1]]
    assert batch["prompt_input_ids"][1].tolist()[:2] == [0, 1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": "1"}, "row 0 has no 'prompt'"),
        ({}, "'prompt'.*remove_unused_columns=False"),
        ({"prompt": ["a", "b"], "answer": ["1"]}, "lists of the same length"),
        (None, "row 0 is a NoneType"),
        ({"prompt": "a", "answer": ["1"]}, "must both be strings or lists"),
        ({"prompt": [], "answer": []}, "above zero"),
        ({"prompt": "a" * 20, "answer": "b"}, "23 tokens?|takes 23 tokens, more than the 16"),
        (_clip(2, prompt="a", answer="b") | {"video_mask": torch.ones(2, 2)}, "video_mask of one clip must have 1"),
    ],
)
def test_bad_rows(tokenizer: PreTrainedTokenizerFast, row: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MirasolDataCollator(tokenizer, max_length=16)([row])


@pytest.mark.parametrize(
    "column",
    [
        {"video": "holiday.mp4"},
        {"audio": "/nowhere/at/all.wav"},
        {"video": {"path": "holiday.mp4", "bytes": None}},
        {"clip": b"\0\0\0 ftypisom"},
        {"clip": {"path": None, "bytes": b"RIFF"}},
        {"speech": {"array": [0.0, 0.1], "sampling_rate": 16000}},
        {"clip": Path("holiday.mp4")},
        {"files": ["holiday.webm"]},
        {"waveform": torch.zeros(100)},
        {"pixel_values": torch.zeros(1, 3, 4, 4)},
        {"picture": np.zeros((4, 4, 3))},
        {"spectrogram": [[[0.0, 1.0]]]},
        {"decoder": object()},
    ],
)
def test_media_that_are_not_decoded(tokenizer: PreTrainedTokenizerFast, column: dict[str, object]) -> None:
    """Nothing would be learned from them: a text-only row and its loss look just like any other."""
    (name,) = column
    with pytest.raises(ValueError, match=f"row 1: .*{name!r}.*MediaDataset"):
        MirasolDataCollator(tokenizer)([_clip(1, prompt="a", answer="b"), {"prompt": "a", "answer": "b", **column}])


def test_misspelt_media_and_masks_without_media(tokenizer: PreTrainedTokenizerFast) -> None:
    text = {"prompt": "a", "answer": "b"}
    with pytest.raises(ValueError, match="'audio_maks': did you mean 'audio_mask'"):
        MirasolDataCollator(tokenizer)([_clip(2, **text) | {"audio_maks": [1, 0]}])
    with pytest.raises(ValueError, match="pixel_value_videos"):
        MirasolDataCollator(tokenizer)([{**text, "pixel_value_videos": torch.zeros(1, 2, 3, 4, 4)}])
    with pytest.raises(ValueError, match="'audio_mask' without 'input_features'"):
        MirasolDataCollator(tokenizer)([{**text, "audio_mask": [1]}])
    with pytest.raises(ValueError, match="'video_mask' without 'pixel_values_videos' or 'frames'"):
        MirasolDataCollator(tokenizer)([{**text, "video_mask": torch.ones(2)}])


def test_annotations_are_left_out(tokenizer: PreTrainedTokenizerFast) -> None:
    text = {"prompt": "a", "answer": "b", "id": 7, "type": "what", "question": "What?", "answers": ["b", "c"]}
    text |= {"video": None, "audio": None, "span": [1.0, 2.5], "score": np.float32(1), "day": date(2024, 1, 1)}
    text |= {"meta": {"split": "train", "year": 2024, "tags": []}, "right": True}
    assert set(MirasolDataCollator(tokenizer)([text])) == {"input_ids", "attention_mask", "labels"}
    seen = _clip(2, **text, file="holiday.mp4", boxes=torch.zeros(5, 4), chunk_seconds=torch.zeros(2, 2))
    plain = MirasolDataCollator(tokenizer)([_clip(2, prompt="a", answer="b")])
    assert set(MirasolDataCollator(tokenizer)([seen])) == set(plain)


def test_clips_of_other_shapes(tokenizer: PreTrainedTokenizerFast) -> None:
    other = _clip(1, prompt="b\n", answer="2") | {"input_features": torch.zeros(1, 5, 7)}
    with pytest.raises(ValueError, match=r"input_features of the rows disagree.*\(5, 6\).*\(5, 7\)"):
        MirasolDataCollator(tokenizer)([_clip(1, prompt="a\n", answer="1"), other])


def test_no_rows(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="empty list"):
        MirasolDataCollator(tokenizer)([])
