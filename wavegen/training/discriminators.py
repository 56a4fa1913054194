"""Networks that learn to tell recordings from what a vocoder makes of their mels.

Each looks at a picture of the sound: the samples folded by a period (HiFi-GAN, arXiv:2010.05646), or the complex
spectrogram at one resolution (EnCodec, arXiv:2210.13438). In both, 2-D convolutions give a grid of logits, one for
each patch, and the feature maps of the layers before.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavegen.blocks import apply_weight_norm, effective_kernel_size, same_padding
from wavegen.training.config import AdversarialConfig

Pair = tuple[int, int]


class Judgement(NamedTuple):
    """What one discriminator says of a batch.

    Attributes:
        logits: ``[batch, 1, rows, columns]``, high where it takes the sound for a recording.
        features: the output of every layer before, ``[batch, channels, rows, columns]`` each.
    """

    logits: Tensor
    features: tuple[Tensor, ...]


class Discriminator(nn.Module, ABC):
    """A picture of the sound, then convolutions with leaky rectifiers.

    Args:
        layers: the convolutions before the last.
        output: the last, to one channel.
        slope: of the rectifiers below zero.
    """

    def __init__(self, layers: Sequence[nn.Conv2d], output: nn.Conv2d, *, slope: float) -> None:
        super().__init__()
        self.layers, self.output, self.slope = nn.ModuleList(layers), output, slope
        for layer in (*layers, output):
            # As loud at the end as at the start (arXiv:1502.01852): with torch's own start each layer takes half away,
            # the last ones hear nothing but their biases, and hundreds of steps pass before they tell sounds apart.
            nn.init.kaiming_normal_(layer.weight, a=slope)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    @abstractmethod
    def picture(self, samples: Tensor) -> Tensor:
        """``[batch, samples]`` as ``[batch, channels, rows, columns]``; rows follow each other in time."""

    @property
    @abstractmethod
    def shortest_segment(self) -> int:
        """Samples below which some kernel would span more time than its whole input: it would weigh padding alone."""

    def forward(self, samples: Tensor) -> Judgement:
        """Judge ``[batch, samples]`` of any length."""
        x, features = self.picture(samples), []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), self.slope)
            features.append(x)
        return Judgement(self.output(x), tuple(features))

    def smallest_picture(self) -> Pair:
        """Rows and columns from which on every kernel fits into what it reads."""
        rows = columns = 1
        for layer in reversed([*self.layers, self.output]):
            (tall, wide), (down, across) = (effective_kernel_size(layer.kernel_size, layer.dilation), layer.stride)
            # Same padding turns n steps into ceil(n / stride).
            rows, columns = max(tall, (rows - 1) * down + 1), max(wide, (columns - 1) * across + 1)
        return rows, columns


class PeriodDiscriminator(Discriminator):
    """Sees every ``period``-th sample in a row of its own, and so what repeats at that rate.

    ::

        x0 x1 x2 x3 x4 x5 x6 …   period 3      x0 x1 x2
                                               x3 x4 x5      kernels (5, 1): along the time of each column alone
                                               x6 …

    Args:
        period: samples in a row.
        channels: of the layers that go in strides of 3; a layer of stride 1 keeps the last.
    """

    def __init__(self, period: int, *, channels: Sequence[int]) -> None:
        layers = [same_conv2d(a, b, (5, 1), stride=(3, 1)) for a, b in pairwise((1, *channels))]
        layers.append(same_conv2d(channels[-1], channels[-1], (5, 1)))
        super().__init__(layers, same_conv2d(channels[-1], 1, (3, 1)), slope=0.1)
        self.period = period

    def picture(self, samples: Tensor) -> Tensor:
        """``[batch, 1, ceil(samples / period), period]``; a last row that is not full is completed by reflection."""
        missing = -samples.shape[-1] % self.period
        # By indexing: the gradient of torch's own reflection differs from run to run on a GPU.
        mirrored = samples[:, samples.shape[-1] - missing - 1 : -1].flip(-1)
        return torch.cat((samples, mirrored), dim=-1).reshape(len(samples), 1, -1, self.period)

    @property
    def shortest_segment(self) -> int:
        """As for all; a row counts from its first sample on."""
        return (self.smallest_picture()[0] - 1) * self.period + 1

    def extra_repr(self) -> str:
        """The period."""
        return f"period={self.period}"


class ResolutionDiscriminator(Discriminator):
    """Sees the complex spectrogram at one resolution, real and imaginary part as two channels.

    Frames reach over no edge. Dilations widen the view along time, strides of 2 along frequency.

    Args:
        n_fft: length of the transform and of its window.
        hop_length: samples between frames.
        channels: of every layer.
        dilations: along time, one for each layer of stride 2.
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
        """``[batch, 2, frames, n_fft // 2 + 1]``, as loud as the samples whatever the transform's length."""
        with torch.autocast(samples.device.type, enabled=False):  # transforms have no half precision
            window = self.window / self.window.square().sum().sqrt()
            spectrum = torch.stft(
                samples.float(), self.n_fft, self.hop_length, window=window, center=False, return_complex=True
            )
        return torch.view_as_real(spectrum).permute(0, 3, 2, 1)

    @property
    def shortest_segment(self) -> int:
        """As for all; frames that reach over no edge need the whole window each."""
        return self.n_fft + (self.smallest_picture()[0] - 1) * self.hop_length

    def extra_repr(self) -> str:
        """The resolution."""
        return f"n_fft={self.n_fft}, hop_length={self.hop_length}"


class Discriminators(nn.Module):
    """All that a recipe asks for.

    Args:
        config: which, and how large.
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

    def forward(self, samples: Tensor) -> list[Judgement]:
        """What each says of ``[batch, samples]``."""
        return [member(samples) for member in self.members]

    def shortest_segments(self) -> dict[str, int]:
        """Samples that each needs, by name."""
        return dict(zip(self.names, (member.shortest_segment for member in self._all()), strict=True))

    def _all(self) -> Iterator[Discriminator]:
        for member in self.members:
            assert isinstance(member, Discriminator)
            yield member


def same_conv2d(
    in_channels: int, out_channels: int, kernel_size: Pair, *, stride: Pair = (1, 1), dilation: Pair = (1, 1)
) -> nn.Conv2d:
    """A 2-D convolution that turns ``n`` steps into ``ceil(n / stride)``, with zeros equally on both sides."""
    (above, below), (left, right) = (same_padding(k, d) for k, d in zip(kernel_size, dilation, strict=True))
    assert (above, left) == (below, right), "only a kernel of odd span has a middle"
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, dilation=dilation, padding=(above, left))
