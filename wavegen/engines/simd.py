"""Vectors of float32 for numba: the operations that the sample loop is made of.

numba compiles Python to machine code through LLVM but has no vectors. This module adds a type for one register of
``LANES`` float32, with ``load``, ``store``, ``splat``, ``+ - * /`` and so on, and one larger operation: the *tile*, the
inner loop of every matrix product. LLVM is used in this module, in ``int8`` and in
``spectral.filters`` only.

Each operation is an "intrinsic": a function that takes numba's types and returns a function that emits code. Intrinsics
are module globals, because numba's cache on disk cannot restore a function that refers to them through a closure.
"""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic, models, overload, register_model


def _vector_unit(features: str) -> tuple[int, int]:
    """Return the float32 lanes of a register and the number of registers, given features like ``"+avx2,-sve"``."""
    has = {feature[1:] for feature in features.split(",") if feature.startswith("+")}
    if "avx512f" in has:
        return 16, 32
    if "avx2" in has:
        return 8, 16
    # SSE, NEON or neither: without such registers, LLVM splits vectors of 4.
    return 4, 32 if "neon" in has else 16


# The processor that numba compiles for, which NUMBA_CPU_NAME and NUMBA_CPU_FEATURES can change. numba's cache is keyed
# by it as well.
TARGET: tuple[str, str, str] = cpu_target.target_context.codegen().magic_tuple()
LANES, REGISTERS = _vector_unit(TARGET[2])
LOCK_STEP = REGISTERS // 4  # items computed together; with two sums each, they take half of the registers

_FLOAT, INT32, INT64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
FLOATS, INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(INT32, LANES)
# A multiplication and the addition of its product may become one instruction, which rounds once. Nothing else may be
# rearranged.
FUSE = ("contract",)


class _Vector(types.Type):
    """``LANES`` float32 in a register."""


vector = _Vector(name=f"float32x{LANES}")


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: types.Type) -> None:
        super().__init__(manager, kind, FLOATS)


# ---- one vector -------------------------------------------------------------------------------------------


def pointer_to(context: Any, builder: ir.IRBuilder, array_type: Any, array: Any, at: Any) -> Any:
    """The address of element ``at`` of an array."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [at])


def load_at(builder: ir.IRBuilder, pointer: Any, kind: ir.Type = FLOATS) -> Any:
    """Load a vector from an address."""
    value = builder.load(builder.bitcast(pointer, kind.as_pointer()))
    value.align = 4  # the vector may start at any element; if it happens to be aligned, nothing is lost
    return value


def store_at(builder: ir.IRBuilder, value: Any, pointer: Any) -> None:
    """Store a vector at an address."""
    builder.store(value, builder.bitcast(pointer, FLOATS.as_pointer())).align = 4


def in_all_lanes(builder: ir.IRBuilder, x: Any) -> Any:
    """Return a vector with ``x``, a float32 or an int32, in all lanes."""
    undefined = ir.Constant(ir.VectorType(x.type, LANES), ir.Undefined)
    first = builder.insert_element(undefined, x, ir.Constant(INT32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(INTS, [0] * LANES))


@intrinsic
def load(typing: Any, array: Any, at: Any) -> Any:
    """Load the elements ``at`` to ``at + LANES`` of a float32 array."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return load_at(builder, pointer_to(context, builder, signature.args[0], *arguments))

    return vector(array, types.intp), emit


@intrinsic
def store(typing: Any, array: Any, at: Any, value: Any) -> Any:
    """Store a vector in the elements ``at`` to ``at + LANES`` of a float32 array."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        store_at(builder, arguments[2], pointer_to(context, builder, signature.args[0], *arguments[:2]))
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), emit


@intrinsic
def copy(typing: Any, target: Any, at: Any, source: Any, first: Any, size: Any) -> Any:
    """Copy ``size`` elements from one array to another of the same type."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        target, at, source, first, size = arguments
        to, origin = (
            pointer_to(context, builder, signature.args[0], array, place)
            for array, place in ((target, at), (source, first))
        )
        cgutils.raw_memcpy(builder, to, origin, size, signature.args[0].dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp, types.intp), emit


