"""Where a spectral vocoder's time goes on one core, beside Vocos:

    python tests/benchmarks/chain.py [--seconds 10] [--runs 5]

Prints milliseconds of CPU time per second of sound with each engine and precision, the median of several runs, and how
many times as fast as Vocos (13.5 M parameters, arXiv:2306.00814) that is; the parts of the same time, as
``wavegen-bench --parts`` does; and milliseconds per frame of a causal model without iterations, one frame at a time.
All have random weights: time does not depend on them.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from wavegen.benchmark import Setting
from wavegen.breakdown import parts_table, summarize_parts, time_parts
from wavegen.mel import profile
from wavegen.vocoders.spectral import SpectralConfig, SpectralVocoder
from wavegen.vocoders.vocos import Vocos

SHAPE = SpectralConfig(channels=256, layers=8)  # that of speech24k/spectral
ITERATIONS = (2, 8)
LIVE_FRAMES = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    spec = profile("bigvgan-24k")
    frames = round(arguments.seconds * spec.sample_rate_hz / spec.hop_length)
    mel = torch.randn(1, spec.n_mels, frames) - 5
    peer = Vocos(spec).prepared_for_synthesis()
    steps: dict[str, Callable[[], object]] = {"Vocos, 13.5 M": lambda: peer.synthesize(mel)}
    live: dict[str, Callable[[], object]] = {}
    vocoders: dict[Setting, SpectralVocoder] = {}
    for engine, precisions in SpectralVocoder.engines.items():
        for precision in precisions:
            name = f"{engine} {precision}"
            vocoder = SpectralVocoder(spec, SHAPE).prepared_for_synthesis()
            vocoder.use_engine(engine, precision)
            for iterations in ITERATIONS:
                steps[f"{name}, 4.2 M, {iterations} iterations"] = chain(vocoder, mel, iterations)
            vocoders[Setting(engine, precision)] = vocoder
            live[f"{name}, one frame at a time"] = frame_by_frame(engine, precision, mel[..., :LIVE_FRAMES])

    times = in_turn(steps, arguments.runs)
    peer_s = times["Vocos, 13.5 M"]
    print(f"{'':60} {'ms per s':>9} {'x Vocos':>9}")
    for name, seconds in times.items():
        print(f"{name:60} {1000 * seconds / arguments.seconds:9.2f} {peer_s / seconds:9.2f}")
    breakdowns = []
    for setting, vocoder in vocoders.items():
        whole = times[f"{setting.engine} {setting.precision}, 4.2 M, {ITERATIONS[-1]} iterations"]
        parts = [time_parts(vocoder, mel) for _ in range(arguments.runs)]
        title = f"\nparts, {vocoder.iterations} iterations"
        breakdowns.append(summarize_parts(title, setting, parts, [whole], sound_s=arguments.seconds))
    print(parts_table(breakdowns))
    print(f"\n{'':60} {'ms per frame':>9}")
    for name, seconds in in_turn(live, arguments.runs).items():
        print(f"{name:60} {1000 * seconds / LIVE_FRAMES:9.2f}")


def in_turn(steps: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Seconds of CPU time of each step, the median of several runs. All take turns: other work meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    with torch.no_grad():
        for run in range(runs + 1):
            for name, step in steps.items():
                started = time.process_time()
                step()
                if run:  # the first one warms up
                    times[name].append(time.process_time() - started)
    return {name: statistics.median(measured) for name, measured in times.items()}


def frame_by_frame(engine: str, precision: str, mel: Tensor) -> Callable[[], object]:
    """A stream of a causal model without iterations."""
    config = SHAPE.model_copy(update={"padding": "causal", "refinement_iterations": 0, "synthesis_iterations": 0})
    vocoder = SpectralVocoder(profile("bigvgan-24k"), config).prepared_for_synthesis()
    vocoder.use_engine(engine, precision)

    def run() -> None:
        state = vocoder.initial_state(1)
        for frame in mel.split(1, dim=-1):
            _, state = vocoder.step(frame, state)

    return run


def chain(vocoder: SpectralVocoder, mel: Tensor, iterations: int) -> Callable[[], Tensor]:
    """The whole chain with a number of iterations in all."""

    def run() -> Tensor:
        vocoder.synthesis_iterations = iterations - vocoder.refinement_iterations
        return vocoder.synthesize(mel)

    return run


if __name__ == "__main__":
    main()
