"""Speed of the engines, the reference beside them in the same run: ``python tests/benchmarks/engines.py [NAME …]``.

Random weights, mu-law 256, kernel 2, 24 kHz, one thread, one stream; medians of five runs in turn. ``error`` is the
largest difference of any logit from the reference, teacher-forced over 2,000 samples.
"""

import argparse
import statistics
import time

import torch

from wavegen.engines import Engine, HeldCondition, make_engine
from wavegen.mel import profile
from wavegen.vocoders.wavenet import WaveNet

SHAPES = {
    "wavenet-small": {"residual_channels": 32, "skip_channels": 128, "cycles": 2},
    "wavenet-medium": {"residual_channels": 64, "skip_channels": 128, "cycles": 2},
    "wavenet-large": {"residual_channels": 128, "skip_channels": 256, "cycles": 3},
}
ENGINES = (("torch", "float32"), ("numba", "float32"), ("numba", "int16"))
RUNS, RUN_S = 5, 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SHAPES)} (default: all)")
    names = parser.parse_args().names or list(SHAPES)
    torch.set_num_threads(1)
    print("| model | engine | precision | samples/s | x real time | x reference | error | weight GB/s |")
    print("|---|---|---|---|---|---|---|---|")
    for name in names:
        measure(name)


def measure(name: str) -> None:
    torch.manual_seed(0)
    mel = profile("bigvgan-24k")
    model = WaveNet(mel, depth=10, kernel_size=2, **SHAPES[name]).eval().requires_grad_(False)
    with torch.no_grad():
        model.output.weight.mul_(5)  # logits of a trained model's size
    engines = {key: make_engine(model, *key) for key in ENGINES}
    errors = {key: error(engine, engines["torch", "float32"], model) for key, engine in engines.items()}
    lengths = {key: length(model, engine) for key, engine in engines.items()}
    speeds: dict[tuple[str, str], list[float]] = {key: [] for key in engines}
    for _ in range(RUNS):
        for key, engine in engines.items():
            speeds[key].append(speed(model, engine, lengths[key]))
    reference = statistics.median(speeds["torch", "float32"])
    for key, measured in speeds.items():
        median = statistics.median(measured)
        columns = (
            f"{median:,.0f}", f"{median / mel.sample_rate_hz:.2f}", f"{median / reference:.0f}", f"{errors[key]:.0e}",
            f"{median * weight_bytes(model, key[1]) / 1e9:.0f}" if key[0] == "numba" else "",
        )  # fmt: skip
        print("|", " | ".join((name, *key, *columns)), "|", flush=True)


def length(model: WaveNet, engine: Engine) -> int:
    """Frames that take about ``RUN_S``."""
    return max(1, round(speed(model, engine, 1) * RUN_S / model.mel.hop_length))


def inputs(model: WaveNet, frames: int) -> tuple[HeldCondition, torch.Tensor]:
    """Condition and noise."""
    condition = HeldCondition(torch.randn(1, model.frame_conv.out_channels, frames + 1), model.upsample.weights())
    return condition, torch.rand(1, 1, condition.samples)


def speed(model: WaveNet, engine: Engine, frames: int) -> float:
    """Samples per second."""
    condition, noise = inputs(model, frames)
    state = engine.initial_state(1)
    started = time.perf_counter()
    engine.generate(torch.zeros(1), condition, noise, state)
    return condition.samples / (time.perf_counter() - started)


def error(engine: Engine, reference: Engine, model: WaveNet) -> float:
    condition, noise = inputs(model, 8)
    condition = HeldCondition.of(condition.per_sample()[..., :2000])
    logits = [e.predict(noise[0, :, :2000] * 2 - 1, condition, e.initial_state(1))[0] for e in (engine, reference)]
    return float((logits[0] - logits[1]).abs().max())


def weight_bytes(model: WaveNet, precision: str) -> float:
    """Bytes of weights that a sample reads: an eighth of the past taps, half of what follows a ReLU."""
    blocks = list(model.stack.blocks)
    taps = sum(block.conv.weight[..., -1].numel() * (1 + 1 / min(8, block.conv.dilation[0])) for block in blocks[1:])
    mixes = sum(block.output.weight.numel() for block in blocks)
    after_relu = (model.hidden.weight.numel() + model.output.weight.numel()) / 2
    return (taps + mixes + after_relu) * (4 if precision == "float32" else 2)


if __name__ == "__main__":
    main()
