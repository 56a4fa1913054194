"""The engines of a parallel WaveNet: plain torch, and one that runs it in tiles on one CPU core."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from wavegen.blocks import Context, DilatedConv1d, DilatedStack, GatedResidualBlock, StagedUpsampler

# Rows of the widest product: with 128 columns of float32, half a megabyte.
TILE_SAMPLES = 1024

Histories = tuple[Tensor, ...]  # one entry per block, ``[batch, channels, steps]``: the state of a ``DilatedStack``


class ParallelNetwork(Protocol):
    """The layers of a parallel WaveNet that run at sample rate."""

    upsample: StagedUpsampler
    input: DilatedConv1d
    stack: DilatedStack
    hidden: DilatedConv1d
    output: DilatedConv1d
    skip_scale: float


class PlainTorch(NamedTuple):
    """The torch engine of a parallel WaveNet: the network itself, as trained.

    Attributes:
        description: the engine's name, with the reason if the tiled engine cannot run here.
    """

    description: str = "torch"


class TiledEngine:
    """Runs a parallel WaveNet on one CPU core, with a row per sample instead of ``[channels, time]``.

    Each tap of a dilated convolution is then a plain matrix product with a shifted view, which BLAS computes fastest,
    and a tile of rows stays in the cache from one product to the next. The samples are those of the network, up to
    rounding.

    Args:
        network: a network for which ``obstacle`` returns None; its weights are copied.

    Attributes:
        description: the engine's name.
    """

    description = "tiled"

    @torch.no_grad()
    def __init__(self, network: ParallelNetwork) -> None:
        blocks = [block for block in network.stack.blocks if isinstance(block, GatedResidualBlock)]
        self._blocks, self._condition_weights = _fold(blocks)
        self._upsample = copy.deepcopy(network.upsample)
        self._input = _Pointwise.copy(network.input)
        self._hidden = _Pointwise.copy(network.hidden)
        self._output = _Pointwise.copy(network.output)
        self._skip_channels = network.stack.skip_channels
        self._skip_scale = network.skip_scale

    @staticmethod
    def obstacle(network: ParallelNetwork) -> str | None:
        """Return the reason why this engine cannot run a network, as a clause; None if it can."""
        weight = network.output.weight
        if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.float64):
            model = f"{str(weight.dtype).removeprefix('torch.')} on {weight.device.type}"
            return f"the tiled engine runs float32 and float64 models on a CPU, and this one is {model}"
        blocks = list(network.stack.blocks)
        gated = [block for block in blocks if isinstance(block, GatedResidualBlock) and block.condition is not None]
        shapes = {(block.conv.weight.shape, block.output.weight.shape) for block in gated}
        if len(gated) < len(blocks) or len(shapes) != 1:
            return "the tiled engine runs gated blocks of one shape with a condition, and this model has others"
        return None

    @torch.no_grad()
    def run(self, sources: Tensor, frames: Tensor, histories: Histories) -> tuple[Tensor, Histories]:
        """Compute the samples of one item.

        Args:
            sources: ``[channels, samples]``, the network's input.
            frames: ``[channels, frames]``, the condition before upsampling. If there are more frames than samples, the
                first ones precede them.
            histories: the state of the stack for this item, ``[1, channels, steps]`` per block, zeros at the start of
                an utterance; it is left unchanged.

        Returns:
            ``[samples]``, and the next state, which is meaningful if the stack is causal.
        """
        projected = torch.matmul(frames.t(), self._condition_weights)
        condition = _Condition(self._upsample, projected, sources.shape[1])
        gate_channels = projected.shape[-1]
        room = _Room(
            before_gate=sources.new_empty(condition.tile, gate_channels),
            after_gate=sources.new_ones(condition.tile, gate_channels // 2 + 1),
        )
        x = torch.addmm(self._input.bias, sources.t(), self._input.matrix)
        skips = x.new_zeros(len(x), self._skip_channels)
        next_histories = []
        for index, (block, history) in enumerate(zip(self._blocks, histories, strict=True)):
            seen = torch.cat((history[0].t(), x, x.new_zeros(block.context.right, x.shape[1])))
            end = seen[len(x) : len(x) + block.context.left]
            next_histories.append(end.t()[None].clone())  # a view would keep all of ``seen`` in memory
            x = _run_block(block, seen, condition.tiles, condition.frames[index], skips, room)
        hidden = torch.addmm(self._hidden.bias, skips.mul_(self._skip_scale).relu_(), self._hidden.matrix)
        samples = torch.addmm(self._output.bias, hidden.relu_(), self._output.matrix)[:, 0]
        return samples, tuple(next_histories)


class _Pointwise(NamedTuple):
    """A copy of a 1×1 convolution: ``[in_channels, out_channels]`` and ``[out_channels]``."""

    matrix: Tensor
    bias: Tensor

    @classmethod
    def copy(cls, layer: DilatedConv1d) -> "_Pointwise":
        return cls(_matrix(layer).clone(), _bias(layer).clone())


class _Block(NamedTuple):
    """A block's weights as right-hand sides of products with rows of samples."""

    context: Context
    dilation: int
    residual_scale: float
    taps: Tensor  # [taps, channels, gate channels]
    bias: Tensor  # [gate channels]
    residual: Tensor  # [gate channels / 2 + 1, channels], the last row being the bias
    skip: Tensor  # [gate channels / 2 + 1, skip channels], likewise


