"""Random changes of training segments: sounds, conditions of recording and predicted mels that a corpus lacks."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.signal import fftconvolve
from torch import Tensor

from wavegen.audio.resampling import TORCHAUDIO, installed_resampler
from wavegen.audio.resampling import resample as resample_recording
from wavegen.mel import MelSpec
from wavegen.noise import normal_noise
from wavegen.training.config import AugmentationConfig

LARGEST_PEAK = 0.99
NOISE_BELOW_DB = (5.0, 40.0)
RESPONSE_BANDS, RESPONSE_DB = 8, 4.0  # number of bands, and standard deviation of their gains
REVERBERATION_S = (0.1, 0.8)
DIRECT_DB = (-3.0, 15.0)  # level of the direct sound over that of the reverberation
MEL_NOISE = 0.05
DITHER = 2e-5  # about what 16 bits add


class Disturbance(NamedTuple):
    """What makes the mels of a step like those that a TTS predicts.

    Attributes:
        smooths: whether they are averaged over three frames.
        noise: whether each value gets noise of 5 %.
    """

    smooths: bool = False
    noise: bool = False


def draw_disturbance(config: AugmentationConfig, step: int) -> Disturbance:
    """The disturbance of a training step; the same step always has the same one."""
    # A counter-based generator, as for the choice of segments and definitions; their keys never have this second word.
    random = np.random.Generator(np.random.Philox(key=np.array([step, 2**64 - 3], dtype=np.uint64)))
    smooths, noise = random.random(2) < (config.smoothing, config.mel_noise)
    return Disturbance(bool(smooths), bool(noise))


def disturbed(mel: Tensor, spec: MelSpec, disturbance: Disturbance, seeds: Tensor) -> Tensor:
    """Disturb a mel ``[batch, n_mels, frames]`` of definition ``spec``; ``seeds`` ``[batch]`` seed the noise."""
    if disturbance.smooths:
        mel = smoothed(mel)
    if disturbance.noise:
        noise = normal_noise(seeds, 0, mel.shape[-1], mel.shape[1], mel.device)
        mel = spec.from_linear(spec.to_linear(mel) * (1 + MEL_NOISE * noise))
    return mel


def smoothed(mel: Tensor) -> Tensor:
    """Average a mel ``[batch, n_mels, frames]`` over three frames, as a TTS does in effect."""
    return F.avg_pool1d(F.pad(mel, (1, 1), mode="replicate"), 3, 1)


def dithered(samples: Tensor, seeds: Tensor) -> Tensor:
    """Add faint white noise to ``[batch, samples]``.

    Resampling leaves bands empty, and synthetic sounds have digital silence. In logarithms that is so far from any
    sound that it would outweigh all speech in the losses.
    """
    return samples + DITHER * normal_noise(seeds, 0, samples.shape[-1], 1, samples.device)[:, 0]


def resample(samples: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Resample ``[batch, samples]``; the rates may be the terms of their ratio."""
    if installed_resampler() != TORCHAUDIO:
        rows = [resample_recording(row, from_rate, to_rate) for row in samples.cpu().numpy()]
        return torch.from_numpy(np.stack(rows)).to(samples)
    from torchaudio.functional import resample as torchaudio_resample  # slow to import, and not needed by most runs

    return torchaudio_resample(samples, from_rate, to_rate, lowpass_filter_width=32)


