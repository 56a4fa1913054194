"""Distances between spectra."""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from wavegen.evaluation.metrics.base import COMMON_RATE_HZ, Pair
from wavegen.mel import LogMel, MelSpec

STFT_RESOLUTIONS = ((512, 128), (1024, 256), (2048, 512))
"""FFT sizes (and window lengths) and hops, in samples, of :func:`multi_resolution_stft_distance`."""

CEPSTRUM_ORDER = 13
CEPSTRUM_RANGE_DB = 40.0  # below its loudest frame, the recording's own noise is compared, not the voice
CEPSTRUM_SPEC = MelSpec(
    sample_rate_hz=COMMON_RATE_HZ, n_fft=1024, win_length=400, hop_length=80, n_mels=80, f_min_hz=0, f_max_hz=8000,
    scale="htk", norm="none", log="ln", floor=1e-4, center=True,
)  # fmt: skip


def log_mel_distance(pair: Pair) -> float:
    """Mean absolute difference of the natural-log mels of the pair's definition.

    Gain, bias, clip and statistics of the definition are left out, so that definitions which differ in nothing else
    agree. The L1 between log-mels of HiFi-GAN (Kong et al., 2020, eq. 3), 0 for equal sounds.
    """
    pair.require_samples(pair.spec.shortest_clip)
    mel, other = _log_mel(pair.spec.plain)(torch.from_numpy(np.stack([pair.reference, pair.generated])))
    return float((mel - other).abs().mean())


def multi_resolution_stft_distance(pair: Pair) -> float:
    """Spectral convergence plus mean log-magnitude difference, averaged over three resolutions.

    With magnitudes ``S`` of the reference and ``G``, each at least √1e-7, Hann windows and centred frames::

        ‖S - G‖ / ‖S‖ + mean |ln S - ln G|        (Yamamoto et al., 2020, eqs. 5 and 6; Arık et al., 2018)

    FFT sizes 512, 1024 and 2048, hops a quarter of each, at the rate that is scored at. The convergence tells how
    well the loud parts are met, the logarithm adds the quiet ones.
    """
    pair.require_samples(max(n_fft for n_fft, _ in STFT_RESOLUTIONS) // 2 + 1)  # reflection needs one more

    def distance(n_fft: int, hop_length: int) -> Tensor:
        both = torch.from_numpy(np.stack([pair.reference, pair.generated]))
        spectra = torch.stft(both, n_fft, hop_length, window=torch.hann_window(n_fft), return_complex=True)
        wanted, given = (spectra.real.square() + spectra.imag.square()).clamp(min=1e-7).sqrt()
        return (wanted - given).norm() / wanted.norm() + (wanted.log() - given.log()).abs().mean()

    return float(torch.stack([distance(*resolution) for resolution in STFT_RESOLUTIONS]).mean())


def mel_cepstral_distortion(pair: Pair) -> float:
    """Mel-cepstral distortion of order 13, without the level, in dB (Kubichek, 1993).

    With mel cepstra ``c₁ … c₁₃`` of each frame::

        10 √2 / ln 10 · mean over frames of √Σ (c_d - c'_d)²,   c_d = 2/M Σ_m ln E_m cos(π d (m + ½) / M)

    ``E_m`` are the magnitudes in 80 HTK mel bands between 0 and 8 kHz, of 25 ms Hann windows every 5 ms at 16 kHz, at
    least 1e-4. Scaled so, it is the root-mean-square difference in dB over the mel axis of the smoothed spectral
    envelopes. Frames are aligned one to one, because copy synthesis keeps the time; those are counted in which the
    reference is within 40 dB of its loudest. Others' values differ with order, analysis and alignment: compare values
    of this definition only.
    """
    shortest = CEPSTRUM_SPEC.shortest_clip * pair.sample_rate_hz / CEPSTRUM_SPEC.sample_rate_hz
    pair.require_samples(math.ceil(shortest))
    pair.require_sound()
    log_mels = _log_mel(CEPSTRUM_SPEC)(torch.from_numpy(np.stack(pair.at_common_rate)))
    level_db = 20 / math.log(10) * log_mels[0].logsumexp(0)
    spoken = level_db > level_db.max() - CEPSTRUM_RANGE_DB
    difference = _cosines() @ (log_mels[0] - log_mels[1]).double()  # of cepstra, [order, frames]
    distance = difference[:, spoken].square().sum(0).sqrt()
    return float(10 * math.sqrt(2) / math.log(10) * distance.mean())


@lru_cache(maxsize=1)
def _cosines() -> Tensor:
    """``[order, bands]``: log spectrum to cepstrum, c₁ first."""
    bands = CEPSTRUM_SPEC.n_mels
    order, band = torch.arange(1, CEPSTRUM_ORDER + 1).double()[:, None], torch.arange(bands).double()
    return 2 / bands * torch.cos(math.pi / bands * order * (band + 0.5))


@lru_cache(maxsize=4)
def _log_mel(spec: MelSpec) -> LogMel:
    return LogMel(spec)
