"""Upsampling from frames to samples: hold each frame, then smooth, in place of a transposed convolution."""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavegen.blocks.conv import Context, LayerStates, Padding, refuse_look_ahead
from wavegen.blocks.geometry import padding_for
from wavegen.blocks.masks import masked, sample_mask
from wavegen.errors import ConfigError


class HoldUpsampler(nn.Module):
    """Hold each frame for ``hop_length`` samples, then smooth with one learned kernel for all channels.

    With ``hop_length`` equal taps, the initial kernel, the result is linear interpolation::

        held   ▁▁▁▁████▁▁▁▁      smoothed   ▁▂▄▆█▆▄▂▁

    A held signal is constant within a frame, so each output sample is a weighted sum of its own frame and the
    neighbouring ones, and the weights are partial sums of the kernel. They are applied at frame rate, which gives the
    same numbers as a stride-1 convolution at sample rate for ``1 / hop_length`` of its cost.

    Args:
        hop_length: samples per frame.
        kernel_size: taps of the kernel; ``hop_length`` by default. Tap 0 multiplies the newest sample, so the kernel
            is an ``nn.Conv1d`` weight in reverse order.
        padding: ``"causal"`` reads no frame after a sample's own, ``"same"`` reads frames on either side. Frames
            beyond the ends are zeros.
    """

    def __init__(self, hop_length: int, *, kernel_size: int | None = None, padding: Padding = "causal") -> None:
        super().__init__()
        self.hop_length = hop_length
        kernel_size = kernel_size or hop_length
        self.kernel = nn.Parameter(torch.full((kernel_size,), 1 / kernel_size))
        # Through tap i, sample p of frame t reads held[t * hop + p + ahead - i], so it reads the frame of that sample.
        self._behind, self._ahead = padding_for(padding, kernel_size)
        taps = torch.arange(kernel_size)
        phases = torch.arange(hop_length)
        frame = torch.div(phases[:, None] + self._ahead - taps, hop_length, rounding_mode="floor")
        first, last = self.frames_reached(0, hop_length - 1)
        self.context = Context(left=-first, right=last)
        selection = (frame == torch.arange(first, last + 1)[:, None, None]).to(self.kernel.dtype)
        self.register_buffer("selection", selection, persistent=False)  # [frames read, hop, taps]
        self.selection: Tensor

    def frames_reached(self, first: int, last: int) -> tuple[int, int]:
        """First and last frame that the samples ``first`` to ``last`` read; frame 0 holds sample 0."""
        return (first - self._behind) // self.hop_length, (last + self._ahead) // self.hop_length

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Upsample a whole sequence.

        Args:
            x: ``[batch, channels, frames]``.
            mask: ``[batch, 1, frames]``, True where a frame is real; all other frames are read as zeros.

        Returns:
            ``[batch, channels, frames * hop_length]``.
        """
        return self._smooth(F.pad(masked(x, mask), (self.context.left, self.context.right)))

    def initial_state(self, batch: int, channels: int) -> Tensor:
        """The zeros before the first frame: ``[batch, channels, context.left]``."""
        return self.kernel.new_zeros(batch, channels, self.context.left)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Upsample the next frames; returns samples and the next state. Raises StreamingError for ``"same"``."""
        seen, state = self.frames_read(x, state)
        return self._smooth(seen), state

    def frames_read(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Frames that ``step`` reads, first those in ``state``, then ``x``; and the next state."""
        refuse_look_ahead(self)
        seen = torch.cat((state, x), dim=-1)
        return seen, seen[..., seen.shape[-1] - self.context.left :]

    def weights(self) -> Tensor:
        """Weights of the frames that a sample reads, oldest first, per sample of a frame: ``[frames, hop_length]``."""
        return self.selection @ self.kernel

    def _smooth(self, x: Tensor) -> Tensor:
        if x.shape[-1] < self.context.receptive_field:
            return x.new_zeros(*x.shape[:-1], 0)
        weights = self.weights()
        return (x.unfold(-1, len(weights), 1) @ weights).flatten(-2)


class StagedUpsampler(nn.Module):
    """Hold and smooth by one small factor after another: a long, smooth interpolation with few weights.

    It is the upsampling of the condition in Parallel WaveGAN (arXiv:1910.11480): each stage holds for ``factor`` steps
    and smooths with ``2 * factor + 1`` taps, shared by all channels. The whole is linear in the frames, and the same
    for every channel.

    Args:
        factors: factors of the stages in their order; the product is ``hop_length``.
        padding: padding of every stage, as in ``HoldUpsampler``.
    """

    def __init__(self, factors: Sequence[int], *, padding: Padding = "causal") -> None:
        super().__init__()
        if not factors or min(factors) < 1:
            raise ConfigError(f"upsampling factors {tuple(factors)}", remedy="give whole numbers of at least 1")
        self.hop_length = math.prod(factors)
        self.stages = nn.ModuleList(HoldUpsampler(f, kernel_size=2 * f + 1, padding=padding) for f in factors)
        first, last = self.frames_reached(0, self.hop_length - 1)
        self.context = Context(left=-first, right=last)

    def frames_reached(self, first: int, last: int) -> tuple[int, int]:
        """First and last frame that the samples ``first`` to ``last`` read; frame 0 holds sample 0."""
        for stage in reversed(list(self._members())):
            first, last = stage.frames_reached(first, last)
        return first, last

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[batch, channels, frames]`` to ``[batch, channels, frames * hop_length]``, as ``HoldUpsampler`` does."""
        for stage in self._members():
            x = stage(x, mask)
            mask = sample_mask(mask, stage.hop_length)
        return x

    def initial_state(self, batch: int, channels: int) -> LayerStates:
        """States of the stages before the first frame."""
        return tuple(stage.initial_state(batch, channels) for stage in self._members())

    def step(self, x: Tensor, state: LayerStates) -> tuple[Tensor, LayerStates]:
        """Upsample the next frames; returns samples and the next state. Raises StreamingError for ``"same"``."""
        next_states = []
        for stage, stage_state in zip(self._members(), state, strict=True):
            x, next_state = stage.step(x, stage_state)
            next_states.append(next_state)
        return x, tuple(next_states)

    def _members(self) -> Iterator[HoldUpsampler]:
        return iter(self.stages)  # type: ignore[arg-type]  # to mypy, a ModuleList holds any modules


def small_factors(hop_length: int) -> tuple[int, ...]:
    """Factors of ``hop_length`` for a ``StagedUpsampler``, largest first: its prime factors, with twos paired to 4.

    256 gives 4, 4, 4, 4; 300 gives 5, 5, 4, 3; a prime gives itself.
    """
    factors = []
    rest = hop_length
    while rest > 1:
        factors.append(4 if rest % 4 == 0 else next(p for p in range(2, rest + 1) if rest % p == 0))
        rest //= factors[-1]
    return tuple(sorted(factors, reverse=True)) or (1,)
