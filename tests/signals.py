"""Signals and their mels, for the tests of the mel contract."""

import numpy as np
import torch

from wavegen.mel import LogMel, MelSpec


def noise(samples: int, seed: int = 0, dtype: type = np.float64) -> np.ndarray:
    """Noise within ±1 that fades in from silence, so that the floor is met too."""
    values = np.random.default_rng(seed).uniform(-1, 1, samples)
    return (values * np.linspace(0, 0.9, samples) ** 4).astype(dtype)


def tone(hz: float, sample_rate_hz: int, samples: int, amplitude: float = 0.5) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hz / sample_rate_hz * np.arange(samples))


def log_mel(spec: MelSpec, samples: np.ndarray) -> np.ndarray:
    return LogMel(spec)(torch.from_numpy(samples)[None])[0].numpy()
