"""The precision that training computes in, and the switches of torch that a recipe asks for."""

import contextlib
from collections.abc import Iterator

import torch

from wavegen.network import Network
from wavegen.precision import cudnn_benchmark, deterministic, tf32_convolutions
from wavegen.training.config import TrainingConfig


@contextlib.contextmanager
def training_switches(config: TrainingConfig) -> Iterator[None]:
    """Set torch's global switches for a training; after the block they are as they were."""
    with (
        deterministic(config.deterministic),
        cudnn_benchmark(not config.deterministic),
        tf32_convolutions(config.precision != "float32"),
    ):
        yield


def uses_bfloat16(config: TrainingConfig, vocoder: Network, device: torch.device) -> bool:
    """Whether the forward pass runs in bfloat16."""
    if config.precision == "auto":
        return (
            vocoder.trains_in_bfloat16
            and device.type == "cuda"
            and torch.cuda.is_bf16_supported(including_emulation=False)
        )
    return config.precision == "bfloat16"
