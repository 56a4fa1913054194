"""Segments of speech with pauses and in noise, as functions of seeds: what a network learns to hear through."""

import torch
from torch import Tensor

from wavegen.noise import normal_noise, uniform_noise

PAUSE = (0.15, 0.6)  # shares of a segment
STEEPEST = 1.0  # amplitudes fall with up to this power of the frequency: 1 is brown noise
TALKERS = 6  # of babble

# What is drawn for a segment, each uniform between 0 and 1.
HAS_PAUSE, PAUSE_LENGTH, PAUSE_START, RATIO, KIND, SLOPE, LEVEL = range(7)


def draws(seeds: Tensor) -> Tensor:
    """The numbers ``[batch, 7]`` that are drawn for segments with these seeds."""
    return uniform_noise(seeds, 0, 1, LEVEL + 1, seeds.device)[:, :, 0]


def with_pause(audio: Tensor, marks: Tensor, silence: Tensor, seeds: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Make a part of some segments silent, because recordings of read speech have few pauses.

    Args:
        audio: ``[batch, frames * hop_length]``.
        marks: int8 ``[batch, classes, frames]``.
        silence: int8 ``[classes]``, the marks of a silent frame.
        seeds: int64 ``[batch]``.
        share: the share of segments with such a pause.
    """
    drawn, frames = draws(seeds), marks.shape[-1]
    length = (PAUSE[0] + (PAUSE[1] - PAUSE[0]) * drawn[:, PAUSE_LENGTH]) * frames * (drawn[:, HAS_PAUSE] < share)
    first = (drawn[:, PAUSE_START] * (frames - length)).floor()[:, None]
    place = torch.arange(frames, device=audio.device)
    silent = (place >= first) & (place < (first + length[:, None]).floor())
    marks = torch.where(silent[:, None], silence[:, None], marks)
    return torch.where(silent.repeat_interleave(audio.shape[-1] // frames, dim=-1), 0.0, audio), marks


def coloured_noise(seeds: Tensor, slopes: Tensor, count: int) -> Tensor:
    """Gaussian noise ``[batch, count]`` with an RMS of 1, whose amplitudes fall by ``slope`` times 6 dB per octave.

    Args:
        seeds: int64 ``[batch]``.
        slopes: ``[batch]``: 0 is white, 0.5 pink, 1 brown.
        count: the number of samples.
    """
    spectrum = torch.fft.rfft(normal_noise(seeds, 1, count, 1, seeds.device)[:, 0])
    place = torch.arange(spectrum.shape[-1], device=seeds.device).clamp(min=1) / spectrum.shape[-1]
    noise = torch.fft.irfft(spectrum * place.clamp(min=0.002) ** -slopes[:, None], count)
    return noise / noise.square().mean(dim=-1, keepdim=True).sqrt()


def babble(others: Tensor) -> Tensor:
    """People who talk at once, each as loud as the others: ``[batch, talkers, samples]`` to ``[batch, samples]``.

    Its RMS is 1.
    """
    total = (others / others.square().mean(dim=-1, keepdim=True).sqrt().clamp(min=1e-6)).sum(dim=1)
    return total / total.square().mean(dim=-1, keepdim=True).sqrt().clamp(min=1e-6)


def in_noise(
    audio: Tensor, seeds: Tensor, others: Tensor | None = None, *, below_db: tuple[float, float], babbling: float
) -> Tensor:
    """Add noise to segments ``[batch, samples]``: coloured, or for a share of them babble.

    Args:
        audio: the segments.
        seeds: int64 ``[batch]``.
        others: ``[batch, talkers, samples]``, the voices of the babble; None for none.
        below_db: range of the level of the speech over that of the noise.
        babbling: the share of the segments whose noise is babble.
    """
    drawn = draws(seeds)
    noise = coloured_noise(seeds, STEEPEST * drawn[:, SLOPE], audio.shape[-1])
    if others is not None:
        noise = torch.where((drawn[:, KIND] < babbling)[:, None], babble(others), noise)
    ratio_db = below_db[0] + (below_db[1] - below_db[0]) * drawn[:, RATIO, None]
    speech = audio.square().mean(dim=-1, keepdim=True).sqrt()
    return audio + noise * speech * 10 ** (-ratio_db / 20)
