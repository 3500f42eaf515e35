"""Muon with AdamW: who gets which parameter, that schedules reach both, and that a saved state goes on exactly."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mirasol_hf.training.optimizer import MuonWithAdamW, linear_weights
from tests.training.small_model import small_model


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))


def _train(network: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        network(torch.randn(5, 4, generator=generator)).pow(2).mean().backward()
        optimizer.step()


def test_matrices_go_to_muon_and_everything_else_to_adamw() -> None:
    model = small_model()
    muon, adamw = MuonWithAdamW(model, 1e-3).parts
    chosen = {id(p) for group in muon.param_groups for p in group["params"]}
    rest = {id(p) for group in adamw.param_groups for p in group["params"]}
    assert chosen | rest == {id(p) for p in model.parameters()} and not chosen & rest
    assert chosen == {id(p) for p in linear_weights(model)}
    assert id(model.lm_head.weight) in rest
    assert id(model.model.time_model.layers[0].mlp.up_proj.weight) in chosen
    assert id(model.model.video_tower.embeddings.tubes[0].weight) in rest


def test_both_parts_move_and_follow_the_schedule() -> None:
    network = _network()
    before = copy.deepcopy(network.state_dict())
    optimizer = MuonWithAdamW(network, 0.1, muon_scale=2.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 if step == 0 else 0.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.1]
    _train(network, optimizer, 1)
    after = copy.deepcopy(network.state_dict())
    assert all(not torch.equal(after[name], before[name]) for name in before)
    schedule.step()
    _train(network, optimizer, 1)
    assert all(torch.equal(value, after[name]) for name, value in network.state_dict().items())


def test_a_saved_state_goes_on_exactly() -> None:
    whole, first = _network(), _network()
    optimizer = MuonWithAdamW(whole, 0.01, weight_decay=0.1)
    _train(whole, optimizer, 3)
    _train(whole, optimizer, 3, seed=1)
    early = MuonWithAdamW(first, 0.01, weight_decay=0.1)
    _train(first, early, 3)
    second = copy.deepcopy(first)
    late = MuonWithAdamW(second, 0.01, weight_decay=0.1)
    late.load_state_dict(copy.deepcopy(early.state_dict()))
    _train(second, late, 3, seed=1)
    for one, other in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_foreign_state_is_refused() -> None:
    with pytest.raises(ValueError, match="MuonWithAdamW"):
        MuonWithAdamW(_network(), 0.1).load_state_dict(torch.optim.SGD(_network().parameters(), 0.1).state_dict())
