"""The dilated convolutions inside every block: causal or same-padded, whole or streamed."""

from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from wavegen.blocks.geometry import padding_for, same_padding
from wavegen.blocks.masks import masked
from wavegen.blocks.products import linear
from wavegen.errors import StreamingError

AnyModule = TypeVar("AnyModule", bound=nn.Module)
Padding = Literal["causal", "same"]
LayerStates = tuple[Tensor, ...]
"""The streaming states of layers that run one after another, one per layer, in their order."""


@dataclass(frozen=True)
class Context:
    """Input steps that a layer reads before (left) and after (right) the output step itself.

    Contexts add up along a stack. A causal layer has ``right == 0``.
    """

    left: int = 0
    right: int = 0

    def __add__(self, other: "Context") -> "Context":
        return Context(self.left + other.left, self.right + other.right)

    @property
    def receptive_field(self) -> int:
        """Input steps that one output step reads, including its own."""
        return self.left + 1 + self.right


class DilatedConv1d(nn.Conv1d):
    """1-D convolution with stride 1 whose output has as many steps as its input.

    Context beyond the ends of the input is zeros::

        causal, k 3, d 2    0 0 0 0 | x0 x1 x2 …          y0 reads only x0
        same,   k 3, d 2        0 0 | x0 x1 x2 … | 0 0    y0 reads x0 and x2

    The parameters are those of ``nn.Conv1d`` (keys ``weight`` and ``bias``).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: taps.
        dilation: steps between taps.
        padding: ``"causal"`` or ``"same"``.
        groups: the ``groups`` of ``nn.Conv1d``.
        bias: the ``bias`` of ``nn.Conv1d``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        dilation: int = 1,
        padding: Padding = "causal",
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        left, right = padding_for(padding, kernel_size, dilation)
        super().__init__(in_channels, out_channels, kernel_size, dilation=dilation, groups=groups, bias=bias)
        self.context = Context(left, right)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Convolve a whole sequence.

        Args:
            x: ``[batch, in_channels, time]``.
            mask: ``[batch, 1, time]``, True where a step is real; all other steps are read as zeros.

        Returns:
            ``[batch, out_channels, time]``; steps outside the mask hold unspecified finite values.
        """
        x = masked(x, mask)
        left, right = self.context.left, self.context.right
        if left or right:
            x = F.pad(x.mT, (0, 0, left, right)).mT if _steps_first(x) else F.pad(x, (left, right))
        return self._convolve(x)

    def initial_state(self, batch: int) -> Tensor:
        """The zeros before the first step: ``[batch, in_channels, context.left]``."""
        return self.weight.new_zeros(batch, self.in_channels, self.context.left)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve the next chunk of a sequence: ``forward`` with the previous steps in place of the left padding.

        Args:
            x: ``[batch, in_channels, time]`` for any ``time``.
            state: the state that ``initial_state`` or the previous ``step`` returned; it is not changed.

        Returns:
            ``[batch, out_channels, time]`` and the next state.

        Raises:
            StreamingError: the layer looks ahead.
        """
        refuse_look_ahead(self)
        seen = torch.cat((state.mT, x.mT), dim=1).mT if _steps_first(x) else torch.cat((state, x), dim=-1)
        # Sliced from the front: ``seen[..., -left:]`` would be everything if left is 0.
        return self._convolve(seen), seen[..., seen.shape[-1] - self.context.left :]

    def _convolve(self, seen: Tensor) -> Tensor:
        if seen.shape[-1] < self.context.receptive_field:  # an empty chunk gives no output
            return seen.new_zeros(seen.shape[0], self.out_channels, 0)
        if seen.shape[-1] == self.context.receptive_field and self.groups in (1, self.in_channels):
            # A single step is a product with all taps: calling a convolution takes longer than computing it.
            read = seen[..., :: self.dilation[0]]
            if self.groups == 1:
                return F.linear(read.flatten(1), self.weight.flatten(1), self.bias)[..., None]
            if self.in_channels == self.out_channels:
                step = (read * self.weight[:, 0]).sum(dim=-1, keepdim=True)
                return step if self.bias is None else step + self.bias[:, None]
        if not _steps_first(seen):
            return super().forward(seen)
        if self.context.receptive_field == 1 and self.groups == 1:
            return linear(seen.mT, self.weight[:, :, 0], self.bias).mT
        # As an image of height 1 whose channels come last in memory, which a CPU convolves faster.
        image, weight = seen[:, :, None], self.weight[:, :, None]
        return F.conv2d(image, weight, self.bias, dilation=(1, self.dilation[0]), groups=self.groups)[:, :, 0]


class DilatedConv2d(nn.Conv2d):
    """2-D convolution over frequency and time with stride 1, whose output has as many bins and steps as its input.

    It is ``DilatedConv1d`` along time, whose context it declares and whose state it carries; along frequency, all bins
    are there at once, so it is always same-padded. Beyond the edges are zeros. The parameters are those of
    ``nn.Conv2d``.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: taps along frequency and time; one number for both.
        dilation: bins and steps between taps; one number for both.
        padding: ``"causal"`` or ``"same"``, along time.
        groups: the ``groups`` of ``nn.Conv2d``.
        bias: the ``bias`` of ``nn.Conv2d``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        dilation: int | tuple[int, int] = 1,
        padding: Padding = "causal",
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        taps, distances = (pair if isinstance(pair, tuple) else (pair, pair) for pair in (kernel_size, dilation))
        self._bins_around = same_padding(taps[0], distances[0])
        left, right = padding_for(padding, taps[1], distances[1])
        super().__init__(in_channels, out_channels, taps, dilation=distances, groups=groups, bias=bias)
        self.context = Context(left, right)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Convolve a whole sequence.

        Args:
            x: ``[batch, in_channels, bins, time]``.
            mask: ``[batch, 1, time]``, True where a step is real; all other steps are read as zeros.

        Returns:
            ``[batch, out_channels, bins, time]``; steps outside the mask hold unspecified finite values.
        """
        x = masked(x, None if mask is None else mask[:, :, None])
        return self._convolve(F.pad(x, (self.context.left, self.context.right)))

    def initial_state(self, batch: int, bins: int) -> Tensor:
        """The zeros before the first step: ``[batch, in_channels, bins, context.left]``."""
        return self.weight.new_zeros(batch, self.in_channels, bins, self.context.left)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve the next chunk of a sequence: ``forward`` with the previous steps in place of the left padding.

        Args:
            x: ``[batch, in_channels, bins, time]`` for any ``time``.
            state: the state that ``initial_state`` or the previous ``step`` returned; it is not changed.

        Returns:
            ``[batch, out_channels, bins, time]`` and the next state.

        Raises:
            StreamingError: the layer looks ahead.
        """
        refuse_look_ahead(self)
        seen = torch.cat((state, x), dim=-1)
        return self._convolve(seen), seen[..., seen.shape[-1] - self.context.left :]

    def _convolve(self, seen: Tensor) -> Tensor:
        if seen.shape[-1] < self.context.receptive_field:  # an empty chunk gives no output
            return seen.new_zeros(seen.shape[0], self.out_channels, seen.shape[2], 0)
        return super().forward(F.pad(seen, (0, 0, *self._bins_around)))


