"""Run a recipe: tokenizer, processor and model are made, trained with `MirasolTrainer`, and saved together."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Seq2SeqTrainingArguments, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import set_seed

from mirasol_hf.modeling.configuration_mirasol import MirasolConfig
from mirasol_hf.modeling.modeling_mirasol import MirasolForConditionalGeneration
from mirasol_hf.processing.processing_mirasol import MirasolProcessor
from mirasol_hf.strict_json import dumps
from mirasol_hf.training.avscenes_data import AVScenesClips, StageBatches
from mirasol_hf.training.checkpoint_manifest import check_checkpoint
from mirasol_hf.training.collator import MirasolDataCollator
from mirasol_hf.training.finite import check_weights
from mirasol_hf.training.full_disk import told_when_full
from mirasol_hf.training.memory import check_memory
from mirasol_hf.training.optimizer import MuonWithAdamW
from mirasol_hf.training.provenance import weights_hash
from mirasol_hf.training.recipe import Optimisation, Recipe, load_recipe, recipe_settings
from mirasol_hf.training.run_folder import CHECKPOINTS, RESULT_FILE, clear, where_to_start
from mirasol_hf.training.run_lock import only_run
from mirasol_hf.training.schedule import cosine_cycles
from mirasol_hf.training.tokenizer import avscenes_corpus, train_tokenizer
from mirasol_hf.training.trainer import MirasolTrainer


def run_recipe(
    recipe: str | Path,
    output_dir: str | Path,
    resume: bool = False,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    force: bool = False,
) -> dict[str, Any]:
    """Train as `recipe` says and save model, tokenizer and processor in `output_dir`.

    Args:
        recipe: name of a recipe in the package, or path of a YAML file.
        output_dir: where the model goes; checkpoints lie in `checkpoints` below it.
        resume: go on from the newest checkpoint there, in the middle of a stage too; start anew if there is none.
        overrides: changes to the recipe, `key=value` each (see `load_recipe`).
        overwrite: start anew, though `output_dir` holds a model or a run.
        force: start also where the memory that is free does not hold the model in training.

    Returns:
        what `training_result.json` in `output_dir` holds: recipe, hash of the weights, hardware, seconds, steps
        per second, last losses and the last accuracies on validation scenes.

    Raises:
        ValueError: if the recipe is unknown or faulty, `output_dir` is in use by another run, or it holds what would
            be lost: checkpoints without `resume`, a finished run, a model; or if there is too little memory.
    """
    plan = load_recipe(recipe, overrides)
    if not force:
        check_memory(plan)
    folder = Path(output_dir)
    with only_run(folder):
        return _train(plan, folder, where_to_start(folder, resume, overwrite))


def _train(plan: Recipe, folder: Path, checkpoint: str | None) -> dict[str, Any]:
    if plan.running.num_threads is not None:
        torch.set_num_threads(plan.running.num_threads)
    set_seed(plan.seed)
    if checkpoint is not None:
        # before anything is read from it
        check_checkpoint(Path(checkpoint), recipe_settings(plan), needed=[])
    model, processor = build_model(plan)
    if checkpoint is not None:
        # token ids must stay those that the weights were trained with, whatever the tokenizer trainer makes today
        processor = MirasolProcessor.from_pretrained(checkpoint)
    model.set_attn_implementation(plan.running.attn_implementation)
    trainer = build_trainer(plan, model, processor, folder)
    if checkpoint is None:
        clear(folder)
    began = time.monotonic()
    output = trainer.train(resume_from_checkpoint=checkpoint)
    check_weights(model, "the trained model")
    history = trainer.state.log_history
    result = {
        "recipe": plan.plan(),
        "weights": weights_hash(model),
        "hardware": hardware(),
        "seconds": round(time.monotonic() - began, 1),
        "resumed_from": checkpoint,
        "steps": trainer.state.global_step,
        # the library says 0 where every step was taken before this run
        "training_loss": output.training_loss or None,
        "last_losses": _last(history, "loss"),
        "validation": _last(history, "validation_overall"),
    }
    with told_when_full(folder, f"the trained model could not be written; make room and resume from {CHECKPOINTS}"):
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        (folder / RESULT_FILE).write_text(dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def build_model(recipe: Recipe) -> tuple[MirasolForConditionalGeneration, MirasolProcessor]:
    """Make the recipe's tokenizer, processor and untrained model."""
    config = MirasolConfig.from_preset(recipe.preset, **recipe.config)
    text: Any = config.text_config
    tokenizer = train_tokenizer(
        avscenes_corpus(recipe.tokenizer.num_scenes),
        vocab_size=recipe.tokenizer.vocab_size,
        model_max_length=text.max_position_embeddings,
    )
    statistics = recipe.normalisation
    processor = MirasolProcessor.for_config(
        config,
        tokenizer,
        num_chunks=max(recipe.stages[-1].num_chunks),
        image_mean=[statistics.image_mean] * config.video_config.num_channels,
        image_std=[statistics.image_std] * config.video_config.num_channels,
        db_offset=statistics.db_offset,
        db_scale=statistics.db_scale,
    )
    return MirasolForConditionalGeneration(config), processor


