"""The all-pole filter as compiled code: a sample depends on the one before, which no library call can hurry."""

from collections.abc import Callable
from typing import Any

import numba


def all_pole(samples: Any, coefficients: Any, order: int) -> None:
    """Filter an excitation in place: ``x[t] += Σ a[k] x[t-k]``.

    The first call for a type of numbers compiles the loop or loads it from the cache on disk. If the cache cannot be
    used, because it cannot be written or is damaged, the loop is compiled without it.

    Args:
        samples: array ``[rows, order + samples]``: the samples before, then the excitation, which becomes the output.
        coefficients: array ``[rows, sub-frames, order]``, the last one of each predictor first.
        order: number of coefficients; the sub-frames divide the samples evenly.
    """
    loop = _loops.get(samples.dtype)
    if loop is None:
        try:
            loop = _compiled(cache=True)
            loop(samples[:0], coefficients[:0], order)  # filters nothing, so any error is the cache's
        except Exception:
            loop = _compiled(cache=False)
        _loops[samples.dtype] = loop
    loop(samples, coefficients, order)


def _compiled(*, cache: bool) -> Callable[..., None]:
    return numba.njit(cache=cache, nogil=True, fastmath={"reassoc", "contract"})(_all_pole)


_loops: dict[Any, Callable[..., None]] = {}


def _all_pole(samples: Any, coefficients: Any, order: Any) -> None:
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
