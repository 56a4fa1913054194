"""Mels that a TTS predicted for recordings: checks that a pair belongs together, and aligns it in time.

The best training data for the vocoder of a TTS are mels that this TTS predicts with the real durations ("teacher
forcing"): they match the recording frame for frame, but are smoother. Tools disagree by a few frames about where a mel
begins, and lists of files have errors; a vocoder trained on misaligned or wrong pairs would learn to blur.
"""

from dataclasses import dataclass

import numpy as np

from wavegen.errors import DataError

MAX_LENGTH_DIFFERENCE = 8
"""Largest difference between the two lengths, in frames."""
MAX_SHIFT = 8
"""Largest shift that is searched, in frames; a true shift must be smaller."""
MIN_CORRELATION = 0.5
"""Smallest correlation of a pair that shows one utterance. On 48 clips of two speakers, a clip and itself blurred over
five frames, with noise, correlate by 0.88 or more; any two clips by at most 0.45 (median 0.09)."""


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
        predicted: a log mel ``[n_mels, frames]``.
        natural: the mel of the recording, by the same definition.

    Raises:
        DataError: the lengths differ by more than ``MAX_LENGTH_DIFFERENCE``, the correlation is below
            ``MIN_CORRELATION`` at every shift, or it is highest at a shift of ``MAX_SHIFT``, so that the true shift may
            be larger.
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
    return best


def _overlap(predicted: np.ndarray, natural: np.ndarray, shift: int) -> Alignment | None:
    """The alignment at one shift; None if fewer than two frames overlap."""
    first = max(0, -shift)
    frames = min(predicted.shape[1] - shift, natural.shape[1]) - first
    if frames < 2:
        return None
    # The mean of each bin depends on the voice and the microphone; what remains without it depends on the words.
    a, b = (
        mel - mel.mean(axis=1, keepdims=True)
        for mel in (predicted[:, first + shift : first + shift + frames], natural[:, first : first + frames])
    )
    energy = np.sqrt((a * a).sum() * (b * b).sum())
    return Alignment(first, frames, shift, float((a * b).sum() / energy) if energy > 0 else 0.0)
