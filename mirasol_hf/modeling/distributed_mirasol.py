# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Several processes: every part of the model runs in each of them, whatever media its batch has.

Processes that share weights (FSDP) or gradients (DDP) wait for each other at every part of a model. If the batch of
one has no video and that of another has, the one never comes to the video tower and the other waits for ever. The one
therefore runs the tower on a chunk of zeros and uses none of what comes out: not a number changes, and the tower gets
gradients of zero, this process's share in the sum over all.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import distributed


def several_processes() -> bool:
    """Whether several processes work together."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def is_sharded(module: Any) -> bool:
    """Whether FSDP (`fully_shard`, or the older wrapper) splits weights of the module over the processes."""
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    return any(isinstance(part, (FSDPModule, FullyShardedDataParallel)) for part in module.modules())


def runs_every_part(module: Any) -> bool:
    """Whether all parts of the module must run, those too that a batch has no media for.

    In training every process needs a gradient of every weight; where weights are split, every process needs every
    weight for the others to have it, in evaluation too.
    """
    return several_processes() and (module.training or is_sharded(module))


def no_part_of(tensor: torch.Tensor) -> torch.Tensor:
    """0, the sum over no elements: who adds it changes nothing, and what made `tensor` gets zeros as gradients.

    Unlike a product with 0 it is 0 even where `tensor` holds infinities.
    """
    return tensor[:0].sum()


def chunk_of_zeros(tower: Any, device: torch.device) -> torch.Tensor:
    """One chunk for a tower, [1, F, C, H, W] or [1, S, M]."""
    return torch.zeros(1, *tower.chunk_shape, device=device)


def gathers_weights(method: Callable) -> Callable:
    """Lets a method be called in place of `forward` on a model that `fully_shard` splits.

    FSDP puts the weights of the whole model's own modules together when `forward` is called. At the first call the
    method is registered as another one that it does so for.
    """

    @functools.wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        name = method.__name__
        model: Any = self
        if several_processes() and name not in vars(self):
            from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method

            if isinstance(model, FSDPModule):
                register_fsdp_forward_method(self, name)
                return getattr(self, name)(*args, **kwargs)
        return method(self, *args, **kwargs)

    return run
