"""The Trainer for Mirasol: every loss in the log by its name, evaluation by generated answers, batches by a plan."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import get_last_checkpoint

from mirasol_hf.modeling.generation_mirasol import RAW_MEDIA
from mirasol_hf.modeling.losses_mirasol import predicted_chunks
from mirasol_hf.pipelines.video_question_answering_mirasol import check_geometry
from mirasol_hf.strict_json import without_non_finite
from mirasol_hf.training.checkpoints import WholeCheckpoints
from mirasol_hf.training.collator import num_chunks
from mirasol_hf.training.finite import FiniteStart, NonFiniteError, check_weights, not_finite
from mirasol_hf.training.provenance import note_training

LOSS_NAMES = ("text_loss", "latent_loss", "video_reconstruction_loss", "audio_reconstruction_loss")
PROMPT_KEYS = ("prompt_input_ids", "prompt_attention_mask")


class MirasolTrainer(WholeCheckpoints, Seq2SeqTrainer):
    """`Seq2SeqTrainer` that knows what Mirasol returns.

    - `num_items_in_batch` reaches the model's losses, so that gradient accumulation changes nothing.
    - Each loss that the model returns by name is logged beside the total.
    - With `predict_with_generate`, answers are generated from the prompts alone (`prompt_input_ids`, as
      `MirasolDataCollator(with_prompts=True)` makes them), since `input_ids` contain the answer.
    - Label smoothing changes the text loss alone; the media losses stay.
    - `train_sampling_strategy="group_by_length"` groups clips by their number of chunks.
    - A processor (`processing_class`) whose geometry is not the model's is refused with a `ValueError`.
    - A loss or gradient norm that is not finite ends the run before the optimizer uses it (`NonFiniteError` says which
      and names the last checkpoint); weights that are not finite are neither trained nor saved. Where a loss scaler
      skips steps of infinite gradients on purpose (float16), losses alone are looked at.
    - A checkpoint has its name only once it is whole (see `WholeCheckpoints`).
    - The model's configuration says what it was trained on: `trained_on` names the data in words.
    - `batch_sampler` gives the training batches as lists of row numbers, in order; without it the usual sampler rules.

    Set `remove_unused_columns=False` in the arguments: rows carry raw media which the collator turns into inputs.

    Raises:
        TypeError: the arguments are no `Seq2SeqTrainingArguments`.
    """

    def __init__(
        self,
        *args: Any,
        batch_sampler: Sampler[list[int]] | None = None,
        trained_on: str | None = None,
        **kwargs: Any,
    ) -> None:
        settings = kwargs.get("args", args[1] if len(args) > 1 else None)
        if settings is not None and not isinstance(settings, Seq2SeqTrainingArguments):
            raise TypeError(f"args is a {type(settings).__name__}; expected transformers.Seq2SeqTrainingArguments")
        super().__init__(*args, **kwargs)
        # The library notes `use_cache` on the top configuration, where Mirasol has no such field: it would be
        # saved and refused on loading. Whether to cache belongs to the text section, and to `compute_loss` below.
        vars(self.model.config).pop("use_cache", None)
        if hasattr(self.processing_class, "video_processor"):
            check_geometry(self.processing_class, self.model.config)
        self.batch_sampler = batch_sampler
        self.trained_on = trained_on
        # The library's filter replaces a loss that is not finite by an average; here it ends the run.
        self.args.logging_nan_inf_filter = False
        self.add_callback(FiniteStart())
        self._forget_losses()

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as the library does, with the data noted in the model's configuration."""
        note_training(self.model.config, self.trained_on)
        return super().train(*args, **kwargs)

    def get_train_dataloader(self) -> DataLoader:
        """Return the loader of training batches, by `batch_sampler` if one was given."""
        if self.batch_sampler is None:
            return super().get_train_dataloader()
        workers = self.args.dataloader_num_workers
        loader: DataLoader = DataLoader(
            self.train_dataset,
            batch_sampler=self.batch_sampler,
            collate_fn=self.data_collator,
            num_workers=workers,
            prefetch_factor=self.args.dataloader_prefetch_factor if workers else None,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers if workers else False,
        )
        return self.accelerator.prepare(loader)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        """With `train_sampling_strategy="group_by_length"`, clips of about as many chunks come together."""
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length" or not hasattr(dataset, "__len__"):
            return super()._get_train_sampler(train_dataset)
        return LengthGroupedSampler(
            self.args.train_batch_size * self.args.gradient_accumulation_steps,
            lengths=chunk_counts(dataset, self.args.length_column_name),
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """Also count, over all micro-batches of a step, the chunks whose prediction each media loss measures."""
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        hears = self.model.config.audio_config is not None
        counts = [count_predicted_chunks(batch, hears) for batch in batches]
        names = {name for count in counts for name in count}
        totals = {name: torch.stack([c[name] for c in counts if name in c]).sum().to(device) for name in names}
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            # every name in every process, as the batches of one may have none
            nothing = torch.zeros((), dtype=torch.long, device=device)
            totals = {name: self.accelerator.gather(totals.get(name, nothing)).sum() for name in LOSS_NAMES[1:]}
        for batch in batches:
            for name in PROMPT_KEYS:  # for generation, in evaluation; the model does not know them
                batch.pop(name, None)
            if totals:
                batch["num_chunks_in_batch"] = totals
        return batches, num_items

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """Return the loss, and note its named parts for the log while training."""
        # Nothing is decoded here: keys and values need not be kept.
        inputs = {"use_cache": False, **inputs}
        # The library's smoothing withholds the labels from the model, which then computes none of the media losses.
        smoother: Any = getattr(self, "label_smoother", None)
        self.label_smoother: Any = None
        try:
            loss, outputs = super().compute_loss(
                model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch
            )
        finally:
            self.label_smoother = smoother
        if smoother is not None and self.model.config.text_loss_weight > 0:
            loss = loss + self._smoothing(smoother, outputs, inputs["labels"], num_items_in_batch)
        if model.training:
            self._note_losses(loss, outputs)
        return (loss, outputs) if return_outputs else loss

    def _smoothing(
        self, smoother: Any, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None
    ) -> torch.Tensor:
        """What label smoothing adds to the text loss, weighted and scaled as the loss itself is."""
        smoothed = smoother(outputs, labels, shift_labels=True, num_items_in_batch=num_items_in_batch)
        scale = self.model.config.text_loss_weight
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            scale *= self.accelerator.num_processes // self.get_tp_size() if self.args.n_gpu <= 1 else self.args.n_gpu
        return scale * (smoothed - outputs["text_loss"])

    def _note_losses(self, loss: torch.Tensor, outputs: Any) -> None:
        """Add to the sums since the last log, on the device: nothing waits for it."""
        self._passes += 1
        for name, value in {"loss": loss, **{name: outputs.get(name) for name in LOSS_NAMES}}.items():
            if value is not None:
                value = value.detach().float().mean().to(self.args.device)
                self._loss_sums[name] = self._loss_sums[name] + value if name in self._loss_sums else value

    def _forget_losses(self) -> None:
        self._loss_sums: dict[str, torch.Tensor] = {}
        self._passes = 0

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Between backward pass and optimizer: the one place where a step's losses and gradient norm are looked at."""
        norm = super()._get_grad_norm(model, grad_norm)
        values = dict(self._loss_sums)
        if norm is not None and self.accelerator.scaler is None:
            whole = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
            values["gradient norm"] = torch.as_tensor(whole, device=self.args.device)
        if values:
            # one transfer for all of them; sums hold what was not finite in any pass of the step
            numbers = torch.stack([value.detach().float() for value in values.values()]).tolist()
            self._stop_unless_finite(dict(zip(values, numbers, strict=True)), self.state.global_step + 1)
        return norm

    def _stop_unless_finite(self, values: Mapping[str, float], step: int) -> None:
        found = not_finite(values)
        if found:
            last = get_last_checkpoint(self.args.output_dir) if os.path.isdir(self.args.output_dir) else None
            kept = "there is no checkpoint" if last is None else f"the last checkpoint is {last}"
            raise NonFiniteError(f"step {step}: {found}; training stops, {kept}")

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model, if all of its weights are finite."""
        check_weights(self.model, f"step {self.state.global_step}, before saving")
        super().save_model(output_dir, _internal_call)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the named losses, averaged since the last log, to a training log.

        Raises:
            NonFiniteError: a loss is not finite, that of an evaluation included. Other metrics may be (the accuracy of
                no question, say); they are None in the log.
        """
        if "loss" in logs and self._loss_sums:
            steps = self._passes / self.args.gradient_accumulation_steps
            # With accumulation the loss of a pass is its share of the step's.
            named = {name: value.item() / steps for name, value in self._loss_sums.items() if name != "loss"}
            logs = {**logs, **named}
            self._forget_losses()
        losses = {name: value for name, value in logs.items() if name.endswith("loss")}
        self._stop_unless_finite(losses, self.state.global_step)
        super().log(without_non_finite(logs), start_time)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: Sequence[str] | None = None,
        **gen_kwargs: Any,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Return the loss, the generated answers without their prompts, and the labels."""
        inputs = dict(inputs)
        prompts = {key: inputs.pop(key) for key in PROMPT_KEYS if key in inputs}
        generate = self.args.predict_with_generate and not prediction_loss_only
        if not generate:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys=list(ignore_keys or []))
        if len(prompts) != len(PROMPT_KEYS):
            raise ValueError(
                "predict_with_generate needs prompt_input_ids and prompt_attention_mask in the batch: "
                "use MirasolDataCollator(with_prompts=True)"
            )
        inputs = self._prepare_inputs(inputs)
        prompts = self._prepare_inputs(prompts)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, _ = self.compute_loss(model, inputs, return_outputs=True)
        answers = self._generate_answers(inputs, prompts, gen_kwargs)
        return loss.detach().mean(), answers, inputs["labels"]

    def _generate_answers(
        self, inputs: dict[str, Any], prompts: dict[str, torch.Tensor], gen_kwargs: dict[str, Any]
    ) -> torch.Tensor:
        """Generate from the prompts, with each clip encoded once, and cut the prompts off."""
        options = {**getattr(self, "_gen_kwargs", {}), **gen_kwargs}
        names = (*RAW_MEDIA, "media_hidden_states", "media_attention_mask")
        media = {name: inputs[name] for name in names if inputs.get(name) is not None}
        model = self.accelerator.unwrap_model(self.model)
        with torch.no_grad():
            encoded = encode_rows(model, media, inputs.get("media_index")) if media else {}
            sequences = model.generate(
                input_ids=prompts["prompt_input_ids"],
                attention_mask=prompts["prompt_attention_mask"],
                **encoded,
                **options,
            )
        return sequences[:, prompts["prompt_input_ids"].shape[1] :]


def count_predicted_chunks(batch: dict[str, Any], hears: bool = True) -> dict[str, torch.Tensor]:
    """How many chunks of a batch each media loss predicts; nothing for a batch without masks.

    Args:
        batch: what the model is given.
        hears: whether the model has an audio tower; without it, sound counts for nothing.
    """
    masks = [batch.get("video_mask"), batch.get("audio_mask") if hears else None]
    given = next((mask for mask in masks if mask is not None), None)
    if given is None:
        return {}
    video, audio = (torch.zeros_like(given) if mask is None else mask for mask in masks)
    return {name: mask.sum() for name, mask in predicted_chunks(video, audio).items()}


def chunk_counts(dataset: Any, column: str = "length") -> list[int]:
    """Count the chunks of each clip of a data set, by which `group_by_length` groups.

    Args:
        dataset: rows as `MirasolDataCollator` takes them.
        column: a column or attribute of the data set that has the counts already; without it every row is read once.

    Raises:
        ValueError: the counts are not one for each row.
    """
    if column in (getattr(dataset, "column_names", None) or ()):
        counts = list(dataset[column])
    elif hasattr(dataset, column):
        counts = list(getattr(dataset, column))
    else:
        counts = [num_chunks(dataset[index]) for index in range(len(dataset))]
    if len(counts) != len(dataset):
        raise ValueError(f"{column!r} has {len(counts)} lengths for the {len(dataset)} rows of the data set")
    return counts


def encode_rows(
    model: Any, media: dict[str, torch.Tensor], media_index: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    """Encode each clip once and return what `generate` takes, with one row per question.

    Args:
        model: a Mirasol model.
        media: the media tensors and masks of the clips, or their features encoded beforehand.
        media_index: clip of each text row, `[T]`; `None` if row i asks about clip i.
    """
    if "media_hidden_states" in media:
        hidden, mask = media["media_hidden_states"], media["media_attention_mask"]
    else:
        encoded = model.encode_media(**media)
        hidden, mask = encoded.media_hidden_states, encoded.media_attention_mask
    if media_index is not None:
        hidden, mask = hidden[media_index], mask[media_index]
    return {"media_hidden_states": hidden, "media_attention_mask": mask}
