"""The pointwise rest of a separable residual block, as compiled code. Arrays have a row per frame."""

from typing import Any

import numpy as np
from numba import njit

from wavegen.engines.spectral.spectra import QUICK


@njit(fastmath=QUICK)
def convolve_and_normalise(
    x: Any, first: int, taps: Any, bias: Any, dilation: int, weight: Any, shift: Any, eps: Any, result: Any
) -> None:
    """Depthwise dilated convolution, then LayerNorm over the channels of each row.

    Args:
        x: the input with its context on both sides, ``[rows, channels]``.
        first: the first row that the first result reads.
        taps: ``[taps, channels]``.
        bias: ``[channels]``.
        dilation: rows between taps.
        weight, shift, eps: the norm's parameters.
        result: ``[frames, channels]``.
    """
    channels = result.shape[1]
    for t in range(len(result)):
        row = result[t]
        for c in range(channels):
            row[c] = bias[c]
        for k in range(len(taps)):
            tap, read = taps[k], x[first + t + k * dilation]
            for c in range(channels):
                row[c] += tap[c] * read[c]
        total = np.float32(0)
        for c in range(channels):
            total += row[c]
        mean = total / np.float32(channels)
        squares = np.float32(0)
        for c in range(channels):
            squares += (row[c] - mean) * (row[c] - mean)
        factor = np.float32(1) / np.sqrt(squares / np.float32(channels) + eps)
        for c in range(channels):
            row[c] = (row[c] - mean) * factor * weight[c] + shift[c]
