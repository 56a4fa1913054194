"""Training steps per second of a recipe: ``python tests/benchmarks/training.py RECIPE data.corpus=… [KEY=VALUE …]``.

The recipe runs three times for ``--steps`` steps, on a GPU in turn with and without ``training.cuda_graphs``. Of each
run the second half of the steps counts, and the median of the three is printed, with the smallest and the largest; the
share of time in which the GPU was at work, where the package nvidia-ml-py is there to ask; and the memory it took.
"""

import argparse
import contextlib
import io
import json
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from wavegen.commands.train import main as train  # before torch: says how its threads wait

import torch  # isort: skip

RUNS, EVERY_S = 3, 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    gpu = torch.cuda.is_available()
    ways = ["training.cuda_graphs=true", "training.cuda_graphs=false"] if gpu else ["training.cuda_graphs=false"]
    measured: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
    for _ in range(RUNS):
        for way in ways:
            measured[way].append(measure(arguments.recipe, [*arguments.settings, way], arguments.steps))
    print(torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads")
    print(f"{'':>30} {'steps/s':>24} {'GPU at work':>12} {'GiB':>6}")
    for way, runs in measured.items():
        speed, share, memory = zip(*runs, strict=True)
        spread = f"{statistics.median(speed):.2f} ({min(speed):.2f} to {max(speed):.2f})"
        print(f"{way:>30} {spread:>24} {statistics.median(share):>11.0f}% {max(memory):>6.2f}")


def measure(recipe: str, settings: list[str], steps: int) -> tuple[float, float, float]:
    """Steps per second, GPU utilisation in percent (NaN where nobody tells) and GiB of its memory, of one run."""
    pace = {"steps": steps, "log_every": steps // 2, "validate_every": steps, "checkpoint_every": steps}
    settings = settings + [f"training.{key}={value}" for key, value in pace.items()]
    settings += ["training.valid_clips=1", "training.listen_clips=0", "samples.clips=0"]
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder, utilisation() as samples:
        with contextlib.redirect_stdout(io.StringIO()):
            if code := train([recipe, *settings, "--out", folder]):
                sys.exit(code)
        rows = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
    speed = [row["steps_per_s"] for row in rows if row["kind"] == "train"][-1]
    during = samples[-int(steps / 2 / speed / EVERY_S) :]  # what follows the steps is short
    memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
    return speed, statistics.mean(during) if during else float("nan"), memory


@contextlib.contextmanager
def utilisation() -> Iterator[list[float]]:
    """Samples of the GPU's utilisation, while the block runs."""
    samples: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(EVERY_S):
            try:
                samples.append(torch.cuda.utilization())
            except (ModuleNotFoundError, RuntimeError, AssertionError):  # no GPU, or nobody to ask
                return

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield samples
    finally:
        done.set()
        watching.join()


if __name__ == "__main__":
    main()