@intrinsic
def splat(typing: Any, x: Any) -> Any:
    """Return a vector with ``x`` in all lanes."""
    return vector(types.float32), lambda context, builder, signature, arguments: in_all_lanes(builder, arguments[0])


def _elementwise(operation: Callable[[ir.IRBuilder, Any, Any], Any]) -> Any:
    @intrinsic
    def elementwise(typing: Any, a: Any, b: Any) -> Any:
        return vector(vector, vector), lambda context, builder, signature, arguments: operation(builder, *arguments)

    return elementwise


_add = _elementwise(lambda builder, a, b: builder.fadd(a, b, flags=FUSE))
_subtract = _elementwise(lambda builder, a, b: builder.fsub(a, b, flags=FUSE))
_multiply = _elementwise(lambda builder, a, b: builder.fmul(a, b, flags=FUSE))
_divide = _elementwise(lambda builder, a, b: builder.fdiv(a, b))
largest_of = _elementwise(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))
smallest_of = _elementwise(lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b))


def _as_operator(symbol: Callable[[Any, Any], Any], operation: Any) -> None:
    def implementation(a: Any, b: Any) -> Any:
        return operation(a, b)

    @overload(symbol)
    def choose(a: Any, b: Any) -> Any:
        return implementation if a == b == vector else None


for _symbol, _operation in (
    (operator.add, _add),
    (operator.sub, _subtract),
    (operator.mul, _multiply),
    (operator.truediv, _divide),
):
    _as_operator(_symbol, _operation)


@intrinsic
def largest_lane(typing: Any, a: Any) -> Any:
    """Return the largest element of a vector."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        (a,) = arguments
        distance = LANES // 2
        while distance:  # fold the upper half onto the lower half until one element is left
            lanes = ir.Constant(INTS, [(lane + distance) % LANES for lane in range(LANES)])
            moved = builder.shuffle_vector(a, a, lanes)
            a = builder.select(builder.fcmp_ordered(">", a, moved), a, moved)
            distance //= 2
        return builder.extract_element(a, ir.Constant(INT32, 0))

    return types.float32(vector), emit


@intrinsic
def _times_power_of_two(typing: Any, a: Any, shifted: Any) -> Any:
    """Return ``a · 2^n`` for ``shifted = n + SHIFT``: its lowest bits are n and are added to the exponent of ``a``."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        a, shifted = (builder.bitcast(argument, INTS) for argument in arguments)
        exponent = builder.shl(shifted, ir.Constant(INTS, [23] * LANES))
        return builder.bitcast(builder.add(a, exponent), FLOATS)

    return vector(vector, vector), emit


# ---- functions --------------------------------------------------------------------------------------------

SHIFT = np.float32(1.5 * 2**23)  # adding it rounds to an integer: float32 has no digits left for a fraction
_LOG2_E = np.float32(1.44269504)
# ln 2 in two parts; the first has few digits, so that its product with an integer is exact.
_LN_2_HIGH, _LN_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_TAYLOR = tuple(np.float32(1 / factorial) for factorial in (720, 120, 24, 6, 2, 1, 1))
_ONE, _MINUS_TWO, _ZERO = np.float32(1), np.float32(-2), np.float32(0)
_TANH_RANGE, _SIGMOID_RANGE = np.float32(15), np.float32(30)  # beyond them, both are constant in float32


