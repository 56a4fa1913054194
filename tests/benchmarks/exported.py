"""Exported models beside torch: largest deviation, size, and × real time on one core:

    python tests/benchmarks/exported.py voice.onnx [MORE.onnx …] [--model RUN] [--frames 400] [--runs 5]

The sound is that of a made-up voice. Times are medians of several runs, of whole utterances.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from wavegen.checkpoint import load_vocoder
from wavegen.exchange.onnx.rendering import OnnxModel
from wavegen.exchange.onnx.verification import probe
from wavegen.tables import text_table


def median_s(work: Callable[[], object], runs: int) -> float:
    """Median duration of some runs, after one that warms up."""
    durations = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        work()
        durations.append(time.perf_counter() - started)
    return statistics.median(durations[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="files of wavegen-export, all made from MODEL")
    parser.add_argument("--model", default="default", help="the run or model file that they were made from")
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    vocoder = load_vocoder(arguments.model)
    mel = probe(vocoder.mel, arguments.frames)
    expected = vocoder.synthesize(mel)[0].numpy()
    sound_s = len(expected) / vocoder.mel.sample_rate_hz
    rows = [["", "deviation, of the peak", "size", "x real time"]]
    rows.append(["torch", "", "", f"{sound_s / median_s(lambda: vocoder.synthesize(mel), arguments.runs):.1f}"])
    for path in arguments.files:
        model = OnnxModel(path)
        found = model.render(mel[0].numpy(), 0)
        deviation = abs(found - expected).max() / abs(expected).max()
        speed = sound_s / median_s(lambda model=model: model.render(mel[0].numpy(), 0), arguments.runs)  # type: ignore[misc]
        rows.append([path.name, f"{deviation:.1e}", f"{path.stat().st_size / 1e6:.1f} MB", f"{speed:.1f}"])
    print(text_table(rows))


if __name__ == "__main__":
    main()
