"""WaveNet's sample loop, compiled by numba: the numbers of the torch engine, restructured to read less memory.

One sample, as in `wavegen.engines.reference`::

    history of samples ── tables ──┬─ input of the first block, and its gates
                                   │
      for each block:              │
        past taps (done before) + condition + present tap · h ── tanh · σ ── z
        h = h · scale + residual · z                       skips += skip · z
                                   │
                  skips ── ReLU ── hidden ── ReLU ── output ── draw ── sample

What makes it fast, all of it exact up to rounding:

- A tap d samples back reads, for the next d samples, values that are already known. So up to 8 samples' past taps are
  one matrix product, which reads each weight once instead of 8 times.
- The first block's input is a sum of a few table rows, and so are its gates.
- Behind a ReLU about half of the values are zero; the columns that they would be multiplied with are not read.
- The condition's product is done at frame rate (see HeldCondition).

- Several items go in lock step, sample for sample: their matrix products read each weight once. Each item's sums are
  added up in the order in which they are for one alone, so its samples are the same, bit for bit.

There is one loop for all shapes: sizes are arguments, so a machine compiles it once for each precision. What belongs to
an item lies in a row of its own; ``item`` counts rows.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from wavegen.engines.autoregressive.drawing import SUM_GROUP, draw
from wavegen.engines.autoregressive.packing import MOST_BLOCK_STEPS, MU_LAW, Model
from wavegen.engines.autoregressive.products import (
    multiply_add,
    multiply_add_active,
    multiply_add_block,
    multiply_add_items,
)
from wavegen.engines.autoregressive.simd import (
    LANES,
    largest_of,
    load,
    splat,
    store,
    tanh_times_sigmoid,
)

_ZERO = np.float32(0)


class Memory(NamedTuple):
    """The state, float32 with a row an item, changed in place."""

    history: np.ndarray  # classes or values of the last samples, newest first
    rings: np.ndarray  # [items, steps of all blocks · channels]: inputs that past taps will read
    ahead: np.ndarray  # [items, blocks · MOST_BLOCK_STEPS · 2 · gates]: past taps of this block of samples


class Workspace(NamedTuple):
    """Arrays that hold nothing from one call to the next; float32, and flat, where nothing else is said."""

    projected: np.ndarray  # [items · frames read · blocks · 2 · gates]
    gate: np.ndarray  # this and the next five: the name's size for each item
    h: np.ndarray
    z: np.ndarray  # two of them in turn
    skips: np.ndarray
    hidden: np.ndarray
    output: np.ndarray
    active: np.ndarray  # int32
    probability: np.ndarray
    group: np.ndarray  # float64


def workspace(model: Model, frames_read: int, items: int) -> Workspace:
    """Room for one running loop."""

    def room(size: int) -> np.ndarray:
        return np.zeros(size, dtype=np.float32)

    return Workspace(
        projected=room(items * frames_read * len(model.layers.now) * 2 * model.gates),
        gate=room(items * 2 * model.gates),
        h=room(items * model.channels),
        z=room(items * 2 * model.gates),
        skips=room(items * model.skips),
        hidden=room(items * model.hidden),
        output=room(items * model.outputs),
        active=np.zeros(max(model.skips, model.hidden), dtype=np.int32),
        probability=room(model.outputs),
        group=np.zeros(max(model.outputs // SUM_GROUP, model.classes)),
    )


@njit(inline="always")
def sample_loop(
    model: Model, memory: Memory, work: Workspace, start: int, frames: np.ndarray, frame_weights: np.ndarray,
    noise: np.ndarray, temperature: float, given: np.ndarray, samples: np.ndarray, parameters: np.ndarray,
) -> None:  # fmt: skip
    """Make the samples of one item or of ``LOCK_STEP``.

    Args:
        model: the weights.
        memory: the state; it is left as it is after the last sample.
        work: room.
        start: samples done before.
        frames: float32 ``[items, frames + frames read - 1, condition channels]``, padded.
        frame_weights: float32 ``[frames read, hop]``.
        noise: float64 ``[items, draws, samples]``: uniform numbers or, for a Gaussian, standard normal ones.
        temperature: 1 to sample from the model, 0 for its mode.
        given: float32 classes or values ``[items, 1 or samples]``: the sample before the first, or before each
            (teacher forcing).
        samples: float32 ``[items, samples]``, filled with what is drawn: classes or values.
        parameters: float32 ``[items, samples, outputs]``, filled with the network's output; without samples if not
            wanted.
    """
    layers, blocks, gates = model.layers, len(model.layers.now), model.gates
    frames_read, hop = frame_weights.shape
    items, forced = len(samples), given.shape[1] > 1
    for n in range(samples.shape[1]):
        for item in range(items):
            if n % hop == 0:
                _project_frames(model, work, frames, item, n // hop, frames_read)
            previous = given[item, n if forced else 0] if forced or n == 0 else samples[item, n - 1]
            _remember(memory.history[item], previous)
            _enter_first_block(model, memory, work, item, start + n)
            for i in range(0, model.skips, LANES):
                store(work.skips, item * model.skips + i, load(model.skip_bias, i))
        for block in range(blocks):
            if block > 0:
                for item in range(items):
                    _start_gate_from_past(model, memory, work, item, block, start + n)
                _multiply_add(work.gate, model, layers.now[block], work.h, 0, model.channels, 2 * gates, items)
            # z alternates between two places, because the block before has not been read to the end.
            z, z_before = block % 2 * items * gates, (block + 1) % 2 * items * gates
            for item in range(items):
                _add_condition(model, work, frame_weights, item, block, n % hop)
                _activate(model, work, item, z)
            # Nothing waits for skips, so those of the block before fill the time in which the processor would wait
            # for the gate's long chain of operations.
            if block > 0:
                _multiply_add(work.skips, model, layers.skip[block - 1], work.z, z_before, gates, model.skips, items)
            if block < blocks - 1:
                for item in range(items):
                    _scale_residual(model, work, item, block)
                _multiply_add(work.h, model, layers.residual[block], work.z, z, gates, model.channels, items)
        z = (blocks - 1) % 2 * items * gates
        _multiply_add(work.skips, model, layers.skip[blocks - 1], work.z, z, gates, model.skips, items)
        _output_layers(model, work, items)
        for item in range(items):
            if parameters.shape[1] > 0:
                for i in range(model.outputs):
                    parameters[item, n, i] = work.output[item * model.outputs + i]
            samples[item, n] = draw(model, work, item, noise[item], n, temperature)


@njit(forceinline=True)
def _multiply_add(
    out: Any, model: Model, weights_at: int, x: Any, x_at: int, columns: int, outputs: int, items: int
) -> None:
    """``out += weights · x`` for each item."""
    if items == 1:
        multiply_add(out, 0, model.weights, weights_at, x, x_at, columns, outputs)
    else:
        multiply_add_items(out, model.weights, weights_at, x, x_at, columns, outputs, False)


@njit(forceinline=True)
def _project_frames(model: Model, work: Workspace, frames: Any, item: int, frame: int, frames_read: int) -> None:
    """The part in each gate of the frames that the next ``hop`` samples read."""
    if model.condition == 0:
        return
    blocks, width = len(model.layers.now), 2 * model.gates
    at = item * frames_read * blocks * width
    for r in range(frames_read):
        for block in range(blocks):
            for i in range(0, width, LANES):
                store(work.projected, at + i, splat(_ZERO))
            multiply_add(
                work.projected, at, model.weights, model.layers.condition[block],
                frames[item], (frame + r) * model.condition, model.condition, width,
            )  # fmt: skip
            at += width


@njit(forceinline=True)
def _remember(history: Any, sample: Any) -> None:
    """Make ``sample`` the newest."""
    for i in range(len(history) - 1, 0, -1):
        history[i] = history[i - 1]
    history[0] = sample


@njit(forceinline=True)
def _enter_first_block(model: Model, memory: Memory, work: Workspace, item: int, now: int) -> None:
    """The first block's input and gates, summed up from the tables of the samples before; see packing._tables."""
    channels, width = model.channels, model.channels + 2 * model.gates
    h, gate = item * channels, item * 2 * model.gates
    for i in range(0, channels, LANES):
        store(work.h, h + i, load(model.input_bias, i))
    for i in range(0, 2 * model.gates, LANES):
        store(work.gate, gate + i, load(model.input_bias, channels + i) + load(model.gate_bias, i))
    for index in range(len(model.lags)):
        lag = model.lags[index]
        if lag > now:  # before the first sample there is nothing, not even silence
            continue
        table, sample = index * model.rows * width, memory.history[item, lag]
        if model.distribution == MU_LAW:
            row = table + int(sample) * width
            for i in range(0, channels, LANES):
                store(work.h, h + i, load(work.h, h + i) + load(model.tables, row + i))
            for i in range(0, 2 * model.gates, LANES):
                store(work.gate, gate + i, load(work.gate, gate + i) + load(model.tables, row + channels + i))
        else:
            factor, constant = table, table + width
            for i in range(0, channels, LANES):
                step = load(model.tables, factor + i) * splat(sample) + load(model.tables, constant + i)
                store(work.h, h + i, load(work.h, h + i) + step)
            factor, constant = factor + channels, constant + channels
            for i in range(0, 2 * model.gates, LANES):
                step = load(model.tables, factor + i) * splat(sample) + load(model.tables, constant + i)
                store(work.gate, gate + i, load(work.gate, gate + i) + step)


