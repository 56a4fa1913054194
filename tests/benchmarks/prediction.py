"""What linear prediction and pitch are worth to a WaveNet: bits per sample over equal minutes of training.

    python tests/benchmarks/prediction.py speech24k/wavenet data.corpus=… [KEY=VALUE …] [--minutes 5] [--out FOLDER]

The recipe is trained once per prediction order, with and without pitch, each for the same time of the processor without
validation: a few steps are timed first. Prints the bits per sample of the validation clips over the minutes. A folder
that holds a finished training of an earlier call is read instead of trained again.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ORDERS = (0, 16, 32)
POINTS = 5  # validations of each training
TIMED = (1, 5, 45)  # steps of short trainings: the first extracts and compiles, the other two are timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--out", type=Path, default=Path("runs/prediction"))
    arguments = parser.parse_args()
    minutes = [arguments.minutes * (point + 1) / POINTS for point in range(POINTS)]
    print(f"{'':>26} {'steps':>6} " + " ".join(f"{at:>6.1f} min" for at in minutes), flush=True)
    for order in ORDERS:
        for pitch in (False, True):
            shape = [f"vocoder.prediction_order={order}", f"vocoder.reads_pitch={str(pitch).lower()}"]
            settings = [arguments.recipe, *arguments.settings, *shape]
            run = arguments.out / f"order-{order}{'-pitch' if pitch else ''}"
            if not (run / "model.safetensors").exists():
                steps = max(POINTS, int(60 * arguments.minutes / seconds_per_step(settings)))
                train(settings, run, steps, validate_every=steps // POINTS)
            rows = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
            bits = [row["bits_per_sample"] for row in rows if row["kind"] == "valid"][:POINTS]
            name = f"order {order}, {'pitch' if pitch else 'no pitch'}"
            print(f"{name:>26} {rows[-1]['step']:>6} " + " ".join(f"{value:>10.3f}" for value in bits), flush=True)


def seconds_per_step(settings: list[str]) -> float:
    """Seconds of the processor that a training step takes."""
    with tempfile.TemporaryDirectory() as folder:
        _, few, many = (train(settings, Path(folder) / str(steps), steps, validate_every=steps) for steps in TIMED)
    return (many - few) / (TIMED[2] - TIMED[1])


def train(settings: list[str], run: Path, steps: int, *, validate_every: int) -> float:
    """Train for some steps; returns the seconds of the processor that it took."""
    pace = {"steps": steps, "validate_every": validate_every, "checkpoint_every": steps, "listen_clips": 0}
    settings = settings + [f"training.{key}={value}" for key, value in pace.items()]
    before = _children_seconds()
    command = [sys.executable, "-m", "wavegen", "train", *settings, "samples.clips=0", "--out", str(run)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return _children_seconds() - before


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
