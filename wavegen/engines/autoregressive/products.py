"""Products of packed matrices with vectors, made of tiles. ``packing`` says how a matrix lies in memory.

Arguments named ``…_at`` are elements of the flat arrays before them. ``columns`` and ``outputs``, a matrix's sizes, are
multiples of ``2 * LANES``. Tiles that take no list are given ``x`` in its place.
"""

from typing import Any

from numba import njit

from wavegen.engines.autoregressive.simd import (
    LANES,
    LOCK_STEP,
    REGISTERS,
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


@njit(forceinline=True)
def _scales(weights: Any, outputs: int) -> int:
    """Elements that the scales of an int16 matrix take before it; float32 has none."""
    return 2 * outputs if weights.itemsize == 2 else 0


@njit
def multiply_add(
    out: Any, out_at: int, weights: Any, weights_at: int, x: Any, x_at: int, columns: int, outputs: int
) -> None:
    """``out += weights · x``."""
    at, done = weights_at + _scales(weights, outputs), 0
    while outputs - done >= 8 * LANES:
        row, scales = 8 * LANES, weights_at + 2 * done
        tile_1x8(out, out_at + done, 0, weights, at, row, scales, x, x_at, 0, x, columns)
        at, done = at + columns * row, done + row
    if outputs - done >= 4 * LANES:
        row, scales = 4 * LANES, weights_at + 2 * done
        tile_1x4(out, out_at + done, 0, weights, at, row, scales, x, x_at, 0, x, columns)
        at, done = at + columns * row, done + row
    if outputs - done >= 2 * LANES:
        row, scales = 2 * LANES, weights_at + 2 * done
        tile_1x2(out, out_at + done, 0, weights, at, row, scales, x, x_at, 0, x, columns)


@njit
def multiply_add_active(
    out: Any, out_at: int, weights: Any, weights_at: int, x: Any, active: Any, count: int, columns: int, outputs: int
) -> None:
    """``out += weights · x`` where all elements of x are zero but the first ``count`` that ``active`` lists."""
    at, done = weights_at + _scales(weights, outputs), 0
    while outputs - done >= 8 * LANES:
        row, scales = 8 * LANES, weights_at + 2 * done
        listed_tile_8(out, out_at + done, 0, weights, at, row, scales, x, 0, 0, active, count)
        at, done = at + columns * row, done + row
    if outputs - done >= 4 * LANES:
        row, scales = 4 * LANES, weights_at + 2 * done
        listed_tile_4(out, out_at + done, 0, weights, at, row, scales, x, 0, 0, active, count)
        at, done = at + columns * row, done + row
    if outputs - done >= 2 * LANES:
        row, scales = 2 * LANES, weights_at + 2 * done
        listed_tile_2(out, out_at + done, 0, weights, at, row, scales, x, 0, 0, active, count)


@njit
def multiply_add_block(
    out: Any, out_at: int, weights: Any, weights_at: int, x: Any, x_at: int, steps: int, columns: int, outputs: int,
) -> None:  # fmt: skip
    """``out[s] += weights · x[s]`` for 1, 2, 4 or 8 steps that lie behind one another in ``out`` and in ``x``.

    Each weight is read once for all steps: this is what makes a tap in the past several times cheaper than the
    present one.
    """
    at, done = weights_at + _scales(weights, outputs), 0
    while done < outputs:
        vectors = min(8, (outputs - done) // LANES)
        panel = 8 if vectors >= 8 else 4 if vectors >= 4 else 2
        row = panel * LANES
        for pair in range(0, row, 2 * LANES):
            o, w, scales = out_at + done + pair, at + pair, weights_at + 2 * (done + pair)
            if steps == 8 and REGISTERS >= 32:
                tile_8x2(out, o, outputs, weights, w, row, scales, x, x_at, columns, x, columns)
            elif steps >= 4:
                for s in range(0, steps, 4):
                    here, there = o + s * outputs, x_at + s * columns
                    tile_4x2(out, here, outputs, weights, w, row, scales, x, there, columns, x, columns)
            elif steps == 2:
                tile_2x2(out, o, outputs, weights, w, row, scales, x, x_at, columns, x, columns)
            else:
                tile_1x2(out, o, outputs, weights, w, row, scales, x, x_at, columns, x, columns)
        at, done = at + columns * row, done + row


@njit
def multiply_add_items(
    out: Any, weights: Any, weights_at: int, x: Any, x_at: int, columns: int, outputs: int, one_set: bool
) -> None:
    """``out[i] += weights · x[i]`` for ``LOCK_STEP`` items, in the order of additions that one item alone has.

    Each weight is read once for as many items as their sums fit into registers. In ``multiply_add`` a narrow panel has
    several sets of sums, and so it does here, with room for fewer items at a time; with ``one_set`` the order is that
    of ``multiply_add_active``.
    """
    at, done = weights_at + _scales(weights, outputs), 0
    while done < outputs:
        vectors = (outputs - done) // LANES
        panel = 8 if vectors >= 8 else 4 if vectors >= 4 else 2
        row = panel * LANES
        for pair in range(0, row, 2 * LANES):
            o, w, scales = done + pair, at + pair, weights_at + 2 * (done + pair)
            if panel == 8 or one_set:
                items_tile(out, o, outputs, weights, w, row, scales, x, x_at, columns, x, columns)
            elif panel == 4:
                for i in range(0, LOCK_STEP, LOCK_STEP // 2):
                    here, there = o + i * outputs, x_at + i * columns
                    half_items_tile(out, here, outputs, weights, w, row, scales, x, there, columns, x, columns)
            else:
                for i in range(0, LOCK_STEP, LOCK_STEP // 4):
                    here, there = o + i * outputs, x_at + i * columns
                    quarter_items_tile(out, here, outputs, weights, w, row, scales, x, there, columns, x, columns)
        at, done = at + columns * row, done + row
