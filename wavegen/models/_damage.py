"""Segments with holes and without their upper band, as functions of seeds: what an inpainter learns to repair."""

import torch
import torch.nn.functional as F
from torch import Tensor

from wavegen.audio.interpolation import interpolate
from wavegen.audio.runs import runs
from wavegen.mel import MelSpec
from wavegen.noise import uniform_noise

HOLES, HOLE_S = 2, (0.01, 0.2)
BAND_SHARE = 0.4  # of the segments, which lack a band
LOWEST_CUT = 0.3  # the lowest bin above which a band may be hidden, as a share of all bins
LEAST_SHARE = 1e-4  # of a frame; below it is none, so that rounding does not make something of nothing


def draw_lost(seeds: Tensor, samples: int, sample_rate_hz: int) -> Tensor:
    """Which samples segments lose: bool ``[batch, samples]``. Each segment has one to ``HOLES`` holes."""
    drawn = uniform_noise(seeds, 0, HOLES, 3, seeds.device)  # [batch, 3, HOLES]
    # The logarithm of the length is uniform, so that short holes count.
    shortest, longest = HOLE_S
    lengths = (shortest * (longest / shortest) ** drawn[:, 0] * sample_rate_hz).round()
    starts = (drawn[:, 1] * (samples + 1 - lengths).clamp(min=1)).floor()
    present = drawn[:, 2] < 0.5
    present[:, 0] = True
    time = torch.arange(samples, device=seeds.device)[:, None]
    inside = (time >= starts[:, None]) & (time < (starts + lengths)[:, None])  # [batch, samples, HOLES]
    return (inside & present[:, None]).any(dim=-1)


def draw_band(seeds: Tensor, n_mels: int) -> Tensor:
    """Which bins segments keep: bool ``[batch, n_mels]``; a share of the segments lacks all above a bin."""
    has, cut = uniform_noise(seeds, HOLES, 1, 2, seeds.device)[:, :, 0].unbind(1)
    lowest = torch.where(has < BAND_SHARE, LOWEST_CUT + (1 - LOWEST_CUT) * cut, 1.0) * n_mels
    return torch.arange(n_mels, device=seeds.device) < lowest[:, None]


def interpolated(audio: Tensor, lost: Tensor, reach: int) -> Tensor:
    """Segments whose lost samples are foreseen by linear prediction from both sides.

    Args:
        audio: ``[batch, samples]``.
        lost: bool, same shape.
        reach: samples from an edge that matter: of a longer hole, the middle is silent. That is much faster.
    """
    missing = lost.cpu().numpy()
    known = audio.detach().double().cpu().numpy() * ~missing
    filled = known.copy()
    for item, (samples, gone) in enumerate(zip(known, missing, strict=True)):
        for start, stop in runs(gone):
            # At each end of a long hole, the sound is cut off far from its edge.
            near = start + reach, stop - reach
            ends = [(0, start, near[0]), (near[1], near[1], stop)] if near[0] < near[1] else [(0, start, stop)]
            for first, begin, end in ends:
                sound = samples[first : end if end < stop else None]
                part = interpolate(sound, (begin - first, end - first), iterations=1)
                filled[item, begin:end] = part
    return torch.from_numpy(filled).to(audio)


def known_shares(lost: Tensor, mel: MelSpec) -> Tensor:
    """How much of each frame is known: the share of its window's energy that falls on samples that are not lost.

    Args:
        lost: bool ``[batch, frames * hop_length]``.
        mel: the definition of the frames.

    Returns:
        float32 ``[batch, 1, frames]``, 0 to 1.
    """
    return shares_of_windows(F.pad(lost, (mel.left_padding, mel.n_fft - mel.hop_length - mel.left_padding)), mel)


def shares_of_windows(lost: Tensor, mel: MelSpec) -> Tensor:
    """As ``known_shares``, for samples that are padded already: the first window begins with the first of them."""
    window = mel.window().square().to(lost.device)
    padded = lost.to(window.dtype)[:, None]
    shares = 1 - F.conv1d(padded, window[None, None] / window.sum(), stride=mel.hop_length)
    return torch.where(shares < LEAST_SHARE, 0.0, shares)
