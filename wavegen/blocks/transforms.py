"""Framing, reflection and complex magnitude for Fourier transforms that are trained through.

Transforms are fastest along the last dimension, so frames are ``[batch, frames, n_fft]`` here. Spectra elsewhere are
``[batch, bins, frames]``: transposed views of the same memory.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wavegen.errors import ConfigError


def reflect_pad(x: Tensor, padding: int | tuple[int, int]) -> Tensor:
    """``x`` with its first and last steps mirrored outwards; the steps at the edges are not repeated.

    ::

        padding (2, 1)    x2 x1 | x0 x1 x2 x3 | x2

    It indexes instead of calling ``F.pad``, whose gradient differs from run to run on a GPU.

    Args:
        x: ``[..., time]``.
        padding: mirrored steps on each side, or ``(left, right)``.

    Returns:
        ``[..., left + time + right]``.

    Raises:
        ConfigError: ``x`` is too short: a step more than the padding is needed.
    """
    left, right = (padding, padding) if isinstance(padding, int) else padding
    time = x.shape[-1]
    needed = max(left, right) + 1
    if time < needed:
        raise ConfigError(
            f"{time} steps are too few for {needed - 1} mirrored ones", remedy=f"give at least {needed} steps"
        )
    before = x[..., 1 : left + 1].flip(-1)
    after = x[..., time - right - 1 : -1].flip(-1)
    return torch.cat((before, x, after), dim=-1)


def stft(samples: Tensor, window: Tensor, hop_length: int) -> Tensor:
    """Spectra of all frames that lie within a signal: complex ``[batch, bins, frames]`` of ``[batch, samples]``."""
    return _RealTransform.apply(_framed(samples, len(window), hop_length) * window).mT


def overlap_add(frames: Tensor, hop_length: int) -> Tensor:
    """Sums of overlapping frames: ``[batch, frames, length]`` to ``[batch, (frames - 1) * hop_length + length]``."""
    return _OverlapAdd.apply(frames, hop_length)


def _framed(samples: Tensor, length: int, hop_length: int) -> Tensor:
    return _Framing.apply(samples, length, hop_length)


class _RealTransform(torch.autograd.Function):
    """``rfft``, whose own derivative in torch takes a complex transform of all bins."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor) -> Tensor:
        ctx.length = frames.shape[-1]
        return torch.fft.rfft(frames)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # The transpose of rfft counts each bin once. irfft counts those that stand for two frequencies twice.
        weights = torch.full_like(gradient.real[0, 0], 0.5)
        weights[:1].fill_(1)
        if ctx.length % 2 == 0:
            weights[-1:].fill_(1)
        return torch.fft.irfft(gradient * weights, n=ctx.length, norm="forward")


# Framing and overlap-add are transposes of each other, so each is the other's derivative. Torch's own derivatives of
# ``unfold`` and ``fold`` are several times slower.
class _Framing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, samples: Tensor, length: int, hop_length: int) -> Tensor:
        ctx.hop_length, ctx.samples = hop_length, samples.shape[1]
        return samples.unfold(1, length, hop_length)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        added = overlap_add(gradient, ctx.hop_length)
        return F.pad(added, (0, ctx.samples - added.shape[1])), None, None


class _OverlapAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, frames: Tensor, hop_length: int) -> Tensor:
        batch, count, length = frames.shape
        ctx.hop_length, ctx.length = hop_length, length
        parts = -(-length // hop_length)
        if length % hop_length:
            frames = F.pad(frames, (0, parts * hop_length - length))
        rows = frames.unflatten(-1, (parts, hop_length))
        total = frames.new_zeros(batch, count + parts - 1, hop_length)
        for part in range(parts):  # the rows of all frames at once, from each frame's first to its last
            total[:, part : part + count] += rows[:, :, part]
        return total.flatten(1)[:, : (count - 1) * hop_length + length]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _framed(gradient, ctx.length, ctx.hop_length), None


def complex_magnitude(spectrum: Tensor, eps: float) -> Tensor:
    """``√(re² + im² + eps)``, the magnitude of a complex spectrum.

    With ``eps`` above 0, the derivative, the logarithm and a division by the magnitude stay finite where the spectrum
    is 0.

    Args:
        spectrum: complex, any shape.
        eps: the smallest power, added to every element; 0 for the plain magnitude, whose gradient at 0 is 0.

    Returns:
        real, the shape of ``spectrum``.
    """
    return _Magnitude.apply(spectrum, eps) if eps else spectrum.abs()


class _Magnitude(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, spectrum: Tensor, eps: float) -> Tensor:
        real, imaginary = spectrum.real, spectrum.imag
        magnitude = real.square().addcmul_(imaginary, imaginary).add_(eps).sqrt_()
        ctx.save_for_backward(spectrum, magnitude)
        return magnitude

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        spectrum, magnitude = ctx.saved_tensors
        if gradient.stride() != magnitude.stride():  # a copy costs less than two operations on mixed memory layouts
            gradient = torch.empty_like(magnitude).copy_(gradient)
        return spectrum * (gradient / magnitude), None
