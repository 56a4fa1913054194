"""Packed matrices in one array, in the order in which a loop reads them.

A packed matrix is a sequence of *panels* of 8, 4 or 2 vectors of outputs, the widest first::

    inputs 0, 1, 2 …    each: the weights of the panel's outputs, side by side

so that the inner loop of a matrix product reads memory in order. In int16, each output has a scale. The scales, in
float32, precede the panels, and vectors lie in pairs, lane by lane. In int8 (see the module ``int8``), each vector of
outputs has its scales and then the numbers that its sums start from; in a panel, four inputs of an output lie side by
side.
"""

import contextlib
import mmap
from typing import Literal

import numpy as np

Precision = Literal["float32", "int16", "int8"]
_HIGH_HALF = 1 << 16  # the unit of the high half of a 32-bit word
_MAX_WEIGHT = 32766  # one less than an int16 can hold, because the high half of a pair may be rounded up
CODES = 127
"""The largest int8 code of a weight, and the codes above and below zero that a vector has in the int8 loop."""
ZERO_CODE = 128
"""The code of zero in a vector with negative elements."""
POSITIVE_CODES = 255
"""The largest code in a vector without negative elements, where zero has the code 0."""
GROUP = 4
"""Inputs whose products with int8 weights are added up by one instruction."""
STEP_BYTES = 4  # of the float32 behind the codes of a vector
_HUGE_PAGE = 2 << 20


class Arena:
    """One array for all matrices, in the order in which they are added."""

    def __init__(self, precision: Precision, lanes: int) -> None:
        self.dtype = np.dtype(precision)
        self.lanes = lanes
        self.parts: list[np.ndarray] = []
        self.size = 0

    def add(self, weights: np.ndarray, *, after_relu: bool = False) -> int:
        """Append a padded matrix ``[out, in]``, and return the element at which it begins.

        Args:
            weights: the matrix.
            after_relu: whether the vectors that it multiplies have no negative elements.
        """
        at = self.size
        if self.dtype == np.int16:
            weights, scales = _scaled(weights, _MAX_WEIGHT)
            self._append((scales / _HIGH_HALF).astype(np.float32).view(np.int16))
        elif self.dtype == np.int8:
            weights, scales = _scaled(weights, CODES)
            weights = np.rint(weights)
            starts = -(0 if after_relu else ZERO_CODE) * weights.sum(axis=1)
            head = scales.astype(np.float32).view(np.int32), starts.astype(np.int32)
            self._append(np.stack([part.reshape(-1, self.lanes) for part in head], axis=1).reshape(-1).view(np.int8))
        arrange = {"int16": self._interleaved, "int8": self._grouped}.get(self.dtype.name, np.transpose)
        done = 0
        vectors = len(weights) // self.lanes
        while vectors:
            panel = next(size for size in (8, 4, 2) if size <= vectors)
            rows = weights[done : done + panel * self.lanes]
            self._append(arrange(rows).astype(self.dtype).reshape(-1))
            done += panel * self.lanes
            vectors -= panel
        return at

    def _grouped(self, rows: np.ndarray) -> np.ndarray:
        """Put the inputs of a panel ``[out, in]`` in groups: ``[in / GROUP, out, GROUP]``."""
        return rows.reshape(len(rows), -1, GROUP).swapaxes(0, 1)

    def _interleaved(self, rows: np.ndarray) -> np.ndarray:
        """Round a panel ``[out, in]`` to int16 and pair its vectors: ``[in, vectors / 2, lanes, 2]``.

        A pair is the low and high half of a 32-bit word. The loop uses the whole word in place of the high half, which
        is too large by the low half (as an unsigned number). So the high half is stored that much smaller.
        """
        low, high = np.moveaxis(rows.T.reshape(rows.shape[1], -1, 2, self.lanes), 2, 0)
        low = np.rint(low).astype(np.int64)
        high = np.rint(high - low % _HIGH_HALF / _HIGH_HALF)
        return np.stack((low, high), axis=-1)

    def _append(self, part: np.ndarray) -> None:
        self.parts.append(part)
        self.size += part.size

    def finished(self) -> np.ndarray:
        """Return the array, in huge pages where the kernel has them: its addresses are then translated faster."""
        room = mmap.mmap(-1, self.size * self.dtype.itemsize + _HUGE_PAGE)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # the kernel has none
                room.madvise(mmap.MADV_HUGEPAGE)
        start = -np.frombuffer(room, np.uint8).ctypes.data % _HUGE_PAGE
        array = np.frombuffer(room, self.dtype, self.size, start)
        array[:] = np.concatenate(self.parts) if self.parts else []
        return array


def _scaled(weights: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale each row of ``[out, in]`` to ``-largest … largest``; return the result and the factors that undo it."""
    bounds = np.abs(weights).max(axis=1)
    scales = np.where(bounds > 0, bounds, 1) / largest
    return weights / scales[:, None], scales
