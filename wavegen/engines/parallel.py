"""A parallel WaveNet on one CPU core, laid out with a row for each sample instead of ``[channels, time]``.

So each tap of a dilated convolution is a plain matrix product with a shifted view, which BLAS is quickest at, and a
tile of rows stays in the cache from one product to the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from wavegen.blocks import DilatedConv1d, DilatedStack, GatedResidualBlock, StagedUpsampler

# Rows of the widest product: with 128 columns of float32, half a megabyte.
TILE_SAMPLES = 1024

Histories = tuple[Tensor, ...]


class ParallelNetwork(Protocol):
    """The parts of a parallel WaveNet that run at sample rate."""

    upsample: StagedUpsampler
    input: DilatedConv1d
    stack: DilatedStack
    hidden: DilatedConv1d
    output: DilatedConv1d
    skip_scale: float


@torch.no_grad()
def run_tiled(network: ParallelNetwork, noise: Tensor, frames: Tensor, before: Histories) -> tuple[Tensor, Histories]:
    """Make samples of one item: those that ``network`` itself makes, but for rounding.

    Args:
        network: its weights are laid out anew on every call, which takes a few milliseconds.
        noise: ``[samples]``.
        frames: ``[channels, frames]``, the condition before upsampling. Where there are more of them than samples, the
            first ones came before.
        before: the stack's state, ``[1, channels, steps]`` a block, zeros at the start of an utterance; it is not
            changed.

    Returns:
        ``[samples]``, and the stack's next state, which has a meaning where the stack is causal.
    """
    blocks = [block for block in network.stack.blocks if isinstance(block, GatedResidualBlock)]
    weights = _Weights(blocks)
    condition = _Condition(network.upsample, torch.matmul(frames.t(), weights.condition), len(noise))
    # Room for a tile's gate channels before the gate, and after it; there a column of ones multiplies the biases.
    gate_channels = weights.bias.shape[1]
    room = noise.new_empty(condition.tile, gate_channels), noise.new_ones(condition.tile, gate_channels // 2 + 1)
    x = torch.addmm(_bias(network.input), noise[:, None], _matrix(network.input))
    skips, after = x.new_zeros(len(noise), network.stack.skip_channels), []
    for index, (block, history) in enumerate(zip(blocks, before, strict=True)):
        left, right = block.context.left, block.context.right
        seen = torch.cat((history[0].t(), x, x.new_zeros(right, x.shape[1])))
        after.append(seen[len(x) : len(x) + left].t()[None].clone())  # a view would keep all of it
        x = _run_block(block, weights, index, seen, condition, skips, room)
    hidden = torch.addmm(_bias(network.hidden), skips.mul_(network.skip_scale).relu_(), _matrix(network.hidden))
    return torch.addmm(_bias(network.output), hidden.relu_(), _matrix(network.output))[:, 0], tuple(after)


def _run_block(
    block: GatedResidualBlock,
    weights: "_Weights",
    index: int,
    seen: Tensor,
    condition: "_Condition",
    skips: Tensor,
    room: tuple[Tensor, Tensor],
) -> Tensor:
    """The block's residual for every row of ``seen`` that has its context there; its skips are added to ``skips``."""
    residual = seen.new_empty(len(skips), block.channels)
    dilation, half = block.conv.dilation[0], room[0].shape[1] // 2
    for rows, phases, read in condition.tiles:
        z, gated = (space[: rows.stop - rows.start] for space in room)
        torch.addmm(weights.bias[index], phases, condition.frames[index, read], out=z)
        for tap, matrix in enumerate(weights.taps[index]):
            z.addmm_(seen[rows.start + tap * dilation : rows.stop + tap * dilation], matrix)
        z.tanh_()
        torch.addcmul(z[:, :half], z[:, :half], z[:, half:], out=gated[:, :half])
        x = seen[block.context.left + rows.start : block.context.left + rows.stop]
        torch.addmm(x, gated, weights.residual[index], beta=block.residual_scale, out=residual[rows])
        skips[rows].addmm_(gated, weights.skip[index])
    return residual


class _Weights:
    """The weights of blocks of one shape, stacked, as right-hand sides of products with rows of samples.

    ``sigmoid(b) = (1 + tanh(b / 2)) / 2``: with the halves folded into the weights, one tanh over all gate channels
    and one fused ``a + a * b`` are the gate.
    """

    def __init__(self, blocks: Sequence[GatedResidualBlock]) -> None:
        conv = torch.stack([block.conv.weight for block in blocks])  # [blocks, gate, channels, taps]
        halved = conv.new_ones(conv.shape[1])
        halved[len(halved) // 2 :] = 0.5
        self.taps = (conv * halved[:, None, None]).permute(0, 3, 2, 1).contiguous()
        self.bias = torch.stack([_bias(block.conv) for block in blocks]) * halved
        conditions = [block.condition for block in blocks if block.condition is not None]
        self.condition = torch.stack([_matrix(layer) for layer in conditions]) * halved  # [blocks, condition, gate]
        mixed = [torch.cat((_matrix(block.output) / 2, _bias(block.output)[None])) for block in blocks]
        sizes = (blocks[0].channels, blocks[0].skip_channels)
        residual, skip = torch.stack(mixed).split(sizes, dim=2)  # [blocks, gate / 2 + 1, …]
        scale = residual.new_tensor([block.residual_scale for block in blocks])
        self.residual, self.skip = (residual * scale[:, None, None]).contiguous(), skip.contiguous()


@dataclass
class _Condition:
    """A condition that each block has projected at frame rate, to be upsampled tile by tile.

    The upsampler is linear and treats all channels alike, so it can come after the projection: a tile's condition
    is the product of a few frames with the weights that its samples give them.

    Args:
        upsample: linear upsampler.
        frames: ``[blocks, frames, gate_channels]``.
        samples: how many are to be made: those of the last frames.
    """

    upsample: StagedUpsampler
    frames: Tensor
    samples: int

    @property
    def tile(self) -> int:
        """Rows of a tile: whole frames."""
        return max(1, TILE_SAMPLES // self.upsample.hop_length) * self.upsample.hop_length

    @cached_property
    def tiles(self) -> Sequence[tuple[slice, Tensor, slice]]:
        """Of each tile: its rows, the weights ``[rows, frames read]`` that they give frames, and which frames."""
        hop, context, count = self.upsample.hop_length, self.upsample.context, self.frames.shape[1]
        first = count - self.samples // hop
        known: dict[tuple[int, int, int], Tensor] = {}
        tiles = []
        for start in range(0, self.samples, self.tile):
            rows = slice(start, min(start + self.tile, self.samples))
            begin, end = first + rows.start // hop, first + rows.stop // hop
            read = slice(max(0, begin - context.left), min(count, end + context.right))
            shape = (begin - read.start, end - begin, read.stop - end)
            if shape not in known:
                impulses = torch.eye(sum(shape), dtype=self.frames.dtype)[None]
                made = self.upsample(impulses)[0, :, shape[0] * hop : (shape[0] + shape[1]) * hop]
                known[shape] = made.t().contiguous()
            tiles.append((rows, known[shape], read))
        return tiles


def _matrix(layer: DilatedConv1d) -> Tensor:
    """A 1×1 convolution as ``[in_channels, out_channels]``."""
    return layer.weight[:, :, 0].t()


def _bias(layer: DilatedConv1d) -> Tensor:
    assert layer.bias is not None
    return layer.bias
