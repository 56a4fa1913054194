"""Residual blocks around dilated convolutions, and stacks of blocks."""

import math
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavegen.blocks.conv import Context, DilatedConv1d, LayerStates, Padding
from wavegen.blocks.products import linear
from wavegen.errors import ConfigError

MAX_DILATION = 2**20
MAX_BLOCKS = 10_000


def exponential_dilations(cycles: int, depth: int, *, base: int = 2) -> tuple[int, ...]:
    """Dilations that grow exponentially and start over: ``(3, 10)`` gives 1, 2, 4, …, 512, three times.

    Raises:
        ConfigError: the largest dilation would exceed ``MAX_DILATION``, or their number ``MAX_BLOCKS``.
    """
    if cycles * depth > MAX_BLOCKS:
        raise ConfigError(f"{cycles} cycles of {depth} are more than {MAX_BLOCKS} blocks", remedy="give fewer")
    if base > 1 and depth > 1 + math.log(MAX_DILATION, base):
        raise ConfigError(
            f"a depth of {depth} needs a dilation of {base}^{depth - 1}, more than {MAX_DILATION}",
            remedy="give a smaller depth and more cycles",
        )
    return tuple(base**i for i in range(depth)) * cycles


class ResidualBlock(nn.Module):
    """Base of all blocks: a dilated convolution, to which a condition is added, then a pointwise computation.

    ``forward`` and ``step`` run the same computation; they differ only in where the left context comes from.
    """

    channels: int
    skip_channels: int
    conv: DilatedConv1d
    condition: DilatedConv1d | None

    @property
    def context(self) -> Context:
        """Steps read around each output step: those of the dilated convolution."""
        return self.conv.context

    def forward(self, x: Tensor, condition: Tensor | None = None, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run a whole sequence.

        Args:
            x: ``[batch, channels, time]``.
            condition: ``[batch, condition_channels, time]``; needed if the block has condition channels, and refused
                if it has none.
            mask: ``[batch, 1, time]``, True where a step is real.

        Returns:
            residual ``[batch, channels, time]`` and skip ``[batch, skip_channels, time]``.
        """
        return self.combine(x, self._conditioned(self.conv(x, mask), condition, mask))

    def initial_state(self, batch: int) -> Tensor:
        """State before the first step: that of the dilated convolution."""
        return self.conv.initial_state(batch)

    def step(self, x: Tensor, state: Tensor, condition: Tensor | None = None) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Run the next chunk: ``(residual, skip), state``."""
        h, state = self.conv.step(x, state)
        return self.combine(x, self._conditioned(h, condition)), state

    def combine(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Compute residual and skip from the block's input ``x`` and its conditioned convolution ``h``, pointwise."""
        raise NotImplementedError

    def _conditioned(self, h: Tensor, condition: Tensor | None, mask: Tensor | None = None) -> Tensor:
        if self.condition is None:
            if condition is not None:
                raise ConfigError(
                    "a block without condition channels got a condition",
                    remedy="build it with condition_channels=, or leave the condition out",
                )
            return h
        if condition is None:
            raise ConfigError(
                f"a block with {self.condition.in_channels} condition channels got no condition",
                remedy="pass condition=, or build it with condition_channels=0",
            )
        return h + self.condition(condition, mask)  # masked, because NaN after an item's end would reach the gradients


class GatedResidualBlock(ResidualBlock):
    """WaveNet's block (arXiv:1609.03499, eq. 2 and figure 4).

    ::

        x ──┬── dilated conv ── + ── tanh · sigmoid ── 1×1 ──┬── skip
            │       condition 1×1 ┘                          │
            └────────────────────────────────────────── + ── × residual_scale ── residual

    Args:
        channels: channels of the input and the residual output.
        kernel_size: taps of the dilated convolution.
        dilation: steps between taps.
        padding: ``"causal"`` or ``"same"``.
        gate_channels: channels before the gate halves them; twice ``channels`` by default.
        skip_channels: channels of the skip output; ``channels`` by default.
        condition_channels: channels of the condition; 0 for no condition.
        residual_scale: factor on the residual sum; √½ keeps its variance through a deep stack.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: int = 3,
        dilation: int = 1,
        padding: Padding = "causal",
        gate_channels: int | None = None,
        skip_channels: int | None = None,
        condition_channels: int = 0,
        residual_scale: float = math.sqrt(0.5),
    ) -> None:
        super().__init__()
        gate_channels = gate_channels or 2 * channels
        if gate_channels % 2:
            raise ConfigError(f"gate_channels is {gate_channels}, but the gate halves it", remedy="give an even number")
        self.channels = channels
        self.skip_channels = skip_channels or channels
        self.residual_scale = residual_scale
        self.conv = DilatedConv1d(channels, gate_channels, kernel_size, dilation=dilation, padding=padding)
        self.condition = DilatedConv1d(condition_channels, gate_channels, 1, bias=False) if condition_channels else None
        self.output = DilatedConv1d(gate_channels // 2, channels + self.skip_channels, 1)

    def combine(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the gate, then mix its channels into residual and skip."""
        filtered, gate = h.chunk(2, dim=1)
        h = self.output(torch.tanh(filtered) * torch.sigmoid(gate))
        residual, skip = h.split((self.channels, self.skip_channels), dim=1)
        return (x + residual) * self.residual_scale, skip


class SeparableResidualBlock(ResidualBlock):
    """Depthwise dilated convolution, then a pointwise network; this block learns fastest at frame rate.

    It is ConvNeXt's block (arXiv:2201.03545) as vocoders use it (arXiv:2306.00814), with dilation::

        x ──┬── depthwise conv ── LayerNorm over channels ── 1×1 ── GELU ── 1×1 ── × scale ──┬── skip
            │            condition 1×1 ┘                                                     │
            └────────────────────────────────────────────────────────────────────────── + ──┴── residual

    The norm works on each time step separately: normalising over time would read the future.

    Args:
        channels: channels in and out.
        kernel_size: taps of the depthwise convolution.
        dilation: steps between taps.
        padding: ``"causal"`` or ``"same"``.
        expansion: hidden channels as a multiple of ``channels``.
        condition_channels: channels of the condition; 0 for no condition.
        initial_scale: initial value of the learned scale of each channel; ``1 / layers`` suits a stack.
        norm_eps: added to the variance by the norm.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: int = 7,
        dilation: int = 1,
        padding: Padding = "causal",
        expansion: int = 3,
        condition_channels: int = 0,
        initial_scale: float = 0.1,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.channels = self.skip_channels = channels
        self.conv = DilatedConv1d(channels, channels, kernel_size, dilation=dilation, padding=padding, groups=channels)
        self.condition = DilatedConv1d(condition_channels, channels, 1, bias=False) if condition_channels else None
        self.norm = nn.LayerNorm(channels, eps=norm_eps)
        self.expand = nn.Linear(channels, expansion * channels)
        self.project = nn.Linear(expansion * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), initial_scale))

    def combine(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Apply norm and pointwise network; the skip is what the block adds to its input."""
        h = self.norm(h.transpose(1, 2))
        h = F.gelu(linear(h, self.expand.weight, self.expand.bias))
        h = self.scale * linear(h, self.project.weight, self.project.bias)
        skip = h.transpose(1, 2)
        return x + skip, skip


class DilatedStack(nn.Module):
    """Residual blocks in series, whose skips are summed.

    ``DilatedStack(GatedResidualBlock(64, dilation=d) for d in exponential_dilations(2, 10))``

    Args:
        blocks: residual blocks, all with the same channel counts.
    """

    def __init__(self, blocks: Iterable[ResidualBlock]) -> None:
        super().__init__()
        members = list(blocks)
        if not members:
            raise ConfigError("a stack without blocks", remedy="give at least one")
        self.blocks = nn.ModuleList(members)
        self.channels = members[0].channels
        self.skip_channels = members[0].skip_channels
        self.context = sum((block.context for block in members), Context())
        # The condition is added after the first block's convolution, so that convolution does not widen its context.
        self.condition_context = sum((block.context for block in members[1:]), Context())

    def forward(self, x: Tensor, condition: Tensor | None = None, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run a whole sequence.

        Args:
            x: ``[batch, channels, time]``.
            condition: ``[batch, condition_channels, time]``, read by every block.
            mask: ``[batch, 1, time]``, True where a step is real.

        Returns:
            the last block's residual ``[batch, channels, time]`` and the sum of all skips
            ``[batch, skip_channels, time]``.
        """
        total = None  # Summed block by block: 30 skips at sample rate, kept until the end, would take gigabytes.
        for block in self._members():
            x, skip = block(x, condition, mask)
            total = skip if total is None else total + skip
        assert total is not None
        return x, total

    def initial_state(self, batch: int) -> LayerStates:
        """States of the blocks before the first step."""
        return tuple(block.initial_state(batch) for block in self._members())

    def step(
        self, x: Tensor, state: LayerStates, condition: Tensor | None = None
    ) -> tuple[tuple[Tensor, Tensor], LayerStates]:
        """Run the next chunk: ``(residual, sum of skips), state``."""
        total = None
        next_states = []
        for block, block_state in zip(self._members(), state, strict=True):
            (x, skip), next_state = block.step(x, block_state, condition)
            total = skip if total is None else total + skip
            next_states.append(next_state)
        assert total is not None
        return (x, total), tuple(next_states)

    def _members(self) -> Iterator[ResidualBlock]:
        return iter(self.blocks)  # type: ignore[arg-type]  # to mypy, a ModuleList holds any modules
