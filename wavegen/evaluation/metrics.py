"""How far a generated waveform is from the recording it should sound like.

Every metric takes float waveforms ``[samples]`` within ±1, compares their common start, and gives None where it is
not defined (clips too short, silence, a package that is missing); the reason is logged at level INFO.
"""

import logging
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wavegen.audio import resample
from wavegen.errors import AudioError
from wavegen.mel import LogMel, MelSpec

_LOG = logging.getLogger(__name__)

PESQ_RATE_HZ = 16000
# The pesq package has room for 50 utterances and writes beyond it without a check; an utterance and the pause after
# it last at least 0.2 s each, so that a piece of 20 s cannot hold more.
PESQ_LONGEST_S = 20.0

STFT_RESOLUTIONS = ((512, 128), (1024, 256), (2048, 512))
"""FFT sizes (and window lengths) and hops, in samples, of :func:`multi_resolution_stft_distance`."""


@dataclass(frozen=True)
class Metric:
    """What a number of :func:`score` means: its heading, its unit, which way is better, and who defined it."""

    label: str
    unit: str
    better: Literal["higher", "lower"]
    source: str


METRICS: Mapping[str, Metric] = {
    "stoi": Metric("STOI", "correlation, at most 1", "higher", "Taal et al., 2011"),
    "pesq": Metric("PESQ", "MOS-LQO, 1.04 to 4.64", "higher", "ITU-T P.862.2, wideband, at 16 kHz"),
    "log_mel": Metric("log-mel", "mean |Δ ln|", "lower", "L1 between log-mels, as in HiFi-GAN (Kong et al., 2020)"),
    "m_stft": Metric("M-STFT", "convergence + mean |Δ ln|", "lower", "Yamamoto et al., 2020, Parallel WaveGAN"),
}
"""The keys of :func:`score` in the order of the tables."""


def score(reference: np.ndarray, generated: np.ndarray, spec: MelSpec) -> dict[str, float | None]:
    """All of :data:`METRICS` for two waveforms ``[samples]`` at the rate of ``spec``."""
    return {
        "stoi": stoi(reference, generated, spec.sample_rate_hz),
        "pesq": pesq_wideband(reference, generated, spec.sample_rate_hz),
        "log_mel": log_mel_distance(reference, generated, spec),
        "m_stft": multi_resolution_stft_distance(reference, generated),
    }


def log_mel_distance(reference: np.ndarray, generated: np.ndarray, spec: MelSpec) -> float | None:
    """Mean absolute difference of the natural-log mels, 0 or more, lower is better.

    Gain, bias, clip and statistics of ``spec`` are left out, so that definitions which differ in nothing else agree.
    """
    pair = _comparable(reference, generated, "log-mel distance", shortest=spec.shortest_clip)
    if pair is None:
        return None
    plain = spec.plain
    mel, other = _log_mel(plain)(torch.from_numpy(np.stack(pair)))
    return float((mel - other).abs().mean())


def multi_resolution_stft_distance(reference: np.ndarray, generated: np.ndarray) -> float | None:
    """Spectral convergence plus mean log-magnitude difference, averaged over three resolutions; lower is better.

    With magnitudes ``S`` of the reference and ``G``, each at least √1e-7, Hann windows and centred frames::

        ‖S - G‖ / ‖S‖ + mean |ln S - ln G|        (Yamamoto et al., 2020, eqs. 5 and 6; Arık et al., 2018)

    The convergence tells how well the loud parts are met, the logarithm adds the quiet ones.
    """
    longest_reflection = max(n_fft for n_fft, _ in STFT_RESOLUTIONS) // 2
    pair = _comparable(reference, generated, "M-STFT", shortest=longest_reflection + 1)
    if pair is None:
        return None

    def distance(n_fft: int, hop_length: int) -> Tensor:
        window = torch.hann_window(n_fft)
        spectra = torch.stft(torch.from_numpy(np.stack(pair)), n_fft, hop_length, window=window, return_complex=True)
        wanted, given = (spectra.real.square() + spectra.imag.square()).clamp(min=1e-7).sqrt()
        return (wanted - given).norm() / wanted.norm() + (wanted.log() - given.log()).abs().mean()

    return float(torch.stack([distance(*resolution) for resolution in STFT_RESOLUTIONS]).mean())


def stoi(reference: np.ndarray, generated: np.ndarray, sample_rate_hz: int) -> float | None:
    """Short-time objective intelligibility, at most 1, higher is better (Taal et al., 2011; the pystoi package).

    None where less than 0.4 s of the reference lies within 40 dB of its loudest part.
    """
    pair = _comparable(reference, generated, "STOI", shortest=round(0.4 * sample_rate_hz))
    if pair is None or _is_silent(pair[0], "STOI"):
        return None
    from pystoi import stoi as pystoi

    with warnings.catch_warnings():
        # pystoi warns and returns a made-up 1e-5, which would pull a mean down.
        warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
        try:
            return float(pystoi(*pair, sample_rate_hz))
        except RuntimeWarning:
            _not_scored("STOI", "too little speech once silence is removed")
            return None


def pesq_is_available() -> bool:
    """Whether the pesq package can be imported."""
    try:
        import pesq  # noqa: F401
    except (ImportError, ValueError):  # ValueError: it was compiled for another numpy
        return False
    return True


def pesq_wideband(reference: np.ndarray, generated: np.ndarray, sample_rate_hz: int) -> float | None:
    """Wideband PESQ, 1.04 to 4.64, higher is better (ITU-T P.862.2; the pesq package), after resampling to 16 kHz.

    Clips longer than 20 s are scored in equal pieces, whose mean is given. None without the package, and for clips
    that are silent or shorter than 0.25 s.
    """
    if not pesq_is_available():
        _not_scored("PESQ", "the pesq package is not installed")
        return None
    from pesq import PesqError, pesq

    pair = _comparable(reference, generated, "PESQ", shortest=math.ceil(sample_rate_hz / 4))
    if pair is None:
        return None
    try:
        pair = tuple(resample(samples, sample_rate_hz, PESQ_RATE_HZ) for samples in pair)
    except AudioError as error:  # no working torchaudio: that costs this metric only
        _not_scored("PESQ", str(error))
        return None
    pieces = math.ceil(len(pair[0]) / (PESQ_LONGEST_S * PESQ_RATE_HZ))
    scores = []
    for piece in zip(*(np.array_split(samples, pieces) for samples in pair), strict=True):
        if any(_is_silent(samples, "PESQ") for samples in piece):
            continue
        try:
            scores.append(float(pesq(PESQ_RATE_HZ, *piece, "wb")))
        except PesqError as error:
            _not_scored("PESQ", str(error))
    return float(np.mean(scores)) if scores else None


def _comparable(reference: np.ndarray, generated: np.ndarray, metric: str, *, shortest: int) -> tuple | None:
    """The common start of both, float32, or None with the reason logged."""
    length = min(len(reference), len(generated))
    pair = tuple(np.asarray(samples[:length], dtype=np.float32) for samples in (reference, generated))
    if length < shortest:
        _not_scored(metric, f"{length} samples, of which it needs {shortest}")
        return None
    if not all(np.isfinite(samples).all() for samples in pair):
        _not_scored(metric, "NaN or infinite samples")
        return None
    return pair


def _is_silent(samples: np.ndarray, metric: str) -> bool:
    if samples.any():
        return False
    _not_scored(metric, "silence")
    return True


def _not_scored(metric: str, reason: str) -> None:
    _LOG.info("no %s: %s", metric, reason)


@lru_cache(maxsize=4)
def _log_mel(spec: MelSpec) -> LogMel:
    return LogMel(spec)
