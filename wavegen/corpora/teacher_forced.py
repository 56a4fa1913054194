"""Mels that a TTS predicted for recordings: whether they belong together, and how they lie in time.

A vocoder that is to speak for a TTS trains best on what that TTS predicts when it is fed the real durations
("teacher forcing"): as long as the recording, frame for frame, but smoother. Tools disagree by a frame or a few in
where they begin, and lists of files go wrong; both would teach the vocoder a blur.
"""

from dataclasses import dataclass

import numpy as np

from wavegen.errors import DataError

TOLERANCE_FRAMES = 8
"""By how many frames the two may differ in length."""
MOST_SHIFT = 8
"""Frames by which one may lag behind the other."""
LEAST_CORRELATION = 0.5
"""Of a pair taken for one utterance. On 48 clips of two speakers: 0.88 or more between a clip and itself blurred
over five frames, with noise; at most 0.45 (0.09 in the median) between any two of them."""


@dataclass(frozen=True)
class Alignment:
    """Where a recording's own mel and a predicted one show the same.

    Attributes:
        first: frame of the recording's own mel from which on both are there.
        frames: how many there are in both.
        shift: frames by which the predicted mel lags behind: its frame ``first + shift`` is the recording's ``first``.
        correlation: of the two over those frames, at most 1.
    """

    first: int
    frames: int
    shift: int
    correlation: float


def align(predicted: np.ndarray, natural: np.ndarray) -> Alignment:
    """Find the frame shift between a predicted mel and a recording's own, and whether they are one utterance.

    Args:
        predicted: log mel ``[n_mels, frames]``.
        natural: the mel of the recording, to the same definition.

    Raises:
        DataError: the lengths differ by more than :data:`TOLERANCE_FRAMES`; or at no shift up to :data:`MOST_SHIFT` do
            the two correlate by :data:`LEAST_CORRELATION`, or best at the very end of that range.
    """
    given, wanted = predicted.shape[1], natural.shape[1]
    if abs(given - wanted) > TOLERANCE_FRAMES:
        raise DataError(
            f"the mel has {given} frames and the recording {wanted}",
            remedy=f"pair it with its own recording; up to {TOLERANCE_FRAMES} frames of difference are taken",
        )
    found = [_overlap(predicted, natural, shift) for shift in range(-MOST_SHIFT, MOST_SHIFT + 1)]
    possible = [alignment for alignment in found if alignment is not None]
    # Of two that are as good, the smaller shift.
    best = max(possible, key=lambda a: (round(a.correlation, 6), -abs(a.shift)), default=None)
    if best is None or best.correlation < LEAST_CORRELATION:
        reached = "nothing in common" if best is None else f"a correlation of {best.correlation:.2f}"
        raise DataError(
            f"the mel is not that of the recording ({reached}; {LEAST_CORRELATION} is the least)",
            remedy="pair it with its own recording",
        )
    if abs(best.shift) == MOST_SHIFT:
        raise DataError(
            f"the mel lies {MOST_SHIFT} frames or more beside the recording",
            remedy="cut both at the same place: up to 7 frames are found and set right",
        )
    return best


def _overlap(predicted: np.ndarray, natural: np.ndarray, shift: int) -> Alignment | None:
    first = max(0, -shift)
    frames = min(predicted.shape[1] - shift, natural.shape[1]) - first
    if frames < 2:
        return None
    # Without each bin's mean, which is the voice and the microphone, what is left is what is said.
    a, b = (
        mel - mel.mean(axis=1, keepdims=True)
        for mel in (predicted[:, first + shift : first + shift + frames], natural[:, first : first + frames])
    )
    energy = np.sqrt((a * a).sum() * (b * b).sum())
    return Alignment(first, frames, shift, float((a * b).sum() / energy) if energy > 0 else 0.0)
