"""Muon for the matrices of a model, AdamW for the rest, as one optimizer that the Trainer can drive.

Muon (Jordan et al., 2024; `torch.optim.Muon`) orthogonalises the update of a weight matrix, so that directions with
small gradients move as well. On AVScenes it learns from far fewer clips than AdamW alone; the recipe has the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class MuonWithAdamW(torch.optim.Optimizer):
    """Two optimizers behind one: `step`, schedules and state cover both.

    Args:
        model: its linear layers' weights, except those tied to or acting as embeddings, go to Muon.
        learning_rate: of AdamW.
        muon_scale: Muon's learning rate as a multiple of it (updates are scaled to AdamW's usual size).
        weight_decay: of the matrices; the rest has none.
        beta2: of AdamW.
    """

    def __init__(
        self,
        model: nn.Module,
        learning_rate: float,
        muon_scale: float = 1.0,
        weight_decay: float = 0.0,
        beta2: float = 0.98,
    ) -> None:
        matrices = linear_weights(model)
        chosen = {id(weight) for weight in matrices}
        others = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                matrices, lr=learning_rate * muon_scale, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, beta2), weight_decay=0.0),
        ]
        super().__init__([*matrices, *others], {"lr": learning_rate})
        self._share_groups()

    def _share_groups(self) -> None:
        # the very dicts of the parts, so that a schedule that writes "lr" here reaches them
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step with both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The states of both parts."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: if it is the state of another kind of optimizer.
        """
        states = state_dict.get("parts")
        if states is None or len(states) != len(self.parts):
            raise ValueError(f"expected the state of MuonWithAdamW with 'parts', got keys {sorted(state_dict)}")
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)
        self._share_groups()


def linear_weights(model: nn.Module) -> list[nn.Parameter]:
    """Trainable weights of linear layers inside the model; the head over the vocabulary counts as an embedding."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    head = getattr(model, "lm_head", None)
    if isinstance(head, nn.Linear):
        embeddings.add(id(head.weight))
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
    return [w for w in weights if isinstance(w, nn.Parameter) and w.requires_grad and id(w) not in embeddings]
