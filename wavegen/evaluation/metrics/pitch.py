"""Pitch, voicing and periodicity, by WORLD's analysis (the pyworld package)."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from wavegen.evaluation.metrics.base import COMMON_RATE_HZ, Pair, Undefined, import_quietly

F0_RANGE_HZ = (60.0, 800.0)
FRAME_MS = 5.0
SHORTEST_S = 0.1
FEWEST_VOICED = 10  # frames, 50 ms
EDGE = 2  # frames at either end of a voiced stretch, where the analysis window reaches beyond the voice


class PitchTrack(NamedTuple):
    """Pitch over time, a frame every 5 ms.

    Attributes:
        f0_hz: ``[frames]``, 0 where unvoiced.
        periodicity: ``[frames]``, 0 for noise to 1.
    """

    f0_hz: np.ndarray
    periodicity: np.ndarray


def pitch_track(samples: np.ndarray) -> PitchTrack:
    """Analyse float ``samples`` ``[samples]`` at 16 kHz.

    F0 by DIO and StoneMask (Morise et al., 2009 and 2016) between 60 and 800 Hz. WORLD's later Harvest takes 25 times
    as long and calls far more frames voiced; with noise added 40 dB below full scale it contradicted itself more
    often. Periodicity of a frame is ``1 - mean of a²`` over 0 to 8 kHz, with D4C's aperiodicity ``a`` (Morise, 2016).
    """
    return _pitch_track(np.asarray(samples, dtype=np.float64).tobytes())


@lru_cache(maxsize=8)  # one analysis serves three metrics, and the reference's all systems
def _pitch_track(samples: bytes) -> PitchTrack:
    pyworld = import_quietly("pyworld")
    low_hz, high_hz = F0_RANGE_HZ
    waveform = np.frombuffer(samples)
    f0, times = pyworld.dio(waveform, COMMON_RATE_HZ, f0_floor=low_hz, f0_ceil=high_hz, frame_period=FRAME_MS)
    f0 = pyworld.stonemask(waveform, f0, times, COMMON_RATE_HZ)
    aperiodicity = pyworld.d4c(waveform, f0, times, COMMON_RATE_HZ)
    return PitchTrack(f0, 1 - np.square(aperiodicity).mean(axis=1))


def f0_rmse(pair: Pair) -> float:
    """Root-mean-square error of the pitch in cents, over the frames that are voiced in both.

    Not counted are the two frames (10 ms) at either end of each stretch that is voiced in both, because the analysis
    reaches beyond it there: a steady tone reads up to 2 semitones off. Needs ten frames (50 ms). An octave is 1200
    cents. Read it beside voicing F1: frames in which the output lost its voice do not count here.
    """
    reference, generated = _tracks(pair)
    both = _inside((reference.f0_hz > 0) & (generated.f0_hz > 0))
    if both.sum() < FEWEST_VOICED:
        raise Undefined(f"{both.sum()} frames are well inside voice in both, of which it needs {FEWEST_VOICED}")
    cents = 1200 * np.log2(generated.f0_hz[both] / reference.f0_hz[both])
    return float(np.sqrt(np.mean(np.square(cents))))


def voicing_f1(pair: Pair) -> float:
    """F1 of the decision voiced or unvoiced, frame by frame, with the reference's taken for the truth.

    ``2 TP / (2 TP + FP + FN)``; 1 where they agree. Undefined where both are unvoiced throughout.
    """
    reference, generated = (track.f0_hz > 0 for track in _tracks(pair))
    if not (reference | generated).any():
        raise Undefined("no frame is voiced")
    return float(2 * (reference & generated).sum() / (reference.sum() + generated.sum()))


def periodicity_rmse(pair: Pair) -> float:
    """Root-mean-square difference of the periodicity (0 for noise to 1) over all frames.

    As Morrison et al. (2022, CARGAN) propose, with D4C's aperiodicity in the place of CREPE's confidence, so that
    values of the two do not compare. It shows a voice that turned hoarse, or breath that turned to buzz. Undefined
    where both are unvoiced throughout.
    """
    reference, generated = _tracks(pair)
    if not (reference.f0_hz.any() or generated.f0_hz.any()):
        raise Undefined("no frame is voiced")
    return float(np.sqrt(np.mean(np.square(reference.periodicity - generated.periodicity))))


def _inside(voiced: np.ndarray) -> np.ndarray:
    """Where ``voiced`` holds for all frames up to :data:`EDGE` away; beyond the ends it does not."""
    padded = np.pad(voiced, EDGE)
    return np.all([padded[shift : shift + len(voiced)] for shift in range(2 * EDGE + 1)], axis=0)


def _tracks(pair: Pair) -> tuple[PitchTrack, PitchTrack]:
    pair.require_seconds(SHORTEST_S)
    reference, generated = pair.at_common_rate
    return pitch_track(reference), pitch_track(generated)
