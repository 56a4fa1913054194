"""Measure both engines of a parallel WaveNet of the published shape: ``python tests/benchmarks/parallel.py``.

Random weights, also in the last layer, whose zeros of a new model would hide every error. One thread, medians of three
runs. Times are CPU seconds of this process, which other work on the machine affects least.
"""

import statistics
import time
from collections.abc import Callable

import torch

from wavegen.mel import profile
from wavegen.vocoders.parallel import ParallelConfig, ParallelWaveNet

RUNS = 3
MEL = profile("bigvgan-24k").replace(n_mels=80)
FRAMES = 376  # 4 s


def main() -> None:
    torch.set_num_threads(1)
    print("| padding | engine | input | x real time | error against torch, of the deviation |")
    print("|---|---|---|---|---|")
    for padding in ("causal", "same"):
        torch.manual_seed(0)
        model = ParallelWaveNet(MEL, ParallelConfig(padding=padding))
        torch.nn.init.kaiming_normal_(model.output.weight)
        model.prepared_for_synthesis()
        mel = torch.randn(1, MEL.n_mels, FRAMES) - 5
        samples = {}
        for engine in model.engines:
            model.use_engine(engine)
            samples[engine] = model.synthesize(mel)
            error = float((samples[engine] - samples["torch"]).abs().max() / samples["torch"].std())
            row(padding, engine, "whole 4 s", speed(lambda m=model, x=mel: m.synthesize(x)), f"{error:.0e}")
        for frames in (1, 4, 16, 94):
            if padding == "causal" or frames == 94:
                times_real_time = speed(lambda m=model, x=mel, n=frames: stream(m, x, n))
                row(padding, engine, f"streamed, {frames} frames", times_real_time, "")


def stream(model: ParallelWaveNet, mel: torch.Tensor, frames: int) -> None:
    state = model.initial_state(1)
    for chunk in mel.split(frames, dim=-1):
        _, state = model.step(chunk, state)
    model.flush(state)


def speed(work: Callable[[], object]) -> float:
    times = []
    for _ in range(RUNS):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return FRAMES * MEL.hop_length / MEL.sample_rate_hz / statistics.median(times)


def row(*columns: object) -> None:
    print("|", " | ".join(f"{c:.2f}" if isinstance(c, float) else str(c) for c in columns), "|", flush=True)


if __name__ == "__main__":
    main()
