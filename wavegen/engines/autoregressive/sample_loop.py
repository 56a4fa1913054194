"""WaveNet's sample loop, compiled by numba: it computes what the torch engine computes, but reads less memory.

One sample, as in ``wavegen.engines.reference``::

    history of samples ── tables ──┬─ input of the first block, and its gates
                                   │
      for each block:              │
        past taps (done before) + condition + present tap · h ── tanh · σ ── z
        h = h · scale + residual · z                       skips += skip · z
                                   │
                  skips ── ReLU ── hidden ── ReLU ── output ── draw ── sample

Five changes make it fast; all of them are exact up to rounding:

- A tap d samples back reads values that are already known for the next d samples. So the past taps of up to 8 samples
  are one matrix product, which reads each weight once instead of 8 times.
- The first block's input is a sum of a few table rows, and so are its gates. (Numbers multiply rows.)
- Behind a ReLU about half of the values are zero; the weights that would multiply them are not read, except in int8.
- The condition's product is computed at frame rate (see ``FrameCondition``).
- Several items run in lock step, sample by sample, so that their matrix products read each weight once. Each item's
  sums are added up in the same order as for one item alone, so its samples are the same, bit for bit.

There is one loop for all shapes: sizes are arguments, so a machine compiles it once for each precision. Arrays have a
row per item; ``item`` is the index of a row.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from wavegen.engines.autoregressive.drawing import SUM_GROUP, draw
from wavegen.engines.autoregressive.packing import MAX_BLOCK_STEPS, Model
from wavegen.engines.base import LARGEST_INPUT, PITCH_TAPS
from wavegen.engines.packed.products import (
    Matrix,
    multiply_add,
    multiply_add_items,
    multiply_add_positive,
    multiply_add_steps,
    write_operand,
)
from wavegen.engines.simd import LANES, Vectors, copy, load, splat, store, tanh_times_sigmoid

_ZERO, _ONE = np.float32(0), np.float32(1)
_LARGEST_INPUT = np.float32(LARGEST_INPUT)


class Memory(NamedTuple):
    """The state as arrays with a row per item, float32 unless stated otherwise; the loop changes it in place."""

    history: np.ndarray  # what the network has read, classes or groups of numbers, newest first
    rings: np.ndarray  # [items, steps of all blocks · (channels + tail)], inputs of past taps; uint8 in int8
    ahead: np.ndarray  # [items, blocks · MAX_BLOCK_STEPS · 2 · gates], sums of past taps for this block of samples
    waveform: np.ndarray  # [items, order + samples], the past of the first sample, then room for these
    errors: np.ndarray  # [items, errors kept + samples], likewise
    expected: np.ndarray  # float64 [items, 2], prediction and scale of the sample before


class Workspace(NamedTuple):
    """Arrays without content between calls; flat, and float32 unless stated otherwise."""

    projected: np.ndarray  # [items · frames read · blocks · 2 · gates]
    gate: np.ndarray  # this one and the next eight have room for each item
    h: np.ndarray
    z: np.ndarray  # two places, used in turn
    h_operand: np.ndarray  # h and z as products read them: the same arrays or, in int8, others with their uint8 codes
    z_operand: np.ndarray
    positive: np.ndarray  # uint8 codes of what a ReLU passes
    skips: np.ndarray
    hidden: np.ndarray
    output: np.ndarray
    active: np.ndarray  # int32
    probability: np.ndarray
    group: np.ndarray  # float64
    mixture: np.ndarray  # float64, weights, means and inverse scales


class Inputs(NamedTuple):
    """What the loop reads beside the model.

    Attributes:
        start: number of samples done before.
        frames: float32 ``[items, frames + frames read - 1, condition channels]``, padded.
        frame_weights: float32 ``[frames read, hop]``.
        noise: float64 ``[items, samples]``: uniform numbers or, for a Gaussian, standard normal ones.
        given: float32 classes or values ``[items, 1 or samples]``: the sample before the first, or before each one
            (teacher forcing).
        coefficients: float32 ``[items, sub-frames, order]``, of the linear prediction.
        scale: float32 ``[items, sub-frames]``, of its error.
        period: int64 ``[items, frames]``, pitch periods in samples, 0 where not voiced.
        temperature: float64 ``[items, frames]``: 1 samples from the model, 0 takes its mode.
        sub_frame, frame: samples of a sub-frame and of a frame of these four.
    """

    start: int
    frames: np.ndarray
    frame_weights: np.ndarray
    noise: np.ndarray
    given: np.ndarray
    coefficients: np.ndarray
    scale: np.ndarray
    period: np.ndarray
    temperature: np.ndarray
    sub_frame: int
    frame: int


class Outputs(NamedTuple):
    """What the loop writes.

    Attributes:
        samples: float32 classes or values ``[items, samples]``, as drawn.
        parameters: float32 ``[items, samples, outputs]``, the network's output; ``[items, 0, outputs]`` to omit it.
    """

    samples: np.ndarray
    parameters: np.ndarray


def workspace(model: Model, frames_read: int, items: int) -> Workspace:
    """Allocate the arrays that one running loop needs."""

    def room(size: int) -> np.ndarray:
        return np.zeros(size, dtype=np.float32)

    def operand(values: np.ndarray, size: int) -> np.ndarray:
        """The array that products read in place of ``values``, which holds vectors of ``size``."""
        if model.weights.dtype != np.int8:
            return values
        return np.zeros(len(values) // size * (size + model.tail), dtype=np.uint8)

    h, z = room(items * model.channels), room(items * 2 * model.gates)
    return Workspace(
        projected=room(items * frames_read * len(model.layers.now) * 2 * model.gates),
        gate=room(items * 2 * model.gates),
        h=h,
        z=z,
        h_operand=operand(h, model.channels),
        z_operand=operand(z, model.gates),
        positive=np.zeros(items * (max(model.skips, model.hidden) + model.tail), dtype=np.uint8),
        skips=room(items * model.skips),
        hidden=room(items * model.hidden),
        output=room(items * model.outputs),
        active=np.zeros(max(model.skips, model.hidden), dtype=np.int32),
        probability=room(model.outputs),
        group=np.zeros(model.outputs // SUM_GROUP),
        mixture=np.zeros((3, model.classes)),
    )


@njit(inline="always")
def sample_loop(model: Model, memory: Memory, work: Workspace, inputs: Inputs, outputs: Outputs) -> None:
    """Compute the samples of one item or of ``LOCK_STEP`` items.

    Args:
        model: the weights.
        memory: the state, left as it is after the last sample.
        work: arrays to work in.
        inputs: arrays to read.
        outputs: arrays to fill.
    """
    layers, blocks, gates, channels = model.layers, len(model.layers.now), model.gates, model.channels
    samples, parameters, given = outputs.samples, outputs.parameters, inputs.given
    frames_read, hop = inputs.frame_weights.shape
    items, teacher_forced = len(samples), given.shape[1] > 1
    for n in range(samples.shape[1]):
        # Read the sample before, and start the sums that it begins.
        for item in range(items):
            if n % hop == 0:
                _project_frames(model, work, inputs.frames, item, n // hop, frames_read)
            previous = given[item, n if teacher_forced else 0] if teacher_forced or n == 0 else samples[item, n - 1]
            if model.reads_classes:
                _push(memory.history[item], previous)
            else:
                _predict_linearly(model, memory, inputs, item, n, previous)
            _enter_first_block(model, memory, work, item, inputs.start + n)
            for i in range(0, model.skips, LANES):
                store(work.skips, item * model.skips + i, load(model.skip_bias, i))
        for block in range(blocks):
            if block > 0:
                for item in range(items):
                    _start_gate_from_past(model, memory, work, item, block, inputs.start + n)
                matrix = Matrix(model.weights, layers.now[block], channels, 2 * gates)
                _multiply_add(work.gate, matrix, work.h_operand, 0, items, model.tail)
            # z alternates between two places, because the previous block's z is still needed.
            z, previous_z = block % 2 * items, (block + 1) % 2 * items
            for item in range(items):
                _add_condition(model, work, inputs.frame_weights, item, block, n % hop)
                _activate(model, work, z + item, item)
            # Nothing waits for the skips. So those of the previous block fill the time in which the processor would
            # wait for the long chain of operations of the gate.
            if block > 0:
                matrix = Matrix(model.weights, layers.skip[block - 1], gates, model.skips)
                _multiply_add(work.skips, matrix, work.z_operand, previous_z, items, model.tail)
            if block < blocks - 1:
                for item in range(items):
                    _scale_residual(model, work, item, block)
                matrix = Matrix(model.weights, layers.residual[block], gates, channels)
                _multiply_add(work.h, matrix, work.z_operand, z, items, model.tail)
        # The last block's skips, then the output layers and the draw.
        matrix = Matrix(model.weights, layers.skip[blocks - 1], gates, model.skips)
        _multiply_add(work.skips, matrix, work.z_operand, (blocks - 1) % 2 * items, items, model.tail)
        _output_layers(model, work, items)
        for item in range(items):
            if parameters.shape[1] > 0:
                for i in range(model.outputs):
                    parameters[item, n, i] = work.output[item * model.outputs + i]
            drawn = draw(model, work, item, inputs.noise[item], n, inputs.temperature[item, n // inputs.frame])
            if not model.reads_classes:
                value = memory.expected[item, 0] + memory.expected[item, 1] * drawn
                drawn = np.float32(min(max(value, -1.0), 1.0))
            samples[item, n] = drawn


@njit(forceinline=True)
def _multiply_add(out: Any, matrix: Matrix, x: Any, x_first: int, items: int, tail: int) -> None:
    """``out += matrix · x`` for each item; that of the first item is vector ``x_first`` of ``x``."""
    stride = matrix.inputs + tail
    multiply_add_items(Vectors(out, 0, matrix.outputs), matrix, Vectors(x, x_first * stride, stride), items)


@njit(forceinline=True)
def _project_frames(model: Model, work: Workspace, frames: Any, item: int, frame: int, frames_read: int) -> None:
    """Multiply the frames that the next ``hop`` samples read with the condition weights of every block."""
    if model.condition == 0:
        return
    blocks, width = len(model.layers.now), 2 * model.gates
    at = item * frames_read * blocks * width
    for r in range(frames_read):
        x = Vectors(frames[item], (frame + r) * model.condition, 0)
        for block in range(blocks):
            for i in range(0, width, LANES):
                store(work.projected, at + i, splat(_ZERO))
            matrix = Matrix(model.condition_weights, model.layers.condition[block], model.condition, width)
            multiply_add(Vectors(work.projected, at, 0), matrix, x)
            at += width


@njit(forceinline=True)
def _push(history: Any, sample: Any) -> None:
    """Insert ``sample`` as the newest."""
    for i in range(len(history) - 1, 0, -1):
        history[i] = history[i - 1]
    history[0] = sample


@njit
def _predict_linearly(model: Model, memory: Memory, inputs: Inputs, item: int, n: int, previous: Any) -> None:
    """Predict sample ``n``, and let the network read the error of the sample before and those one period back."""
    # The sample before is known by now.
    expected = memory.expected[item]
    error = np.float32((previous - expected[0]) / expected[1])
    errors, kept = memory.errors[item], model.errors_kept
    errors[n + kept - 1] = error  # that of sample n - k is at n - k + kept

    mean, sub_frame = 0.0, n // inputs.sub_frame
    if model.order > 0:
        waveform, coefficients = memory.waveform[item], inputs.coefficients[item, sub_frame]
        waveform[n + model.order - 1] = previous
        for k in range(model.order):
            mean += float(coefficients[k]) * float(waveform[n + model.order - 1 - k])
    expected[0], expected[1] = mean, inputs.scale[item, sub_frame]

    history, reads = memory.history[item], model.reads
    for i in range(len(history) - 1, reads - 1, -1):
        history[i] = history[i - reads]
    history[0] = min(max(error, -_LARGEST_INPUT), _LARGEST_INPUT)
    if reads > 1:
        period = inputs.period[item, n // inputs.frame]
        for tap in range(reads - 1):
            value = errors[n + kept - period + PITCH_TAPS[tap]] if period > 0 else _ZERO
            history[1 + tap] = min(max(value, -_LARGEST_INPUT), _LARGEST_INPUT)


@njit(forceinline=True)
def _enter_first_block(model: Model, memory: Memory, work: Workspace, item: int, now: int) -> None:
    """Sum up the first block's input and gates from the tables of past samples; see ``packing._tables``."""
    channels, width = model.channels, model.channels + 2 * model.gates
    h, gate = item * channels, item * 2 * model.gates
    for i in range(0, channels, LANES):
        store(work.h, h + i, load(model.input_bias, i))
    for i in range(0, 2 * model.gates, LANES):
        store(work.gate, gate + i, load(model.input_bias, channels + i) + load(model.gate_bias, i))
    for index in range(len(model.lags)):
        lag = model.lags[index]
        if lag > now:  # nothing precedes the first sample, not even silence
            continue
        table = index * model.rows * width
        if model.reads_classes:
            row = table + int(memory.history[item, lag]) * width
            _add_row(model, work, h, gate, row, _ONE)
            continue
        for number in range(model.reads):
            value = memory.history[item, lag * model.reads + number]
            _add_row(model, work, h, gate, table + number * width, value)
        _add_row(model, work, h, gate, table + model.reads * width, _ONE)


