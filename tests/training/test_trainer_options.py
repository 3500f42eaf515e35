"""The Trainer's options keep their meaning: checkpointing, precision, frozen parts, smoothing, padding, grouping."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import Seq2SeqTrainingArguments, TrainingArguments

from mirasol_hf.training.collator import MirasolDataCollator
from mirasol_hf.training.trainer import MirasolTrainer, chunk_counts
from tests.training.small_model import SMALL_CONFIG, small_model, small_rows, small_tokenizer

ANSWERS = ["red", "high tone", "a", "circle", "two", "yes", "nothing", "up"]
CHUNKS = [3, 1, 4, 2, 2, 5, 3, 2]


def _rows() -> list[dict[str, Any]]:
    return [small_rows([answer], count)[0] for answer, count in zip(ANSWERS, CHUNKS, strict=True)]


def _trainer(folder: Path, model: Any = None, rows: Any = None, padding_side: str = "right", **changes: Any) -> Any:
    settings = {
        "output_dir": str(folder),
        "max_steps": 1,
        "logging_steps": 1,
        "per_device_train_batch_size": 8,
        "save_strategy": "no",
        "optim": "sgd",
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return MirasolTrainer(
        model=small_model() if model is None else model,
        args=Seq2SeqTrainingArguments(**{**settings, **changes}),
        data_collator=MirasolDataCollator(small_tokenizer(), padding_side=padding_side),
        train_dataset=_rows() if rows is None else rows,
    )


def _run(folder: Path, **options: Any) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    trainer = _trainer(folder, **options)
    trainer.train()
    weights = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    return trainer.state.log_history[0], weights


def _assert_same(found: Any, expected: Any, atol: float = 1e-5) -> None:
    for name in ("loss", "text_loss", "latent_loss", "video_reconstruction_loss", "audio_reconstruction_loss"):
        assert found[0][name] == pytest.approx(expected[0][name], abs=atol), name
    for name, value in expected[1].items():
        torch.testing.assert_close(found[1][name], value, atol=atol, rtol=0, msg=name)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_nothing(tmp_path: Path, reentrant: bool) -> None:
    options = {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": reentrant}}
    _assert_same(_run(tmp_path, **options), _run(tmp_path))


def test_checkpointed_layers_are_computed_twice(tmp_path: Path) -> None:
    counted = []
    for options in ({}, {"activation_checkpointing": True}):
        trainer = _trainer(tmp_path, **options)
        calls = []
        norm = trainer.model.model.video_tower.layers[0].input_layernorm
        norm.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        trainer.train()
        counted.append(len(calls))
    assert counted == [1, 2]


def test_padding_side_changes_nothing(tmp_path: Path) -> None:
    _assert_same(_run(tmp_path, padding_side="left"), _run(tmp_path))


def test_padding_side_is_checked() -> None:
    tokenizer = small_tokenizer()
    batch = MirasolDataCollator(tokenizer, padding_side="left")(small_rows(["a", "bcd"]))
    assert batch["attention_mask"].tolist()[0][:2] == [0, 0] and batch["labels"][0, -2] != -100
    with pytest.raises(ValueError, match="padding_side must be 'left' or 'right', got 'up'"):
        MirasolDataCollator(tokenizer, padding_side="up")
    with pytest.raises(ValueError, match="cannot be combined with packed"):
        MirasolDataCollator(tokenizer, padding_side="left", packed=True)


def test_bfloat16_trains_float32_weights_to_about_the_same(tmp_path: Path) -> None:
    exact, mixed = _run(tmp_path), _run(tmp_path, bf16=True)
    assert mixed[0]["loss"] == pytest.approx(exact[0]["loss"], rel=0.02)
    assert mixed[0]["loss"] != exact[0]["loss"]
    assert {value.dtype for value in mixed[1].values()} == {torch.float32}
    start = dict(small_model().named_parameters())
    steps = [torch.cat([(run[1][n] - start[n]).flatten() for n in start]) for run in (exact, mixed)]
    assert nn.functional.cosine_similarity(*steps, dim=0) > 0.99


@pytest.mark.parametrize("checkpointing", [False, True])
def test_frozen_towers_stay_and_the_rest_moves(tmp_path: Path, checkpointing: bool) -> None:
    model = small_model()
    for tower in (model.model.video_tower, model.model.audio_tower):
        tower.requires_grad_(False)
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    kwargs = {"use_reentrant": True} if checkpointing else None
    _, weights = _run(
        tmp_path, model=model, gradient_checkpointing=checkpointing, gradient_checkpointing_kwargs=kwargs
    )
    # what stands in no formula of the loss, or enters it with no effect, cannot move either
    idle = {"model.time_model.embeddings.mask_token"}
    for name, value in weights.items():
        if "_tower." in name:
            assert torch.equal(value, start[name]), name
        elif not name.endswith("k_proj.bias") and name not in idle:
            assert not torch.equal(value, start[name]), name


@torch.no_grad()
def _smoothed_by_hand(model: Any, batch: dict[str, torch.Tensor], epsilon: float) -> tuple[float, float]:
    """Text loss with smoothing by torch, and the sum of all weighted losses with it."""
    outputs = model(**batch)
    labels = batch["labels"][:, 1:].flatten()
    logits = outputs.logits[:, :-1].flatten(0, 1)
    text = nn.functional.cross_entropy(logits, labels, ignore_index=-100, label_smoothing=epsilon)
    return text.item(), (outputs.loss + model.config.text_loss_weight * (text - outputs.text_loss)).item()


def test_label_smoothing_keeps_the_media_losses(tmp_path: Path) -> None:
    model = small_model(text_loss_weight=3.0)
    batch = MirasolDataCollator(small_tokenizer())(_rows())
    text, total = _smoothed_by_hand(model, batch, 0.2)
    whole = _run(tmp_path, model=model, label_smoothing_factor=0.2)
    assert whole[0]["loss"] == pytest.approx(total, abs=1e-4)
    assert abs(text - whole[0]["text_loss"]) > 1e-3
    parts = _run(
        tmp_path,
        model=small_model(text_loss_weight=3.0),
        label_smoothing_factor=0.2,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=8,
    )
    _assert_same(parts, whole)


def test_label_smoothing_without_a_text_loss_is_no_smoothing(tmp_path: Path) -> None:
    smoothed, plain = (
        _run(tmp_path, model=small_model(text_loss_weight=0.0), label_smoothing_factor=factor)[0]
        for factor in (0.2, 0.0)
    )
    assert "text_loss" not in smoothed
    assert smoothed["loss"] == pytest.approx(plain["loss"])


class _Counted(torch.utils.data.Dataset):
    """Rows of 1 to 8 chunks that know their lengths without being read."""

    def __init__(self, count: int) -> None:
        self.length = [1 + (7 * index) % 8 for index in range(400)][:count]

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> dict[str, Any]:
        raise AssertionError("no row needs to be read")


def _padding(order: list[int], lengths: list[int], batch_size: int) -> int:
    """Chunks of padding when clips are batched in this order."""
    batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
    return sum(max(lengths[i] for i in batch) - lengths[i] for batch in batches for i in batch)


def test_grouping_by_length_puts_like_numbers_of_chunks_together(tmp_path: Path) -> None:
    rows = _Counted(400)
    options = {"rows": rows, "per_device_train_batch_size": 4}
    grouped = list(_trainer(tmp_path, train_sampling_strategy="group_by_length", **options)._get_train_sampler())
    apart = list(_trainer(tmp_path, **options)._get_train_sampler())
    assert sorted(grouped) == sorted(apart) == list(range(400))
    assert _padding(grouped, rows.length, 4) < 0.1 * _padding(apart, rows.length, 4)


def test_chunk_counts_come_from_a_column_or_the_rows() -> None:
    from datasets import Dataset

    assert chunk_counts(_rows()) == CHUNKS
    assert chunk_counts(_Counted(400)) == _Counted(400).length
    table = Dataset.from_dict({"path": ["a", "b"], "chunks": [3, 1]})
    assert chunk_counts(table, "chunks") == [3, 1]
    with pytest.raises(ValueError, match="'length' has 2 lengths for the 400 rows"):
        chunk_counts(_Counted(2))


def test_features_encoded_beforehand_give_the_same_text_loss(tmp_path: Path) -> None:
    model = small_model().eval()
    encoded = []
    for row in _rows():
        media = {name: row[name][None] for name in ("pixel_values_videos", "input_features")}
        with torch.no_grad():
            features = model.encode_media(**media)
        encoded.append({
            "media_hidden_states": features.media_hidden_states[0],
            "prompt": row["prompt"],
            "answer": row["answer"],
        })  # fmt: skip
    collator = MirasolDataCollator(small_tokenizer())
    with torch.no_grad():
        expected = model(**collator(_rows())).text_loss
        batch = collator(encoded)
        found = model(**batch).text_loss
    assert set(batch) >= {"media_hidden_states", "media_attention_mask"} and "video_mask" not in batch
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="must be in all rows of a batch"):
        collator([encoded[0], _rows()[1]])
    trainer = _trainer(
        tmp_path, rows=encoded, predict_with_generate=True, generation_max_length=None, per_device_eval_batch_size=8
    )
    trainer.data_collator.with_prompts = True
    raw = trainer.predict(_rows(), max_new_tokens=3).predictions
    assert trainer.predict(encoded, max_new_tokens=3).predictions.tolist() == raw.tolist()


def test_processor_of_another_geometry_is_refused(tmp_path: Path, random_parts: Any) -> None:
    model, processor = random_parts
    arguments = Seq2SeqTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    with pytest.raises(ValueError, match=r"video_processor.size is \(64, 64\), the model's config says \(8, 8\)"):
        MirasolTrainer(model=small_model(), args=arguments, processing_class=processor)
    few = small_model(**{k: v.to_dict() for k, v in _sections(model).items()}, text_config=_smaller_vocabulary())
    with pytest.raises(ValueError, match=r"tokenizer has \d+ entries, .* text_config.vocab_size=270"):
        MirasolTrainer(model=few, args=arguments, processing_class=processor)


def _sections(model: Any) -> dict[str, Any]:
    config = model.config
    return {"video_config": config.video_config, "audio_config": config.audio_config}


def _smaller_vocabulary() -> dict[str, Any]:
    return {**SMALL_CONFIG["text_config"], "vocab_size": 270}


def test_checkpoint_that_cannot_be_written_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left on device")

    trainer = _trainer(tmp_path, max_steps=2, save_strategy="steps", save_steps=1)
    monkeypatch.setattr(trainer, "_save_rng_state", full)
    with pytest.raises(OSError, match="no space left"):
        trainer.train()
    assert not list(tmp_path.glob("*"))


def test_arguments_of_another_trainer_are_refused(tmp_path: Path) -> None:
    settings = TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True)
    with pytest.raises(TypeError, match="args is a TrainingArguments; expected"):
        MirasolTrainer(model=small_model(), args=settings)
