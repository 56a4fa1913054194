"""A causal stack of gated blocks on a CPU, with gradients, tile by tile.

Each of its operations does little work per value, so a CPU that runs them one after another over a long segment waits
for memory most of the time. Here all layers compute a tile of samples before the next tile begins: what they pass on
stays in the cache. With a row per sample instead of ``[channels, time]``, each tap of a convolution is a plain matrix
product with a shifted view.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wavegen.blocks.residual import DilatedStack, GatedResidualBlock

TILE_SAMPLES = 2048


class _Layer(NamedTuple):
    """The weights of a block, ``[out, in]``, with the taps oldest first; or their gradients."""

    taps: Tensor  # [taps, 2 · gates, channels]
    bias: Tensor
    condition: Tensor
    output: Tensor  # residual and skip rows
    output_bias: Tensor


class _Shape(NamedTuple):
    dilations: tuple[int, ...]
    residual_scale: float
    channels: int


def runs_in_tiles(stack: DilatedStack, x: Tensor) -> bool:
    """Whether ``sum_of_skips`` computes this stack: on a CPU, causal gated blocks of one kind with a condition."""
    blocks = list(stack.blocks)
    return x.device.type == "cpu" and all(
        isinstance(block, GatedResidualBlock)
        and block.condition is not None
        and block.context.right == 0
        and block.residual_scale == blocks[0].residual_scale
        for block in blocks
    )


def sum_of_skips(stack: DilatedStack, x: Tensor, frames: Tensor, weights: Tensor) -> Tensor:
    """The sum of skips of ``stack(x, condition)`` for a condition at frame rate; equal up to rounding.

    The condition of sample ``p`` of frame ``f`` is ``sum over r of weights[r, p] · frames[..., f + r]``. Its product
    with each block's weights is computed at frame rate, for a fraction of the cost.

    Args:
        stack: a stack for which ``runs_in_tiles`` is true.
        x: ``[batch, channels, frames * hop]``.
        frames: ``[batch, condition_channels, frames + len(weights) - 1]``.
        weights: ``[frames read, hop]``.

    Returns:
        ``[batch, skip_channels, frames * hop]``, differentiable once.
    """
    blocks = [block for block in stack.blocks if isinstance(block, GatedResidualBlock)]
    shape = _Shape(tuple(block.conv.dilation[0] for block in blocks), blocks[0].residual_scale, blocks[0].channels)
    parameters = []
    for block in blocks:
        assert block.condition is not None
        parameters += [
            block.conv.weight.permute(2, 0, 1), block.conv.bias, block.condition.weight[..., 0],
            block.output.weight[..., 0], block.output.bias,
        ]  # fmt: skip
    skips: Tensor = _SumOfSkips.apply(shape, x.mT, frames.mT, weights, *parameters)
    return skips.mT


class _Block(NamedTuple):
    """A block at work on one item, time-major: all but ``projected`` are ``[samples, …]``.

    Attributes:
        layer: the block's weights.
        dilation: the dilation of its convolution.
        shape: the shape of the stack.
        input: the samples that the block reads.
        gated: its gate's tanh and sigmoid.
        projected: the product of the frames with its condition weights, ``[frames, frames read, 2 · gates]``.
        upsampling: weights of the frames that a sample reads, ``[frames read, hop]``.
    """

    layer: _Layer
    dilation: int
    shape: _Shape
    input: Tensor
    gated: Tensor
    projected: Tensor
    upsampling: Tensor

    def run(self, tile: slice, frames: slice, output: Tensor, skips: Tensor) -> None:
        """Compute a tile: write ``output``, and add to ``skips``."""
        layer, z, channels, scale = self.layer, self.gated[tile], self.shape.channels, self.shape.residual_scale
        # The convolution, tap by tap, and the condition, frame by frame.
        torch.addmm(layer.bias, self.input[tile], layer.taps[-1].t(), out=z)
        for tap, back in self.past_taps():
            reached, read = _shifted(tile, back)
            self.gated[reached].addmm_(self.input[read], tap.t())
        projected = self.projected[frames]
        _by_frame(z, self.upsampling).baddbmm_(self.upsampling.t().expand(len(projected), -1, -1), projected)

        # Gate, then mix into residual and skip.
        filtered, gate = z.chunk(2, dim=1)
        h, mix = filtered.tanh_() * gate.sigmoid_(), layer.output.t()
        torch.addmm(self.input[tile], h, mix[:, :channels], beta=scale, alpha=scale, out=output[tile])
        output[tile].add_(layer.output_bias[:channels], alpha=scale)
        skips[tile].addmm_(h, mix[:, channels:])

    def run_back(
        self, tile: slice, frames: slice, into_output: Tensor, into_skips: Tensor, into_input: Tensor, own: _Layer
    ) -> tuple[Tensor, Tensor]:
        """Propagate gradients through a tile, whose later tiles are done: add to ``into_input`` and ``own``.

        Returns:
            the gradients of this tile's ``projected`` and of ``upsampling``.
        """
        layer, channels = self.layer, self.shape.channels
        residual = into_output[tile].mul_(self.shape.residual_scale)  # of the sum of input and mixed channels
        skip = into_skips[tile]

        # Through the output layer.
        filtered, gate = self.gated[tile].chunk(2, dim=1)
        h = filtered * gate
        for rows, gradient in ((slice(channels), residual), (slice(channels, None), skip)):
            own.output[rows].addmm_(gradient.t(), h)
            own.output_bias[rows].add_(gradient.sum(0))
        into_h = torch.addmm(residual @ layer.output[:channels], skip, layer.output[channels:])

        # Through tanh, whose derivative is 1 - tanh², and sigmoid, whose derivative is sigmoid · (1 - sigmoid).
        into_z = torch.empty_like(self.gated[tile])
        into_filtered, into_gate = into_z.chunk(2, dim=1)
        torch.addcmul(gate, h, filtered, value=-1, out=into_filtered).mul_(into_h)
        torch.addcmul(h, h, gate, value=-1, out=into_gate).mul_(into_h)

        # Through the convolution, whose past taps reach into earlier tiles.
        into_input[tile].add_(residual).addmm_(into_z, layer.taps[-1])
        own.taps[-1].addmm_(into_z.t(), self.input[tile])
        own.bias.add_(into_z.sum(0))
        for position, (tap, back) in enumerate(self.past_taps()):
            reached, read = _shifted(tile, back)
            late = into_z[reached.start - tile.start :]
            into_input[read].addmm_(late, tap)
            own.taps[position].addmm_(late.t(), self.input[read])

        # Through the condition.
        by_frame = _by_frame(into_z, self.upsampling)
        return self.upsampling @ by_frame, (self.projected[frames] @ by_frame.mT).sum(0)

    def past_taps(self) -> list[tuple[Tensor, int]]:
        """The past taps, oldest first, and how many samples back each of them reads."""
        past = self.layer.taps[:-1]
        return [(tap, (len(past) - position) * self.dilation) for position, tap in enumerate(past)]


class _SumOfSkips(torch.autograd.Function):
    """Time-major: ``x`` is ``[batch, samples, channels]``, ``frames`` ``[batch, frames read, condition channels]``."""

    @staticmethod
    def forward(ctx: Any, shape: _Shape, x: Tensor, frames: Tensor, weights: Tensor, *parameters: Tensor) -> Tensor:
        layers = _layers(parameters)
        batch, samples, _ = x.shape
        gates = layers[0].bias.shape[0]
        inputs = x.new_empty(len(layers) + 1, batch, samples, shape.channels)  # of each block
        inputs[0] = x
        gated = x.new_empty(len(layers), batch, samples, gates)
        bias = torch.stack([layer.output_bias[shape.channels :] for layer in layers]).sum(0)
        skips = bias.expand(batch, samples, -1).clone()
        for item in range(batch):
            blocks = _blocks(shape, layers, inputs[:, item], gated[:, item], frames[item], weights)
            for tile, tile_frames in _tiles(samples, weights.shape[1]):
                for index, block in enumerate(blocks):
                    block.run(tile, tile_frames, inputs[index + 1, item], skips[item])
        ctx.shape = shape
        ctx.save_for_backward(inputs, gated, frames, weights, *parameters)
        return skips

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, into_skips: Tensor) -> tuple[Any, ...]:
        inputs, gated, frames, weights, *parameters = ctx.saved_tensors
        layers = _layers(parameters)
        zeros = [torch.zeros_like(part, memory_format=torch.contiguous_format) for part in parameters]
        gradients = _layers(zeros)
        into_inputs, into_frames = torch.zeros_like(inputs), torch.zeros_like(frames)
        into_weights, into_skips = torch.zeros_like(weights), into_skips.contiguous()

        for item in range(inputs.shape[1]):
            blocks = _blocks(ctx.shape, layers, inputs[:, item], gated[:, item], frames[item], weights)
            into_projected = [torch.zeros_like(block.projected) for block in blocks]
            for tile, tile_frames in reversed(list(_tiles(inputs.shape[2], weights.shape[1]))):
                for index in reversed(range(len(blocks))):
                    flowing = into_inputs[index + 1, item], into_skips[item], into_inputs[index, item]
                    ours = blocks[index].run_back(tile, tile_frames, *flowing, gradients[index])
                    into_projected[index][tile_frames] = ours[0]
                    into_weights += ours[1]

            # The condition's products, at frame rate.
            read = _frames_read(frames[item], len(weights))
            for layer, own, part in zip(layers, gradients, into_projected, strict=True):
                own.condition.add_(torch.einsum("fro,frc->oc", part, read))
                spread = part @ layer.condition
                for r in range(len(weights)):
                    into_frames[item, r : r + len(spread)] += spread[:, r]
        return (None, into_inputs[0], into_frames, into_weights, *zeros)


def _layers(parameters: Sequence[Tensor]) -> list[_Layer]:
    size = len(_Layer._fields)
    return [_Layer(*parameters[i : i + size]) for i in range(0, len(parameters), size)]


def _blocks(
    shape: _Shape, layers: Sequence[_Layer], inputs: Tensor, gated: Tensor, frames: Tensor, weights: Tensor
) -> list[_Block]:
    """The blocks at work on one item, whose tensors have no batch dimension."""
    read = _frames_read(frames, len(weights))
    return [
        _Block(layer, shape.dilations[i], shape, inputs[i], gated[i], read @ layer.condition.t(), weights)
        for i, layer in enumerate(layers)
    ]


def _tiles(samples: int, hop: int) -> Iterator[tuple[slice, slice]]:
    """Tiles of whole frames, as samples and as frames."""
    frames, length = samples // hop, max(1, TILE_SAMPLES // hop)
    for first in range(0, frames, length):
        last = min(first + length, frames)
        yield slice(first * hop, last * hop), slice(first, last)


def _shifted(tile: slice, back: int) -> tuple[slice, slice]:
    """The samples of a tile that read a sample ``back`` steps before, and those that they read."""
    first = min(max(tile.start, back), tile.stop)
    return slice(first, tile.stop), slice(first - back, tile.stop - back) if first < tile.stop else slice(0, 0)


def _frames_read(frames: Tensor, count: int) -> Tensor:
    """The frames that each frame's samples read, ``[frames, count, channels]``."""
    return frames.unfold(0, count, 1).mT


def _by_frame(z: Tensor, weights: Tensor) -> Tensor:
    """Rows of samples as ``[frames, hop, channels]``."""
    return z.view(-1, weights.shape[1], z.shape[1])
