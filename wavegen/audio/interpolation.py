"""Interpolation by linear prediction from both sides of a hole (Janssen, Veldhuis & Vries 1986)."""

import numpy as np

ORDER = 320  # spans the period of a pitch of 75 Hz at 24 kHz
CONTEXT = 4096  # samples on both sides that the predictor is computed from
WHITENING = 1e-6  # share of the power that is added as white noise, so that the equations are well conditioned


def interpolate(
    samples: np.ndarray, hole: tuple[int, int], *, order: int = ORDER, context: int = CONTEXT, iterations: int = 2
) -> np.ndarray:
    """The samples of a hole that make the prediction error smallest, given those around it.

    The error of the predictor ``a`` is ``e = a * x``. The sum of its squares is smallest where the derivatives by the
    missing samples vanish::

        for every missing i:    sum over j of c[|i - j|] x[j] = 0,    c = autocorrelation of a

    The matrix of these equations is Toeplitz. The predictor itself is estimated from the sound, at first with zeros in
    the hole, then from the sound with the hole filled.

    Args:
        samples: float ``[samples]``; those in the hole are ignored.
        hole: the first missing sample, and the first after them that is not.
        order: order of the predictor; lower if there is little sound around the hole.
        context: samples on both sides that are used.
        iterations: the number of times that predictor and samples are computed.

    Returns:
        float64 ``[stop - start]``.
    """
    from scipy.linalg import solve_toeplitz  # a light install reads the inpainter, and has no scipy

    start, stop = hole
    first = max(0, start - context)
    x = samples[first : stop + context].astype(np.float64)
    missing, count = slice(start - first, stop - first), stop - start
    x[missing] = 0
    order = min(order, (len(x) - count) // 3)
    if order < 1 or not x.any():
        return np.zeros(count)
    for _ in range(iterations):
        error_filter = _error_filter(x, order)
        products = np.correlate(error_filter, error_filter, "full")[order:]
        # What the known samples within reach of the hole contribute to each equation.
        x[missing] = 0
        before = max(0, missing.start - order)
        beside = x[before : missing.stop + order]
        known = np.convolve(beside, np.concatenate((products[:0:-1], products)))[order:][missing.start - before :]
        x[missing] = solve_toeplitz(np.pad(products, (0, count))[:count], -known[:count])
    return x[missing]


def _error_filter(x: np.ndarray, order: int) -> np.ndarray:
    """The filter ``[order + 1]`` whose output is what linear prediction does not foresee, by autocorrelation."""
    from scipy.linalg import solve_toeplitz

    spectrum = np.fft.rfft(x * np.hanning(len(x)), 2 * len(x))
    autocorrelation = np.fft.irfft(np.abs(spectrum) ** 2)[: order + 1]
    if autocorrelation[0] < np.finfo(float).tiny:  # all that is heard lies where the window is zero
        return np.eye(1, order + 1)[0]
    autocorrelation[0] *= 1 + WHITENING
    coefficients = solve_toeplitz(autocorrelation[:-1], autocorrelation[1:])
    return np.concatenate(([1.0], -coefficients))
