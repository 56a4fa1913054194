"""Packs a WaveNet's weights for a loop that reads them in order, once per sample.

Arithmetic that does not depend on the samples is done here, once, in float64: the factors on residuals and skips become
part of the weights, and the effect of past samples on the first block becomes tables.

The module ``arena`` says how a matrix is stored. Channels are padded with zeros, which stay zeros throughout.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from wavegen.blocks import DilatedConv1d, GatedResidualBlock
from wavegen.distributions import Gaussian, LogisticMixture, MuLaw
from wavegen.engines.base import Network, reads_classes
from wavegen.engines.packed.arena import STEP_BYTES, Arena, Precision
from wavegen.errors import ConfigError
from wavegen.levels import mu_law_decode

MAX_BLOCK_STEPS = 8
MU_LAW, LOGISTIC_MIXTURE, GAUSSIAN = 0, 1, 2
NO_CLASS = -1e30  # logit of a padding class


class Layers(NamedTuple):
    """Where each block's weights begin and how its past is kept. Every array has one element per block.

    The first block has tables instead of taps, and no ring.
    """

    now: np.ndarray  # first weight of the gates' present tap
    past: np.ndarray  # first weights of their past taps, [blocks, taps], oldest first
    residual: np.ndarray  # first weights of the other matrices
    skip: np.ndarray
    condition: np.ndarray
    residual_scale: np.ndarray
    ring: np.ndarray  # first step of the block's ring among the item's rings
    ring_steps: np.ndarray
    tap_steps: np.ndarray  # steps from tap to tap: the dilation
    block_steps: np.ndarray  # number of samples whose past taps are computed at once


class Model(NamedTuple):
    """The weights and sizes that the sample loop reads; numba accepts it as it is.

    Sizes are padded. ``tables`` are float32 ``[lags, rows, channels + 2 · gates]``: the contribution of what the
    network read ``lags[i]`` steps back to the first block's input and, through it, to its gates. There is a row per
    class or, if it reads numbers, a factor for each and a constant.
    """

    channels: int
    gates: int
    skips: int
    hidden: int
    outputs: int
    condition: int
    weights: np.ndarray  # float32, int16 or int8
    condition_weights: np.ndarray  # float32 or int16
    tail: int  # elements behind a vector that products read: the bytes of its step in int8, otherwise none
    layers: Layers
    hidden_at: int
    output_at: int
    lags: np.ndarray
    rows: int
    tables: np.ndarray
    input_bias: np.ndarray  # [channels + 2 · gates], for the first block's input and gates
    gate_bias: np.ndarray  # [blocks, 2 · gates]
    residual_bias: np.ndarray  # [blocks, channels]
    skip_bias: np.ndarray  # the sum over all blocks
    hidden_bias: np.ndarray
    output_bias: np.ndarray
    distribution: int
    classes: int  # or the components of a mixture
    log_scale_min: float
    limit: float  # drawn values lie in -limit…limit
    levels: np.ndarray  # float32, the value of each mu-law class; empty for other distributions
    reads_classes: bool
    reads: int  # numbers that the network reads for a sample, or 1 class
    order: int  # of the linear prediction
    errors_kept: int  # past errors that pitch taps may read


@dataclass(frozen=True)
class _Conv:
    """A convolution in float64: weights ``[taps, out, in]``, oldest tap first, and its bias."""

    taps: np.ndarray
    bias: np.ndarray

    @classmethod
    def from_layer(cls, conv: DilatedConv1d) -> "_Conv":
        weight = conv.weight.detach().double().cpu().permute(2, 0, 1).numpy()
        bias = np.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach().double().cpu().numpy()
        return cls(weight, bias)


def pack(network: Network, precision: Precision, lanes: int) -> Model:
    """Pack a network's weights for vectors of ``lanes`` float32.

    Raises:
        ConfigError: the loop cannot run this network.
    """
    blocks = _checked(network)
    size = _padded_sizes(network, lanes)
    arena = Arena(precision, lanes)
    # The condition's weights are read once per frame, so that bytes would save no time.
    condition_arena = Arena("int16" if precision == "int8" else precision, lanes)
    padded = [_PaddedBlock.of(block, size, network.skip_scale) for block in blocks]
    places = _place(network, padded, size, arena, condition_arena)

    # What the first block reads: tables of past samples, and biases.
    one_hot = reads_classes(network)
    input_conv, first_conv = _Conv.from_layer(network.input), _Conv.from_layer(blocks[0].conv)
    lags, tables = _tables(input_conv, first_conv, blocks[0].conv.dilation[0], one_hot=one_hot)
    input_bias = np.concatenate([input_conv.bias, first_conv.taps[-1] @ input_conv.bias])

    hidden, output = _Conv.from_layer(network.hidden), _Conv.from_layer(network.output)
    output_bias = np.full(size.outputs, NO_CLASS)
    output_bias[: len(output.bias)] = output.bias
    kind, classes, log_scale_min = _sampling(network.distribution)
    return Model(
        channels=size.channels,
        gates=size.gates,
        skips=size.skips,
        hidden=size.hidden,
        outputs=size.outputs,
        condition=size.condition,
        weights=arena.finished(),
        condition_weights=condition_arena.finished(),
        tail=STEP_BYTES if precision == "int8" else 0,
        layers=_layers(blocks, places),
        hidden_at=places.hidden,
        output_at=places.output,
        lags=np.array(lags),
        rows=tables.shape[1],
        tables=np.stack([_front(table, blocks[0], size) for table in tables]),
        input_bias=_front(input_bias[None], blocks[0], size)[0],
        gate_bias=_float32(np.stack([block.gate_bias for block in padded])),
        residual_bias=_float32(np.stack([block.residual_bias for block in padded])),
        skip_bias=_float32(sum((block.skip_bias for block in padded), np.zeros(size.skips))),
        hidden_bias=_float32(_pad(hidden.bias, size.hidden)),
        output_bias=_float32(output_bias),
        distribution=kind,
        classes=classes,
        log_scale_min=log_scale_min,
        limit=float(network.distribution.limit),
        levels=_levels(network.distribution, classes),
        reads_classes=one_hot,
        reads=1 if one_hot else network.input.in_channels,
        order=network.prediction_order,
        errors_kept=network.longest_period + 1 if network.reads_pitch else 1,
    )


class _Sizes(NamedTuple):
    """Numbers of channels in the arenas: multiples of two vectors."""

    channels: int
    gates: int
    skips: int
    hidden: int
    outputs: int
    condition: int


def _padded_sizes(network: Network, lanes: int) -> _Sizes:
    first = _checked(network)[0]
    sizes = (
        first.channels,
        first.output.in_channels,
        first.skip_channels,
        network.hidden.out_channels,
        network.output.out_channels,
        condition_channels(network),
    )
    return _Sizes(*(-(-size // (2 * lanes)) * 2 * lanes for size in sizes))


class _PaddedBlock(NamedTuple):
    """A block's weights in float64, scaled and padded.

    Attributes:
        taps: matrices from channels to gates, oldest tap first.
        gate_bias: bias of the gates.
        residual, residual_bias: the layer from gates to the residual.
        skip, skip_bias: the layer from gates to the skip.
        condition: matrix from the condition to the gates; None if the block has no condition.
    """

    taps: list[np.ndarray]
    gate_bias: np.ndarray
    residual: np.ndarray
    residual_bias: np.ndarray
    skip: np.ndarray
    skip_bias: np.ndarray
    condition: np.ndarray | None

    @classmethod
    def of(cls, block: GatedResidualBlock, size: _Sizes, skip_scale: float) -> "_PaddedBlock":
        conv, mix = _Conv.from_layer(block.conv), _Conv.from_layer(block.output)

        def halves(weight: np.ndarray) -> np.ndarray:
            """Pad the filters and the gates separately."""
            return np.concatenate([_pad(half, size.gates) for half in np.split(weight, 2)])

        condition = None
        if block.condition is not None:
            condition = _pad(halves(_Conv.from_layer(block.condition).taps[0]), columns=size.condition)
        return cls(
            taps=[_pad(halves(tap), columns=size.channels) for tap in conv.taps],
            gate_bias=halves(conv.bias),
            residual=_pad(mix.taps[0][: block.channels] * block.residual_scale, size.channels, size.gates),
            residual_bias=_pad(mix.bias[: block.channels] * block.residual_scale, size.channels),
            skip=_pad(mix.taps[0][block.channels :] * skip_scale, size.skips, size.gates),
            skip_bias=_pad(mix.bias[block.channels :] * skip_scale, size.skips),
            condition=condition,
        )


class _Places(NamedTuple):
    """Where matrices begin in the arenas: a number for each block, and those of the two layers after the blocks."""

    now: list[int]
    past: list[list[int]]
    residual: list[int]
    skip: list[int]
    condition: list[int]
    hidden: int
    output: int


def _place(
    network: Network, blocks: Sequence[_PaddedBlock], size: _Sizes, arena: Arena, condition_arena: Arena
) -> _Places:
    """Add all matrices to the arenas, in the order in which the loop reads them for a sample.

    The past taps, which it reads less often, follow. The first block's taps are in tables instead; its places are 0,
    as is that of a missing condition.
    """
    now, residual, skip = [], [], []
    for block in blocks:
        now.append(0 if block is blocks[0] else arena.add(block.taps[-1]))
        residual.append(arena.add(block.residual))
        skip.append(arena.add(block.skip))
    hidden = arena.add(_pad(_Conv.from_layer(network.hidden).taps[0], size.hidden, size.skips), after_relu=True)
    output = arena.add(_pad(_Conv.from_layer(network.output).taps[0], size.outputs, size.hidden), after_relu=True)
    past = [[0 if block is blocks[0] else arena.add(tap) for tap in block.taps[:-1]] for block in blocks]
    condition = [0 if block.condition is None else condition_arena.add(block.condition) for block in blocks]
    return _Places(now, past, residual, skip, condition, hidden, output)


def _front(values: np.ndarray, first: GatedResidualBlock, size: _Sizes) -> np.ndarray:
    """Pad the three parts of ``[rows, input | filters | gates]``, what the first block reads."""
    gates = first.output.in_channels
    parts = np.split(values, [first.channels, first.channels + gates], axis=-1)
    padded = zip(parts, (size.channels, size.gates, size.gates), strict=True)
    return _float32(np.concatenate([_pad(part, part.shape[-2], columns) for part, columns in padded], axis=-1))


def _layers(blocks: Sequence[GatedResidualBlock], places: _Places) -> Layers:
    """The blocks as the loop reads them."""
    ring_steps = [0 if block is blocks[0] else block.conv.context.left for block in blocks]
    dilations = [block.conv.dilation[0] for block in blocks]
    return Layers(
        now=np.array(places.now),
        past=np.array(places.past, dtype=np.int64).reshape(len(blocks), -1),
        residual=np.array(places.residual),
        skip=np.array(places.skip),
        condition=np.array(places.condition),
        residual_scale=np.array([block.residual_scale for block in blocks], dtype=np.float32),
        ring=np.cumsum([0, *ring_steps[:-1]]),
        ring_steps=np.array(ring_steps),
        tap_steps=np.array(dilations),
        block_steps=np.array([_block_steps(dilation) for dilation in dilations]),
    )


def _levels(distribution: Any, classes: int) -> np.ndarray:
    """The sample of each class, float32 ``[classes]``; empty for a distribution without classes."""
    if not isinstance(distribution, MuLaw):
        return np.zeros(0, dtype=np.float32)
    values = mu_law_decode(torch.arange(classes), classes, dtype=torch.float64) * distribution.limit
    return _float32(values.numpy())


def condition_channels(network: Network) -> int:
    """The number of condition channels before padding."""
    first = _checked(network)[0]
    return 0 if first.condition is None else first.condition.in_channels


def _checked(network: Network) -> list[GatedResidualBlock]:
    blocks = [block for block in network.stack.blocks if isinstance(block, GatedResidualBlock)]
    if len(blocks) < len(network.stack.blocks):
        raise _unsupported("runs gated residual blocks only, and this model has others")
    shapes = {
        (b.channels, b.skip_channels, b.conv.out_channels, b.conv.kernel_size, b.condition is None) for b in blocks
    }
    if len(shapes) > 1:
        raise _unsupported("runs blocks of one shape, and those of this model differ")
    return blocks


def _sampling(distribution: Any) -> tuple[int, int, float]:
    """The model's ``distribution``, ``classes`` and ``log_scale_min``."""
    if isinstance(distribution, MuLaw):
        return MU_LAW, distribution.classes, 0.0
    if isinstance(distribution, LogisticMixture):
        return LOGISTIC_MIXTURE, distribution.components, distribution.log_scale_min
    if isinstance(distribution, Gaussian):
        return GAUSSIAN, 1, distribution.log_scale_min
    raise _unsupported(f"cannot draw from the distribution {distribution.name!r}")


