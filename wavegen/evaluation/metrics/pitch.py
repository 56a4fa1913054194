"""Pitch, voicing and periodicity, from WORLD's analysis (the pyworld package)."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from wavegen.evaluation.metrics.base import COMMON_RATE_HZ, Pair, Undefined, import_quietly

F0_RANGE_HZ = (60.0, 800.0)
FRAME_MS = 5.0
SHORTEST_S = 0.1
FEWEST_VOICED = 10  # frames, 50 ms
EDGE = 2  # frames at either end of a voiced segment, where the analysis window extends beyond it


class PitchTrack(NamedTuple):
    """Pitch over time, in frames of 5 ms.

    Attributes:
        f0_hz: fundamental frequency ``[frames]``, 0 where unvoiced.
        periodicity: ``[frames]``, from 0 (noise) to 1 (fully periodic).
    """

    f0_hz: np.ndarray
    periodicity: np.ndarray


def pitch_track(samples: np.ndarray) -> PitchTrack:
    """Pitch and periodicity of float ``samples`` ``[samples]`` at 16 kHz.

    F0 is estimated by DIO and StoneMask (Morise et al., 2009 and 2016) between 60 and 800 Hz. WORLD's later Harvest
    takes 25 times as long and calls far more frames voiced; with noise added 40 dB below full scale, its voicing
    changed more often than DIO's. The periodicity of a frame is ``1 - mean of a²`` over 0 to 8 kHz, with D4C's
    aperiodicity ``a`` (Morise, 2016).
    """
    return _pitch_track(np.asarray(samples, dtype=np.float64).tobytes())


@lru_cache(maxsize=8)  # three metrics share an analysis, and all systems share the reference's
def _pitch_track(samples: bytes) -> PitchTrack:
    pyworld = import_quietly("pyworld")
    low_hz, high_hz = F0_RANGE_HZ
    waveform = np.frombuffer(samples)
    f0, times = pyworld.dio(waveform, COMMON_RATE_HZ, f0_floor=low_hz, f0_ceil=high_hz, frame_period=FRAME_MS)
    f0 = pyworld.stonemask(waveform, f0, times, COMMON_RATE_HZ)
    aperiodicity = pyworld.d4c(waveform, f0, times, COMMON_RATE_HZ)
    return PitchTrack(f0, 1 - np.square(aperiodicity).mean(axis=1))


def f0_rmse(pair: Pair) -> float:
    """Root-mean-square error of the pitch in cents, over the frames that are voiced in both sounds.

    The two frames (10 ms) at either end of each voiced segment are not counted: the analysis window extends beyond the
    segment there, and a steady tone reads up to 2 semitones off. Needs ten frames (50 ms). An octave is 1200 cents.
    Read it together with voicing F1, because frames in which the output lost its voicing do not count here.
    """
    reference, generated = _tracks(pair)
    both = _inside((reference.f0_hz > 0) & (generated.f0_hz > 0))
    if both.sum() < FEWEST_VOICED:
        raise Undefined(f"{both.sum()} frames are clearly voiced in both, but it needs {FEWEST_VOICED}")
    cents = 1200 * np.log2(generated.f0_hz[both] / reference.f0_hz[both])
    return float(np.sqrt(np.mean(np.square(cents))))


def voicing_f1(pair: Pair) -> float:
    """F1 score of the output's voicing decision per frame, with the reference's decision as the truth.

    ``2 TP / (2 TP + FP + FN)``, which is 1 if they agree in all frames. Not defined if both are unvoiced throughout.
    """
    reference, generated = (track.f0_hz > 0 for track in _tracks(pair))
    if not (reference | generated).any():
        raise Undefined("no frame is voiced")
    return float(2 * (reference & generated).sum() / (reference.sum() + generated.sum()))


def periodicity_rmse(pair: Pair) -> float:
    """Root-mean-square difference of the periodicity, from 0 (noise) to 1, over all frames.

    Proposed by Morrison et al. (2022, CARGAN); computed here from D4C's aperiodicity instead of CREPE's confidence, so
    the values cannot be compared with theirs. It shows hoarse voices, and breath that turned into buzz. Not defined if
    both sounds are unvoiced throughout.
    """
    reference, generated = _tracks(pair)
    if not (reference.f0_hz.any() or generated.f0_hz.any()):
        raise Undefined("no frame is voiced")
    return float(np.sqrt(np.mean(np.square(reference.periodicity - generated.periodicity))))


def _inside(voiced: np.ndarray) -> np.ndarray:
    """Frames whose neighbours up to ``EDGE`` frames away are all voiced; beyond either end, nothing is."""
    padded = np.pad(voiced, EDGE)
    return np.all([padded[shift : shift + len(voiced)] for shift in range(2 * EDGE + 1)], axis=0)


def _tracks(pair: Pair) -> tuple[PitchTrack, PitchTrack]:
    pair.require_seconds(SHORTEST_S)
    reference, generated = pair.at_common_rate
    return pitch_track(reference), pitch_track(generated)
