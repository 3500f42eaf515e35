"""Numbers that are not finite end a training run: whatever follows them is lost, and would be saved as a success."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class NonFiniteError(ValueError):
    """A loss, a gradient norm or a weight is NaN or infinite; the message says which, and when."""


class FiniteStart(TrainerCallback):
    """Training begins with finite weights, those of a checkpoint included."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Refuse the weights that the run would begin with."""
        check_weights(kwargs["model"], f"step {state.global_step}, before training")


def not_finite(values: Mapping[str, float]) -> str:
    """Which numbers are not finite, as `"text_loss is nan, loss is nan"`; empty if all are."""
    return ", ".join(f"{name} is {value}" for name, value in values.items() if not math.isfinite(value))


def check_weights(model: nn.Module, when: str) -> None:
    """Refuse a model whose weights or buffers are not all finite.

    Of sharded weights each process looks at its own part.

    Raises:
        NonFiniteError: with the names of the first tensors that are not, and `when`.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    local = {name: value.to_local() if hasattr(value, "to_local") else value for name, value in tensors.items()}
    looked_at = {name: value for name, value in local.items() if value.dtype in _FLOATS and not value.is_meta}
    if not looked_at:
        return
    flags = [torch.isfinite(value.detach()).all() for value in looked_at.values()]
    # one transfer for all of them
    finite = torch.stack([flag.to(flags[0].device) for flag in flags]).tolist()
    bad = [name for name, is_finite in zip(looked_at, finite, strict=True) if not is_finite]
    if bad:
        raise NonFiniteError(
            f"{when}: {len(bad)} of {len(finite)} weights are not finite: {', '.join(bad[:3])}"
            f"{' …' if len(bad) > 3 else ''}"
        )
