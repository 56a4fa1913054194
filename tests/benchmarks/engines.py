"""Compare the numba engine with the limits of this machine: ``python tests/benchmarks/engines.py [NAME …]``.

A sample reads nearly all weights once. So one stream is at most as fast as the memory that holds the weights, and a
batch in lock step at most as fast as its multiply-adds. The table has these columns, measured with random weights on
one thread; each figure is the median of five runs, in turn with those of the other columns:

- ``read``: speed of a loop that only adds up an array as large as the weights; the first ``used``: speed at which the
  engine reads weights when it generates one utterance.
- ``peak``: speed of float32 multiply-adds whose operands are registers; the second ``used``: 16 utterances in lock
  step. int8 does four multiply-adds at once, so its share may exceed 100 %.
- ``error``: the largest difference of any logit from the torch engine, teacher-forced over 2,000 samples.

``wavegen-bench`` prints the speeds themselves.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit

from wavegen.benchmark import SHAPES, open_model
from wavegen.engines import AUTOREGRESSIVE_ENGINES, Engine, FrameCondition, ReferenceEngine, make_engine
from wavegen.engines.simd import LANES, load, splat, store
from wavegen.vocoders.wavenet import WaveNet

RUNS = 5
RUN_S = 0.3
BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"a model: {', '.join(SHAPES)} (default: all)")
    names = parser.parse_args().names or list(SHAPES)
    torch.set_num_threads(1)
    heads = ("model", "precision", "weights MB", "read GB/s", "used", "share", "peak GMAC/s", "used", "share", "error")
    print("|", " | ".join(heads), "|")
    print("|---" * len(heads) + "|")
    for name in names:
        for precision in AUTOREGRESSIVE_ENGINES["numba"]:
            print("|", " | ".join((name, precision, *measure(name, precision))), "|", flush=True)


def measure(name: str, precision: str) -> tuple[str, ...]:
    model = open_model(name)
    assert isinstance(model, WaveNet)
    model.output.weight.mul_(5)  # logits of a trained model's size
    engine = make_engine(model, "numba", precision)
    size, hop = bytes_of(model, precision), model.mel.hop_length
    array = np.ones(int(size / 4), dtype=np.float32)
    measured: dict[str, list[float]] = {"read": [], "alone": [], "peak": [], "together": []}
    jobs: dict[str, tuple[Callable[[int], None], float]] = {
        "read": (lambda times: add_up(array, times), size),
        "alone": (lambda frames: generate(model, engine, 1, frames), hop * size),
        "peak": (lambda times: multiply_add(times), MULTIPLY_ADDS * LANES),
        "together": (lambda frames: generate(model, engine, BATCH, frames), hop * BATCH * multiply_adds(model)),
    }
    times = {key: often_enough(job) for key, (job, _) in jobs.items()}
    for _ in range(RUNS):
        for key, (job, unit) in jobs.items():
            measured[key].append(unit * times[key] / seconds(job, times[key]) / 1e9)
    read, alone, peak, together = (statistics.median(values) for values in measured.values())
    return (
        f"{size / 1e6:.2f}", f"{read:.0f}", f"{alone:.0f}", f"{alone / read:.0%}",
        f"{peak:.0f}", f"{together:.0f}", f"{together / peak:.0%}", f"{error(engine, model):.0e}",
    )  # fmt: skip


def seconds(job: Callable[[int], None], times: int) -> float:
    started = time.perf_counter()
    job(times)
    return time.perf_counter() - started


def often_enough(job: Callable[[int], None]) -> int:
    """The number of times that take about ``RUN_S`` seconds."""
    job(1)  # compiles
    times = 1
    while (took := seconds(job, times)) < RUN_S / 2:
        times = max(2 * times, round(times * RUN_S / took / 2))
    return times


def inputs(model: WaveNet, batch: int, frames: int) -> tuple[FrameCondition, torch.Tensor]:
    """A condition and noise."""
    condition = FrameCondition(torch.randn(batch, model.frame_conv.out_channels, frames + 1), model.upsample.weights())
    return condition, torch.rand(batch, condition.samples)


def generate(model: WaveNet, engine: Engine, batch: int, frames: int) -> None:
    engine.generate(torch.zeros(batch), *inputs(model, batch, frames), engine.initial_state(batch))


def error(engine: Engine, model: WaveNet) -> float:
    condition, noise = inputs(model, 1, 8)
    condition = FrameCondition.wrap(condition.per_sample()[..., :2000])
    engines = (engine, ReferenceEngine(model))
    logits, expected = (e.predict(noise[:, :2000] * 2 - 1, condition, e.initial_state(1))[0] for e in engines)
    return float((logits - expected).abs().max())


def bytes_of(model: WaveNet, precision: str) -> float:
    """Bytes of weights that a sample reads: an eighth of the past taps, half of the layers that follow a ReLU.

    In int8, all of these layers.
    """
    blocks: list[Any] = list(model.stack.blocks)
    taps = sum(block.conv.weight[..., -1].numel() * (1 + 1 / min(8, block.conv.dilation[0])) for block in blocks[1:])
    mixes = sum(block.output.weight.numel() for block in blocks)
    after_relu = model.hidden.weight.numel() + model.output.weight.numel()
    return (taps + mixes + after_relu / (1 if precision == "int8" else 2)) * np.dtype(precision).itemsize


def multiply_adds(model: WaveNet) -> int:
    """Multiply-adds of a sample in lock step, which skips none; the first block reads tables instead."""
    blocks: list[Any] = list(model.stack.blocks)
    taps = sum(block.conv.weight.numel() for block in blocks[1:])
    mixes = sum(block.output.weight.numel() for block in blocks)
    return taps + mixes + model.hidden.weight.numel() + model.output.weight.numel()


@njit
def add_up(array: np.ndarray, times: int) -> np.ndarray:
    """Add up an array ``times`` times, eight vectors at once."""
    total = np.zeros(LANES, dtype=np.float32)
    zero = splat(np.float32(0))
    a, b, c, d, e, f, g, h = zero, zero, zero, zero, zero, zero, zero, zero
    for _ in range(times):
        for i in range(0, len(array) - 8 * LANES + 1, 8 * LANES):
            a, b = a + load(array, i), b + load(array, i + LANES)
            c, d = c + load(array, i + 2 * LANES), d + load(array, i + 3 * LANES)
            e, f = e + load(array, i + 4 * LANES), f + load(array, i + 5 * LANES)
            g, h = g + load(array, i + 6 * LANES), h + load(array, i + 7 * LANES)
    store(total, 0, a + b + c + d + e + f + g + h)
    return total


MULTIPLY_ADDS = 8  # vectors in flight


@njit
def multiply_add(times: int) -> np.ndarray:
    """Multiply and add eight independent vectors, ``times`` times."""
    total = np.zeros(LANES, dtype=np.float32)
    factor, one = splat(np.float32(0.5)), splat(np.float32(1))
    a, b, c, d, e, f, g, h = one, one, one, one, one, one, one, one
    for _ in range(times):
        a, b, c, d = a * factor + one, b * factor + one, c * factor + one, d * factor + one
        e, f, g, h = e * factor + one, f * factor + one, g * factor + one, h * factor + one
    store(total, 0, a + b + c + d + e + f + g + h)
    return total


if __name__ == "__main__":
    main()
