"""Run by `torchrun` or `accelerate launch`: the same work in one process or two, its results written to a file.

Usage: distributed_worker.py MODE FOLDER OUTPUT with MODE one of: one, tp, fsdp (a forward and a backward pass of the
model in FOLDER), trainer (two steps by the Trainer). Every mode saves its model in OUTPUT/model.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed

ANSWERS = ["red", "high tone", "a", "circle", "two", "yes", "nothing", "up"]
CHUNKS = [3, 1, 4, 2, 2, 5, 3, 2]


def rows() -> list[dict[str, Any]]:
    from tests.training.small_model import small_rows

    return [small_rows([answer], count)[0] for answer, count in zip(ANSWERS, CHUNKS, strict=True)]


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The full tensor of a sharded one, on every process."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def placements(parameter: torch.Tensor) -> Any:
    """How a sharded parameter lies on the processes; nothing for any other."""
    return getattr(parameter, "placements", ())


def load(mode: str, folder: str) -> Any:
    from transformers import AutoModelForMultimodalLM
    from transformers.distributed import DistributedConfig

    import mirasol_hf  # noqa: F401

    options: dict[str, Any] = {}
    if mode != "one":
        distributed.init_process_group("gloo")
        options["distributed_config"] = DistributedConfig(**{f"{mode}_size": 2})
    return AutoModelForMultimodalLM.from_pretrained(folder, **options).train()


def one_pass(mode: str, folder: str, output: Path) -> None:
    """Logits, loss and all gradients of one batch, which every process sees whole."""
    from mirasol_hf.training.collator import MirasolDataCollator
    from tests.training.small_model import small_tokenizer

    model = load(mode, folder)
    batch = MirasolDataCollator(small_tokenizer())(rows())
    outputs = model(**batch)
    outputs.loss.backward()
    gradients = {name: whole(p.grad) for name, p in model.named_parameters() if p.grad is not None}
    split = [name for name, p in model.named_parameters() if any(not way.is_replicate() for way in placements(p))]
    with torch.no_grad():  # the library has a path of its own for this
        answered = whole(model.eval()(**batch).logits)
    result = {
        "loss": whole(outputs.loss).detach(),
        "logits": whole(outputs.logits).detach(),
        "answered": answered,
        "gradients": gradients,
        "split": split,
    }
    model.save_pretrained(output / "model")
    if int(os.environ.get("RANK", 0)) == 0:
        torch.save(result, output / "result.pt")


def two_steps(folder: str, output: Path) -> None:
    """Two steps of the Trainer over the rows in their order, eight a step in all."""
    from transformers import AutoModelForMultimodalLM

    from mirasol_hf.training.collator import MirasolDataCollator
    from mirasol_hf.training.trainer import MirasolTrainer
    from tests.training.small_model import small_tokenizer, two_steps_arguments

    arguments = two_steps_arguments(
        output,
        per_device_train_batch_size=8 // int(os.environ.get("WORLD_SIZE", 1)),
        save_strategy="no",
        ddp_find_unused_parameters=False,
    )
    trainer = MirasolTrainer(
        model=AutoModelForMultimodalLM.from_pretrained(folder),
        args=arguments,
        data_collator=MirasolDataCollator(small_tokenizer()),
        train_dataset=rows() * 2,
    )
    trainer.train()
    trainer.save_model(str(output / "model"))
    if trainer.is_world_process_zero():
        torch.save({"losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]},
                   output / "result.pt")  # fmt: skip


def main() -> None:
    mode, folder, output = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    if mode == "trainer":
        two_steps(folder, output)
    else:
        one_pass(mode, folder, output)
    if distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
