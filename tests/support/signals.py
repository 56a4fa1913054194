"""Signals and their mels, for tests of mels and metrics."""

import math

import numpy as np
import torch

from wavegen.mel import LogMel, MelSpec


def noise(samples: int, seed: int = 0, dtype: type = np.float64) -> np.ndarray:
    """Noise within ±1 that fades in from silence, so that its mel reaches the floor."""
    values = np.random.default_rng(seed).uniform(-1, 1, samples)
    return (values * np.linspace(0, 0.9, samples) ** 4).astype(dtype)


def tone(hz: float, sample_rate_hz: int, samples: int, amplitude: float = 0.5) -> np.ndarray:
    """A sine, ``samples`` long."""
    return amplitude * np.sin(2 * np.pi * hz / sample_rate_hz * np.arange(samples))


def log_mel(spec: MelSpec, samples: np.ndarray) -> np.ndarray:
    """The mel ``[n_mels, frames]`` of one clip ``[samples]``."""
    return LogMel(spec)(torch.from_numpy(samples)[None])[0].numpy()


def speech(seconds: float = 1.5, *, pitch_hz: float = 120.0, rate: int = 24000, seed: int = 0) -> np.ndarray:
    """Speech-like sound: syllables of a pulse-like tone with vibrato and formants, and a little noise."""
    time = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(pitch_hz * (1 + 0.03 * np.sin(2 * np.pi * 5 * time))) / rate
    samples = np.zeros_like(time)
    for harmonic in range(1, int(rate / 2.2 / pitch_hz)):
        frequency = harmonic * pitch_hz
        formants = sum(math.exp(-(((frequency - f) / (0.2 * f)) ** 2)) for f in (600, 1500, 2700))
        samples += (0.02 + formants) * np.sin(harmonic * phase)
    syllables = np.clip(np.sin(2 * np.pi * 3 * time), 0.01, None)
    hiss = np.random.default_rng(seed).standard_normal(len(time))
    return (0.5 * samples * syllables / np.abs(samples).max() + 1e-3 * hiss).astype(np.float32)


def noise_like(samples: np.ndarray) -> np.ndarray:
    """White noise with the length and level of ``samples``."""
    hiss = np.random.default_rng(1).standard_normal(len(samples))
    return (hiss * samples.std()).astype(np.float32)