class _Room(NamedTuple):
    """Memory for the channels of a tile before and after the gate.

    The last column after the gate stays one: it multiplies the biases.
    """

    before_gate: Tensor  # [rows, gate channels]
    after_gate: Tensor  # [rows, gate channels / 2 + 1]


class _Tile(NamedTuple):
    """A range of samples, and how they are conditioned."""

    rows: slice
    frames_read: slice
    weights: Tensor  # [rows, frames read], the upsampler's


def _fold(blocks: Sequence[GatedResidualBlock]) -> tuple[list[_Block], Tensor]:
    """Lay out the weights of blocks of one shape, and of their conditions, ``[blocks, condition, gate channels]``.

    ``sigmoid(b) = (1 + tanh(b / 2)) / 2``: with the halves folded into the weights, one tanh over all gate channels
    and one fused ``a + a * b`` are the gate.
    """
    conv = torch.stack([block.conv.weight for block in blocks])  # [blocks, gate, channels, taps]
    halved = conv.new_ones(conv.shape[1])
    halved[len(halved) // 2 :] = 0.5
    taps = (conv * halved[:, None, None]).permute(0, 3, 2, 1).contiguous()
    bias = torch.stack([_bias(block.conv) for block in blocks]) * halved
    conditions = [block.condition for block in blocks if block.condition is not None]
    condition = torch.stack([_matrix(layer) for layer in conditions]) * halved

    mixed = [torch.cat((_matrix(block.output) / 2, _bias(block.output)[None])) for block in blocks]
    residual, skip = torch.stack(mixed).split((blocks[0].channels, blocks[0].skip_channels), dim=2)
    scale = residual.new_tensor([block.residual_scale for block in blocks])
    residual = (residual * scale[:, None, None]).contiguous()
    skip = skip.contiguous()
    folded = [
        _Block(block.context, block.conv.dilation[0], block.residual_scale, *weights)
        for block, *weights in zip(blocks, taps, bias, residual, skip, strict=True)
    ]
    return folded, condition


def _run_block(
    block: _Block, seen: Tensor, tiles: Sequence[_Tile], frames: Tensor, skips: Tensor, room: _Room
) -> Tensor:
    """Run a block, and add its skips to ``skips``.

    Args:
        block: the block's weights.
        seen: ``[rows, channels]``, the block's input with its context on both sides.
        tiles: the tiles of the rows that are computed.
        frames: ``[frames, gate_channels]``, the block's projected condition.
        skips: ``[rows, skip_channels]``, changed in place.
        room: memory for a tile.

    Returns:
        the residual, ``[rows, channels]``.
    """
    residual = seen.new_empty(len(skips), seen.shape[1])
    half = room.before_gate.shape[1] // 2
    for rows, frames_read, weights in tiles:
        z = room.before_gate[: rows.stop - rows.start]
        gated = room.after_gate[: rows.stop - rows.start]
        torch.addmm(block.bias, weights, frames[frames_read], out=z)
        for tap, matrix in enumerate(block.taps):
            z.addmm_(seen[rows.start + tap * block.dilation : rows.stop + tap * block.dilation], matrix)
        z.tanh_()
        torch.addcmul(z[:, :half], z[:, :half], z[:, half:], out=gated[:, :half])
        x = seen[block.context.left + rows.start : block.context.left + rows.stop]
        torch.addmm(x, gated, block.residual, beta=block.residual_scale, out=residual[rows])
        skips[rows].addmm_(gated, block.skip)
    return residual


@dataclass
class _Condition:
    """A condition that each block has projected at frame rate, to be upsampled tile by tile.

    The upsampler is linear and treats all channels alike, so it can follow the projection: a tile's condition is the
    product of a few frames with the weights that its samples give them.

    Args:
        upsample: the linear upsampler.
        frames: ``[blocks, frames, gate_channels]``.
        samples: the number of samples to compute: those of the last frames.
    """

    upsample: StagedUpsampler
    frames: Tensor
    samples: int

    @property
    def tile(self) -> int:
        """Rows of a tile: those of whole frames."""
        return max(1, TILE_SAMPLES // self.upsample.hop_length) * self.upsample.hop_length

    @cached_property
    def tiles(self) -> Sequence[_Tile]:
        """The tiles of all samples."""
        hop, context, count = self.upsample.hop_length, self.upsample.context, self.frames.shape[1]
        first = count - self.samples // hop
        known: dict[tuple[int, int, int], Tensor] = {}
        tiles = []
        for start in range(0, self.samples, self.tile):
            rows = slice(start, min(start + self.tile, self.samples))
            begin, end = first + rows.start // hop, first + rows.stop // hop
            frames_read = slice(max(0, begin - context.left), min(count, end + context.right))
            # Tiles with equally many frames before, inside and after them have the same weights.
            before, inside, after = begin - frames_read.start, end - begin, frames_read.stop - end
            weights = known.get((before, inside, after))
            if weights is None:
                impulses = torch.eye(before + inside + after, dtype=self.frames.dtype)[None]
                upsampled = self.upsample(impulses)[0, :, before * hop : (before + inside) * hop]
                weights = known[before, inside, after] = upsampled.t().contiguous()
            tiles.append(_Tile(rows, frames_read, weights))
        return tiles


def _matrix(layer: DilatedConv1d) -> Tensor:
    """A 1×1 convolution as ``[in_channels, out_channels]``."""
    return layer.weight[:, :, 0].t()


def _bias(layer: DilatedConv1d) -> Tensor:
    assert layer.bias is not None
    return layer.bias
