"""A corpus and recipes small enough to train in a second."""

from pathlib import Path

import numpy as np
import soundfile

RATE = 24000


def voice(seconds: float, *, pitch_hz: float = 120.0, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Something like speech: harmonics of a gliding pitch, syllables, a little noise; float64 within ±0.6."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    pitch = pitch_hz * (1 + 0.1 * np.sin(2 * np.pi * 1.3 * time + seed))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    harmonics = sum(np.sin(k * phase) / k for k in range(1, 20))
    syllables = 0.5 + 0.5 * np.sin(2 * np.pi * 3 * time)
    return np.clip(0.15 * harmonics * syllables + 0.003 * random.standard_normal(len(time)), -0.6, 0.6)


def write_corpus(folder: Path, *, clips: int = 6, seconds: float = 0.8) -> Path:
    """Clips ``a0.wav``, ``a1.wav``, …, 16-bit mono at 24 kHz; the last is shorter than any segment."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(clips):
        length = 0.1 if i == clips - 1 else seconds
        soundfile.write(folder / f"a{i}.wav", voice(length, pitch_hz=100 + 20 * i, seed=i), RATE)
    return folder


def write_recipe(path: Path, corpus: Path, *, vocoder: str = "spectral") -> Path:
    """A recipe for it: a tiny model, a few steps, nothing to listen to."""
    shapes = {
        "spectral": "{name: spectral, channels: 16, layers: 2, refinement_iterations: 1, synthesis_iterations: 1}",
        "wavenet": "{name: wavenet, residual_channels: 8, skip_channels: 8, hidden_channels: 16, "
        "condition_channels: 8, cycles: 1, depth: 5}",
        "parallel": "{name: parallel, residual_channels: 8, gate_channels: 16, skip_channels: 8, "
        "condition_channels: 8, cycles: 1, depth: 5, weight_norm: true}",
    }
    path.write_text(
        f"""
description: tiny
mel: bigvgan-24k
data: {{corpus: {corpus}, held_out: "a[01]"}}
vocoder: {shapes[vocoder]}
training:
  steps: 8
  batch_size: 4
  segment_frames: 16
  warmup_steps: 2
  stft_resolutions: [[256, 64], [512, 128]]
  log_every: 1
  validate_every: 4
  checkpoint_every: 2
  valid_frames: 16
  listen_clips: 0
samples: {{clips: 0}}
"""
    )
    return path
