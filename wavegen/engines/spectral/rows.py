"""Separable residual blocks, and single layers, as compiled code. Arrays have a row per frame.

Rows are as wide as packed matrices want them: padded with zeros to whole ``WIDTH``.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from wavegen.engines.packed.arena import STEP_BYTES
from wavegen.engines.packed.products import Matrix, multiply_add_items, multiply_add_steps, write_operand
from wavegen.engines.simd import LANES, Vectors, exp, largest_of, load, smallest_of, splat, store
from wavegen.engines.spectral.spectra import QUICK

WIDTH = 2 * LANES
ROWS_AT_ONCE = 8  # rows that are computed together, so that weights are read once for all of them
_HALF, _ONE, _ZERO = np.float32(0.5), np.float32(1), np.float32(0)
_ROOT_HALF, _LARGEST_SQUARE = np.float32(0.5**0.5), np.float32(80)
# Of erf, with an error below 1.5e-7 (Abramowitz & Stegun, Handbook of Mathematical Functions, 7.1.26).
_ERF_STEP = np.float32(0.3275911)
_ERF = tuple(map(np.float32, (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)))


class Blocks(NamedTuple):
    """Blocks of equal shape, whose matrices lie in one array. All other arrays begin with an axis of blocks.

    Attributes:
        weights: the matrices, see ``packed.arena``.
        expand, project: the elements at which they begin, int64.
        expand_bias: ``[blocks, hidden]``.
        project_bias: ``[blocks, channels]``.
        taps: those of the depthwise convolution, ``[blocks, taps, channels]``.
        tap_bias, norm_weight, norm_shift: ``[blocks, channels]``.
        eps: the norm's epsilon.
        dilation, before: rows between taps, and rows that the convolution reads before a row, int64 ``[blocks]``.
    """

    weights: np.ndarray
    expand: np.ndarray
    project: np.ndarray
    expand_bias: np.ndarray
    project_bias: np.ndarray
    taps: np.ndarray
    tap_bias: np.ndarray
    norm_weight: np.ndarray
    norm_shift: np.ndarray
    eps: np.float32
    dilation: np.ndarray
    before: np.ndarray


class Operands(NamedTuple):
    """Vectors that a matrix multiplies: rows of float32, or in int8 room for the codes of a few of them.

    Attributes:
        floats: flat float32 array.
        operand: the same array, or one of uint8.
    """

    floats: np.ndarray
    operand: np.ndarray


@njit(fastmath=QUICK)
def convolve_and_normalise(
    x: Any, first: int, taps: Any, bias: Any, dilation: int, weight: Any, shift: Any, eps: Any, result: Any
) -> None:
    """Depthwise dilated convolution, then LayerNorm over the channels of each row.

    Args:
        x: the input with its context on both sides, ``[rows, width]``.
        first: the first row that the first result reads.
        taps: ``[taps, channels]``.
        bias: ``[channels]``.
        dilation: rows between taps.
        weight, shift, eps: the norm's parameters.
        result: ``[frames, width]``.
    """
    channels = len(bias)
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


@njit
def run_blocks(
    blocks: Blocks, rows: Any, flat: Any, left: int, history: Any, after: Any, normalised: Any, narrow: Operands,
    wide: Operands,
) -> None:  # fmt: skip
    """Run all blocks over rows, in place.

    Args:
        blocks: the blocks.
        rows: ``[left + frames + right, width]``, zeros behind the frames.
        flat: the same memory, flat.
        left: rows before the frames.
        history: the rows before the frames that each block reads, one block after another, ``[rows, channels]``.
        after: the history of the next frames, same shape.
        normalised: room, ``[frames, width]``.
        narrow: the same room, flat.
        wide: room for ``ROWS_AT_ONCE`` hidden rows.
    """
    frames, width, channels = len(normalised), rows.shape[1], history.shape[1]
    kept = 0
    for b in range(len(blocks.before)):
        first = left - blocks.before[b]
        for r in range(blocks.before[b]):
            for c in range(channels):
                rows[first + r, c] = history[kept + r, c]
        for r in range(blocks.before[b]):
            for c in range(channels):
                after[kept + r, c] = rows[first + frames + r, c]
        kept += blocks.before[b]
        convolve_and_normalise(
            rows, first, blocks.taps[b], blocks.tap_bias[b], blocks.dilation[b], blocks.norm_weight[b],
            blocks.norm_shift[b], blocks.eps, normalised,
        )  # fmt: skip
        expand = Matrix(blocks.weights, blocks.expand[b], width, blocks.expand_bias.shape[1])
        project = Matrix(blocks.weights, blocks.project[b], blocks.expand_bias.shape[1], width)
        done = 0
        while done < frames:
            count = _rows_at_once(frames - done)
            _set_rows(Vectors(wide.floats, 0, expand.outputs), blocks.expand_bias[b], count)
            multiply_add_rows(Vectors(wide.floats, 0, expand.outputs), expand, narrow, done, count)
            for i in range(0, count * expand.outputs, LANES):
                store(wide.floats, i, gelu(load(wide.floats, i)))
            current = Vectors(flat, (left + done) * width, width)
            _add_to_rows(current, blocks.project_bias[b], count)
            multiply_add_rows(current, project, wide, 0, count)
            done += count


@njit
def run_layer(matrix: Matrix, bias: Any, x: Operands, result: Any) -> None:
    """A linear layer: rows of ``x``, as wide as the matrix reads, to flat rows as wide as it writes."""
    frames, done = len(result) // matrix.outputs, 0
    while done < frames:
        count = _rows_at_once(frames - done)
        out = Vectors(result, done * matrix.outputs, matrix.outputs)
        _set_rows(out, bias, count)
        multiply_add_rows(out, matrix, x, done, count)
        done += count


@njit(forceinline=True)
def multiply_add_rows(out: Vectors, matrix: Matrix, x: Operands, first: int, count: int) -> None:
    """``out[i] += matrix · x[first + i]`` for 1, 2, 4 or 8 rows."""
    size = matrix.inputs
    if matrix.weights.itemsize == 1:
        stride, at = size + np.int64(STEP_BYTES), np.int64(0)
        for i in range(count):
            write_operand(x.operand, i * stride, x.floats, (first + i) * size, size)
    else:
        stride, at = size + np.int64(0), first * size
    vectors = Vectors(x.operand, at, stride)
    if count == 1:
        multiply_add_items(out, matrix, vectors, 1)
    else:
        multiply_add_steps(out, matrix, vectors, count)


@njit(forceinline=True)
def gelu(x: Any) -> Any:
    """``x · Φ(x)`` of a vector; its error is below 1e-7 · |x|, beside rounding."""
    size = largest_of(x, splat(_ZERO) - x)
    z = size * splat(_ROOT_HALF)
    t = splat(_ONE) / (splat(_ONE) + splat(_ERF_STEP) * z)
    p = splat(_ERF[0]) * t + splat(_ERF[1])
    p = p * t + splat(_ERF[2])
    p = p * t + splat(_ERF[3])
    p = p * t + splat(_ERF[4])
    beyond = p * t * exp(splat(_ZERO) - smallest_of(z * z, splat(_LARGEST_SQUARE)))  # 1 - erf(z)
    return largest_of(x, splat(_ZERO)) - splat(_HALF) * size * beyond


@njit(forceinline=True)
def _rows_at_once(left: int) -> int:
    return ROWS_AT_ONCE if left >= ROWS_AT_ONCE else 4 if left >= 4 else 2 if left >= 2 else 1


@njit(forceinline=True)
def _set_rows(rows: Vectors, values: Any, count: int) -> None:
    for i in range(count):
        for c in range(0, len(values), LANES):
            store(rows.values, rows.first + i * rows.stride + c, load(values, c))


@njit(forceinline=True)
def _add_to_rows(rows: Vectors, values: Any, count: int) -> None:
    for i in range(count):
        for c in range(0, len(values), LANES):
            at = rows.first + i * rows.stride + c
            store(rows.values, at, load(rows.values, at) + load(values, c))