def _steps_first(x: Tensor) -> bool:
    """Whether ``x`` is a transposed view of ``[batch, time, channels]`` on a CPU, as a LayerNorm leaves it."""
    return x.device.type == "cpu" and not x.is_contiguous() and x.mT.is_contiguous()


def refuse_look_ahead(layer: nn.Module) -> None:
    """Raise StreamingError if ``layer.context.right > 0``: such a layer has no exact causal state."""
    if layer.context.right > 0:  # type: ignore[union-attr,operator]
        raise StreamingError(
            f"reads {layer.context.right} steps ahead, so it cannot step",  # type: ignore[union-attr]
            where=type(layer).__name__,
            remedy="build it with padding='causal', or stream the whole vocoder, which handles the look-ahead",
        )


_NORMALISED = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear,
)  # fmt: skip


def apply_weight_norm(module: AnyModule) -> AnyModule:
    """Give every convolution and linear layer inside ``module`` weight normalisation (arXiv:1602.07868).

    The output is unchanged. A layer that has it already is left alone, so a second call changes nothing. As in other
    projects, the norms are those of the weight's first axis, also in a transposed convolution.
    """
    for layer in list(module.modules()):
        if isinstance(layer, _NORMALISED) and not _has_weight_norm(layer):
            parametrizations.weight_norm(layer)
            # A vector of zeros has no direction, and 0 / 0 is NaN. Any direction will do, as its length is 0.
            parameters = dict(layer.named_parameters())
            length, direction = (parameters[f"parametrizations.weight.original{index}"] for index in (0, 1))
            with torch.no_grad():
                direction.copy_(torch.where(length == 0, 1.0, direction))
    return module


def _has_weight_norm(layer: nn.Module) -> bool:
    # torch has two forms: a parametrisation and, before that, hooks around parameters named weight_g and weight_v.
    return parametrize.is_parametrized(layer, "weight") or hasattr(layer, "weight_g")


def fold_weight_norm(module: AnyModule) -> AnyModule:
    """Replace weight normalisation by the plain weights that it computes; the output changes only by rounding.

    Fold once before synthesis: recomputing the norm takes more than half the time of every autoregressive step. A
    folded module has plain ``weight`` keys, so it refuses weights saved before folding instead of ignoring them.
    """
    for layer in list(module.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return module
