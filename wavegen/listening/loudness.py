"""Loudness as ITU-R BS.1770-4 defines it, and gains that match it between sounds."""

import math
from collections.abc import Mapping

import numpy as np

BLOCK_S = 0.4
"""The shortest sound that has a loudness: one gating block."""

MOST_GAIN_DB = 20.0  # do not amplify a nearly silent sound to noise


def integrated_loudness(samples: np.ndarray, sample_rate_hz: int) -> float | None:
    """Integrated, gated loudness of ``samples`` ``[samples]`` in LUFS (ITU-R BS.1770-4; the pyloudnorm package).

    None where it is not defined: the sound is shorter than 0.4 s or never louder than -70 LUFS.
    """
    from pyloudnorm import Meter

    if len(samples) < BLOCK_S * sample_rate_hz:
        return None
    loudness = float(Meter(sample_rate_hz).integrated_loudness(samples.astype(np.float64)))
    return loudness if math.isfinite(loudness) else None


def matching_gains_db(waveforms: Mapping[str, np.ndarray], sample_rate_hz: int, reference: str) -> dict[str, float]:
    """Gains in dB that bring every waveform ``[samples]`` to the loudness of ``reference`` without clipping.

    If the loudness of any waveform is not defined, all are matched by their root mean square instead. If a gain would
    clip, all gains are lowered by the same amount.
    """
    if not waveforms:
        return {}
    levels = {system: integrated_loudness(samples, sample_rate_hz) for system, samples in waveforms.items()}
    known = {system: level for system, level in levels.items() if level is not None}
    if len(known) < len(waveforms):
        known = {system: _root_mean_square_db(samples) for system, samples in waveforms.items()}
    target = known.get(reference, next(iter(known.values())))
    gains = {system: float(np.clip(target - level, -MOST_GAIN_DB, MOST_GAIN_DB)) for system, level in known.items()}
    peaks = {system: 20 * math.log10(max(np.abs(samples).max(), 1e-9)) for system, samples in waveforms.items()}
    excess = max(0.0, *(peaks[system] + gain for system, gain in gains.items()))
    return {system: gain - excess for system, gain in gains.items()}


def _root_mean_square_db(samples: np.ndarray) -> float:
    return float(10 * np.log10(max(np.mean(np.square(samples, dtype=np.float64)), 1e-12)))
