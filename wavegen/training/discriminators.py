"""Discriminators: networks that learn to tell recordings from generated sound.

Each one reads a picture of the sound: the samples folded by a period (HiFi-GAN, arXiv:2010.05646), or the complex
spectrogram at one resolution (EnCodec, arXiv:2210.13438). From either, 2-D convolutions compute feature maps and, in
the last layer, a grid of logits, one for each patch of the picture.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavegen.blocks import apply_weight_norm, effective_kernel_size, reflect_pad, same_padding
from wavegen.training.config import AdversarialConfig

Size = tuple[int, int]  # rows, columns


class DiscriminatorOutput(NamedTuple):
    """The output of one discriminator for a batch.

    Attributes:
        logits: ``[batch, 1, rows, columns]``, high where the sound is taken for a recording.
        features: the output of each layer before the last, ``[batch, channels, rows, columns]`` each.
    """

    logits: Tensor
    features: tuple[Tensor, ...]


class Discriminator(nn.Module, ABC):
    """Convolutions over a picture of the sound, with leaky rectifiers between them.

    Args:
        layers: the convolutions before the last one.
        output: the last convolution, to one channel.
        slope: slope of the rectifiers below zero.
    """

    def __init__(self, layers: Sequence[nn.Conv2d], output: nn.Conv2d, *, slope: float) -> None:
        super().__init__()
        self.layers, self.output, self.slope = nn.ModuleList(layers), output, slope
        for layer in (*layers, output):
            # Keep the variance from layer to layer (arXiv:1502.01852). With torch's own initialisation each layer
            # halves the amplitude, the last ones see little but biases, and learning starts hundreds of steps later.
            nn.init.kaiming_normal_(layer.weight, a=slope)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    @abstractmethod
    def picture(self, samples: Tensor) -> Tensor:
        """Turn ``[batch, samples]`` into ``[batch, channels, rows, columns]``, with the rows in order of time."""

    @property
    @abstractmethod
    def shortest_segment(self) -> int:
        """Number of samples from which on no kernel spans more time than its whole input."""

    def forward(self, samples: Tensor) -> DiscriminatorOutput:
        """The output for ``[batch, samples]`` of any length."""
        x, features = self.picture(samples), []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), self.slope, inplace=True)
            features.append(x)
        return DiscriminatorOutput(self.output(x), tuple(features))

    def smallest_picture(self) -> Size:
        """The smallest number of rows and columns at which every kernel fits into its input."""
        rows = columns = 1
        for layer in reversed([*self.layers, self.output]):
            kernel_rows, kernel_columns = effective_kernel_size(layer.kernel_size, layer.dilation)
            row_stride, column_stride = layer.stride
            # Same padding turns n steps into ceil(n / stride).
            rows = max(kernel_rows, (rows - 1) * row_stride + 1)
            columns = max(kernel_columns, (columns - 1) * column_stride + 1)
        return rows, columns


class PeriodDiscriminator(Discriminator):
    """Folds the samples into rows of ``period``, so that whatever repeats at that period stands in one column.

    ::

        x0 x1 x2 x3 x4 x5 x6 …   period 3      x0 x1 x2
                                               x3 x4 x5      kernels (5, 1): along time, each column by itself
                                               x6 …

    Args:
        period: samples in a row.
        channels: channels of the layers with stride 3; a layer with stride 1 and the last number follows.
    """

    def __init__(self, period: int, *, channels: Sequence[int]) -> None:
        layers = [same_conv2d(a, b, (5, 1), stride=(3, 1)) for a, b in pairwise((1, *channels))]
        layers.append(same_conv2d(channels[-1], channels[-1], (5, 1)))
        super().__init__(layers, same_conv2d(channels[-1], 1, (3, 1)), slope=0.1)
        self.period = period

    def picture(self, samples: Tensor) -> Tensor:
        """``[batch, 1, ceil(samples / period), period]``; reflection completes the last row."""
        missing = -samples.shape[-1] % self.period
        return reflect_pad(samples, (0, missing)).reshape(len(samples), 1, -1, self.period)

    @property
    def shortest_segment(self) -> int:
        """As in the base class; the last row needs one sample."""
        return (self.smallest_picture()[0] - 1) * self.period + 1

    def extra_repr(self) -> str:
        """The period, for ``repr``."""
        return f"period={self.period}"


class ResolutionDiscriminator(Discriminator):
    """Reads the complex spectrogram at one resolution, with real and imaginary part as two channels.

    No frame reaches beyond the samples. Dilations widen the view along time, strides of 2 along frequency.

    Args:
        n_fft: length of the transform and of its window.
        hop_length: samples between frames.
        channels: channels of every layer.
        dilations: dilations along time of the layers with stride 2, one each.
    """

    def __init__(self, n_fft: int, hop_length: int, *, channels: int, dilations: Sequence[int]) -> None:
        layers = [same_conv2d(2, channels, (3, 9))]
        layers += [same_conv2d(channels, channels, (3, 9), stride=(1, 2), dilation=(d, 1)) for d in dilations]
        layers.append(same_conv2d(channels, channels, (3, 3)))
        super().__init__(layers, same_conv2d(channels, 1, (3, 3)), slope=0.2)
        self.n_fft, self.hop_length = n_fft, hop_length
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.window: Tensor

    def picture(self, samples: Tensor) -> Tensor:
        """``[batch, 2, frames, n_fft // 2 + 1]``; the window has unit energy, so levels do not depend on ``n_fft``."""
        with torch.autocast(samples.device.type, enabled=False):  # torch has no STFT in half precision
            window = self.window / self.window.square().sum().sqrt()
            spectrum = torch.stft(
                samples.float(), self.n_fft, self.hop_length, window=window, center=False, return_complex=True
            )
        return torch.view_as_real(spectrum).permute(0, 3, 2, 1)

    @property
    def shortest_segment(self) -> int:
        """As in the base class; each frame needs a whole window."""
        return self.n_fft + (self.smallest_picture()[0] - 1) * self.hop_length

    def extra_repr(self) -> str:
        """The resolution, for ``repr``."""
        return f"n_fft={self.n_fft}, hop_length={self.hop_length}"


class Discriminators(nn.Module):
    """All discriminators of a recipe.

    Args:
        config: their periods, resolutions and sizes.
    """

    def __init__(self, config: AdversarialConfig) -> None:
        super().__init__()
        members: dict[str, Discriminator] = {
            f"period {period}": PeriodDiscriminator(period, channels=config.period_channels)
            for period in config.periods
        }
        for n_fft, hop in config.resolutions:
            members[f"resolution {n_fft}/{hop}"] = ResolutionDiscriminator(
                n_fft, hop, channels=config.resolution_channels, dilations=config.dilations
            )
        self.names, self.members = tuple(members), nn.ModuleList(members.values())
        if config.weight_norm:
            apply_weight_norm(self)

    def forward(self, samples: Tensor) -> list[DiscriminatorOutput]:
        """The output of each discriminator for ``[batch, samples]``."""
        return [member(samples) for member in self.members]

    def shortest_segments(self) -> dict[str, int]:
        """Number of samples that each discriminator needs, by its name."""
        return dict(zip(self.names, (member.shortest_segment for member in self._all()), strict=True))

    def _all(self) -> Iterator[Discriminator]:
        for member in self.members:
            assert isinstance(member, Discriminator)
            yield member


def same_conv2d(
    in_channels: int, out_channels: int, kernel_size: Size, *, stride: Size = (1, 1), dilation: Size = (1, 1)
) -> nn.Conv2d:
    """A 2-D convolution that turns ``n`` steps into ``ceil(n / stride)``, with as many zeros on either side."""
    (above, below), (left, right) = (same_padding(k, d) for k, d in zip(kernel_size, dilation, strict=True))
    assert (above, left) == (below, right), "only a kernel with an odd span has a centre"
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, dilation=dilation, padding=(above, left))
