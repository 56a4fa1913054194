"""Framing, overlap-add and the arithmetic of spectra, as compiled code. Arrays have a row per frame.

A complex spectrum is float32 ``[frames, 2 * bins]``, real and imaginary part in turn. A *signal* is padded: frame ``t``
begins at its sample ``t * hop``.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from wavegen.engines.simd import LANES, SHIFT, load, store
from wavegen.engines.spectral.bands import Bands, Room, gather, ratios, update, weighted

# Vectorised sums are added up in another order, and a multiplication and an addition may become one instruction.
QUICK = {"contract", "reassoc", "nsz", "arcp"}


# As constants of float32: numba would compute in float64 otherwise.
_LOG2_E, _LN_2_HIGH, _LN_2_LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
_EXP = tuple(np.float32(1 / math.factorial(n)) for n in range(7))
_ONE_OVER_PI, _HALF = np.float32(1 / math.pi), np.float32(0.5)
# π in three parts; the first two have few digits, so that their products with an integer are exact.
_PI_PARTS = np.float32(3.140625), np.float32(9.67502593994140625e-4), np.float32(1.509957990978376e-7)
_SIN = tuple(np.float32((-1) ** n / math.factorial(2 * n + 1)) for n in range(7))
_COS = tuple(np.float32((-1) ** n / math.factorial(2 * n)) for n in range(7))
_ONE, _TWO = np.float32(1), np.float32(2)


@njit(fastmath={"contract"})  # another order would undo the rounding
def bounded_exp(x: Any, limit: Any) -> Any:
    """e^x for ``x`` limited to ``-limit … limit``, at most 87: as ``simd.exp``, for loops that numba vectorises."""
    x = min(max(x, -limit), limit)
    shifted = x * _LOG2_E + SHIFT
    n = shifted - SHIFT
    f = x - n * _LN_2_HIGH - n * _LN_2_LOW
    p = _EXP[6] * f + _EXP[5]
    p = p * f + _EXP[4]
    p = p * f + _EXP[3]
    p = p * f + _EXP[2]
    p = p * f + _EXP[1]
    p = p * f + _EXP[0]
    return np.int32(np.float32(p).view(np.int32) + (np.float32(shifted).view(np.int32) << 23)).view(np.float32)


@njit(fastmath={"contract"})
def turn(x: Any) -> Any:
    """cos(x) and sin(x) for -10^4 < x < 10^4: Taylor series of what is left beyond the nearest multiple of π."""
    n = (x * _ONE_OVER_PI + SHIFT) - SHIFT
    r = x - n * _PI_PARTS[0] - n * _PI_PARTS[1] - n * _PI_PARTS[2]
    s = r * r
    sine, cosine = _SIN[6], _COS[6]
    for i in range(5, -1, -1):
        sine = sine * s + _SIN[i]
        cosine = cosine * s + _COS[i]
    odd = n - _TWO * ((n * _HALF + SHIFT) - SHIFT)  # 0, 1 or -1
    sign = _ONE - _TWO * odd * odd
    return sign * cosine, sign * sine * r


@njit(fastmath=QUICK)
def frame_signal(signal: Any, first: int, hop: int, window: Any, frames: Any) -> None:
    """The windowed frames of a signal from ``first`` on, into all rows of ``frames``."""
    for row in range(len(frames)):
        start = (first + row) * hop
        for i in range(len(window)):
            frames[row, i] = signal[start + i] * window[i]


@njit(fastmath=QUICK)
def overlap_add(frames: Any, first: int, hop: int, window: Any, scale: Any, end: int, signal: Any) -> None:
    """Add the windowed rows of ``frames``, which are the frames from ``first`` on, to a signal.

    The samples from the first frame to ``end``, to which no later frame adds, are then multiplied by ``scale``.
    """
    for row in range(len(frames)):
        start = (first + row) * hop
        for i in range(len(window)):
            signal[start + i] += frames[row, i] * window[i]
    for i in range(first * hop, end):
        signal[i] *= scale[i]


@njit(fastmath=QUICK)
def inverse_envelope(window: Any, hop: int, frames: int, kept: int, smallest: Any, scale: Any) -> None:
    """What overlapped frames are multiplied by: 1 over the sum of the squared windows, and 0 outside the result.

    Args:
        window: the window.
        hop: samples from frame to frame.
        frames: number of frames.
        kept: the first sample of the result, which has ``frames * hop`` samples.
        smallest: the smallest sum to divide by.
        scale: the factor of every sample of a padded signal.
    """
    for i in range(len(scale)):
        scale[i] = 0
    for frame in range(frames):
        for i in range(len(window)):
            scale[frame * hop + i] += window[i] * window[i]
    for i in range(len(scale)):
        inside = kept <= i < kept + frames * hop
        scale[i] = np.float32(1) / max(scale[i], smallest) if inside else np.float32(0)


class Target(NamedTuple):
    """What the iterations keep.

    Attributes:
        linear: product of the filters with the magnitude, float32 ``[n_mels, frames]``.
        unread: indices of the bins that no filter reads, int64.
        kept: their magnitudes, float32 ``[frames, len(unread)]``.
    """

    linear: np.ndarray
    unread: np.ndarray
    kept: np.ndarray


class Correction(NamedTuple):
    """What a network says of the spectra of a tile; without rows for no correction.

    Attributes:
        values: log-gains of both sources and of the magnitude, and the phase to add, float32 ``[rows, 4 * bins]``.
        largest_gain: limit of the log-gains in both directions.
        largest: the largest magnitude.
    """

    values: np.ndarray
    largest_gain: float
    largest: float


@njit(fastmath=QUICK)
def impose(
    bands: Bands,
    room: Room,
    first: int,
    sources: Any,
    correction: Correction,
    linear: Any,
    updates: int,
    smallest_power: Any,
    spectrum: Any,
    target: Target,
) -> None:
    """Mix the sources of a tile of frames, impose their mel, and correct the result.

    Args:
        bands: the filterbank.
        room: room for groups.
        first: index of the tile's first frame.
        sources: spectra of one or two sources, ``[sources, rows, 2 * bins]``.
        correction: a network's output for the tile.
        linear: product of the filters with the magnitude to impose, ``[n_mels, frames]``.
        updates: number of updates.
        smallest_power: added to the power of every bin.
        spectrum: the results of all frames, of which those of the tile are written.
        target: likewise, of the magnitude.
    """
    mels, bins = len(linear), spectrum.shape[1] // 2
    own, magnitude, given, ratio = room
    corrected, limit = len(correction.values) > 0, correction.largest_gain
    rows = sources.shape[1]
    for row in range(0, rows, LANES):
        real = min(LANES, rows - row)
        if real < LANES:
            for k in range(len(own)):
                own[k] = 1
        for i in range(real):
            mixture, source = spectrum[first + row + i], sources[0, row + i]
            if corrected:
                values, other = correction.values[row + i], sources[1, row + i]
                for k in range(bins):
                    gain, other_gain = bounded_exp(values[k], limit), bounded_exp(values[bins + k], limit)
                    mixture[2 * k] = gain * source[2 * k] + other_gain * other[2 * k]
                    mixture[2 * k + 1] = gain * source[2 * k + 1] + other_gain * other[2 * k + 1]
            else:
                for k in range(2 * bins):
                    mixture[k] = source[k]
            for k in range(bins):
                power = mixture[2 * k] * mixture[2 * k] + mixture[2 * k + 1] * mixture[2 * k + 1]
                own[k * LANES + i] = np.sqrt(power + smallest_power)
        for k in range(bins):
            store(magnitude, k * LANES, load(own, k * LANES))
        gather(linear, first + row, given)
        update(bands, magnitude, given, ratio, updates)

        for k in range(bins):
            store(own, k * LANES, load(magnitude, k * LANES) / load(own, k * LANES))
        for i in range(real):
            result = spectrum[first + row + i]
            for k in range(bins):
                result[2 * k] *= own[k * LANES + i]
                result[2 * k + 1] *= own[k * LANES + i]
            if corrected:
                values = correction.values[row + i]
                for k in range(bins):
                    gain = bounded_exp(values[2 * bins + k], limit)
                    cosine, sine = turn(values[3 * bins + k])
                    x, y = gain * result[2 * k], gain * result[2 * k + 1]
                    result[2 * k] = x * cosine - y * sine
                    result[2 * k + 1] = x * sine + y * cosine
                    magnitude[k * LANES + i] = min(magnitude[k * LANES + i] * gain, correction.largest)
            for u in range(len(target.unread)):
                target.kept[first + row + i, u] = magnitude[target.unread[u] * LANES + i]
        for j in range(mels):
            store(given, j * LANES, weighted(bands.filters, j, magnitude))
            for i in range(real):
                target.linear[j, first + row + i] = given[j * LANES + i]


@njit(fastmath=QUICK)
def project(
    bands: Bands,
    room: Room,
    first: int,
    consistent: Any,
    momentum: Any,
    smallest_power: Any,
    target: Target,
    previous: Any,
    spectrum: Any,
) -> None:
    """The end of an iteration for a tile of frames: step ahead, then give the magnitude what it is to keep.

    Args:
        bands: the filterbank.
        room: room for groups.
        first: index of the tile's first frame.
        consistent: the tile's spectra after the inverse transform and the transform.
        momentum: share of the previous ones that is subtracted; 0 if there are none.
        smallest_power: added to the power of every bin.
        target: the mel that the magnitudes keep.
        previous: ``consistent`` of all frames in the iteration before; that of the tile is replaced.
        spectrum: the results of all frames, of which those of the tile are written.
    """
    bins = spectrum.shape[1] // 2
    own, given, ratio = room.own, room.given, room.ratio
    for row in range(0, len(consistent), LANES):
        real = min(LANES, len(consistent) - row)
        if real < LANES:
            for k in range(len(own)):
                own[k] = 1
        for i in range(real):
            frame = first + row + i
            ahead, now, before = spectrum[frame], consistent[row + i], previous[frame]
            if momentum > 0:
                for k in range(2 * bins):
                    ahead[k] = now[k] - momentum * before[k]
                    before[k] = now[k]
            else:  # previous ones may not exist, so even 0 times them may be NaN
                for k in range(2 * bins):
                    ahead[k] = now[k]
                    before[k] = now[k]
            for k in range(bins):
                power = ahead[2 * k] * ahead[2 * k] + ahead[2 * k + 1] * ahead[2 * k + 1]
                own[k * LANES + i] = np.sqrt(power + smallest_power)
        gather(target.linear, first + row, given)
        ratios(bands, own, given, ratio)
        for k in range(bins):
            if bands.weights.end[k] > bands.weights.first[k]:
                store(own, k * LANES, weighted(bands.weights, k, ratio))
        for u in range(len(target.unread)):
            k = target.unread[u]
            for i in range(real):
                own[k * LANES + i] = target.kept[first + row + i, u] / own[k * LANES + i]
        for i in range(real):
            result = spectrum[first + row + i]
            for k in range(bins):
                result[2 * k] *= own[k * LANES + i]
                result[2 * k + 1] *= own[k * LANES + i]
