"""A corpus and recipes that are small enough to train in a second."""

import json
from pathlib import Path

import numpy as np
import soundfile

from wavegen.vocoders import VOCODERS

RATE = 24000


def voice(seconds: float, *, pitch_hz: float = 120.0, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Synthesise a speech-like sound: harmonics of a gliding pitch, syllables and a little noise; float64 in ±0.6."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    pitch = pitch_hz * (1 + 0.1 * np.sin(2 * np.pi * 1.3 * time + seed))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    harmonics = sum(np.sin(k * phase) / k for k in range(1, 20))
    syllables = 0.5 + 0.5 * np.sin(2 * np.pi * 3 * time)
    return np.clip(0.15 * harmonics * syllables + 0.003 * random.standard_normal(len(time)), -0.6, 0.6)


def write_corpus(folder: Path, *, clips: int = 6, seconds: float = 0.8) -> Path:
    """Write ``a0.wav``, ``a1.wav``, …, 16-bit mono at 24 kHz; the last one is shorter than a training segment."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(clips):
        length = 0.1 if index == clips - 1 else seconds
        soundfile.write(folder / f"a{index}.wav", voice(length, pitch_hz=100 + 20 * index, seed=index), RATE)
    return folder


def write_recipe(path: Path, corpus: Path, *, vocoder: str = "spectral") -> Path:
    """Write a recipe for a corpus: the first example of the vocoder's config, eight steps, and no listening samples."""
    example = VOCODERS[vocoder].Config.examples()[0]
    # JSON is YAML on one line. Defaults are left out, so that a test can add keys to the section.
    shape = json.dumps({"name": vocoder, **example.model_dump(mode="json", exclude_defaults=True)})
    path.write_text(
        f"""
description: tiny
mel: bigvgan-24k
data: {{corpus: {corpus}, held_out: "a[01]"}}
vocoder: {shape}
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


def write_noise(*names: str, seconds: float = 0.3, rate: int = RATE) -> None:
    """Write recordings of noise that swells from silence."""
    for seed, name in enumerate(names):
        samples = np.random.default_rng(seed).uniform(-0.5, 0.5, round(rate * seconds))
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(name, samples * np.linspace(0, 1, len(samples)) ** 2, rate)
