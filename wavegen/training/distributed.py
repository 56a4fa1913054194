"""Communication between the processes of one training; with a single process, each function does nothing."""

import os
from collections.abc import Mapping
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from wavegen.errors import ConfigError


def rank_from_environment() -> tuple[int, int]:
    """This process's rank and the number of processes that torchrun started; (0, 1) without torchrun."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def rank_and_world() -> tuple[int, int]:
    """This process's rank and the number of processes that have joined."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def is_first() -> bool:
    """Whether this is the process that writes files and prints."""
    return rank_and_world()[0] == 0


def start(device: torch.device) -> None:
    """Join the other processes, if torchrun started several."""
    if rank_from_environment()[1] > 1:
        # The timeout is long: the others wait while the first process listens to clips or writes a checkpoint.
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(hours=2))


def stop() -> None:
    """Leave the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def check_batch_size(batch_size: int, world: int) -> None:
    """Raise ConfigError if ``world`` processes cannot share a batch equally."""
    if batch_size % world:
        raise ConfigError(
            f"training.batch_size {batch_size} cannot be shared by {world} processes",
            remedy="give a multiple of the number of processes: the batch size is the sum over them",
        )


def total(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Sum each value over all processes; every process must call it, with the same names."""
    if not dist.is_initialized():
        return dict(values)
    packed: Tensor = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
    dist.all_reduce(packed)
    return dict(zip(values, packed.tolist(), strict=True))


def average_gradients(module: nn.Module) -> None:
    """Replace each gradient by its mean over all processes; for modules outside DistributedDataParallel."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    if not dist.is_initialized() or not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def everywhere(condition: Tensor) -> bool:
    """Whether a bool tensor is true in all processes; every process must call it. Reading it waits for the GPU."""
    if not dist.is_initialized():
        return bool(condition)
    agreed = condition.int()
    dist.all_reduce(agreed, dist.ReduceOp.MIN)
    return bool(agreed)


def wait_for_all() -> None:
    """Wait until every process has called this."""
    if dist.is_initialized():
        dist.barrier()
