"""Distances between spectra."""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from wavegen.evaluation.metrics.base import COMMON_RATE_HZ, Pair
from wavegen.mel import LogMel, MelSpec

STFT_RESOLUTIONS = ((512, 128), (1024, 256), (2048, 512))
"""FFT sizes (also the window lengths) and hops of ``multi_resolution_stft_distance``, in samples."""

CEPSTRUM_ORDER = 13
CEPSTRUM_RANGE_DB = 40.0  # frames further below the loudest one hold the recording's noise, not the voice
CEPSTRUM_SPEC = MelSpec(
    sample_rate_hz=COMMON_RATE_HZ, n_fft=1024, win_length=400, hop_length=80, n_mels=80, f_min_hz=0, f_max_hz=8000,
    scale="htk", norm="none", log="ln", floor=1e-4, center=True,
)  # fmt: skip


def log_mel_distance(pair: Pair) -> float:
    """Mean absolute difference of the natural-log mels, by the pair's mel definition; 0 for equal sounds.

    It is HiFi-GAN's L1 between log-mels (Kong et al., 2020, eq. 3). The definition's gain, bias, clip and statistics
    are not applied, so that definitions which differ in nothing else agree.
    """
    pair.require_samples(pair.spec.min_samples)
    mel, other = _log_mel(pair.spec.plain)(torch.from_numpy(np.stack([pair.reference, pair.generated])))
    return float((mel - other).abs().mean())


def multi_resolution_stft_distance(pair: Pair) -> float:
    """Spectral convergence plus mean log-magnitude difference, averaged over three resolutions.

    With magnitudes ``S`` of the reference and ``G`` of the output, at least √1e-7, Hann windows and centred frames::

        ‖S - G‖ / ‖S‖ + mean |ln S - ln G|        (Yamamoto et al., 2020, eqs. 5 and 6; Arık et al., 2018)

    The FFT sizes are 512, 1024 and 2048, with hops of a quarter, at the sample rate of the evaluation. The convergence
    measures how well the loud parts match; the logarithm adds the quiet ones.
    """
    pair.require_samples(max(n_fft for n_fft, _ in STFT_RESOLUTIONS) // 2 + 1)  # reflection needs one sample more
    pair.require_sound()  # it divides by the reference

    def distance(n_fft: int, hop_length: int) -> Tensor:
        both = torch.from_numpy(np.stack([pair.reference, pair.generated]))
        spectra = torch.stft(both, n_fft, hop_length, window=torch.hann_window(n_fft), return_complex=True)
        wanted, given = (spectra.real.square() + spectra.imag.square()).clamp(min=1e-7).sqrt()
        return (wanted - given).norm() / wanted.norm() + (wanted.log() - given.log()).abs().mean()

    return float(torch.stack([distance(*resolution) for resolution in STFT_RESOLUTIONS]).mean())


def mel_cepstral_distortion(pair: Pair) -> float:
    """Mel-cepstral distortion of order 13, independent of the level, in dB (Kubichek, 1993).

    With the mel cepstrum ``c₁ … c₁₃`` of each frame::

        10 √2 / ln 10 · mean over frames of √Σ (c_d - c'_d)²,   c_d = 2/M Σ_m ln E_m cos(π d (m + ½) / M)

    ``E_m`` are the magnitudes in 80 HTK mel bands between 0 and 8 kHz, from 25 ms Hann windows every 5 ms at 16 kHz,
    at least 1e-4. With this scaling, the distortion is the root-mean-square difference in dB, over the mel axis, of the
    smoothed spectral envelopes. Frames are aligned one to one, because copy synthesis keeps the timing. Only frames in
    which the reference is within 40 dB of its loudest one count. Published values differ in order, analysis and
    alignment: compare values of this definition only.
    """
    shortest = CEPSTRUM_SPEC.min_samples * pair.sample_rate_hz / CEPSTRUM_SPEC.sample_rate_hz
    pair.require_samples(math.ceil(shortest))
    pair.require_sound()
    log_mels = _log_mel(CEPSTRUM_SPEC)(torch.from_numpy(np.stack(pair.at_common_rate)))
    level_db = 20 / math.log(10) * log_mels[0].logsumexp(0)
    spoken = level_db > level_db.max() - CEPSTRUM_RANGE_DB
    cepstral_difference = _cosines() @ (log_mels[0] - log_mels[1]).double()  # [order, frames]
    distance = cepstral_difference[:, spoken].square().sum(0).sqrt()
    return float(10 * math.sqrt(2) / math.log(10) * distance.mean())


@lru_cache(maxsize=1)
def _cosines() -> Tensor:
    """Matrix ``[order, bands]`` from a log spectrum to its cepstrum, c₁ first."""
    bands = CEPSTRUM_SPEC.n_mels
    order = torch.arange(1, CEPSTRUM_ORDER + 1).double()[:, None]
    band = torch.arange(bands).double()
    return 2 / bands * torch.cos(math.pi / bands * order * (band + 0.5))


@lru_cache(maxsize=4)
def _log_mel(spec: MelSpec) -> LogMel:
    return LogMel(spec)
