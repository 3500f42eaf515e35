"""A model, tokenizer and rows small enough that a training step takes milliseconds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast, Seq2SeqTrainingArguments

from mirasol_hf.modeling.configuration_mirasol import MirasolConfig
from mirasol_hf.modeling.modeling_mirasol import MirasolForConditionalGeneration
from mirasol_hf.training.tokenizer import train_tokenizer

_LAYERS = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
SMALL_CONFIG: dict[str, Any] = {
    "video_config": {
        **_LAYERS,
        "image_size": 8,
        "num_frames": 2,
        "tube_kernels": ((1, 4, 4),),
        "tube_strides": ((1, 4, 4),),
        "tube_offsets": ((0, 0, 0),),
        "reconstruction_size": (1, 2, 2),
    },
    "audio_config": {
        **_LAYERS,
        "num_steps": 4,
        "num_mel_bins": 8,
        "patch_size": (4, 4),
        "reconstruction_size": (2, 4),
    },
    "combiner_config": {**_LAYERS, "num_output_tokens": 2, "memory_size": 4},
    "time_config": _LAYERS,
    "text_config": {**_LAYERS, "num_key_value_heads": 1, "vocab_size": 260, "max_position_embeddings": 128},
}


def small_tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer([""], vocab_size=259, model_max_length=128)


def small_model(**config: Any) -> MirasolForConditionalGeneration:
    torch.manual_seed(0)
    return MirasolForConditionalGeneration(MirasolConfig.from_preset("tiny", **{**SMALL_CONFIG, **config}))


def small_rows(answers: list[str], num_chunks: int = 3) -> list[dict[str, Any]]:
    """One clip of random media for each answer."""
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "pixel_values_videos": torch.randn(num_chunks, 2, 3, 8, 8, generator=generator),
            "input_features": torch.randn(num_chunks, 4, 8, generator=generator),
            "prompt": f"what is number {index}?\n",
            "answer": answer,
        }
        for index, answer in enumerate(answers)
    ]


def two_steps_arguments(output: Path, **options: Any) -> Seq2SeqTrainingArguments:
    """Two plain steps over the rows in their order: the same numbers wherever and however they are taken."""
    return Seq2SeqTrainingArguments(
        output_dir=str(output / "run"),
        max_steps=2,
        logging_steps=1,
        optim="sgd",
        learning_rate=0.1,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        train_sampling_strategy="sequential",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        ddp_backend="gloo" if "WORLD_SIZE" in os.environ else None,
        **options,
    )
