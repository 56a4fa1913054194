"""Training steps per second of a recipe: ``python tests/benchmarks/training.py RECIPE data.corpus=… [KEY=VALUE …]``.

The recipe runs three times for ``--steps`` steps, on a GPU alternately with and without ``training.cuda_graphs``. The
second half of each run's steps counts. Prints the median speed of the three runs with the slowest and the fastest; the
share of time in which the GPU was busy, if the package nvidia-ml-py is installed; and the GPU memory used.
"""

import argparse
import contextlib
import io
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from wavegen.commands.train import main as train  # before torch: sets how its threads wait

import torch  # isort: skip

RUNS = 3
EVERY_S = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    if arguments.steps < 20:
        parser.error("--steps: give at least 20; the second half counts")
    gpu = torch.cuda.is_available()
    variants = ["training.cuda_graphs=true", "training.cuda_graphs=false"] if gpu else ["training.cuda_graphs=false"]
    measured: dict[str, list[tuple[float, float, float]]] = {variant: [] for variant in variants}
    for _ in range(RUNS):
        for variant in variants:
            measured[variant].append(measure(arguments.recipe, [*arguments.settings, variant], arguments.steps))
    print(torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads")
    print(f"{'':>30} {'steps/s':>24} {'GPU busy':>12} {'GiB':>6}")
    for variant, runs in measured.items():
        speed, share, memory = zip(*runs, strict=True)
        spread = f"{statistics.median(speed):.2f} ({min(speed):.2f} to {max(speed):.2f})"
        print(f"{variant:>30} {spread:>24} {statistics.median(share):>11.0f}% {max(memory):>6.2f}")


def measure(recipe: str, settings: list[str], steps: int) -> tuple[float, float, float]:
    """Steps per second, GPU utilisation in percent (NaN if unknown) and GiB of GPU memory, of one run."""
    half = steps // 2
    pace = {"steps": 2 * half, "log_every": half, "validate_every": 2 * half, "checkpoint_every": 2 * half}
    settings = settings + [f"training.{key}={value}" for key, value in pace.items()]
    settings += ["training.valid_clips=1", "training.listen_clips=0", "samples.clips=0"]
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder, utilisation() as samples:
        with contextlib.redirect_stdout(io.StringIO()):
            if code := train([recipe, *settings, "--out", folder]):
                sys.exit(code)
        log = Path(folder) / "log.jsonl"
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        started = log.stat().st_mtime - rows[-1]["elapsed_s"]
    first, second = (row for row in rows if row["kind"] == "train")
    begin, end = started + first["elapsed_s"], started + second["elapsed_s"]
    during = [share for sampled_at, share in samples if begin + EVERY_S < sampled_at < end]
    memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
    return second["steps_per_s"], statistics.mean(during) if during else float("nan"), memory


@contextlib.contextmanager
def utilisation() -> Iterator[list[tuple[float, float]]]:
    """Sample the GPU's utilisation during the block: pairs of a time and the percentage just before it."""
    samples: list[tuple[float, float]] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(EVERY_S):
            try:
                samples.append((time.time(), torch.cuda.utilization()))
            except (ModuleNotFoundError, RuntimeError, AssertionError):  # no GPU, or no nvidia-ml-py
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


if __name__ == "__main__":
    main()
