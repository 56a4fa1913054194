"""Products of packed matrices with vectors, made of tiles. ``packing`` describes how a matrix lies in memory."""

from typing import Any, NamedTuple

from numba import njit

from wavegen.engines.autoregressive.simd import (
    LANES,
    LOCK_STEP,
    REGISTERS,
    Panel,
    Vectors,
    half_items_tile,
    items_tile,
    listed_tile_2,
    listed_tile_4,
    listed_tile_8,
    quarter_items_tile,
    tile_1x2,
    tile_1x4,
    tile_1x8,
    tile_2x2,
    tile_4x2,
    tile_8x2,
)


class Matrix(NamedTuple):
    """A packed matrix of ``outputs`` x ``inputs``, both multiples of ``2 * LANES``.

    Attributes:
        weights: the array of all matrices, float32 or int16.
        first: element at which the matrix begins.
        inputs: size of the vectors that it multiplies.
        outputs: size of the products.
    """

    weights: Any
    first: int
    inputs: int
    outputs: int


@njit(forceinline=True)
def _first_weight(matrix: Matrix) -> int:
    """The element after the scales, which only an int16 matrix has."""
    return matrix.first + (2 * matrix.outputs if matrix.weights.itemsize == 2 else 0)


@njit(forceinline=True)
def _panel(matrix: Matrix, first: int, stride: int, output: int) -> Panel:
    """The weights from element ``first`` on, which belong to the outputs from ``output`` on."""
    return Panel(matrix.weights, first, stride, matrix.first + 2 * output)


@njit(forceinline=True)
def _shifted(vectors: Vectors, elements: int) -> Vectors:
    """The same vectors without their first elements."""
    return Vectors(vectors.values, vectors.first + elements, vectors.stride)


@njit
def multiply_add(out: Vectors, matrix: Matrix, x: Vectors) -> None:
    """``out += matrix · x`` for one vector."""
    inputs, outputs = matrix.inputs, matrix.outputs
    first = _first_weight(matrix)
    done = 0
    while outputs - done >= 8 * LANES:
        tile_1x8(_shifted(out, done), _panel(matrix, first, 8 * LANES, done), x, inputs)
        first += inputs * 8 * LANES
        done += 8 * LANES
    if outputs - done >= 4 * LANES:
        tile_1x4(_shifted(out, done), _panel(matrix, first, 4 * LANES, done), x, inputs)
        first += inputs * 4 * LANES
        done += 4 * LANES
    if outputs - done >= 2 * LANES:
        tile_1x2(_shifted(out, done), _panel(matrix, first, 2 * LANES, done), x, inputs)


@njit
def multiply_add_listed(out: Vectors, matrix: Matrix, x: Vectors, listed: Any, count: int) -> None:
    """``out += matrix · x`` for one vector that is zero outside the first ``count`` elements that ``listed`` names."""
    inputs, outputs = matrix.inputs, matrix.outputs
    first = _first_weight(matrix)
    done = 0
    while outputs - done >= 8 * LANES:
        listed_tile_8(_shifted(out, done), _panel(matrix, first, 8 * LANES, done), x, listed, count)
        first += inputs * 8 * LANES
        done += 8 * LANES
    if outputs - done >= 4 * LANES:
        listed_tile_4(_shifted(out, done), _panel(matrix, first, 4 * LANES, done), x, listed, count)
        first += inputs * 4 * LANES
        done += 4 * LANES
    if outputs - done >= 2 * LANES:
        listed_tile_2(_shifted(out, done), _panel(matrix, first, 2 * LANES, done), x, listed, count)


@njit
def multiply_add_steps(out: Vectors, matrix: Matrix, x: Vectors, steps: int) -> None:
    """``out[s] += matrix · x[s]`` for 1, 2, 4 or 8 vectors.

    Each weight is read once for all steps. This makes a past tap several times cheaper than the present one.
    """
    inputs, outputs = matrix.inputs, matrix.outputs
    first = _first_weight(matrix)
    done = 0
    while done < outputs:
        vectors = min(8, (outputs - done) // LANES)
        stride = (8 if vectors >= 8 else 4 if vectors >= 4 else 2) * LANES
        for pair in range(0, stride, 2 * LANES):
            part = _shifted(out, done + pair)
            panel = _panel(matrix, first + pair, stride, done + pair)
            if steps == 8 and REGISTERS >= 32:
                tile_8x2(part, panel, x, inputs)
            elif steps >= 4:
                for s in range(0, steps, 4):
                    tile_4x2(_shifted(part, s * out.stride), panel, _shifted(x, s * x.stride), inputs)
            elif steps == 2:
                tile_2x2(part, panel, x, inputs)
            else:
                tile_1x2(part, panel, x, inputs)
        first += inputs * stride
        done += stride


@njit
def multiply_add_items(out: Vectors, matrix: Matrix, x: Vectors, one_set: bool) -> None:
    """``out[i] += matrix · x[i]`` for ``LOCK_STEP`` items, with the additions in the order that one item has.

    Each weight is read once for as many items as have room for their sums in registers. ``multiply_add`` has several
    sets of sums for a narrow panel; so has this function, with room for fewer items at a time. With ``one_set`` the
    order is that of ``multiply_add_listed``.
    """
    inputs, outputs = matrix.inputs, matrix.outputs
    first = _first_weight(matrix)
    done = 0
    while done < outputs:
        vectors = (outputs - done) // LANES
        width = 8 if vectors >= 8 else 4 if vectors >= 4 else 2
        stride = width * LANES
        for pair in range(0, stride, 2 * LANES):
            part = _shifted(out, done + pair)
            panel = _panel(matrix, first + pair, stride, done + pair)
            if width == 8 or one_set:
                items_tile(part, panel, x, inputs)
            elif width == 4:
                for i in range(0, LOCK_STEP, LOCK_STEP // 2):
                    half_items_tile(_shifted(part, i * out.stride), panel, _shifted(x, i * x.stride), inputs)
            else:
                for i in range(0, LOCK_STEP, LOCK_STEP // 4):
                    quarter_items_tile(_shifted(part, i * out.stride), panel, _shifted(x, i * x.stride), inputs)
        first += inputs * stride
        done += stride
