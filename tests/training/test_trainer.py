"""The Trainer: accumulation changes nothing, resuming changes nothing, losses are logged, answers are generated."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Seq2SeqTrainingArguments, TrainerCallback

from mirasol_hf.training.collator import MirasolDataCollator
from mirasol_hf.training.trainer import LOSS_NAMES, MirasolTrainer
from tests.training.small_model import small_model, small_rows, small_tokenizer


def _arguments(folder: Path, **changes: Any) -> Seq2SeqTrainingArguments:
    settings = {
        "output_dir": str(folder),
        "max_steps": 1,
        "logging_steps": 1,
        "save_strategy": "no",
        "optim": "sgd",
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "remove_unused_columns": False,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return Seq2SeqTrainingArguments(**{**settings, **changes})


def _trainer(
    model: Any, rows: list[dict[str, Any]], arguments: Seq2SeqTrainingArguments, **more: Any
) -> MirasolTrainer:
    collator = MirasolDataCollator(small_tokenizer(), with_prompts=arguments.predict_with_generate)
    return MirasolTrainer(model=model, args=arguments, data_collator=collator, train_dataset=rows, **more)


@pytest.mark.parametrize(
    ("answers", "chunks"),
    [
        (["red", "one", "two", "low", "cat", "dog", "sun", "ice"], [3] * 8),
        (["red", "high tone", "a", "circle", "two", "yes", "nothing", "up"], [3, 1, 4, 2, 2, 5, 3, 2]),
    ],
)
def test_accumulation_equals_one_batch(tmp_path: Path, answers: list[str], chunks: list[int]) -> None:
    rows = [small_rows([answer], count)[0] for answer, count in zip(answers, chunks, strict=True)]
    del rows[3]["input_features"]
    logs, weights = [], []
    for batch_size, accumulation in ((8, 1), (1, 8), (2, 4)):
        arguments = _arguments(
            tmp_path, per_device_train_batch_size=batch_size, gradient_accumulation_steps=accumulation
        )
        trainer = _trainer(small_model(), rows, arguments)
        trainer.train()
        logs.append(trainer.state.log_history[0])
        weights.append({name: value.detach().clone() for name, value in trainer.model.named_parameters()})
    for log, weight in zip(logs[1:], weights[1:], strict=True):
        for name in ("loss", *(name for name in LOSS_NAMES if name in logs[0])):
            assert log[name] == pytest.approx(logs[0][name], abs=1e-5), name
        for name, value in weight.items():
            torch.testing.assert_close(value, weights[0][name], atol=1e-5, rtol=0, msg=name)
    start = dict(small_model().named_parameters())
    assert any(not torch.equal(value, start[name]) for name, value in weights[0].items())


def test_every_loss_is_logged_by_name(tmp_path: Path) -> None:
    trainer = _trainer(small_model(), small_rows(["red"] * 4), _arguments(tmp_path, per_device_train_batch_size=4))
    trainer.train()
    log, config = trainer.state.log_history[0], trainer.model.config
    assert set(LOSS_NAMES) <= set(log)
    total = sum(getattr(config, f"{name}_weight") * log[name] for name in LOSS_NAMES)
    assert log["loss"] == pytest.approx(total, abs=1e-4)


class _StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        control.should_training_stop = state.global_step >= self.step
        return control


def test_resumed_run_has_the_same_losses(tmp_path: Path) -> None:
    # Dropout makes the losses depend on the random state, which a checkpoint must bring back.
    config = {
        "time_config": {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "dropout": 0.2,
        }
    }
    rows = small_rows([f"a{index}" for index in range(12)])
    batches: Any = [[2 * index, 2 * index + 1] for index in range(6)]
    settings = {"max_steps": 6, "optim": "adamw_torch", "learning_rate": 1e-2, "lr_scheduler_type": "cosine"}

    def run(folder: str, callbacks: list[Any], resume: bool = False, save: bool = False) -> list[float]:
        saving = {"save_strategy": "steps", "save_steps": 3} if save else {}
        arguments = _arguments(tmp_path / folder, **settings, **saving)
        trainer = _trainer(small_model(**config), rows, arguments, batch_sampler=batches, callbacks=callbacks)
        trainer.train(resume_from_checkpoint=resume)
        return [entry["text_loss"] for entry in trainer.state.log_history if "text_loss" in entry]

    whole = run("whole", [])
    run("broken", [_StopAt(3)], save=True)
    resumed = run("broken", [], resume=True, save=True)
    assert len(whole) == len(resumed) == 6
    assert resumed == pytest.approx(whole, abs=1e-6)


def test_answers_are_generated_from_prompts_alone(tmp_path: Path) -> None:
    arguments = _arguments(
        tmp_path,
        max_steps=60,
        optim="adamw_torch",
        learning_rate=1e-2,
        per_device_train_batch_size=2,
        logging_steps=60,
        predict_with_generate=True,
        generation_max_length=None,
    )
    rows = small_rows(["up", "no"])
    rows[0] |= {"prompt": ["what is number 0?\n", "and then?\n"], "answer": ["up", "four"]}
    trainer = _trainer(small_model(), rows, arguments)
    trainer.train()
    predictions = trainer.predict(rows, max_new_tokens=6).predictions
    predictions[predictions < 0] = 0
    assert trainer.data_collator.tokenizer.batch_decode(predictions, skip_special_tokens=True) == ["up", "four", "no"]


def test_generating_needs_prompts(tmp_path: Path) -> None:
    arguments = _arguments(tmp_path, predict_with_generate=True)
    trainer = _trainer(small_model(), small_rows(["a"]), arguments)
    trainer.data_collator.with_prompts = False
    with pytest.raises(ValueError, match="with_prompts=True"):
        trainer.predict(small_rows(["a"]))
