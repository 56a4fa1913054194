"""Metrics of the waveform: levels, loudness, tonal lines, clipping, and the waveform's own match (SI-SDR)."""

import math

import numpy as np
import torch

from wavegen.evaluation.metrics.base import Pair, Undefined
from wavegen.listening.loudness import BLOCK_S, integrated_loudness

SI_SDR_LIMIT_DB = 100.0
SI_SDR_SHORTEST_S = 0.1
PAUSE_FRAME_S = 0.02
PAUSE_SHARE = 0.1
PAUSE_BELOW_DB = 25.0
PAUSE_FLOOR = 10 ** (-96 / 20)
FEWEST_PAUSES = 5
LINE_WINDOW_S = 0.085
LINE_NEIGHBOURS = 16
LINE_FLOOR_DB = -100.0
LINE_LOWEST_HZ = 200.0
LINE_SHORTEST_S = 0.5
FULL_SCALE = 32767 / 32768


def si_sdr(pair: Pair) -> float:
    """Scale-invariant signal-to-distortion ratio in dB, after removing the means (Le Roux et al., 2019, eq. 2).

    With the reference ``s``, the output ``g`` and ``a = ⟨g, s⟩ / ⟨s, s⟩``: ``10 log₁₀ ‖a s‖² / ‖a s - g‖²``, limited to
    ±100. It compares waveforms including their phase, which suits codecs and resynthesis. A vocoder chooses its own
    phases and may sound perfect at -20 dB. Needs 0.1 s.
    """
    pair.require_seconds(SI_SDR_SHORTEST_S)
    reference, generated = (
        samples - samples.mean() for samples in (pair.reference.astype(np.float64), pair.generated.astype(np.float64))
    )
    if not (reference.any() and generated.any()):
        raise Undefined("silence")
    target = (generated @ reference) / (reference @ reference) * reference
    kept, lost = np.sum(np.square(target)), np.sum(np.square(target - generated))
    least = 10 ** (-SI_SDR_LIMIT_DB / 10)
    if lost <= least * kept:
        return SI_SDR_LIMIT_DB
    return float(10 * math.log10(max(kept / lost, least)))


def loudness_difference(pair: Pair) -> float:
    """Integrated loudness of the output minus that of the reference, in LU (ITU-R BS.1770-4; the pyloudnorm package).

    Needs 0.4 s above -70 LUFS in both.
    """
    pair.require_seconds(BLOCK_S)
    reference = integrated_loudness(pair.reference, pair.sample_rate_hz)
    generated = integrated_loudness(pair.generated, pair.sample_rate_hz)
    if reference is None:
        raise Undefined("the reference is quieter than -70 LUFS")
    if generated is None:
        raise Undefined("the output is quieter than -70 LUFS")
    return generated - reference


def level_in_silence(pair: Pair) -> float:
    """How much louder the output is than the reference in the reference's pauses, in dB; wavegen's own definition.

    Pauses are the quietest tenth of the reference's frames of 20 ms; there must be at least five, all of them 25 dB or
    more below its loudest frame. Levels are root-mean-square and at least -96 dBFS. Above 0, the output has noise or
    buzz that the recording does not have; below 0, its pauses are too clean.
    """
    pair.require_seconds(FEWEST_PAUSES / PAUSE_SHARE * PAUSE_FRAME_S)
    pair.require_sound()
    length = round(PAUSE_FRAME_S * pair.sample_rate_hz)
    count = len(pair) // length
    powers = [
        np.square(samples[: count * length].astype(np.float64)).reshape(count, length).mean(axis=1)
        for samples in (pair.reference, pair.generated)
    ]
    quiet = np.quantile(powers[0], PAUSE_SHARE)
    if quiet > powers[0].max() * 10 ** (-PAUSE_BELOW_DB / 10):
        raise Undefined("the reference has no pauses")
    pauses = powers[0] <= quiet
    reference, generated = (max(power[pauses].mean(), PAUSE_FLOOR**2) for power in powers)
    return float(10 * math.log10(generated / reference))


def dc_offset(pair: Pair) -> float:
    """Mean of the output's samples minus that of the reference's, in % of full scale."""
    pair.require_samples(1)
    return float(100 * (pair.generated.mean(dtype=np.float64) - pair.reference.mean(dtype=np.float64)))


def tonal_line(pair: Pair) -> float:
    """Prominence in dB of the strongest steady tone that the reference does not have; wavegen's own definition.

    Generators that work frame by frame leave lines at multiples of their frame rate. The level of a bin is its median
    in dB over the frames (85 ms Hann windows with three quarters overlap; levels more than 100 dB below a full-scale
    tone count as -100 dB), so only tones that hardly pause show. A bin's prominence is its level minus the median of
    the 33 bins around it. The score is the largest increase of a bin's prominence over the reference's, above 200 Hz.
    Needs 0.5 s. Two different noises with the same spectrum differ by 2 to 3 dB in 4 s.
    """
    pair.require_seconds(LINE_SHORTEST_S)
    pair.require_sound(generated=True)
    n_fft = 2 ** round(math.log2(LINE_WINDOW_S * pair.sample_rate_hz))
    lowest = math.ceil(LINE_LOWEST_HZ * n_fft / pair.sample_rate_hz)
    reference, generated = (_prominence(samples, n_fft) for samples in (pair.reference, pair.generated))
    return max(0.0, float((generated - reference)[lowest:].max()))


def _prominence(samples: np.ndarray, n_fft: int) -> np.ndarray:
    from scipy.ndimage import median_filter

    window = torch.hann_window(n_fft)
    spectrum = torch.stft(
        torch.from_numpy(samples), n_fft, n_fft // 4, window=window, center=False, return_complex=True
    )
    level_db = (20 * (spectrum.abs() * 2 / window.sum()).log10()).clamp(min=LINE_FLOOR_DB).numpy()
    steady_db = np.median(level_db, axis=1)
    return steady_db - median_filter(steady_db, size=2 * LINE_NEIGHBOURS + 1, mode="nearest")


def clipping(pair: Pair) -> float:
    """Share of the output's samples at or beyond 16-bit full scale minus the reference's, in %, at least 0.

    Not defined if either was resampled, which moves samples away from full scale and others onto it.
    """
    pair.require_samples(1)
    if pair.resampled:
        raise Undefined("resampled")
    reference, generated = (np.mean(np.abs(samples) >= FULL_SCALE) for samples in (pair.reference, pair.generated))
    return max(0.0, float(100 * (generated - reference)))


def length_difference(pair: Pair) -> float:
    """How much longer the output is than the reference, in ms, before the longer one is cut."""
    return 1000 * pair.samples_longer / pair.sample_rate_hz