@njit(forceinline=True)
def _add_row(model: Model, work: Workspace, h: int, gate: int, row: int, factor: Any) -> None:
    """Add a row of the tables to the first block's input and gates."""
    for i in range(0, model.channels, LANES):
        store(work.h, h + i, load(work.h, h + i) + load(model.tables, row + i) * splat(factor))
    row += model.channels
    for i in range(0, 2 * model.gates, LANES):
        store(work.gate, gate + i, load(work.gate, gate + i) + load(model.tables, row + i) * splat(factor))


@njit(forceinline=True)
def _start_gate_from_past(model: Model, memory: Memory, work: Workspace, item: int, block: int, now: int) -> None:
    """Start the gate from the bias and the past taps; at the start of a block of samples, compute these for all of it.

    The ring holds the last ``ring_steps`` inputs, that of sample n at ``n % ring_steps``. The present input replaces
    the oldest one after that was read.
    """
    layers, channels, width, stride = model.layers, model.channels, 2 * model.gates, model.channels + model.tail
    steps, block_steps, ring_steps = layers.tap_steps[block], layers.block_steps[block], layers.ring_steps[block]
    rings, ahead = memory.rings[item], memory.ahead[item]
    first, phase = block * MAX_BLOCK_STEPS * width, now % block_steps
    bias = block * width
    if phase == 0:
        for s in range(block_steps):
            for i in range(0, width, LANES):
                store(ahead, first + s * width + i, load(model.gate_bias, bias + i))
        for tap in range(layers.past.shape[1]):
            # The first tap is the oldest, ring_steps back.
            oldest = layers.ring[block] + (now + tap * steps) % ring_steps
            matrix = Matrix(model.weights, layers.past[block, tap], channels, width)
            x = Vectors(rings, oldest * stride, stride)
            multiply_add_steps(Vectors(ahead, first, width), matrix, x, block_steps)
    at = first + phase * width
    for i in range(0, width, LANES):
        store(work.gate, item * width + i, load(ahead, at + i))
    write_operand(work.h_operand, item * stride, work.h, item * channels, channels)
    if ring_steps > 0:
        copy(rings, (layers.ring[block] + now % ring_steps) * stride, work.h_operand, item * stride, stride)


