"""Recordings of the demo, their mels, and how close a sound comes to them."""

from pathlib import Path

import numpy as np
import torch

from wavegen.audio import read_audio
from wavegen.audio.resampling import resample
from wavegen.evaluation.metrics.pitch import pitch_track
from wavegen.mel import LogMel, MelSpec

CLIPS = Path(__file__).parents[2] / "recipes" / "demo" / "audio" / "valid"
WOMAN, MAN = "kathleen-arctic_a0196.flac", "flemishguy-nl_rhasspy_617_1602083248.flac"


def recording(name: str, rate: int = 24000, *, seconds: float | None = None) -> np.ndarray:
    """A recording at a sample rate, or its beginning."""
    samples = read_audio(CLIPS / name, rate)
    return samples if seconds is None else samples[: round(seconds * rate)]


def mel_of(samples: np.ndarray, spec: MelSpec) -> torch.Tensor:
    """The mel ``[1, n_mels, frames]`` of ``samples``."""
    return LogMel(spec)(torch.from_numpy(samples)[None])


def log_mel_distance(samples: np.ndarray, mel: torch.Tensor, spec: MelSpec) -> float:
    """Mean distance of a sound's mel from ``mel``, in nepers; a minute of silence weighs no more than one of speech."""
    found = mel_of(samples, spec)
    frames = min(found.shape[-1], mel.shape[-1])
    found, wanted = (spec.to_linear(x[..., :frames]).clamp(min=1e-4).log() for x in (found, mel))
    return float((found - wanted).abs().mean())


def f0_change_cents(samples: np.ndarray, original: np.ndarray, rate: int) -> float:
    """Median change of F0 over the frames that are voiced in both sounds, by WORLD's analysis."""
    tracks = [pitch_track(resample(x, rate, 16000)).f0_hz for x in (samples, original)]
    frames = min(map(len, tracks))
    found, wanted = (track[:frames] for track in tracks)
    voiced = (found > 0) & (wanted > 0)
    assert voiced.sum() > 0.5 * (wanted > 0).sum(), "the sound is hardly voiced"
    return float(np.median(1200 * np.log2(found[voiced] / wanted[voiced])))