@njit(forceinline=True)
def _start_gate_from_past(model: Model, memory: Memory, work: Workspace, item: int, block: int, now: int) -> None:
    """Put bias and past taps into the gate; where a block of samples begins, compute them for all of it.

    The ring holds the last ``ring_steps`` inputs, that of sample n at ``n % ring_steps``; the oldest gives way to the
    present one, after it was read.
    """
    layers, channels, width = model.layers, model.channels, 2 * model.gates
    steps, block_steps, ring_steps = layers.tap_steps[block], layers.block_steps[block], layers.ring_steps[block]
    rings, ahead = memory.rings[item], memory.ahead[item]
    first, phase = block * MOST_BLOCK_STEPS * width, now % block_steps
    bias = block * width
    if phase == 0:
        for s in range(block_steps):
            for i in range(0, width, LANES):
                store(ahead, first + s * width + i, load(model.gate_bias, bias + i))
        for tap in range(layers.past.shape[1]):
            # From the oldest, which is ring_steps back, on.
            oldest = layers.ring[block] + (now + tap * steps) % ring_steps
            multiply_add_block(
                ahead, first, model.weights, layers.past[block, tap], rings, oldest * channels,
                block_steps, channels, width,
            )  # fmt: skip
    at = first + phase * width
    for i in range(0, width, LANES):
        store(work.gate, item * width + i, load(ahead, at + i))
    if ring_steps > 0:
        at = (layers.ring[block] + now % ring_steps) * channels
        for i in range(0, channels, LANES):
            store(rings, at + i, load(work.h, item * channels + i))


