"""Products with a mel filterbank, as compiled code: a filter reads few bins, and a bin is read by few filters.

``LANES`` frames run side by side, one in each lane of a vector. A *group* holds them as a flat float32 array in which
element ``k * LANES + i`` is bin, or filter, ``k`` of frame ``i``. Each sum is added up in the same order wherever a
frame lies, so results do not depend on chunks.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from torch import Tensor

from wavegen.engines.simd import LANES, largest_of, load, splat, store

_SMALLEST = np.float32(1e-12)  # as in ``FilterBlocks.gain``
_ZERO, _ONE = np.float32(0), np.float32(1)


class Rows(NamedTuple):
    """The rows of a matrix from the first to the last value that is not 0.

    Attributes:
        values: the values of all rows, one row after another, float32.
        starts: element of ``values`` at which each row begins, int64.
        first, end: the columns of each row, int64; equal for a row of zeros.
    """

    values: np.ndarray
    starts: np.ndarray
    first: np.ndarray
    end: np.ndarray

    @classmethod
    def pack(cls, matrix: Tensor) -> "Rows":
        """Pack a matrix ``[rows, columns]``."""
        values, columns = [], []
        for row in matrix.float().numpy():
            used = row.nonzero()[0]
            columns.append((used[0], used[-1] + 1) if len(used) else (0, 0))
            values.append(row[slice(*columns[-1])])
        first, end = np.array(columns, dtype=np.int64).T.copy()
        starts = np.concatenate(([0], np.cumsum(end - first)[:-1]))
        return cls(np.concatenate(values), starts, first, end)


class Bands(NamedTuple):
    """A filterbank.

    Attributes:
        filters: the bins that each filter reads.
        weights: the filters that read each bin, with the share of each; see ``FilterBlocks.weights``.
    """

    filters: Rows
    weights: Rows


@njit(forceinline=True)
def weighted(rows: Rows, row: int, group: Any) -> Any:
    """The sum of the values of a row, each times the vector of its column, as a vector."""
    at, first, end = rows.starts[row], rows.first[row], rows.end[row]
    even, odd = splat(_ZERO), splat(_ZERO)  # two sums, because each addition waits for the one before
    for k in range(0, end - first - 1, 2):
        even = even + splat(rows.values[at + k]) * load(group, (first + k) * LANES)
        odd = odd + splat(rows.values[at + k + 1]) * load(group, (first + k + 1) * LANES)
    if (end - first) % 2:
        even = even + splat(rows.values[at + end - first - 1]) * load(group, (end - 1) * LANES)
    return even + odd


class Room(NamedTuple):
    """Groups without content between calls: compiled code that makes no arrays need not count references to any.

    Attributes:
        own, magnitude: values of bins.
        given, ratio: values of filters.
    """

    own: np.ndarray
    magnitude: np.ndarray
    given: np.ndarray
    ratio: np.ndarray

    @classmethod
    def make(cls, bands: Bands) -> "Room":
        """Room for the groups of a filterbank."""
        bins, mels = len(bands.weights.first) * LANES, len(bands.filters.first) * LANES
        return cls(*(np.empty(size, dtype=np.float32) for size in (bins, bins, mels, mels)))


@njit
def ratios(bands: Bands, magnitude: Any, linear: Any, ratio: Any) -> None:
    """``ratio = linear / (filters @ magnitude)``, all of them groups."""
    for j in range(len(bands.filters.first)):
        read = largest_of(weighted(bands.filters, j, magnitude), splat(_SMALLEST))
        store(ratio, j * LANES, load(linear, j * LANES) / read)


@njit
def update(bands: Bands, magnitude: Any, linear: Any, ratio: Any, updates: int) -> None:
    """Multiplicative updates of the group ``magnitude``, as ``FilterBlocks.update``; ``ratio`` is room for a group."""
    for _ in range(updates):
        ratios(bands, magnitude, linear, ratio)
        for k in range(len(bands.weights.first)):
            if bands.weights.end[k] > bands.weights.first[k]:
                gain = weighted(bands.weights, k, ratio)
                store(magnitude, k * LANES, load(magnitude, k * LANES) * gain)


@njit
def gather(channels: Any, frame: int, group: Any) -> None:
    """Copy the ``LANES`` frames from ``frame`` on of ``channels`` ``[channels, frames]``; 1 beyond the last one."""
    real = min(LANES, channels.shape[1] - frame)
    for j in range(channels.shape[0]):
        for i in range(real):
            group[j * LANES + i] = channels[j, frame + i]
        for i in range(real, LANES):
            group[j * LANES + i] = _ONE


@njit
def invert(bands: Bands, room: Room, linear: Any, updates: int, magnitude: Any) -> None:
    """Find magnitudes that have the given mels, as ``MelInverse``.

    Args:
        bands: the filterbank.
        room: room for groups.
        linear: the product of the filters with the magnitude to find, float32 ``[n_mels, frames]``.
        updates: number of updates.
        magnitude: the result, float32 ``[frames, bins]``.
    """
    frames, bins = magnitude.shape
    for frame in range(0, frames, LANES):
        gather(linear, frame, room.given)
        for k in range(bins):
            read = bands.weights.end[k] > bands.weights.first[k]
            store(room.magnitude, k * LANES, splat(_ONE if read else _ZERO))
        update(bands, room.magnitude, room.given, room.ratio, updates)
        for i in range(min(LANES, frames - frame)):
            for k in range(bins):
                magnitude[frame + i, k] = room.magnitude[k * LANES + i]
