"""Reflection and complex magnitude for Fourier transforms that are trained through."""

import torch
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
    if eps == 0:
        return spectrum.abs()
    return (spectrum.real.square() + spectrum.imag.square() + eps).sqrt()