def augmented(
    samples: np.ndarray, sample_rate_hz: int, config: AugmentationConfig, random: np.random.Generator
) -> np.ndarray:
    """Change a segment as if another room, microphone or source had made it.

    Args:
        samples: ``[samples]`` within ±1.
        sample_rate_hz: its sample rate.
        config: the probability of each change, and the range of levels.
        random: decides all of it.

    Returns:
        float32 ``[samples]`` within ±0.99.
    """
    # Draw all decisions first, so that a changed share of one kind leaves the others as they are.
    replaced, equalised, reverberated, noisy = random.random(4) < (
        config.synthetic,
        config.equalisation,
        config.reverberation,
        config.noise,
    )
    gain = 10 ** (random.uniform(*config.levels_db) / 20)
    sound = samples.astype(np.float64)
    if replaced:
        sound = synthetic_sound(len(sound), sample_rate_hz, random)
    if equalised:
        sound = _equalised(sound, random)
    if reverberated:
        sound = _reverberated(sound, sample_rate_hz, random)
    if noisy:
        below = 10 ** (-random.uniform(*NOISE_BELOW_DB) / 20)
        sound = sound + coloured_noise(len(sound), random) * below * np.sqrt(np.mean(sound**2))
    peak = np.abs(sound).max(initial=0.0)
    return (sound * min(gain, LARGEST_PEAK / max(peak, 1e-9))).astype(np.float32)


def synthetic_sound(count: int, sample_rate_hz: int, random: np.random.Generator) -> np.ndarray:
    """A sound that is not speech, ``[count]``: a chord, a gliding tone, clicks or coloured noise, with an RMS near 0.1.

    Its frequencies are 60 Hz to 0.4 of the sample rate.
    """
    time = np.arange(count) / sample_rate_hz
    lowest, highest = np.log(60), np.log(0.4 * sample_rate_hz)
    kind = random.choice(["chord", "glide", "clicks", "noise"])
    if kind == "chord":
        notes = random.integers(1, 5)
        frequencies = np.exp(random.uniform(lowest, highest, notes))
        sound = np.sin(2 * np.pi * (frequencies[:, None] * time + random.random((notes, 1)))).sum(0) / np.sqrt(notes)
    elif kind == "glide":
        first, last = random.uniform(lowest, highest, 2)
        frequency = np.exp(np.linspace(first, last, count))
        sound = np.sin(2 * np.pi * np.cumsum(frequency) / sample_rate_hz)
    elif kind == "clicks":
        sound = np.where(random.random(count) < random.uniform(2, 40) / sample_rate_hz, random.normal(size=count), 0.0)
        sound = 20 * fftconvolve(sound, np.exp(-np.arange(64) / random.uniform(0.5, 15)))[:count]
    else:
        sound = coloured_noise(count, random)
    return 0.1 * sound


def coloured_noise(count: int, random: np.random.Generator) -> np.ndarray:
    """Gaussian noise ``[count]`` with an RMS of 1, white to brown: its power falls by 0 to 6 dB per octave."""
    spectrum = np.fft.rfft(random.normal(size=count))
    place = np.maximum(np.arange(len(spectrum)), 1) / len(spectrum)
    noise = np.fft.irfft(spectrum * np.maximum(place, 0.005) ** -random.uniform(0, 1), count)
    return noise / np.sqrt(np.mean(noise**2))


def _equalised(sound: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The sound through a filter without delay, whose gain in decibels is interpolated between bands."""
    padded = 1 << (len(sound) + 1024).bit_length()  # the response is shorter than the padding
    spectrum = np.fft.rfft(sound, padded)
    place = np.log2(np.maximum(np.arange(len(spectrum)), 1) / len(spectrum))
    bands = np.linspace(-RESPONSE_BANDS + 1, 0, RESPONSE_BANDS)  # an octave each
    gains_db = np.interp(place, bands, random.normal(scale=RESPONSE_DB, size=RESPONSE_BANDS))
    return np.fft.irfft(spectrum * 10 ** (gains_db / 20), padded)[: len(sound)]


def _reverberated(sound: np.ndarray, sample_rate_hz: int, random: np.random.Generator) -> np.ndarray:
    """The sound and its reverberation, noise that decays by 60 dB in the reverberation time."""
    time = np.arange(int(REVERBERATION_S[1] * sample_rate_hz)) / sample_rate_hz
    tail = random.normal(size=len(time)) * 10 ** (-3 * time / random.uniform(*REVERBERATION_S))
    tail *= 10 ** (-random.uniform(*DIRECT_DB) / 20) / np.sqrt(np.sum(tail**2))
    return sound + fftconvolve(sound, tail)[: len(sound)]
