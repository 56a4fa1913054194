"""Masks of items that are shorter than their batch: True where a step is real, ``[batch, 1, time]``."""

from typing import overload

import torch
from torch import Tensor

from wavegen.errors import ConfigError


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """``x`` with zeros where ``mask`` is False; ``x`` itself if ``mask`` is None.

    The zeros are selected, not multiplied: 0 × NaN is NaN.

    Args:
        x: ``[batch, channels, time]``, or any shape that ``mask`` broadcasts to.
        mask: bool ``[batch, 1, time]``, or None if every step is real.

    Raises:
        ConfigError: the mask has another type, or a shape that does not fit.
    """
    if mask is None:
        return x
    if mask.dtype != torch.bool:
        raise ConfigError(f"the mask holds {mask.dtype}, not bool", where="mask", remedy="give mask.bool()")
    # By broadcasting alone, a mask [batch, time] would be taken for one of channels where the sizes allow it.
    sizes = zip(mask.shape, x.shape, strict=True) if mask.dim() == x.dim() else [(0, 1)]
    if any((own != size and 1 not in (own, size)) or (not own and size) for own, size in sizes):
        raise ConfigError(
            f"the mask has shape {list(mask.shape)} for steps {list(x.shape)}",
            where="mask",
            remedy="give [batch, 1, time]",
        )
    return torch.where(mask, x, torch.zeros((), dtype=x.dtype, device=x.device))


@overload
def frame_mask(lengths: Tensor, frames: int) -> Tensor: ...
@overload
def frame_mask(lengths: Tensor | None, frames: int) -> Tensor | None: ...
def frame_mask(lengths: Tensor | None, frames: int) -> Tensor | None:
    """Mask of frames, True before each item's length; None if ``lengths`` is None.

    Args:
        lengths: int ``[batch]``, real frames of each item.
        frames: frames of the batch.

    Returns:
        bool ``[batch, 1, frames]``.
    """
    if lengths is None:
        return None
    return (torch.arange(frames, device=lengths.device) < lengths[:, None])[:, None]


@overload
def sample_mask(mask: Tensor, hop_length: int) -> Tensor: ...
@overload
def sample_mask(mask: Tensor | None, hop_length: int) -> Tensor | None: ...
def sample_mask(mask: Tensor | None, hop_length: int) -> Tensor | None:
    """Mask of samples for a mask of frames; None if ``mask`` is None.

    Args:
        mask: ``[batch, 1, frames]``.
        hop_length: samples per frame.

    Returns:
        ``[batch, 1, frames * hop_length]``; ``[:, 0]`` is the mask of a waveform ``[batch, samples]``.
    """
    return None if mask is None else mask.repeat_interleave(hop_length, dim=-1)