@njit(forceinline=True)
def _add_condition(model: Model, work: Workspace, frame_weights: Any, item: int, block: int, phase: int) -> None:
    """Add to the gate the condition of the sample that is ``phase`` samples into its frame."""
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
def _activate(model: Model, work: Workspace, place: int, item: int) -> None:
    """z = tanh(filter) · σ(gate) of an item, in a place among the vectors z."""
    z, gate = place * model.gates, item * 2 * model.gates
    for i in range(0, model.gates, LANES):
        store(work.z, z + i, tanh_times_sigmoid(load(work.gate, gate + i), load(work.gate, gate + model.gates + i)))
    write_operand(work.z_operand, place * (model.gates + model.tail), work.z, z, model.gates)


@njit(forceinline=True)
def _scale_residual(model: Model, work: Workspace, item: int, block: int) -> None:
    """h = h · scale + bias, to which residual · z is added to form the next block's input."""
    scale, bias, h = splat(model.layers.residual_scale[block]), block * model.channels, item * model.channels
    for i in range(0, model.channels, LANES):
        store(work.h, h + i, load(work.h, h + i) * scale + load(model.residual_bias, bias + i))


@njit(forceinline=True)
def _output_layers(model: Model, work: Workspace, items: int) -> None:
    """Compute the parameters of the distribution from the sum of skips."""
    for item in range(items):
        for i in range(0, model.hidden, LANES):
            store(work.hidden, item * model.hidden + i, load(model.hidden_bias, i))
        for i in range(0, model.outputs, LANES):
            store(work.output, item * model.outputs + i, load(model.output_bias, i))
    x, out = Vectors(work.skips, 0, model.skips), Vectors(work.hidden, 0, model.hidden)
    matrix = Matrix(model.weights, model.hidden_at, model.skips, model.hidden)
    multiply_add_positive(out, matrix, x, work.active, work.positive, items)
    x, out = Vectors(work.hidden, 0, model.hidden), Vectors(work.output, 0, model.outputs)
    matrix = Matrix(model.weights, model.output_at, model.hidden, model.outputs)
    multiply_add_positive(out, matrix, x, work.active, work.positive, items)
