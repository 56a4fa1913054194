"""Framing, overlap-add and the arithmetic of spectra, as compiled code. Arrays have a row per frame.

A complex spectrum is float32 ``[frames, 2 * bins]``, real and imaginary part in turn. A *signal* is padded: frame ``t``
begins at its sample ``t * hop``.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from wavegen.engines.simd import LANES, load, store
from wavegen.engines.spectral.bands import Bands, Room, gather, ratios, update, weighted

# Vectorised sums are added up in another order, and a multiplication and an addition may become one instruction.
QUICK = {"contract", "reassoc", "nsz", "arcp"}


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
    """What a network says of the spectra of a tile, float32; without rows for no correction.

    Attributes:
        gains: factors of both sources and of the magnitude, ``[rows, 3 * bins]``.
        cosine, sine: cosine and sine of the phase to add, ``[rows, bins]``.
        largest: the largest magnitude.
    """

    gains: np.ndarray
    cosine: np.ndarray
    sine: np.ndarray
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
        correction: what a network says of the tile.
        linear: product of the filters with the magnitude to impose, ``[n_mels, frames]``.
        updates: number of updates.
        smallest_power: added to the power of every bin.
        spectrum: the results of all frames, of which those of the tile are written.
        target: likewise, of the magnitude.
    """
    mels, bins = len(linear), spectrum.shape[1] // 2
    own, magnitude, given, ratio = room
    corrected = len(correction.gains) > 0
    rows = sources.shape[1]
    for row in range(0, rows, LANES):
        real = min(LANES, rows - row)
        if real < LANES:
            for k in range(len(own)):
                own[k] = 1
        for i in range(real):
            mixture, source = spectrum[first + row + i], sources[0, row + i]
            if corrected:
                gains, other = correction.gains[row + i], sources[1, row + i]
                for k in range(bins):
                    mixture[2 * k] = gains[k] * source[2 * k] + gains[bins + k] * other[2 * k]
                    mixture[2 * k + 1] = gains[k] * source[2 * k + 1] + gains[bins + k] * other[2 * k + 1]
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
                gains, cosine, sine = correction.gains[row + i], correction.cosine[row + i], correction.sine[row + i]
                for k in range(bins):
                    gain = gains[2 * bins + k]
                    x, y = gain * result[2 * k], gain * result[2 * k + 1]
                    result[2 * k] = x * cosine[k] - y * sine[k]
                    result[2 * k + 1] = x * sine[k] + y * cosine[k]
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
        target: what the magnitudes keep.
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
            else:  # there may be no previous ones, so even 0 times them may be NaN
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
