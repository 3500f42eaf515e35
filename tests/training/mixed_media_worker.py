"""Run by `torchrun`: two processes whose batches have other media, their results written to files.

Usage: mixed_media_worker.py MODE FOLDER OUTPUT with MODE one of: ddp, fsdp, checkpointed (fsdp with
activation checkpointing), generate, adam, trainer.
Each process writes OUTPUT/RANK.pt. A process that waits for the other in vain ends with an error after two minutes.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

PATIENCE = timedelta(minutes=2)
Row = dict[str, Any]


def row(answer: str, chunks: int, *media: str) -> Row:
    """A row with those of its media that are named."""
    from tests.training.small_model import small_rows

    whole = small_rows([answer], chunks)[0]
    return {name: value for name, value in whole.items() if name in ("prompt", "answer", *media)}


def pairs() -> dict[str, tuple[list[Row], list[Row]]]:
    """Rows of the first and of the second process, by what is special about them."""
    video, sound = "pixel_values_videos", "input_features"
    whole = row("circle", 3, video, sound)
    image = row("red", 3, video)
    encoded = {**row("up", 1), "media_hidden_states": torch.linspace(-1, 1, 64).view(4, 16)}
    return {
        "text beside both": ([row("red", 1), row("no", 1)], [whole]),
        "video beside sound": ([row("two", 2, video)], [row("low", 4, sound)]),
        "images beside video": ([{**image, video: image[video][:, :1]}], [row("a", 3, video)]),
        "one chunk beside three": ([row("b", 1, video, sound)], [whole]),
        "encoded beforehand beside both": ([encoded], [whole]),
        "text beside text": ([row("red", 1)], [row("yes", 1)]),
    }


def batches() -> dict[str, tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]]:
    from mirasol_hf.training.collator import MirasolDataCollator
    from tests.training.small_model import small_tokenizer

    collate = MirasolDataCollator(small_tokenizer())
    return {name: (collate(first), collate(second)) for name, (first, second) in pairs().items()}


def questions() -> tuple[dict[str, Any], dict[str, Any]]:
    """What each process generates from: text alone, and the same text about a clip."""
    ids = torch.arange(5, 11).view(2, 3)
    text = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    clips = {name: torch.stack([row("a", 3, name)[name]] * 2) for name in ("pixel_values_videos", "input_features")}
    return text, {**text, **clips}


def load(mode: str, folder: str) -> Any:
    from transformers import AutoModelForMultimodalLM
    from transformers.distributed import DistributedConfig

    import mirasol_hf  # noqa: F401

    if mode == "ddp":
        model = AutoModelForMultimodalLM.from_pretrained(folder).train()
        return torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=False)
    model = AutoModelForMultimodalLM.from_pretrained(folder, distributed_config=DistributedConfig(fsdp_size=2)).train()
    if mode == "checkpointed":
        model.activation_checkpointing_enable()
    return model


def train(model: Any) -> dict[str, Any]:
    """Logits, loss and gradients of each pair of batches, without a step between them."""
    results = {}
    for name, batch in batches().items():
        outputs = model(**batch[distributed.get_rank()])
        outputs.loss.backward()
        gradients = {key.removeprefix("module."): p.grad for key, p in model.named_parameters()}
        results[name] = {
            "logits": outputs.logits.detach(),
            "loss": outputs.loss.detach(),
            "gradients": {
                key: gradient.full_tensor().clone() if hasattr(gradient, "full_tensor") else gradient.clone()
                for key, gradient in gradients.items()
                if gradient is not None
            },
        }
        model.zero_grad()
    return results


@torch.no_grad()
def generate(model: Any) -> dict[str, Any]:
    """Everything that a process calls in evaluation, on its own question, before any `forward`."""
    question = questions()[distributed.get_rank()]
    clips = questions()[1]
    given = {name: clips[name] for name in ("pixel_values_videos", "input_features")}
    if distributed.get_rank() == 0:
        given["video_mask"] = given["audio_mask"] = torch.zeros(2, 3, dtype=torch.long)
    model.eval()
    return {
        "features": model.encode_media(**given).media_hidden_states,
        "greedy": model.generate(**question, max_new_tokens=4, do_sample=False),
        "beams": model.generate(**question, max_new_tokens=4, do_sample=False, num_beams=2),
        "logits": model(**question).logits,
    }


def adam(folder: str, output: Path) -> dict[str, Any]:
    """Losses of three steps on text alone, and what follows if model and optimizer are saved and loaded after two."""
    from transformers.distributed import load_optimizer_distributed, save_optimizer_distributed

    batch = batches()["text beside text"][distributed.get_rank()]
    place = output / "state"

    def step(model: Any, optimizer: Any) -> torch.Tensor:
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    model = load("fsdp", folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = [step(model, optimizer) for _ in range(2)]
    save_optimizer_distributed(model, optimizer, str(place))
    model.save_pretrained(output / "model")
    losses.append(step(model, optimizer))
    resumed = load("fsdp", str(output / "model"))
    again = torch.optim.AdamW(resumed.parameters(), lr=1e-2)
    load_optimizer_distributed(resumed, again, str(place))
    step(resumed, again)
    return {"losses": losses, "next": model(**batch).loss.detach(), "resumed": resumed(**batch).loss.detach()}


def trainer(folder: str, output: Path) -> dict[str, Any]:
    """Two steps, a checkpoint of weights, generated answers; one process has text where another has a clip."""
    from transformers import AutoModelForMultimodalLM

    from mirasol_hf.training.collator import MirasolDataCollator
    from mirasol_hf.training.trainer import MirasolTrainer
    from tests.training.small_model import small_tokenizer, two_steps_arguments

    several = distributed.is_initialized()
    media = ("pixel_values_videos", "input_features")
    rows = [row(name, 3, *(media if index in (1, 2) else ())) for index, name in enumerate(["red", "no", "up", "a"])]
    arguments = two_steps_arguments(
        output,
        per_device_train_batch_size=1 if several else 2,
        per_device_eval_batch_size=1 if several else 2,
        save_steps=2,
        save_only_model=True,
        predict_with_generate=True,
    )
    found = MirasolTrainer(
        model=load("fsdp", folder) if several else AutoModelForMultimodalLM.from_pretrained(folder),
        args=arguments,
        data_collator=MirasolDataCollator(small_tokenizer(), with_prompts=True),
        train_dataset=rows,
    )
    found.train()
    answers = found.predict(rows, max_new_tokens=4).predictions
    return {
        "losses": [entry["loss"] for entry in found.state.log_history if "loss" in entry],
        "answers": answers.tolist(),
    }


def main() -> None:
    mode, folder, output = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    distributed.init_process_group("gloo", timeout=PATIENCE)
    if mode == "adam":
        result = adam(folder, output)
    elif mode == "trainer":
        result = trainer(folder, output)
    else:
        result = (generate if mode == "generate" else train)(load(mode, folder))
    torch.save(result, output / f"{distributed.get_rank()}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
