"""Recordings and outputs in the current folder, and what an evaluation of them writes."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile

from support.signals import noise_like, speech
from wavegen.commands import evaluate
from wavegen.evaluation.scoring import REFERENCE

RATE = 16000


def write(path: str, samples: np.ndarray, rate: int = RATE) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)


def write_clips(*names: str, rate: int = RATE, seconds: float = 1.2) -> None:
    """Write recordings to ``real`` and noisy copies to ``noisy``."""
    for seed, name in enumerate(names):
        clean = speech(seconds, pitch_hz=110 + 20 * seed, rate=rate, seed=seed)
        write(f"real/{name}.wav", clean, rate)
        write(f"noisy/{name}.wav", clean + 0.02 * noise_like(clean), rate)


def run(*arguments: str) -> int:
    return evaluate.main([*arguments, "--jobs", "1"])


def all_rows(out: str = "evaluation") -> list[dict[str, str]]:
    return list(csv.DictReader((Path(out) / "scores.csv").read_text(encoding="utf-8").splitlines()))


def rows(out: str = "evaluation") -> list[dict[str, str]]:
    """The rows of the systems, without those of the recordings, which exist if a predictor is installed."""
    return [row for row in all_rows(out) if row["system"] != REFERENCE]


def summary(out: str = "evaluation") -> dict:
    return json.loads((Path(out) / "summary.json").read_text(encoding="utf-8"))


def systems(found: Mapping[str, object]) -> list[str]:
    """The systems of a summary, without the recordings."""
    return [system for system in found if system != REFERENCE]


def contents(out: str) -> dict[str, bytes]:
    return {name: (Path(out) / name).read_bytes() for name in ("scores.csv", "summary.json")}