def _unsupported(fault: str) -> ConfigError:
    return ConfigError(f"the numba engine {fault}", where="engine", remedy="use the torch engine")


def _block_steps(dilation: int) -> int:
    """How many samples' past taps are known before the first of them: a power of two that divides the dilation."""
    return next(steps for steps in (MAX_BLOCK_STEPS, 4, 2, 1) if dilation % steps == 0)


def _tables(inputs: _Conv, first: _Conv, dilation: int, *, one_hot: bool) -> tuple[list[int], np.ndarray]:
    """Compute what each past input adds to the first block's input h and to its gates.

    With E the input's taps, counted back from the newest, b its bias and W the first block's::

        h(n) = b + sum_i E_i · x(n − i)                 gates(n) = sum_j W_j · h(n − j·d) + …

    so an input adds E_i to h at lag i, and W_j E_i to the gates at lag i + j·d. h(n − j·d) also adds its bias W_j b,
    unless it precedes the start and is zero. Then sample n − j·d does not exist either, so the bias belongs to the
    table of that lag. For j = 0 there always is one, so W_0 b is part of the model's ``input_bias``.

    Returns:
        the lags, and a table for each: ``[lags, rows, channels + 2 · gates]``.
    """
    embeddings, mixes = inputs.taps[::-1], first.taps[::-1]
    lags = sorted({i + j * dilation for i in range(len(embeddings)) for j in range(len(mixes))} | {0})
    channels, gates, read = embeddings.shape[1], mixes.shape[1], embeddings.shape[2]
    tables = np.zeros((len(lags), read if one_hot else read + 1, channels + gates))
    linear = tables[:, :read]
    constant = tables if one_hot else tables[:, read:]
    for i, embedding in enumerate(embeddings):
        linear[lags.index(i), :, :channels] += embedding.T
        for j, mix in enumerate(mixes):
            linear[lags.index(i + j * dilation), :, channels:] += (mix @ embedding).T
    for j, mix in enumerate(mixes[1:], start=1):
        constant[lags.index(j * dilation), :, channels:] += mix @ inputs.bias
    return lags, tables


def _pad(values: np.ndarray, rows: int | None = None, columns: int | None = None) -> np.ndarray:
    """Append zero rows (or, in one dimension, elements) and zero columns up to the given sizes."""
    wanted = (rows, columns)[: values.ndim]
    widths = [(0, 0 if size is None else size - now) for size, now in zip(wanted, values.shape, strict=True)]
    return np.pad(values, widths)


def _float32(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.float32)
