"""Exported models beside torch and the engines of their vocoder: largest deviation, size, and × real time on one core:

    python tests/benchmarks/exported.py voice.onnx [MORE.onnx …] [--model RUN] [--frames 400] [--runs 5]

The sound is that of a made-up voice; a stream takes it in chunks. Times are medians of several runs, in turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from wavegen.checkpoint import load_vocoder
from wavegen.exchange.onnx.reader import Model
from wavegen.exchange.onnx.verification import probe
from wavegen.tables import text_table
from wavegen.vocoders import Vocoder

CHUNK_FRAMES = 50
Render = Callable[[np.ndarray], np.ndarray]


def prepared(model: str, iterations: int | None, engine: str) -> Vocoder:
    """The vocoder, computed by an engine."""
    vocoder = load_vocoder(model)
    vocoder.set_synthesis_options(iterations=iterations)
    vocoder.use_engine(engine)
    return vocoder


def of_vocoder(vocoder: Vocoder) -> Render:
    """How a vocoder renders a mel ``[n_mels, frames]``."""
    return lambda mel: vocoder.synthesize(torch.from_numpy(mel)[None])[0].numpy()


def of_file(path: Path) -> Render:
    """How a file renders a mel."""
    model = Model(path, threads=1)
    if not model.streaming:
        return model.render

    def in_chunks(mel: np.ndarray) -> np.ndarray:
        stream = model.stream()
        chunks = [stream.step(mel[:, at : at + CHUNK_FRAMES]) for at in range(0, mel.shape[1], CHUNK_FRAMES)]
        return np.concatenate([*chunks, stream.flush()])

    return in_chunks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="files of wavegen-export, all made from MODEL")
    parser.add_argument("--model", default="default", help="the run or model file that they were made from")
    parser.add_argument("--iterations", type=int, help="as they were exported")
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    engines = load_vocoder(arguments.model).engines
    vocoders = {engine: prepared(arguments.model, arguments.iterations, engine) for engine in engines}
    spec = vocoders["torch"].mel
    mel = probe(spec, arguments.frames)[0].numpy()
    systems = {name: of_vocoder(vocoder) for name, vocoder in vocoders.items()}
    reference = systems["torch"](mel)
    sizes = {path.name: f"{path.stat().st_size / 1e6:.1f} MB" for path in arguments.files}
    systems |= {path.name: of_file(path) for path in arguments.files}

    sounds = {name: render(mel) for name, render in systems.items()}  # this compiles and warms up too
    durations: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(arguments.runs):
        for name, render in systems.items():
            started = time.perf_counter()
            render(mel)
            durations[name].append(time.perf_counter() - started)

    rows = [["", "deviation, of the peak", "size", "x real time"]]
    for name, sound in sounds.items():
        deviation = np.abs(sound - reference).max() / np.abs(reference).max()
        speed = len(reference) / spec.sample_rate_hz / statistics.median(durations[name])
        rows.append([name, f"{deviation:.1e}", sizes.get(name, ""), f"{speed:.1f}"])
    print(text_table(rows))


if __name__ == "__main__":
    main()
