"""The few places where several processes must agree."""

import os
from collections.abc import Mapping
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn


def rank_from_environment() -> tuple[int, int]:
    """This process's number and how many torchrun started; (0, 1) without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def rank_and_world() -> tuple[int, int]:
    """This process's number and how many have joined."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def start(device: torch.device) -> None:
    """Join the other processes, where there are any."""
    if rank_from_environment()[1] > 1:
        # The others wait while the first listens to clips or writes a checkpoint.
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(hours=2))


def stop() -> None:
    """Leave them."""
    if dist.is_initialized():
        dist.destroy_process_group()


def total(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Each value summed over all processes; every process must call it, with the same names."""
    if not dist.is_initialized():
        return dict(values)
    packed: Tensor = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
    dist.all_reduce(packed)
    return dict(zip(values, packed.tolist(), strict=True))


def average_gradients(module: nn.Module) -> None:
    """Make each gradient its mean over all processes; for modules outside of DistributedDataParallel."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    if not dist.is_initialized() or not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def everywhere(condition: Tensor) -> bool:
    """Whether a bool holds in all processes; every process must call it. Reading it waits for the GPU."""
    if not dist.is_initialized():
        return bool(condition)
    agreed = condition.int()
    dist.all_reduce(agreed, dist.ReduceOp.MIN)
    return bool(agreed)


def wait_for_all() -> None:
    """Go on only when every process has come here."""
    if dist.is_initialized():
        dist.barrier()
