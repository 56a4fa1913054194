"""The all-pole filter as compiled code: a sample depends on the one before, which no library call can hurry."""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def all_pole(samples: np.ndarray, coefficients: np.ndarray, order: int) -> None:
    """Filter an excitation in place: ``x[t] += Σ a[k] x[t-k]``.

    Args:
        samples: ``[rows, order + samples]``: the samples before, then the excitation, which becomes the output.
        coefficients: ``[rows, sub-frames, order]``, the last one of each predictor first.
        order: number of coefficients; the sub-frames divide the samples evenly.
    """
    rows, sub_frames, _ = coefficients.shape
    length = (samples.shape[1] - order) // sub_frames
    for row in range(rows):
        x = samples[row]
        for sub_frame in range(sub_frames):
            a = coefficients[row, sub_frame]
            for t in range(sub_frame * length, (sub_frame + 1) * length):
                predicted = x[t] * a[0]
                for k in range(1, order):
                    predicted += x[t + k] * a[k]
                x[t + order] += predicted
