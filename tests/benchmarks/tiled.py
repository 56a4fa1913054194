"""Compare a training pass of a WaveNet's stack with the same pass tile by tile: ``python tests/benchmarks/tiled.py``.

One thread; the two take turns, and the table has the medians of five.
"""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from wavegen.blocks import DilatedStack, GatedResidualBlock, HoldUpsampler, exponential_dilations
from wavegen.blocks.tiled import sum_of_skips

RUNS = 5
BATCH, FRAMES, HOP = 2, 56, 256
SHAPES = {"18 layers of 32": (32, 64, 32, 9), "ljspeech/wavenet": (64, 128, 64, 10)}


def main() -> None:
    torch.set_num_threads(1)
    print(f"{BATCH} segments of {FRAMES * HOP} samples, forward and backward, milliseconds")
    for name, (channels, skips, condition_channels, depth) in SHAPES.items():
        stack = DilatedStack(
            GatedResidualBlock(
                channels, kernel_size=2, dilation=dilation, skip_channels=skips, condition_channels=condition_channels
            )
            for dilation in exponential_dilations(2, depth)
        )
        upsample = HoldUpsampler(HOP)
        x = torch.randn(BATCH, channels, FRAMES * HOP, requires_grad=True)
        frames = torch.randn(BATCH, condition_channels, FRAMES, requires_grad=True)
        weights = torch.randn(BATCH, skips, FRAMES * HOP)

        def whole(stack=stack, upsample=upsample, x=x, frames=frames) -> Tensor:
            return stack(x, upsample(frames))[1]

        def tiled(stack=stack, upsample=upsample, x=x, frames=frames) -> Tensor:
            return sum_of_skips(stack, x, F.pad(frames, (upsample.context.left, 0)), upsample.weights())

        times: dict[Callable[[], Tensor], list[float]] = {whole: [], tiled: []}
        for _ in range(RUNS):
            for compute, measured in times.items():
                start = time.perf_counter()
                (compute() * weights).sum().backward()
                measured.append(1000 * (time.perf_counter() - start))
        before, after = (statistics.median(measured) for measured in times.values())
        print(f"{name:20} whole {before:6.0f}  tiled {after:6.0f}  {before / after:.2f} x")


if __name__ == "__main__":
    main()
