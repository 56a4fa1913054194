"""A stack of separable residual blocks with a row per frame, in tiles of rows that stay in the cache."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wavegen.blocks import DilatedStack, SeparableResidualBlock
from wavegen.blocks.conv import LayerStates
from wavegen.engines.packed.arena import Arena
from wavegen.engines.simd import LANES
from wavegen.engines.spectral.functions import Functions
from wavegen.engines.spectral.products import DTYPES, Product, RowPrecision, few_rows, operands_of, padded_matrix, whole
from wavegen.engines.spectral.rows import ROWS_AT_ONCE, Blocks
from wavegen.engines.spectral.workspace import Workspace

TILE_VALUES = 400_000  # of the widest product: fewer tiles read the weights less often


class _Products(NamedTuple):
    """A block's products of many rows."""

    expand: Product  # with GELU
    project: Product  # with the block's scale

    @classmethod
    def fold(cls, block: SeparableResidualBlock, dtype: torch.dtype) -> "_Products":
        """Copy a block's weights."""
        return cls(
            Product(block.expand.weight, block.expand.bias, dtype, gelu=True),
            Product(block.scale[:, None] * block.project.weight, block.scale * block.project.bias, dtype),
        )


class CompiledStack:
    """Computes what a ``DilatedStack`` of separable blocks without a condition does, item by item.

    Few rows, such as the next frame of a stream, run through all blocks in one compiled call. Of many rows, oneDNN
    computes the products, except in int8.

    Args:
        stack: a stack for which ``obstacle`` returns None; its weights are copied.
        functions: the compiled functions.
        precision: precision of the products; the rest is float32.
    """

    @torch.no_grad()
    def __init__(self, stack: DilatedStack, functions: Functions, precision: RowPrecision = "float32") -> None:
        blocks = [block for block in stack.blocks if isinstance(block, SeparableResidualBlock)]
        self._blocks = _pack(blocks, precision)
        self._products = [_Products.fold(block, DTYPES[precision]) for block in blocks if precision in DTYPES]
        self._few = few_rows(precision)
        self._functions = functions
        self._channels, self._hidden = blocks[0].channels, self._blocks.expand_bias.shape[1]
        self._width = whole(self._channels)
        self._tile_rows = TILE_VALUES // self._hidden
        self._befores = [block.context.left for block in blocks]
        self._left = max(self._befores)
        self._right = max(block.context.right for block in blocks)
        self._workspace = Workspace()
        self._nothing_before = stack.initial_state(1)

    @staticmethod
    def obstacle(stack: DilatedStack) -> str | None:
        """The reason why a stack cannot be compiled, as a clause; None if it can."""
        shapes = set()
        for block in stack.blocks:
            if not isinstance(block, SeparableResidualBlock) or block.condition is not None:
                return "the numba engine runs separable blocks without a condition, and this model has others"
            shapes.add((block.conv.kernel_size, block.expand.weight.shape, block.norm.eps))
        return None if len(shapes) == 1 else "the numba engine runs blocks of equal shape, and this model's differ"

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
            rows, after = self._run(x[item].t(), state if len(x) == 1 else tuple(h[item : item + 1] for h in state))
            result[item] = rows
            states.append(after)
        after = states[0] if len(x) == 1 else tuple(torch.cat(histories) for histories in zip(*states, strict=True))
        return (result.mT, None), after

    def _run(self, x: Tensor, histories: LayerStates) -> tuple[Tensor, LayerStates]:
        """One item, ``[frames, channels]``, kept until the next call, and all histories ``[1, channels, steps]``."""
        frames = len(x)
        if frames == 0:
            return x, histories
        rows = self._workspace.zeros("rows", self._left + frames + self._right, self._width)
        rows[self._left + frames :] = 0
        current = rows[self._left : self._left + frames, : self._channels]
        current.copy_(x)
        history = torch.cat(histories, dim=2)[0].t().contiguous()
        run = self._run_in_tiles if self._products and frames > self._few else self._run_at_once
        after = run(rows, frames, history)
        return current, tuple(after.t()[None].split(self._befores, dim=2))

    def _run_at_once(self, rows: Tensor, frames: int, history: Tensor) -> Tensor:
        """All blocks in one call; returns the next history, ``[steps, channels]``."""
        after = torch.empty_like(history)
        normalised = self._workspace.zeros("normalised", frames, self._width)
        narrow = operands_of(self._workspace, "narrow", normalised, self._blocks.weights)
        hidden = self._workspace.empty("hidden", ROWS_AT_ONCE, self._hidden)
        wide = operands_of(self._workspace, "wide", hidden, self._blocks.weights)
        self._functions.run_blocks(
            self._blocks, rows.numpy(), rows.view(-1).numpy(), self._left, history.numpy(), after.numpy(),
            normalised.numpy(), narrow, wide,
        )  # fmt: skip
        return after

    def _run_in_tiles(self, rows: Tensor, frames: int, history: Tensor) -> Tensor:
        """As ``_run_at_once``, block by block."""
        blocks, left, channels = self._blocks, self._left, self._channels
        normalised = self._workspace.empty("tiles", frames, channels)
        current = rows[left : left + frames, :channels]
        after, kept = [], 0
        for b, before in enumerate(self._befores):
            first = left - before
            rows[first:left, :channels] = history[kept : kept + before]
            kept += before
            after.append(rows[first + frames : left + frames, :channels].clone())
            self._functions.convolve_and_normalise(
                rows.numpy(), first, blocks.taps[b], blocks.tap_bias[b], blocks.dilation[b], blocks.norm_weight[b],
                blocks.norm_shift[b], blocks.eps, normalised.numpy(),
            )  # fmt: skip
            for done in range(0, frames, self._tile_rows):
                tile = slice(done, done + self._tile_rows)
                products = self._products[b]
                current[tile].add_(products.project(products.expand(normalised[tile])))
        return torch.cat(after)


def _pack(blocks: list[SeparableResidualBlock], precision: RowPrecision) -> Blocks:
    """Copy the weights of blocks of equal shape; in bfloat16 without their matrices, which oneDNN alone multiplies."""
    arena = Arena("int8" if precision == "int8" else "float32", LANES)
    expand, project = [], []
    for block in blocks:
        scaled = (block.scale[:, None] * block.project.weight).numpy()
        if precision != "bfloat16":
            expand.append(arena.add(padded_matrix(block.expand.weight.numpy())))
            project.append(arena.add(padded_matrix(scaled)))
    width, hidden = map(whole, scaled.shape)

    def stacked(parts: list[Tensor], width: int | None = None) -> np.ndarray:
        values = torch.stack(parts).float().numpy()
        return np.ascontiguousarray(values if width is None else np.pad(values, ((0, 0), (0, width - values.shape[1]))))

    return Blocks(
        weights=arena.finished(),
        expand=np.array(expand, dtype=np.int64),
        project=np.array(project, dtype=np.int64),
        expand_bias=stacked([block.expand.bias for block in blocks], hidden),
        project_bias=stacked([block.scale * block.project.bias for block in blocks], width),
        taps=stacked([block.conv.weight[:, 0].t() for block in blocks]),
        tap_bias=stacked([block.conv.bias for block in blocks if block.conv.bias is not None]),
        norm_weight=stacked([block.norm.weight for block in blocks]),
        norm_shift=stacked([block.norm.bias for block in blocks]),
        eps=np.float32(blocks[0].norm.eps),
        dilation=np.array([block.conv.dilation[0] for block in blocks]),
        before=np.array([block.context.left for block in blocks]),
    )