@njit(forceinline=True)
def exp(x: Any) -> Any:
    """Return e^x with a relative error of about 2e-7, for -87 <= x <= 87.

    x = n · ln 2 + f with an integer n and |f| <= ln(2) / 2, so that e^x = 2^n · e^f. For e^f, a Taylor series of degree
    six is enough.
    """
    shifted = x * splat(_LOG2_E) + splat(SHIFT)
    n = shifted - splat(SHIFT)
    f = x - n * splat(_LN_2_HIGH) - n * splat(_LN_2_LOW)
    p = splat(_TAYLOR[0]) * f + splat(_TAYLOR[1])
    p = p * f + splat(_TAYLOR[2])
    p = p * f + splat(_TAYLOR[3])
    p = p * f + splat(_TAYLOR[4])
    p = p * f + splat(_TAYLOR[5])
    p = p * f + splat(_TAYLOR[6])
    return _times_power_of_two(p, shifted)


@njit(forceinline=True)
def clipped(x: Any, bound: Any) -> Any:
    """Limit ``x`` to ``-bound … bound``."""
    return largest_of(smallest_of(x, splat(bound)), splat(-bound))


@njit(forceinline=True)
def tanh_times_sigmoid(x: Any, y: Any) -> Any:
    """Return tanh(x) · σ(y) with a single division: (1 − u) / ((1 + u)(1 + w)) for u = e^−2x, w = e^−y."""
    u = exp(clipped(x, _TANH_RANGE) * splat(_MINUS_TWO))
    w = exp(splat(_ZERO) - clipped(y, _SIGMOID_RANGE))
    return (splat(_ONE) - u) / ((splat(_ONE) + u) * (splat(_ONE) + w))


# ---- tiles ------------------------------------------------------------------------------------------------


class Vectors(NamedTuple):
    """Vectors of equal size in a flat float32 array; vector ``i`` begins at element ``first + i * stride``."""

    values: Any
    first: int
    stride: int


class Panel(NamedTuple):
    """Columns of a packed matrix side by side; row ``k`` begins at element ``first + k * stride``.

    Attributes:
        weights: float32 or int16 array.
        first: element at which row 0 begins.
        stride: elements from row to row.
        scales: element at which the float32 scales of the columns begin; used for int16 only.
    """

    weights: Any
    first: int
    stride: int
    scales: int


# Sums that a tile keeps going at once: a multiply-add takes about 4 cycles, and 1 or 2 start in each cycle.
_SUMS_IN_FLIGHT = 8