def build_trainer(
    recipe: Recipe, model: MirasolForConditionalGeneration, processor: MirasolProcessor, folder: Path
) -> MirasolTrainer:
    """Make the Trainer of a recipe over its curriculum."""
    accumulation = recipe.optimisation.gradient_accumulation_steps
    clips = AVScenesClips(
        processor, recipe.stages, seed=recipe.seed, augmentation=recipe.augmentation, accumulation=accumulation
    )
    return RecipeTrainer(
        model=model,
        args=training_arguments(recipe, folder / CHECKPOINTS),
        data_collator=MirasolDataCollator(
            processor.tokenizer, video_processor=processor.video_processor, packed=recipe.running.packed
        ),
        train_dataset=clips,
        processing_class=processor,
        batch_sampler=StageBatches(recipe.stages, accumulation),
        trained_on=model.config.trained_on,  # the recipe says it among the entries of the configuration
        callbacks=[FamilyAccuracy(recipe, processor)],
        optimizers=(build_optimizer(recipe.optimisation, model), None),
        recipe=recipe,
        learning_rate_factor=cosine_cycles(recipe.stages, recipe.optimisation.warmup_steps),
    )


class RecipeTrainer(MirasolTrainer):
    """`MirasolTrainer` with a schedule of the recipe's own, whose checkpoints belong to the recipe."""

    def __init__(
        self, *args: Any, recipe: Recipe, learning_rate_factor: Callable[[int], float], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.recipe = recipe
        self.learning_rate_factor = learning_rate_factor

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LambdaLR:
        """Make the schedule of `learning_rate_factor`, whatever the arguments say."""
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, self.learning_rate_factor)
        return self.lr_scheduler

    def run_settings(self) -> dict[str, Any]:
        """The recipe's settings beside those of the arguments."""
        return {**super().run_settings(), **recipe_settings(self.recipe)}


def build_optimizer(how: Optimisation, model: MirasolForConditionalGeneration) -> torch.optim.Optimizer | None:
    """Muon with AdamW if the recipe asks for it; `None` leaves the choice to the Trainer."""
    if not how.muon_scale:
        return None
    return MuonWithAdamW(model, how.learning_rate, how.muon_scale, how.weight_decay, how.adam_beta2)


def training_arguments(recipe: Recipe, folder: Path) -> TrainingArguments:
    """Translate a recipe into `TrainingArguments`."""
    how, running = recipe.optimisation, recipe.running
    return Seq2SeqTrainingArguments(
        output_dir=str(folder),
        max_steps=recipe.steps,
        seed=recipe.seed,
        learning_rate=how.learning_rate,
        weight_decay=how.weight_decay,
        adam_beta2=how.adam_beta2,
        max_grad_norm=how.max_grad_norm,
        gradient_accumulation_steps=how.gradient_accumulation_steps,
        bf16=how.bf16,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=running.logging_steps,
        save_steps=running.save_steps,
        save_total_limit=running.save_total_limit,
        dataloader_num_workers=running.workers,
        dataloader_prefetch_factor=4 if running.workers else None,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
    )


class FamilyAccuracy(TrainerCallback):
    """Every so many steps, the accuracy of each question family on validation scenes, printed and logged."""

    def __init__(self, recipe: Recipe, processor: MirasolProcessor) -> None:
        self.running = recipe.running
        self.stages = recipe.stages
        self.processor = processor

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluate if it is time, on clips like those of the last stage."""
        from mirasol_hf.evaluation.avscenes_fast import evaluate_fast

        every = self.running.eval_steps
        if not every or (state.global_step % every and state.global_step != state.max_steps):
            return
        last = self.stages[-1]
        result = evaluate_fast(
            kwargs["model"],
            self.processor,
            num_clips=self.running.eval_clips,
            num_chunks=max(last.num_chunks),
            min_seconds=last.min_seconds,
            max_seconds=last.max_seconds,
        )
        entry = {f"validation_{name}": value for name, value in result.items()}
        state.log_history.append({**entry, "step": state.global_step})
        print(dumps({"step": state.global_step, **entry}), flush=True)


def hardware() -> str:
    """Say in a line what this machine is."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{_processor_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _processor_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _last(history: Sequence[dict[str, Any]], key: str) -> dict[str, Any] | None:
    return next((entry for entry in reversed(history) if key in entry), None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: `python -m mirasol_hf.training.train --recipe NAME --output DIR`, else as `mirasol train`."""
    import argparse

    parser = argparse.ArgumentParser(description="Train a Mirasol model by a recipe.")
    parser.add_argument("--recipe", default="avscenes-tiny")
    parser.add_argument("--output", required=True)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument("--force", action="store_true")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    given = parser.parse_args(arguments)
    result = run_recipe(given.recipe, given.output, given.resume, given.overrides, given.overwrite, given.force)
    print(dumps({key: value for key, value in result.items() if key != "recipe"}, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
