"""Vectors and products of bytes for numba, on processors with an instruction that multiplies four pairs of bytes.

A *coded* vector is an array of bytes: a code for each element, and behind them the step between codes as a float32::

    x[k] = step · (code[k] − zero)        a signed vector has zero = 128, one without negative values has zero = 0

The steps of weights belong to outputs, so the sums over k are sums of integers::

    sum w[k] · x[k]  =  step of w · step of x · (sum code of w[k] · code of x[k]  −  zero · sum code of w[k])

The last sum does not depend on x, so packing stores it, as the number that the sum of products starts from. Integers
add up to the same sum in any order, so an item's samples do not depend on how many others run in lock step.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from wavegen.engines.packed.arena import CODES, POSITIVE_CODES, ZERO_CODE
from wavegen.engines.simd import (
    FLOATS,
    FUSE,
    INT32,
    INT64,
    INTS,
    LANES,
    REGISTERS,
    SHIFT,
    TARGET,
    in_all_lanes,
    largest_lane,
    largest_of,
    load,
    load_at,
    pointer_to,
    splat,
    store_at,
    vector,
)


def _dot_instruction(features: str) -> str | None:
    """LLVM's name of the instruction for registers of ``LANES``, given features like ``"+avx2,-sve"``."""
    unit, bits = {16: ("+avx512vnni", 512), 8: ("+avxvnni", 256)}.get(LANES, ("", 0))
    return f"llvm.x86.avx512.vpdpbusd.{bits}" if unit in features.split(",") else None


_DOT = _dot_instruction(TARGET[2])
AVAILABLE = _DOT is not None
"""Whether the processor has the instruction; without it, int8 is slower than int16."""


# ---- vectors as codes -------------------------------------------------------------------------------------------


@intrinsic
def _store_codes(typing: Any, codes: Any, at: Any, shifted: Any) -> Any:
    """Store the lowest byte of each lane of a vector of integers n + ``SHIFT``."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        codes, at, shifted = arguments
        octets = ir.VectorType(ir.IntType(8), LANES)
        lowest = builder.trunc(builder.bitcast(shifted, INTS), octets)
        pointer = pointer_to(context, builder, signature.args[0], codes, at)
        builder.store(lowest, builder.bitcast(pointer, octets.as_pointer())).align = 1
        return context.get_dummy_value()

    return types.void(codes, types.intp, vector), emit


@intrinsic
def _store_step(typing: Any, codes: Any, at: Any, step: Any) -> Any:
    """Store a float32 in four bytes."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        codes, at, step = arguments
        pointer = pointer_to(context, builder, signature.args[0], codes, at)
        builder.store(step, builder.bitcast(pointer, step.type.as_pointer())).align = 1
        return context.get_dummy_value()

    return types.void(codes, types.intp, types.float32), emit


_SMALLEST = np.float32(1e-30)  # keeps the reciprocal of a step finite
_ZERO, _CODES, _POSITIVE_CODES = np.float32(0), np.float32(CODES), np.float32(POSITIVE_CODES)
_SIGNED_SHIFT = SHIFT + np.float32(ZERO_CODE)


@njit(forceinline=True)
def encode(codes: Any, at: int, x: Any, first: int, size: int) -> None:
    """Write ``size`` elements of ``x`` from ``first`` on, and their step, to the bytes from ``at`` on."""
    largest = splat(_ZERO)
    for i in range(first, first + size, LANES):
        largest = largest_of(largest, largest_of(load(x, i), splat(_ZERO) - load(x, i)))
    bound = max(largest_lane(largest), _SMALLEST)
    per_unit = splat(_CODES / bound)
    for i in range(0, size, LANES):
        _store_codes(codes, at + i, load(x, first + i) * per_unit + splat(_SIGNED_SHIFT))
    _store_step(codes, at + size, bound / _CODES)


@njit(forceinline=True)
def encode_positive(codes: Any, at: int, x: Any, first: int, size: int) -> None:
    """The same for ReLU(x), which has no negative values, and so twice as many codes for the others."""
    largest = splat(_SMALLEST)
    for i in range(first, first + size, LANES):
        largest = largest_of(largest, load(x, i))
    bound = largest_lane(largest)
    per_unit = splat(_POSITIVE_CODES / bound)
    for i in range(0, size, LANES):
        _store_codes(codes, at + i, largest_of(load(x, first + i), splat(_ZERO)) * per_unit + splat(SHIFT))
    _store_step(codes, at + size, bound / _POSITIVE_CODES)


