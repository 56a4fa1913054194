"""Levels of quantised waveforms: mu-law classes, PCM levels, and the interval of values that each stands for."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

LEVELS_16_BIT = 65536


def mu_law_encode(x: Tensor, classes: int = 256) -> Tensor:
    """Quantise a waveform to mu-law classes, the nearest on the companded axis; see ``mu_law_position``.

    With an even number of classes, silence lies midway between the two middle classes; both 0.0 and -0.0 go to the
    upper one, ``classes // 2`` (128 of 256).

    Args:
        x: waveform of any shape; clipped to -1..1.
        classes: number of classes, at least 2.

    Returns:
        int64 classes in 0..classes − 1, the shape of ``x``.
    """
    return mu_law_position(at_least_float32(x), classes).long()  # never negative, so truncation is floor


def mu_law_decode(index: Tensor, classes: int = 256, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Waveform values that represent mu-law classes; ``mu_law_encode`` maps each back to its class.

    Args:
        index: classes in 0..classes − 1, any shape.
        classes: number of classes, at least 2.
        dtype: dtype of the result, float32 or float64; in half precision, neighbouring classes could merge.

    Returns:
        values in -1..1, the shape of ``index``.
    """
    # Computed in float64, so that devices agree on the float32 result.
    return _at_position(index.double() + 0.5, classes).clamp(-1, 1).to(dtype)


def mu_law_position(x: Tensor, classes: int = 256) -> Tensor:
    """Place of a waveform on the companded axis (ITU-T G.711, mu = classes − 1), on which class k covers k…k + 1.

    ::

        y = sign(x) · ln(1 + mu·|x|) / ln(1 + mu)        position = (y + 1) / 2 · mu + 1/2

    Args:
        x: waveform of any shape, float32 or float64; clipped to -1..1.
        classes: number of classes, at least 2.

    Returns:
        values in 0.5..classes − 0.5, the shape and dtype of ``x``.
    """
    mu, x = classes - 1, x.clamp(-1, 1)
    companded = x.sign() * torch.log1p(mu * x.abs()) / math.log1p(mu)
    return (companded + 1) / 2 * mu + 0.5


def _at_position(position: Tensor, classes: int) -> Tensor:
    """The inverse of ``mu_law_position``, float64."""
    mu = classes - 1
    companded = (2 * position - classes) / mu
    return companded.sign() * torch.expm1(companded.abs() * math.log1p(mu)) / mu


class Cells(NamedTuple):
    """Intervals of values: those that a level or class stands for.

    Attributes:
        centre: middle of each interval, ``[batch, time]``.
        half_width: half of its width, a shape that broadcasts to that of ``centre``.
        lowest: bool like ``centre``, True where the interval also includes everything below it.
        highest: the same for everything above it.
    """

    centre: Tensor
    half_width: Tensor
    lowest: Tensor
    highest: Tensor

    def relative_to(self, mean: Tensor, scale: Tensor) -> "Cells":
        """The intervals of ``(x - mean) / scale``."""
        return self._replace(centre=(self.centre - mean) / scale, half_width=self.half_width / scale)


def pcm_cells(x: Tensor, levels: int = LEVELS_16_BIT) -> Cells:
    """The values that round to the same PCM level as ``x``, a waveform ``[batch, time]``."""
    level = (x * (levels / 2)).round().clamp(-levels / 2, levels / 2 - 1)  # +1.0 is clipped to the last level
    half = 1 / levels
    return Cells(level * (2 * half), x.new_full((), half), level == -levels / 2, level == levels / 2 - 1)


def mu_law_cells(x: Tensor, classes: int = 256) -> Cells:
    """The values in the same mu-law class as ``x``, a waveform ``[batch, time]``."""
    index = mu_law_encode(x, classes)
    dtype = at_least_float32(x).dtype
    low, high = (_at_position(edge, classes).to(dtype) for edge in (index.double(), index.double() + 1))
    return Cells((low + high) / 2, (high - low) / 2, index == 0, index == classes - 1)


def at_least_float32(x: Tensor) -> Tensor:
    """``x``, in float32 if it has half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
