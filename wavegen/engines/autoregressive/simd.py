"""Vectors of float32 for numba: the few operations that the sample loop is written in.

numba compiles Python to machine code through LLVM but offers no vectors. This module adds a type for one register of
``LANES`` float32, with ``load``, ``store``, ``splat``, ``+ - * /`` and the like, and one operation that is more than
a line of Python: the *tile*, the inner loop of every matrix product. Nothing outside this module knows of LLVM.

Each operation is an "intrinsic": a function that is given numba's types and returns what to emit. They are module
globals, because numba's cache on disk cannot find a function again that refers to intrinsics through a closure.
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic, models, overload, register_model


def _vector_unit(features: str) -> tuple[int, int]:
    """(float32 lanes of a register, registers) of a processor with LLVM's ``features``, as in ``"+avx2,-sve"``."""
    has = {feature[1:] for feature in features.split(",") if feature.startswith("+")}
    if "avx512f" in has:
        return 16, 32
    if "avx2" in has:
        return 8, 16
    # SSE, NEON, or none: LLVM splits vectors of 4 where there is no such register.
    return 4, 32 if "neon" in has else 16


# What numba compiles for, which NUMBA_CPU_NAME and NUMBA_CPU_FEATURES can change, is also what it keys its cache by.
TARGET: tuple[str, str, str] = cpu_target.target_context.codegen().magic_tuple()
LANES, REGISTERS = _vector_unit(TARGET[2])
LOCK_STEP = REGISTERS // 4  # items that go together: two sums each take half of the registers

_FLOAT, _INT32, _INT64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_FLOATS, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT32, LANES)
# A product and the sum it goes into may become one instruction, which rounds once. Nothing else may be rearranged.
_FUSE = ("contract",)


class _Vector(types.Type):
    """``LANES`` float32 in a register."""


vector = _Vector(name=f"float32x{LANES}")


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: types.Type) -> None:
        super().__init__(manager, kind, _FLOATS)


# ---- one vector -------------------------------------------------------------------------------------------


def _pointer(context: Any, builder: ir.IRBuilder, array_type: Any, array: Any, at: Any) -> Any:
    """Address of element ``at`` of an array."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [at])


def _load(builder: ir.IRBuilder, pointer: Any, kind: ir.Type = _FLOATS) -> Any:
    value = builder.load(builder.bitcast(pointer, kind.as_pointer()))
    value.align = 4  # any element may be the first; nothing is lost where it happens to be aligned
    return value


def _store(builder: ir.IRBuilder, value: Any, pointer: Any) -> None:
    builder.store(value, builder.bitcast(pointer, _FLOATS.as_pointer())).align = 4


def _splat(builder: ir.IRBuilder, x: Any) -> Any:
    undefined = ir.Constant(_FLOATS, ir.Undefined)
    first = builder.insert_element(undefined, x, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_INTS, [0] * LANES))


@intrinsic
def load(typing: Any, array: Any, at: Any) -> Any:
    """Elements ``at`` to ``at + LANES`` of a float32 array."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return _load(builder, _pointer(context, builder, signature.args[0], *arguments))

    return vector(array, types.intp), emit


@intrinsic
def store(typing: Any, array: Any, at: Any, value: Any) -> Any:
    """Put a vector into elements ``at`` to ``at + LANES`` of a float32 array."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        _store(builder, arguments[2], _pointer(context, builder, signature.args[0], *arguments[:2]))
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), emit


@intrinsic
def splat(typing: Any, x: Any) -> Any:
    """A vector with ``x`` in all lanes."""
    return vector(types.float32), lambda context, builder, signature, arguments: _splat(builder, arguments[0])


def _elementwise(operation: Callable[[ir.IRBuilder, Any, Any], Any]) -> Any:
    @intrinsic
    def of_two(typing: Any, a: Any, b: Any) -> Any:
        return vector(vector, vector), lambda context, builder, signature, arguments: operation(builder, *arguments)

    return of_two


_add = _elementwise(lambda builder, a, b: builder.fadd(a, b, flags=_FUSE))
_subtract = _elementwise(lambda builder, a, b: builder.fsub(a, b, flags=_FUSE))
_multiply = _elementwise(lambda builder, a, b: builder.fmul(a, b, flags=_FUSE))
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
    """The largest of a vector's elements."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        (a,), distance = arguments, LANES // 2
        while distance:  # fold the upper half onto the lower one until one is left
            lanes = ir.Constant(_INTS, [(lane + distance) % LANES for lane in range(LANES)])
            moved = builder.shuffle_vector(a, a, lanes)
            a, distance = builder.select(builder.fcmp_ordered(">", a, moved), a, moved), distance // 2
        return builder.extract_element(a, ir.Constant(_INT32, 0))

    return types.float32(vector), emit


