"""Measures the cost of scoring: of each metric alone, and of all metrics over many clips. Prints a table.

    python tests/benchmarks/metrics.py [--clips 100] [--seconds 4] [--jobs 2]

The clips are speech from the demo corpus. The single metrics compare it with Griffin-Lim's version of it.
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
from wavegen.evaluation.evaluate import EvaluationRequest, evaluate
from wavegen.evaluation.metrics import METRICS, Pair, Undefined, available
from wavegen.evaluation.metrics.pitch import _pitch_track
from wavegen.mel import profile
from wavegen.recipe import SHIPPED

SPEC = profile("bigvgan-24k")


def clips(count: int, seconds: float) -> list[np.ndarray]:
    """Chunks of the demo's recordings joined end to end; repeated if there are too few."""
    paths = sorted((SHIPPED / "recipes/demo/audio").glob("*/*.flac"))
    speech = np.concatenate([read_audio(path, SPEC.sample_rate_hz) for path in paths])
    length = round(seconds * SPEC.sample_rate_hz)
    starts = itertools.islice(itertools.cycle(range(0, len(speech) - length, length)), count)
    return [speech[start : start + length] for start in starts]


def measure_each_metric(recordings: list[np.ndarray]) -> None:
    """Print the CPU time per clip of each metric alone, including the analysis that it shares with others."""
    outputs = [BASELINES["griffin-lim"](recording, SPEC) for recording in recordings]
    costs = {}
    for key in available():
        compute = METRICS[key].compute
        with contextlib.suppress(Undefined):
            compute(Pair(recordings[0], outputs[0], SPEC))  # imports the metric's package
        start = time.process_time()  # excludes other work on the machine
        for recording, output in zip(recordings, outputs, strict=True):
            _pitch_track.cache_clear()
            with contextlib.suppress(Undefined):  # such as a clip without pauses
                compute(Pair(recording, output, SPEC))
        costs[key] = (time.process_time() - start) / len(recordings)
    for key, cost in sorted(costs.items(), key=lambda item: -item[1]):
        print(f"{METRICS[key].label:16} {1000 * cost:8.1f} ms per clip")


def measure_all_metrics(recordings: list[np.ndarray], jobs: int) -> None:
    """Print the time of a whole evaluation of given outputs."""
    with tempfile.TemporaryDirectory() as place:
        for index, recording in enumerate(recordings):
            write_audio(Path(place) / f"real/{index}.wav", recording, SPEC.sample_rate_hz)
            noise = np.random.default_rng(index).standard_normal(len(recording)).astype(np.float32)
            write_audio(Path(place) / f"noisy/{index}.wav", recording + 0.003 * noise, SPEC.sample_rate_hz)
        start = time.perf_counter()
        cpu_start = cpu_s()
        request = EvaluationRequest(Path(place) / "real", [Path(place) / "noisy"])
        evaluate(request, Path(place) / "out", jobs=jobs)
        wall = f"{time.perf_counter() - start:.1f} s, {cpu_s() - cpu_start:.1f} s of CPU time"
        print(f"all metrics of {len(recordings)} clips, {jobs} processes: {wall}")


def cpu_s() -> float:
    """CPU time of this process and of its child processes that have ended."""
    usages = (resource.getrusage(group) for group in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recordings = clips(arguments.clips, arguments.seconds)
    measure_each_metric(recordings[:10])
    measure_all_metrics(recordings, arguments.jobs)
