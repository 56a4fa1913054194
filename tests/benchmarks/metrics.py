"""What scoring costs: each metric by itself, and all of them over many clips. Prints a table; asserts nothing.

    python tests/benchmarks/metrics.py [--clips 100] [--seconds 4] [--jobs 2]

The clips are real speech of the demo, repeated to length, against Griffin-Lim's version of it.
"""

import argparse
import contextlib
import itertools
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from wavegen.audio import read_audio, write_audio
from wavegen.evaluation.baseline import BASELINES
from wavegen.evaluation.evaluate import evaluate
from wavegen.evaluation.metrics import METRICS, Pair, Undefined, available
from wavegen.evaluation.metrics.pitch import _pitch_track
from wavegen.mel import profile
from wavegen.recipe import SHIPPED

SPEC = profile("bigvgan-24k")


def clips(count: int, seconds: float) -> list[np.ndarray]:
    """Pieces of the demo's recordings, joined end to end."""
    paths = sorted((SHIPPED / "recipes/demo/audio").glob("*/*.flac"))
    speech = np.concatenate([read_audio(path, SPEC.sample_rate_hz) for path in paths])
    length = round(seconds * SPEC.sample_rate_hz)
    starts = itertools.islice(itertools.cycle(range(0, len(speech) - length, length)), count)
    return [speech[start : start + length] for start in starts]


def each_metric(recordings: list[np.ndarray]) -> None:
    """CPU time a clip of each metric alone, with the analysis that it shares with others."""
    outputs = [BASELINES["griffin-lim"](recording, SPEC) for recording in recordings]
    costs = {}
    for key in available():
        compute = METRICS[key].compute
        with contextlib.suppress(Undefined):
            compute(Pair(recordings[0], outputs[0], SPEC))  # imports
        start = time.process_time()  # other work on the machine does not count
        for recording, output in zip(recordings, outputs, strict=True):
            _pitch_track.cache_clear()
            with contextlib.suppress(Undefined):  # a clip without pauses
                compute(Pair(recording, output, SPEC))
        costs[key] = (time.process_time() - start) / len(recordings)
    for key, cost in sorted(costs.items(), key=lambda item: -item[1]):
        print(f"{METRICS[key].label:16} {1000 * cost:8.1f} ms a clip")


def everything(recordings: list[np.ndarray], jobs: int) -> None:
    """The whole command, without the making of the outputs."""
    with tempfile.TemporaryDirectory() as place:
        for index, recording in enumerate(recordings):
            write_audio(Path(place) / f"real/{index}.wav", recording, SPEC.sample_rate_hz)
            noise = np.random.default_rng(index).standard_normal(len(recording)).astype(np.float32)
            write_audio(Path(place) / f"noisy/{index}.wav", recording + 0.003 * noise, SPEC.sample_rate_hz)
        start, cpu_start = time.perf_counter(), cpu_s()
        evaluate(Path(place) / "real", [Path(place) / "noisy"], Path(place) / "out", jobs=jobs)
        wall = f"{time.perf_counter() - start:.1f} s, {cpu_s() - cpu_start:.1f} s of CPU time"
        print(f"all metrics of {len(recordings)} clips, {jobs} processes: {wall}")


def cpu_s() -> float:
    """CPU time of this process and of those that it started and that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = clips(arguments.clips, arguments.seconds)
    each_metric(found[:10])
    everything(found, arguments.jobs)
