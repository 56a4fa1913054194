"""Speed of a parallel WaveNet of the published shape, one thread: ``python tests/benchmarks/parallel.py``.

Random weights; medians of three runs. Times are CPU seconds of this process: other work on the machine tells less then.
"""

import statistics
import time
from collections.abc import Callable

import torch

from wavegen.mel import profile
from wavegen.noise import normal_noise
from wavegen.vocoders.parallel import ParallelConfig, ParallelWaveNet

RUNS = 3
MEL = profile("bigvgan-24k").replace(n_mels=80)
FRAMES = 376  # 4 s


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    print("| padding | how | x real time | error against torch, of the deviation |")
    print("|---|---|---|---|")
    for padding in ("causal", "same"):
        torch.manual_seed(0)
        model = ParallelWaveNet(MEL, ParallelConfig(padding=padding)).eval()
        mel = torch.randn(1, MEL.n_mels, FRAMES) - 5
        noise = normal_noise(torch.tensor([0]), 0, FRAMES * MEL.hop_length, 1)[:, 0]
        expected, made = model(mel, noise=noise), model.synthesize(mel)
        error = float((made - expected).abs().max() / expected.std())
        row(padding, "torch, whole 4 s", speed(lambda m=model, x=mel, z=noise: m(x, noise=z)))
        row(padding, "tiles, whole 4 s", speed(lambda m=model, x=mel: m.synthesize(x)), f"{error:.0e}")
        for frames in (1, 4, 16, 94):
            if padding == "causal" or frames == 94:
                row(padding, f"streamed, {frames} frames", speed(lambda m=model, x=mel, n=frames: stream(m, x, n)))


def stream(model: ParallelWaveNet, mel: torch.Tensor, frames: int) -> None:
    state = model.initial_state(1)
    for piece in mel.split(frames, dim=-1):
        _, state = model.step(piece, state)
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