def _tile(samples: int, vectors: int, *, sets: int = 0, listed: bool = False) -> Any:
    """Make the inner loop of matrix products, which holds its sums in registers::

        out[s, v] += sum over k of  weights[k, v] · x[s, k]        for s < samples, v < vectors · LANES

    Args:
        samples: number of vectors ``x`` that the tile multiplies.
        vectors: number of registers that a row of weights fills.
        sets: number of sets of sums that take turns; by default several if one set is too small to fill the pipeline.
        listed: whether k runs through a list instead of all rows.

    Returns:
        the intrinsic ``tile(out: Vectors, weights: Panel, x: Vectors, rows)``, where the number of rows is a multiple
        of 4, or ``tile(out, weights, x, listed_rows, count)``, which sums over the first ``count`` elements of an int32
        array.
    """
    sets = sets or (1 if listed else max(1, min(4, _SUMS_IN_FLIGHT // (samples * vectors))))

    def emit(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        out_type, panel_type, x_type = (kind.types[0] for kind in signature.args[:3])
        out, out_first, out_stride = cgutils.unpack_tuple(b, arguments[0])
        weights, weights_first, weights_stride, scales = cgutils.unpack_tuple(b, arguments[1])
        x, x_first, x_stride = cgutils.unpack_tuple(b, arguments[2])
        rows = arguments[-1]
        quantised = panel_type.dtype == types.int16

        def constant(n: int) -> ir.Constant:
            return ir.Constant(INT64, n)

        def out_pointer(s: int, v: int) -> Any:
            at = b.add(b.add(out_first, b.mul(out_stride, constant(s))), constant(v * LANES))
            return pointer_to(context, b, out_type, out, at)

        def load_weights(k: Any) -> list[Any]:
            """Row k as float32 vectors."""
            row_at = b.add(weights_first, b.mul(k, weights_stride))

            def pointer(v: int) -> Any:
                return pointer_to(context, b, panel_type, weights, b.add(row_at, constant(v * LANES)))

            if not quantised:
                return [load_at(b, pointer(v)) for v in range(vectors)]
            # Two vectors lie side by side, lane by lane, as the low and high halves of 32-bit words. The low half is
            # shifted up. The high half stays in place with the low half below it, which packing has subtracted.
            words = [load_at(b, pointer(v), INTS) for v in range(0, vectors, 2)]
            halves = [half for word in words for half in (b.shl(word, ir.Constant(INTS, [16] * LANES)), word)]
            return [b.sitofp(half, FLOATS) for half in halves]

        def load_scale(v: int) -> Any:
            at = b.add(scales, constant(2 * v * LANES))  # a float32 takes the place of two int16
            return load_at(b, pointer_to(context, b, panel_type, weights, at))

        # The first set of sums starts from ``out``, unless the sum must be scaled first; the others start from zero.
        zero = ir.Constant(FLOATS, [0.0] * LANES)
        cells = [(s, v) for s in range(samples) for v in range(vectors)]
        sums = [{cell: cgutils.alloca_once(b, FLOATS) for cell in cells} for _ in range(sets)]
        for index, members in enumerate(sums):
            for cell, register in members.items():
                fresh = index > 0 or quantised
                b.store(zero if fresh else load_at(b, out_pointer(*cell)), register)
        # Addresses from before the loop leave it enough registers.
        x_pointers = [
            pointer_to(context, b, x_type, x, b.add(x_first, b.mul(x_stride, constant(s)))) for s in range(samples)
        ]
        # One row per set and turn: load the weights once, and multiply them with each sample's factor.
        with cgutils.for_range(b, b.sdiv(rows, constant(sets))) as loop:
            for index, members in enumerate(sums):
                k = b.add(b.mul(loop.index, constant(sets)), constant(index))
                if listed:
                    k = b.sext(b.load(pointer_to(context, b, signature.args[3], arguments[3], loop.index)), INT64)
                loaded = load_weights(k)
                for s in range(samples):
                    factor = in_all_lanes(b, b.load(b.gep(x_pointers[s], [k])))
                    for v in range(vectors):
                        product = b.fmul(loaded[v], factor, flags=FUSE)
                        b.store(b.fadd(b.load(members[s, v]), product, flags=FUSE), members[s, v])
        # Add up the sets, scale, and write the result.
        for cell in cells:
            total = b.load(sums[0][cell])
            for members in sums[1:]:
                total = b.fadd(total, b.load(members[cell]))
            if quantised:
                total = b.fmul(total, load_scale(cell[1]), flags=FUSE)
                total = b.fadd(load_at(b, out_pointer(*cell)), total, flags=FUSE)
            store_at(b, total, out_pointer(*cell))
        return context.get_dummy_value()

    @intrinsic
    def tile(typing: Any, out: Any, weights: Any, x: Any, rows: Any) -> Any:
        return types.void(out, weights, x, types.intp), emit

    @intrinsic
    def listed_tile(typing: Any, out: Any, weights: Any, x: Any, listed_rows: Any, count: Any) -> Any:
        return types.void(out, weights, x, listed_rows, types.intp), emit

    return listed_tile if listed else tile


tile_1x8, tile_1x4, tile_1x2 = _tile(1, 8), _tile(1, 4), _tile(1, 2)
tile_8x2, tile_4x2, tile_2x2 = _tile(8, 2), _tile(4, 2), _tile(2, 2)
# Each sum of these is computed as in tile_1x8, tile_1x4 and tile_1x2.
items_tile, half_items_tile, quarter_items_tile = (_tile(LOCK_STEP // sets, 2, sets=sets) for sets in (1, 2, 4))
listed_tile_8, listed_tile_4, listed_tile_2 = (_tile(1, vectors, listed=True) for vectors in (8, 4, 2))
