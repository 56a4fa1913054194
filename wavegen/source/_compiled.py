"""Linear prediction as compiled code: a sample, or a coefficient, depends on the one before.

The first call for a type of numbers compiles a function or loads it from the cache on disk. If the cache cannot be
used, because it cannot be written or is damaged, the function is compiled without it.
"""

from collections.abc import Callable
from typing import Any

import numba

_STEPS_AT_ONCE = 64  # of Levinson's recursion, side by side in vectors; those of order 32 fit the first-level cache


def all_pole(samples: Any, coefficients: Any, order: int) -> None:
    """Filter an excitation in place: ``x[t] += Σ a[k] x[t-k]``.

    Args:
        samples: array ``[rows, order + samples]``: the samples before, then the excitation, which becomes the output.
        coefficients: array ``[rows, sub-frames, order]``, the last one of each predictor first.
        order: number of coefficients; the sub-frames divide the samples evenly.
    """
    _ready(_all_pole, samples[:0], coefficients[:0], order)(samples, coefficients, order)


def levinson(autocorrelation: Any, coefficients: Any, error: Any) -> None:
    """Solve the normal equations; see ``wavegen.source.linear_prediction.levinson``.

    Args:
        autocorrelation: array ``[batch, order + 1, steps]``.
        coefficients: array ``[batch, order, steps]``, the result.
        error: array ``[batch, steps]``, the power of the prediction error, a result too.
    """
    _ready(_levinson, autocorrelation[:0], coefficients[:0], error[:0])(autocorrelation, coefficients, error)


def _ready(function: Callable[..., None], *nothing: Any) -> Callable[..., None]:
    """A function, compiled for arguments of the types of ``nothing``, which are empty arrays."""
    key = function, nothing[0].dtype
    if key not in _FUNCTIONS:
        try:
            ready = _compiled(function, cache=True)
            ready(*nothing)  # computes nothing, so any error is the cache's
        except Exception:
            ready = _compiled(function, cache=False)
        _FUNCTIONS[key] = ready
    return _FUNCTIONS[key]


def _compiled(function: Callable[..., None], *, cache: bool) -> Callable[..., None]:
    return numba.njit(cache=cache, nogil=True, fastmath={"reassoc", "contract"})(function)


_FUNCTIONS: dict[Any, Callable[..., None]] = {}


def _all_pole(samples: Any, coefficients: Any, order: Any) -> None:
    rows, sub_frames, _ = coefficients.shape
    length = (samples.shape[1] - order) // sub_frames
    for row in range(0, rows, 2):  # two rows at once: while one waits for its sum, the other goes on
        other = min(row + 1, rows - 1)
        x, y = samples[row], samples[other]
        for sub_frame in range(sub_frames):
            a, b = coefficients[row, sub_frame], coefficients[other, sub_frame]
            for t in range(sub_frame * length, (sub_frame + 1) * length):
                of_x = of_y = samples.dtype.type(0)
                for k in range(order):
                    of_x += x[t + k] * a[k]
                    of_y += y[t + k] * b[k]
                x[t + order] += of_x
                if other > row:
                    y[t + order] += of_y


def _levinson(r: Any, a: Any, error: Any) -> None:
    batch, order, steps = a.shape
    for item in range(batch):
        for first in range(0, steps, _STEPS_AT_ONCE):
            end = min(first + _STEPS_AT_ONCE, steps)
            e = error[item]
            for s in range(first, end):
                e[s] = r[item, 0, s]
            for i in range(order):
                reflection = a[item, i]  # the next coefficient is the reflection coefficient
                for s in range(first, end):
                    reflection[s] = r[item, i + 1, s]
                for j in range(i):
                    known, lag = a[item, j], r[item, i - j]
                    for s in range(first, end):
                        reflection[s] -= known[s] * lag[s]
                for s in range(first, end):
                    reflection[s] /= e[s]
                    e[s] *= 1 - reflection[s] * reflection[s]
                for j in range(i // 2):  # the predictor's own mirror image, two coefficients at a time
                    left, right = a[item, j], a[item, i - 1 - j]
                    for s in range(first, end):
                        x = left[s]
                        left[s] = x - reflection[s] * right[s]
                        right[s] -= reflection[s] * x
                if i % 2:
                    middle = a[item, i // 2]
                    for s in range(first, end):
                        middle[s] -= reflection[s] * middle[s]