# ---- tiles ------------------------------------------------------------------------------------------------------


def _dot_tile(samples: int, vectors: int) -> Any:
    """Make the inner loop of matrix products, as ``simd`` does, for int8 weights and coded vectors.

    Args:
        samples: number of vectors that the tile multiplies.
        vectors: number of float32 registers that its outputs fill.

    Returns:
        the intrinsic ``tile(out: Vectors, weights: Panel, x: Vectors, groups)``. A group is four inputs: a row of the
        panel has a group for each output.
    """
    # Enough sums to start one while others wait for their results, in half of the registers.
    sets = max(1, min(4, REGISTERS // 2 // (samples * vectors)))

    def emit(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        out_type, panel_type, x_type = (kind.types[0] for kind in signature.args[:3])
        out, out_first, out_stride = cgutils.unpack_tuple(b, arguments[0])
        weights, weights_first, weights_stride, scales = cgutils.unpack_tuple(b, arguments[1])
        x, x_first, x_stride = cgutils.unpack_tuple(b, arguments[2])
        groups = arguments[3]
        dot = cgutils.get_or_insert_function(b.module, ir.FunctionType(INTS, [INTS] * 3), _DOT)

        def constant(n: int) -> ir.Constant:
            return ir.Constant(INT64, n)

        def panel_part(at: Any, kind: ir.Type) -> Any:
            return load_at(b, pointer_to(context, b, panel_type, weights, at), kind)

        cells = [(s, v) for s in range(samples) for v in range(vectors)]
        sums = [{cell: cgutils.alloca_once(b, INTS) for cell in cells} for _ in range(sets)]
        # In front of the panels, each vector of outputs has its steps and the numbers that its sums start from.
        heads = [b.add(scales, constant(8 * LANES * v)) for v in range(vectors)]
        starts = [panel_part(b.add(head, constant(4 * LANES)), INTS) for head in heads]
        for index, members in enumerate(sums):
            for (_, v), register in members.items():
                b.store(starts[v] if index == 0 else ir.Constant(INTS, [0] * LANES), register)
        x_pointers = [
            b.bitcast(
                pointer_to(context, b, x_type, x, b.add(x_first, b.mul(x_stride, constant(s)))), INT32.as_pointer()
            )
            for s in range(samples)
        ]

        def load_x(s: int, group: Any, kind: ir.Type = INT32) -> Any:
            """Four bytes of a coded vector; behind its last group, its step."""
            pointer = b.bitcast(b.gep(x_pointers[s], [group]), kind.as_pointer())
            loaded = b.load(pointer)
            loaded.align = 1
            return loaded

        with cgutils.for_range(b, b.sdiv(groups, constant(sets))) as loop:
            for index, members in enumerate(sums):
                group = b.add(b.mul(loop.index, constant(sets)), constant(index))
                row_at = b.add(weights_first, b.mul(group, weights_stride))
                row = [panel_part(b.add(row_at, constant(4 * LANES * v)), INTS) for v in range(vectors)]
                for s in range(samples):
                    factors = in_all_lanes(b, load_x(s, group))
                    for v in range(vectors):
                        b.store(b.call(dot, [b.load(members[s, v]), factors, row[v]]), members[s, v])
        # Add up the sets, scale, and add to what is there.
        steps = [in_all_lanes(b, load_x(s, groups, ir.FloatType())) for s in range(samples)]
        for s, v in cells:
            total = b.load(sums[0][s, v])
            for members in sums[1:]:
                total = b.add(total, b.load(members[s, v]))
            scale = b.fmul(panel_part(heads[v], FLOATS), steps[s])
            at = b.add(b.add(out_first, b.mul(out_stride, constant(s))), constant(v * LANES))
            pointer = pointer_to(context, b, out_type, out, at)
            change = b.fmul(b.sitofp(total, FLOATS), scale, flags=FUSE)
            store_at(b, b.fadd(load_at(b, pointer), change, flags=FUSE), pointer)
        return context.get_dummy_value()

    @intrinsic
    def tile(typing: Any, out: Any, weights: Any, x: Any, groups: Any) -> Any:
        return types.void(out, weights, x, types.intp), emit

    return tile


dot_1x8, dot_1x4, dot_1x2 = _dot_tile(1, 8), _dot_tile(1, 4), _dot_tile(1, 2)
dot_8x2, dot_4x2, dot_2x2 = _dot_tile(8, 2), _dot_tile(4, 2), _dot_tile(2, 2)
