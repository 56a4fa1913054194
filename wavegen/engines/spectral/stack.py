"""A stack of separable residual blocks with a row per frame, in tiles of rows that stay in the cache."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wavegen.blocks import Context, DilatedStack, SeparableResidualBlock
from wavegen.blocks.conv import LayerStates
from wavegen.engines.spectral.functions import Functions
from wavegen.engines.spectral.products import Product
from wavegen.engines.spectral.workspace import Workspace

TILE_VALUES = 400_000  # of the widest product: fewer tiles read the weights less often


class _Block(NamedTuple):
    """A block's weights, laid out for rows."""

    context: Context
    depthwise: tuple[np.ndarray, np.ndarray, int]  # [taps, channels], [channels], dilation
    norm: tuple[np.ndarray, np.ndarray, np.float32]
    expand: Product  # with GELU
    project: Product  # with the block's scale

    @classmethod
    def fold(cls, block: SeparableResidualBlock, dtype: torch.dtype) -> "_Block":
        """Copy a block's weights."""
        assert block.conv.bias is not None
        taps = block.conv.weight[:, 0].t().contiguous().clone()
        return cls(
            block.context,
            (taps.numpy(), block.conv.bias.clone().numpy(), block.conv.dilation[0]),
            (block.norm.weight.clone().numpy(), block.norm.bias.clone().numpy(), np.float32(block.norm.eps)),
            Product(block.expand.weight, block.expand.bias, dtype, gelu=True),
            Product(block.scale[:, None] * block.project.weight, block.scale * block.project.bias, dtype),
        )


class CompiledStack:
    """Computes what a ``DilatedStack`` of separable blocks without a condition does, item by item.

    Args:
        stack: a stack for which ``obstacle`` returns None; its weights are copied.
        functions: the compiled functions.
        dtype: precision of the products; the rest is float32.
    """

    @torch.no_grad()
    def __init__(self, stack: DilatedStack, functions: Functions, dtype: torch.dtype = torch.float32) -> None:
        blocks = [block for block in stack.blocks if isinstance(block, SeparableResidualBlock)]
        self._blocks = [_Block.fold(block, dtype) for block in blocks]
        self._functions = functions
        self._tile_rows = TILE_VALUES // max(len(block.expand.weight) for block in blocks)
        self._left = max(block.context.left for block in self._blocks)
        self._right = max(block.context.right for block in self._blocks)
        self._workspace = Workspace()
        self._nothing_before = stack.initial_state(1)

    @staticmethod
    def obstacle(stack: DilatedStack) -> str | None:
        """The reason why a stack cannot be compiled, as a clause; None if it can."""
        blocks = list(stack.blocks)
        if all(isinstance(block, SeparableResidualBlock) and block.condition is None for block in blocks):
            return None
        return "the numba engine runs separable blocks without a condition, and this model has others"

    def __call__(self, x: Tensor, condition: None = None, mask: Tensor | None = None) -> tuple[Tensor, None]:
        """The last block's residual, 0 outside the mask, without the sum of skips; arguments as in the stack."""
        lengths = [x.shape[-1]] * len(x) if mask is None else mask[:, 0].sum(-1).tolist()
        result = torch.zeros_like(x.mT, memory_format=torch.contiguous_format)
        for item, length in enumerate(lengths):
            result[item, :length], _ = self._run(x[item, :, :length].t(), self._nothing_before)
        return result.mT, None

    def step(self, x: Tensor, state: LayerStates) -> tuple[tuple[Tensor, None], LayerStates]:
        """The residual of the next frames, without the sum of skips, and the next state, which is that of the stack."""
        result, states = torch.empty_like(x.mT, memory_format=torch.contiguous_format), []
        for item in range(len(x)):
            rows, after = self._run(x[item].t(), tuple(history[item : item + 1] for history in state))
            result[item] = rows
            states.append(after)
        return (result.mT, None), tuple(torch.cat(histories) for histories in zip(*states, strict=True))

    def _run(self, x: Tensor, histories: LayerStates) -> tuple[Tensor, LayerStates]:
        """One item, ``[frames, channels]``, kept until the next call, and all histories ``[1, channels, steps]``."""
        frames, channels = x.shape
        if frames == 0:
            return x, histories
        rows = self._workspace.empty("rows", self._left + frames + self._right, channels)
        rows[self._left + frames :] = 0
        current = rows[self._left : self._left + frames]
        current.copy_(x)
        normalised = self._workspace.empty("normalised", frames, channels)
        after = []
        for block, history in zip(self._blocks, histories, strict=True):
            first = self._left - block.context.left
            rows[first : self._left] = history[0].t()
            after.append(rows[first + frames : self._left + frames].t().clone()[None])
            self._functions.convolve_and_normalise(
                rows.numpy(), first, *block.depthwise, *block.norm, normalised.numpy()
            )
            for done in range(0, frames, self._tile_rows):
                tile = slice(done, done + self._tile_rows)
                current[tile].add_(block.project(block.expand(normalised[tile])))
        return current, tuple(after)