@njit(forceinline=True)
def _add_condition(model: Model, work: Workspace, frame_weights: Any, item: int, block: int, phase: int) -> None:
    """Add the condition of the sample that is ``phase`` samples into its frame to the gate."""
    if model.condition == 0:
        return
    width, blocks, frames_read = 2 * model.gates, len(model.layers.now), len(frame_weights)
    for r in range(frames_read):
        at = ((item * frames_read + r) * blocks + block) * width
        weight = splat(frame_weights[r, phase])
        for i in range(item * width, (item + 1) * width, LANES):
            store(work.gate, i, load(work.gate, i) + weight * load(work.projected, at))
            at += LANES


@njit(forceinline=True)
def _activate(model: Model, work: Workspace, item: int, z: int) -> None:
    """z = tanh(filter) · σ(gate)."""
    z, gate = z + item * model.gates, item * 2 * model.gates
    for i in range(0, model.gates, LANES):
        store(work.z, z + i, tanh_times_sigmoid(load(work.gate, gate + i), load(work.gate, gate + model.gates + i)))


@njit(forceinline=True)
def _scale_residual(model: Model, work: Workspace, item: int, block: int) -> None:
    """h = h · scale + bias, to which residual · z is added to make the next block's input."""
    scale, bias, h = splat(model.layers.residual_scale[block]), block * model.channels, item * model.channels
    for i in range(0, model.channels, LANES):
        store(work.h, h + i, load(work.h, h + i) * scale + load(model.residual_bias, bias + i))


@njit(forceinline=True)
def _output_layers(model: Model, work: Workspace, items: int) -> None:
    """From the sum of skips to the parameters of the distribution."""
    for item in range(items):
        for i in range(0, model.hidden, LANES):
            store(work.hidden, item * model.hidden + i, load(model.hidden_bias, i))
        for i in range(0, model.outputs, LANES):
            store(work.output, item * model.outputs + i, load(model.output_bias, i))
    skips, hidden, active = work.skips, work.hidden, work.active
    _multiply_add_positive(hidden, model, model.hidden_at, skips, active, model.skips, model.hidden, items)
    _multiply_add_positive(work.output, model, model.output_at, hidden, active, model.hidden, model.outputs, items)


@njit(forceinline=True)
def _multiply_add_positive(
    out: Any, model: Model, weights_at: int, x: Any, active: Any, columns: int, outputs: int, items: int
) -> None:
    """``out += weights · ReLU(x)`` for each item; may change ``x``."""
    if items == 1:
        count = _positive(x, active)
        multiply_add_active(out, 0, model.weights, weights_at, x, active, count, columns, outputs)
        return
    # Each item is zero in other places: together they need nearly every column.
    for i in range(0, len(x), LANES):
        store(x, i, largest_of(load(x, i), splat(_ZERO)))
    multiply_add_items(out, model.weights, weights_at, x, 0, columns, outputs, True)


@njit(forceinline=True)
def _positive(values: Any, active: Any) -> int:
    """List the indices of values above zero, which is all of a ReLU that the next layer reads; returns their number."""
    count = 0
    for i in range(len(values)):
        active[count] = i  # overwritten unless it counts: cheaper than a branch that goes either way
        count += values[i] > _ZERO
    return count