@intrinsic
def _times_power_of_two(typing: Any, a: Any, shifted: Any) -> Any:
    """``a · 2^n`` for ``shifted = n + _SHIFT``, whose lowest bits are n: added to the exponent of ``a``."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        a, shifted = (builder.bitcast(argument, _INTS) for argument in arguments)
        exponent = builder.shl(shifted, ir.Constant(_INTS, [23] * LANES))
        return builder.bitcast(builder.add(a, exponent), _FLOATS)

    return vector(vector, vector), emit


# ---- functions --------------------------------------------------------------------------------------------

_SHIFT = np.float32(1.5 * 2**23)  # adding it rounds to a whole number: float32 has no digits left for a fraction
_LOG2_E = np.float32(1.44269504)
# ln 2 in two parts; the first has few digits, so that its product with a whole number is exact.
_LN_2_HIGH, _LN_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_TAYLOR = tuple(np.float32(1 / factorial) for factorial in (720, 120, 24, 6, 2, 1, 1))
_ONE, _MINUS_TWO, _ZERO = np.float32(1), np.float32(-2), np.float32(0)
_TANH_RANGE, _SIGMOID_RANGE = np.float32(15), np.float32(30)  # beyond, both are constant to float32


@njit(forceinline=True)
def exp(x: Any) -> Any:
    """e^x to about 2e-7 of its value, for -87 <= x <= 87.

    x = n · ln 2 + f with a whole n and |f| <= ln(2) / 2, so that e^x = 2^n · e^f, of which six terms of Taylor's
    series are enough.
    """
    shifted = x * splat(_LOG2_E) + splat(_SHIFT)
    n = shifted - splat(_SHIFT)
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
    """``x`` limited to ``-bound … bound``."""
    return largest_of(smallest_of(x, splat(bound)), splat(-bound))


@njit(forceinline=True)
def tanh_times_sigmoid(x: Any, y: Any) -> Any:
    """tanh(x) · σ(y), with one division for both: (1 − u) / ((1 + u)(1 + w)) for u = e^−2x, w = e^−y."""
    u = exp(clipped(x, _TANH_RANGE) * splat(_MINUS_TWO))
    w = exp(splat(_ZERO) - clipped(y, _SIGMOID_RANGE))
    return (splat(_ONE) - u) / ((splat(_ONE) + u) * (splat(_ONE) + w))


# ---- tiles ------------------------------------------------------------------------------------------------

# Sums that a tile keeps going at once: a multiply-add takes about 4 cycles, and 1 or 2 start in each.
_SUMS_IN_FLIGHT = 8


def _tile(samples: int, vectors: int, *, sets: int = 0, listed: bool = False) -> Any:
    """The inner loop of matrix products, its sums held in registers::

        out[s, v] += sum over k of  weights[k, v] · x[s, k]        for s < samples, v < vectors · LANES

    Args of the operation that is returned:
        out, out_at, out_stride: float32 array, element of ``out[0, 0]``, elements from sample to sample.
        weights, weights_at, row: float32 or int16 array, element of ``weights[0, 0]``, elements from k to k + 1.
        scales_at: where int16 ``weights`` hold a float32 for each v, by which the sum is multiplied.
        x, x_at, x_stride: float32 array, element of ``x[0, 0]``, elements from sample to sample.
        active: int32 array, the k to be summed over where ``listed``; anything else where not.
        columns: number of k; a multiple of 4 unless ``listed``.
    """
    # A tile of few sums takes turns between several sets of them.
    sets = sets or (1 if listed else max(1, min(4, _SUMS_IN_FLIGHT // (samples * vectors))))

    @intrinsic
    def tile(
        typing: Any, out: Any, out_at: Any, out_stride: Any, weights: Any, weights_at: Any, row: Any, scales_at: Any,
        x: Any, x_at: Any, x_stride: Any, active: Any, columns: Any,
    ) -> Any:  # fmt: skip
        def emit(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            kinds = dict(
                zip(["out", "weights", "x", "active"], (signature.args[i] for i in (0, 3, 7, 10)), strict=True)
            )
            out, out_at, out_stride, weights, weights_at, row, scales_at, x, x_at, x_stride, active, columns = arguments
            quantised = kinds["weights"].dtype == types.int16

            def constant(n: int) -> ir.Constant:
                return ir.Constant(_INT64, n)

            def out_pointer(s: int, v: int) -> Any:
                at = b.add(b.add(out_at, b.mul(out_stride, constant(s))), constant(v * LANES))
                return _pointer(context, b, kinds["out"], out, at)

            def weights_of(k: Any) -> list[Any]:
                """Weights of all vectors, as float32."""
                row_at = b.add(weights_at, b.mul(k, row))

                def pointer(v: int) -> Any:
                    return _pointer(context, b, kinds["weights"], weights, b.add(row_at, constant(v * LANES)))

                if not quantised:
                    return [_load(b, pointer(v)) for v in range(vectors)]
                # Two vectors side by side, lane by lane: low halves and high halves of 32-bit words. The low one is
                # moved up; the high one stays where it is, above the low one, which packing has made allowance for.
                words = [_load(b, pointer(v), _INTS) for v in range(0, vectors, 2)]
                halves = [half for word in words for half in (b.shl(word, ir.Constant(_INTS, [16] * LANES)), word)]
                return [b.sitofp(half, _FLOATS) for half in halves]

            def scale_of(v: int) -> Any:
                at = b.add(scales_at, constant(2 * v * LANES))  # a float32 takes the place of two int16
                return _load(b, _pointer(context, b, kinds["weights"], weights, at))

            zero = ir.Constant(_FLOATS, [0.0] * LANES)
            cells = [(s, v) for s in range(samples) for v in range(vectors)]
            sums = [{cell: cgutils.alloca_once(b, _FLOATS) for cell in cells} for _ in range(sets)]
            for index, members in enumerate(sums):
                for cell, register in members.items():
                    fresh = index > 0 or quantised
                    b.store(zero if fresh else _load(b, out_pointer(*cell)), register)
            with cgutils.for_range(b, b.sdiv(columns, constant(sets))) as loop:
                for index, members in enumerate(sums):
                    k = b.add(b.mul(loop.index, constant(sets)), constant(index))
                    if listed:
                        k = b.sext(b.load(_pointer(context, b, kinds["active"], active, loop.index)), _INT64)
                    loaded = weights_of(k)
                    for s in range(samples):
                        at = b.add(b.add(x_at, b.mul(x_stride, constant(s))), k)
                        factor = _splat(b, b.load(_pointer(context, b, kinds["x"], x, at)))
                        for v in range(vectors):
                            product = b.fmul(loaded[v], factor, flags=_FUSE)
                            b.store(b.fadd(b.load(members[s, v]), product, flags=_FUSE), members[s, v])
            for cell in cells:
                total = b.load(sums[0][cell])
                for members in sums[1:]:
                    total = b.fadd(total, b.load(members[cell]))
                if quantised:
                    total = b.fmul(total, scale_of(cell[1]), flags=_FUSE)
                    total = b.fadd(_load(b, out_pointer(*cell)), total, flags=_FUSE)
                _store(b, total, out_pointer(*cell))
            return context.get_dummy_value()

        at = types.intp
        return types.void(out, at, at, weights, at, at, at, x, at, at, active, at), emit

    return tile


tile_1x8, tile_1x4, tile_1x2 = _tile(1, 8), _tile(1, 4), _tile(1, 2)
tile_8x2, tile_4x2, tile_2x2 = _tile(8, 2), _tile(4, 2), _tile(2, 2)
# Of these, each sum is as in tile_1x8, tile_1x4 and tile_1x2.
items_tile, half_items_tile, quarter_items_tile = (_tile(LOCK_STEP // sets, 2, sets=sets) for sets in (1, 2, 4))
listed_tile_8, listed_tile_4, listed_tile_2 = (_tile(1, vectors, listed=True) for vectors in (8, 4, 2))
