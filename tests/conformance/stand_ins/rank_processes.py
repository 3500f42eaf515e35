"""Starts one process for each rank on the CPU, with gloo between them."""

import os
import tempfile
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def _get_distributed_device_type() -> str:
    return "cpu"


def _get_distributed_backend() -> str:
    return "gloo"


def _get_rank_device(rank: int) -> torch.device:
    return torch.device("cpu")


def _set_rank_device(rank: int) -> None:
    """A process on the CPU has no device to choose; it takes one thread and knows Mirasol's classes."""
    import mirasol_hf  # noqa: F401

    torch.set_num_threads(1)


def _start_rank_processes(function: Callable, args: tuple, nprocs: int) -> None:
    """Runs `function(rank, *args)` in `nprocs` fresh processes; raises what any of them raises."""
    mp.spawn(function, args=args, nprocs=nprocs, join=True)


def _in_group(rank: int, world_size: int, store: str, function: Callable, args: tuple, kwargs: dict[str, Any]) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    _set_rank_device(rank)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    try:
        function(rank, *args, **kwargs)
    finally:
        dist.destroy_process_group()


def run_distributed(world_size: int) -> Callable[[Callable], Callable[..., None]]:
    """`run_distributed(world_size)(function)(*args)` calls `function(rank, *args)` in a process group."""

    def wrap(function: Callable) -> Callable[..., None]:
        def run(*args: Any, **kwargs: Any) -> None:
            with tempfile.TemporaryDirectory() as folder:
                store = os.path.join(folder, "store")
                _start_rank_processes(_in_group, (world_size, store, function, args, kwargs), world_size)

        return run

    return wrap
