"""Products of packed matrices with vectors, made of tiles. ``arena`` describes how a matrix lies in memory."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import overload

from wavegen.engines.packed.arena import GROUP, STEP_BYTES
from wavegen.engines.packed.int8 import (
    dot_1x2,
    dot_1x4,
    dot_1x8,
    dot_2x2,
    dot_4x2,
    dot_8x2,
    encode,
    encode_positive,
)
from wavegen.engines.simd import (
    LANES,
    LOCK_STEP,
    REGISTERS,
    Panel,
    Vectors,
    half_items_tile,
    items_tile,
    largest_of,
    listed_tile_2,
    listed_tile_4,
    listed_tile_8,
    load,
    quarter_items_tile,
    splat,
    store,
    tile_1x2,
    tile_1x4,
    tile_1x8,
    tile_2x2,
    tile_4x2,
    tile_8x2,
)

_ZERO = np.float32(0)


class Matrix(NamedTuple):
    """A packed matrix of ``outputs`` x ``inputs``, both multiples of ``2 * LANES``.

    Attributes:
        weights: the array of all matrices, float32, int16 or int8; with int8, the vectors that it multiplies are coded.
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
def _multiply_add_listed(out: Vectors, matrix: Matrix, x: Vectors, listed: Any, count: int) -> None:
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
def _multiply_add_steps(out: Vectors, matrix: Matrix, x: Vectors, steps: int) -> None:
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
def _multiply_add_items(out: Vectors, matrix: Matrix, x: Vectors, one_set: bool) -> None:
    """``out[i] += matrix · x[i]`` for ``LOCK_STEP`` items, with the additions in the order that one item has.

    Each weight is read once for as many items as have room for their sums in registers. ``multiply_add`` has several
    sets of sums for a narrow panel; so has this function, with room for fewer items at a time. With ``one_set`` the
    order is that of ``_multiply_add_listed``.
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


@njit
def _multiply_add_coded(out: Vectors, matrix: Matrix, x: Vectors, count: int) -> None:
    """``out[i] += matrix · x[i]`` for 1, 2, 4 or 8 coded vectors and an int8 matrix.

    The sums are integers, so their order does not matter.
    """
    groups, outputs = matrix.inputs // GROUP, matrix.outputs
    first = matrix.first + 8 * outputs  # a float32 and an int32 of each output precede the panels
    done = 0
    while done < outputs:
        vectors = min(8, (outputs - done) // LANES)
        width = 8 if vectors >= 8 else 4 if vectors >= 4 else 2
        stride = GROUP * width * LANES
        if count == 1:
            part, panel = _shifted(out, done), Panel(matrix.weights, first, stride, matrix.first + 8 * done)
            if width == 8:
                dot_1x8(part, panel, x, groups)
            elif width == 4:
                dot_1x4(part, panel, x, groups)
            else:
                dot_1x2(part, panel, x, groups)
        else:
            for pair in range(0, width * LANES, 2 * LANES):
                part = _shifted(out, done + pair)
                panel = Panel(matrix.weights, first + GROUP * pair, stride, matrix.first + 8 * (done + pair))
                if count == 8 and REGISTERS >= 32:
                    dot_8x2(part, panel, x, groups)
                elif count >= 4:
                    for i in range(0, count, 4):
                        dot_4x2(_shifted(part, i * out.stride), panel, _shifted(x, i * x.stride), groups)
                else:
                    dot_2x2(part, panel, x, groups)
        first += groups * stride
        done += width * LANES


@njit(forceinline=True)
def _list_positive(values: Any, active: Any) -> int:
    """List the indices of positive values, the only ones that pass a ReLU; return their number."""
    count = 0
    for i in range(len(values)):
        active[count] = i  # overwritten unless it counts, which is cheaper than an unpredictable branch
        count += values[i] > _ZERO
    return count


# ---- the function for each precision, which numba chooses by the type of the arrays ---------------------------------


def multiply_add_items(out: Vectors, matrix: Matrix, x: Vectors, items: int) -> None:
    """``out[i] += matrix · x[i]`` for one vector or for ``LOCK_STEP`` of them."""
    raise NotImplementedError("numba compiles an overload")


def multiply_add_steps(out: Vectors, matrix: Matrix, x: Vectors, steps: int) -> None:
    """``out[s] += matrix · x[s]`` for 1, 2, 4 or 8 vectors."""
    raise NotImplementedError("numba compiles an overload")


def multiply_add_positive(out: Vectors, matrix: Matrix, x: Vectors, active: Any, codes: Any, items: int) -> None:
    """``out[i] += matrix · ReLU(x[i])`` for one vector or for ``LOCK_STEP`` of them; may change ``x``.

    Args:
        out: the sums.
        matrix: the matrix.
        x: vectors of float32.
        active: an int32 array with room for the indices of a vector.
        codes: a uint8 array with room for the coded vectors, if the matrix is int8.
        items: number of vectors.
    """
    raise NotImplementedError("numba compiles an overload")


def write_operand(operand: Any, at: int, x: Any, first: int, size: int) -> None:
    """Convert the float32 elements ``first`` to ``first + size`` of ``x`` to what products read: in int8, codes.

    In other precisions products read ``x`` itself, so ``operand`` is the same array and nothing is written.
    """
    raise NotImplementedError("numba compiles an overload")


def _is_coded(matrix: types.NamedTuple) -> bool:
    return matrix.types[0].dtype == types.int8


@overload(multiply_add_items)
def _choose_items(out: Any, matrix: Any, x: Any, items: Any) -> Any:
    def of_floats(out: Any, matrix: Any, x: Any, items: Any) -> None:
        if items == 1:
            multiply_add(out, matrix, x)
        else:
            _multiply_add_items(out, matrix, x, False)

    def of_codes(out: Any, matrix: Any, x: Any, items: Any) -> None:
        _multiply_add_coded(out, matrix, x, items)

    return of_codes if _is_coded(matrix) else of_floats


@overload(multiply_add_steps)
def _choose_steps(out: Any, matrix: Any, x: Any, steps: Any) -> Any:
    def of_floats(out: Any, matrix: Any, x: Any, steps: Any) -> None:
        _multiply_add_steps(out, matrix, x, steps)

    def of_codes(out: Any, matrix: Any, x: Any, steps: Any) -> None:
        _multiply_add_coded(out, matrix, x, steps)

    return of_codes if _is_coded(matrix) else of_floats


@overload(multiply_add_positive)
def _choose_positive(out: Any, matrix: Any, x: Any, active: Any, codes: Any, items: Any) -> Any:
    def of_floats(out: Any, matrix: Any, x: Any, active: Any, codes: Any, items: Any) -> None:
        if items == 1:
            _multiply_add_listed(out, matrix, x, active, _list_positive(x.values, active))
            return
        # The items are zero in different places, so together they need nearly every column.
        for i in range(0, len(x.values), LANES):
            store(x.values, i, largest_of(load(x.values, i), splat(_ZERO)))
        _multiply_add_items(out, matrix, x, True)

    def of_codes(out: Any, matrix: Any, x: Any, active: Any, codes: Any, items: Any) -> None:
        # Four products in one instruction are faster than leaving out those that are zero.
        stride = matrix.inputs + STEP_BYTES
        for i in range(items):
            encode_positive(codes, i * stride, x.values, x.first + i * x.stride, matrix.inputs)
        _multiply_add_coded(out, matrix, Vectors(codes, 0, stride), items)

    return of_codes if _is_coded(matrix) else of_floats


@overload(write_operand)
def _choose_operand(operand: Any, at: Any, x: Any, first: Any, size: Any) -> Any:
    def of_floats(operand: Any, at: Any, x: Any, first: Any, size: Any) -> None:
        pass

    def of_codes(operand: Any, at: Any, x: Any, first: Any, size: Any) -> None:
        encode(operand, at, x, first, size)

    return of_codes if operand.dtype == types.uint8 else of_floats
