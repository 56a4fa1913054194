"""Linear prediction from autocorrelations, as compiled code; what ``LinearPrediction`` does after its product."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from wavegen.source import _kernels

_interpolate_frames = njit(_kernels.interpolate_frames)
_levinson = njit(fastmath={"reassoc", "contract"})(_kernels.levinson)


class Prediction(NamedTuple):
    """What does not change from frame to frame.

    Attributes:
        positions: float64, distances of the sub-frames' centres from that of the frame's window, in frames.
        lag_window: float64 ``[order + 1]``.
        noise_floor: power of white noise that is added, relative to the frame's own.
        splitter: see ``linear_prediction.rounded``.
        window_energy: sum of the squares of a frame's window.
        least_floor, least_error: limits of the powers of the noise and of the prediction error.
        smallest_scale: limit of the scale.
    """

    positions: np.ndarray
    lag_window: np.ndarray
    noise_floor: float
    splitter: float
    window_energy: float
    least_floor: float
    least_error: float
    smallest_scale: float


@njit
def predict(
    prediction: Prediction,
    r: Any,
    at_sub_frames: Any,
    solved: Any,
    error: Any,
    first: int,
    coefficients: Any,
    scale: Any,
) -> None:
    """The predictors of some sub-frames of a batch.

    Args:
        prediction: the constants.
        r: autocorrelations of frames, float64 ``[batch, order + 1, frames]``; rounded in place.
        at_sub_frames, solved, error: room, float64 ``[batch, order + 1, sub-frames]``, ``[batch, order, sub-frames]``
            and ``[batch, sub-frames]``.
        first: the first sub-frame that is wanted.
        coefficients: float32 ``[batch, wanted, 2 * LARGEST_ORDER]``, zeros beyond the order; the result.
        scale: float32 ``[batch, wanted]``; the result.
    """
    batch, lags, frames = r.shape
    for item in range(batch):
        for lag in range(lags):
            for k in range(frames):
                shifted = r[item, lag, k] * prediction.splitter
                r[item, lag, k] = shifted - (shifted - r[item, lag, k])
    _interpolate_frames(r, prediction.positions, at_sub_frames)
    for item in range(batch):
        for s in range(at_sub_frames.shape[2]):
            for lag in range(lags):
                at_sub_frames[item, lag, s] *= prediction.lag_window[lag]
            power = at_sub_frames[item, 0, s]
            at_sub_frames[item, 0, s] = power + (power * prediction.noise_floor + prediction.least_floor)
    _levinson(at_sub_frames, solved, error)
    for item in range(batch):
        for i in range(scale.shape[1]):
            for k in range(lags - 1):
                coefficients[item, i, k] = solved[item, k, first + i]
            of_error = np.sqrt(max(error[item, first + i], prediction.least_error) / prediction.window_energy)
            scale[item, i] = max(of_error, prediction.smallest_scale)
