"""Mels that a TTS predicted for recordings: checks that a pair belongs together, and aligns it in time.

The best training data for the vocoder of a TTS are mels that this TTS predicts with the real durations ("teacher
forcing"): they match the recording frame for frame, but are smoother. Tools disagree by a few frames about where a mel
begins, about the logarithm and about the level, and lists of files have errors; a vocoder trained on misaligned or
wrong pairs would learn to blur, and one trained on other values would fail on those it gets later.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from wavegen.errors import DataError

MAX_LENGTH_DIFFERENCE = 8
"""Largest difference between the two lengths, in frames."""
MAX_SHIFT = 8
"""Largest shift that is searched, in frames; a true shift must be smaller."""
MIN_CORRELATION = 0.5
"""Smallest correlation of a pair that shows one utterance. On 48 clips of two speakers, a clip and itself blurred over
five frames, with noise, correlate by 0.88 or more; any two clips by at most 0.45 (median 0.09)."""
MAX_STRETCH = 1.5
"""Largest factor between the ranges of the two mels. Another logarithm or power stretches by 2 or more."""
MAX_LEVEL_DB = 12.0
"""Largest difference in level, over the louder half of the recording's mel, in dB."""

_DB_PER_NEPER = 20 / math.log(10)
# Slope -> what a mel with this slope holds instead of the definition's logarithm.
_SLOPES = {
    1 / math.log(10): "log10 instead of ln",
    math.log(10): "ln instead of log10",
    _DB_PER_NEPER: "decibels instead of ln",
    1 / _DB_PER_NEPER: "ln instead of decibels",
    20.0: "decibels instead of log10",
    1 / 20: "log10 instead of decibels",
    2.0: "power instead of magnitude",
    0.5: "magnitude instead of power",
}
_SLOPE_TOLERANCE = 1.12  # between a measured slope and the one that explains it


@dataclass(frozen=True)
class Alignment:
    """The frames that a recording's natural mel and a predicted one share.

    Attributes:
        first: the first shared frame, counted in the natural mel.
        frames: the number of shared frames.
        shift: the frames by which the predicted mel lags: its frame ``first + shift`` is frame ``first`` of the natural
            mel.
        correlation: the correlation of the two over the shared frames, at most 1.
    """

    first: int
    frames: int
    shift: int
    correlation: float


def align(predicted: np.ndarray, natural: np.ndarray) -> Alignment:
    """Find the shift between a predicted mel and a recording's natural one, and check that they show one utterance.

    Args:
        predicted: natural logarithms of a linear mel ``[n_mels, frames]``.
        natural: those of the recording's own mel, by the same definition.

    Raises:
        DataError: the lengths differ by more than ``MAX_LENGTH_DIFFERENCE``, the correlation is below
            ``MIN_CORRELATION`` at every shift, or it is highest at a shift of ``MAX_SHIFT``, so that the true shift may
            be larger; or the values have another range or level, so that the mel has another definition.
    """
    given, wanted = predicted.shape[1], natural.shape[1]
    if abs(given - wanted) > MAX_LENGTH_DIFFERENCE:
        raise DataError(
            f"the mel has {given} frames and the recording {wanted}, which differ by more than {MAX_LENGTH_DIFFERENCE}",
            remedy="pair the mel with its own recording",
        )
    overlaps = [_overlap(predicted, natural, shift) for shift in range(-MAX_SHIFT, MAX_SHIFT + 1)]
    alignments = [overlap for overlap in overlaps if overlap is not None]
    # Between two that are equally good, the smaller shift wins.
    best = max(alignments, key=lambda a: (round(a.correlation, 6), -abs(a.shift)), default=None)
    if best is None or best.correlation < MIN_CORRELATION:
        correlation = 0.0 if best is None else best.correlation
        raise DataError(
            f"the mel is not that of the recording: their correlation is {correlation:.2f}, below {MIN_CORRELATION}",
            remedy="pair the mel with its own recording",
        )
    if abs(best.shift) == MAX_SHIFT:
        raise DataError(
            f"the mel is {MAX_SHIFT} frames or more off the recording, and at most {MAX_SHIFT - 1} can be corrected",
            remedy="cut both at the same place",
        )
    _refuse_other_values(*_shared(predicted, natural, best))
    return best


def _shared(predicted: np.ndarray, natural: np.ndarray, at: Alignment) -> tuple[np.ndarray, np.ndarray]:
    """The frames that the two share."""
    first, frames = at.first, at.frames
    return predicted[:, first + at.shift :][:, :frames], natural[:, first:][:, :frames]


def _refuse_other_values(predicted: np.ndarray, natural: np.ndarray) -> None:
    """Refuse a mel that follows the recording's own in time, but with other values: the correlation ignores both.

    A predicted mel is the recording's one, smoothed: natural = predicted + what cannot be predicted. So the slope is
    that of the recording's mel over the predicted one, by least squares, turned over.
    """
    a, b = _centred(predicted), _centred(natural)
    slope = float((a * a).sum() / (a * b).sum())
    if not 1 / MAX_STRETCH < slope < MAX_STRETCH:
        distance, likely = min((abs(math.log(slope / known)), what) for known, what in _SLOPES.items())
        guess = likely if distance < math.log(_SLOPE_TOLERANCE) else "scaled to another range"
        raise DataError(
            f"the mel has slope {slope:.2f} against the recording's own mel, not 1: {guess}?",
            remedy="predict it with the recipe's mel definition, or convert it",
        )
    louder = natural > np.median(natural)
    if not louder.any():
        return
    level_db = float(np.median((predicted - natural)[louder])) * _DB_PER_NEPER
    if abs(level_db) > MAX_LEVEL_DB:
        raise DataError(
            f"the mel is {abs(level_db):.0f} dB {'above' if level_db > 0 else 'below'} the recording's own mel: "
            "samples of another scale, or values that were normalised?",
            remedy="predict it with the recipe's mel definition, or convert it",
        )


def _centred(mel: np.ndarray) -> np.ndarray:
    """A mel without the mean of each bin, which depends on the voice and the microphone; the rest on the words."""
    return mel - mel.mean(axis=1, keepdims=True)


def _overlap(predicted: np.ndarray, natural: np.ndarray, shift: int) -> Alignment | None:
    """The alignment at one shift; None if fewer than two frames overlap."""
    first = max(0, -shift)
    frames = min(predicted.shape[1] - shift, natural.shape[1]) - first
    if frames < 2:
        return None
    alignment = Alignment(first, frames, shift, 0.0)
    a, b = (_centred(mel) for mel in _shared(predicted, natural, alignment))
    energy = np.sqrt((a * a).sum() * (b * b).sum())
    return replace(alignment, correlation=float((a * b).sum() / energy) if energy > 0 else 0.0)
