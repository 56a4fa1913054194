"""Metrics computed for single pairs of sounds, where their packages are installed."""

import numpy as np
import pytest

from support.messages import PROJECT
from wavegen.audio import read_audio
from wavegen.evaluation.metrics import METRICS, Pair, available
from wavegen.mel import profile

SPEC = profile("bigvgan-24k")
RATE = SPEC.sample_rate_hz
PACKAGES = sorted({package for metric in METRICS.values() for package in metric.packages})

needs_all = pytest.mark.skipif(available() != list(METRICS), reason="the packages of wavegen[evaluation] are missing")


def needs(key: str) -> None:
    """Skip the test where the packages of a metric are missing or cannot be loaded."""
    if key not in available():
        pytest.skip(f"{METRICS[key].label} cannot be computed here")


def compute(key: str, reference: np.ndarray, generated: np.ndarray, spec: object = SPEC) -> float:
    needs(key)
    return METRICS[key].compute(Pair(reference, generated, spec))


def recording() -> np.ndarray:
    """Two seconds of real speech."""
    path = sorted((PROJECT / "recipes/demo/audio/valid").glob("*.flac"))[0]
    return read_audio(path, RATE)[: 2 * RATE]


def hiss(seconds: float = 1.0, level: float = 0.1, seed: int = 0, rate: int = RATE) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.float32)
