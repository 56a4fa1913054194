"""Vocoders as ONNX files beside torch and their compiled engine: deviation, size, and × real time on one core:

    python tests/benchmarks/exported.py default runs/vocos … --folder FILES [--frames 400] [--runs 5]

Each model is exported whole and as a stream, in each precision; files that FILES already has are taken as they are. The
sound is that of a made-up voice; a stream takes it in chunks. Times are CPU times of the process, medians of several
runs, in turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from wavegen.checkpoint import find_model, load_vocoder, read_header
from wavegen.exchange.onnx.precision import Precision
from wavegen.exchange.onnx.reader import Model
from wavegen.exchange.onnx.verification import probe
from wavegen.exchange.onnx.writer import Source, write_onnx
from wavegen.tables import text_table
from wavegen.vocoders import Vocoder

CHUNK_FRAMES = 50
FORMS = ("samples", "streaming")
Render = Callable[[np.ndarray], np.ndarray]


def prepared(model: str, engine: str) -> Vocoder:
    """The vocoder, computed by an engine."""
    vocoder = load_vocoder(model)
    vocoder.use_engine(engine)
    return vocoder


def of_vocoder(vocoder: Vocoder, form: str) -> Render:
    """How a vocoder renders a mel ``[n_mels, frames]``."""

    def in_chunks(mel: np.ndarray) -> np.ndarray:
        state, parts = vocoder.initial_state(1), []
        for chunk in torch.from_numpy(mel)[None].split(CHUNK_FRAMES, dim=-1):
            samples, state = vocoder.step(chunk, state)
            parts.append(samples)
        return torch.cat([*parts, vocoder.flush(state)], dim=-1)[0].numpy()

    if form == "streaming":
        return in_chunks
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


def exported(model: str, folder: Path, form: str, precision: str) -> Path:
    """The file of a model, which is written if it is not there."""
    source = find_model(model)
    path = folder / f"{Path(model).stem}-{form}-{precision}.onnx"
    if not path.exists():
        vocoder = load_vocoder(source)
        steps = read_header(source).get("step", 0)
        write_onnx(vocoder, path, Source(source, steps), form=form, precision=precision)  # type: ignore[arg-type]
    return path


def rows_of(model: str, folder: Path, form: str, frames: int, runs: int) -> list[list[str]]:
    """The rows of one model in one form."""
    vocoders = {engine: prepared(model, engine) for engine in load_vocoder(model).engines}
    spec = vocoders["torch"].mel
    mel = probe(spec, frames)[0].numpy()
    reference = of_vocoder(vocoders["torch"], "samples")(mel)
    systems = {engine: of_vocoder(vocoder, form) for engine, vocoder in vocoders.items()}
    files = {precision: exported(model, folder, form, precision) for precision in get_args(Precision)}
    systems |= {precision: of_file(path) for precision, path in files.items()}

    sounds = {name: render(mel) for name, render in systems.items()}  # this compiles and warms up too
    durations: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(runs):
        for name, render in systems.items():
            started = time.process_time()
            render(mel)
            durations[name].append(time.process_time() - started)

    seconds = len(reference) / spec.sample_rate_hz
    rows = []
    for name, sound in sounds.items():
        deviation = np.abs(sound - reference).max() / np.abs(reference).max()
        size = f"{files[name].stat().st_size / 1e6:.1f} MB" if name in files else ""
        system = f"onnxruntime, {name}" if name in files else name
        speed = seconds / statistics.median(durations[name])
        rows.append([Path(model).stem, form, system, f"{deviation:.1e}", size, f"{speed:.1f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="runs or model files")
    parser.add_argument("--folder", type=Path, required=True, help="where the exported files are, or are written")
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    rows = [["model", "form", "system", "deviation, of the peak", "size", "x real time"]]
    for model in arguments.models:
        for form in FORMS:
            rows += rows_of(model, arguments.folder, form, arguments.frames, arguments.runs)
    print(text_table(rows))


if __name__ == "__main__":
    main()
