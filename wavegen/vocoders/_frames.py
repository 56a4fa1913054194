"""Nested tuples of tensors ``[batch, channels, frames]``, or None, that are cut and joined as one."""

from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def count(frames: Any) -> int:
    """Number of frames of the first tensor."""
    return int(frames.shape[-1]) if isinstance(frames, Tensor) else count(frames[0])


def joined(first: T, second: T) -> T:
    """``second`` after ``first``."""
    if first is None:
        return first
    if isinstance(first, Tensor):
        return torch.cat((first, second), dim=-1)  # type: ignore[arg-type, return-value]
    return type(first)(*(joined(a, b) for a, b in zip(first, second, strict=True)))  # type: ignore[call-overload]


def cut(frames: T, start: int, stop: int | None) -> T:
    """The frames from ``start`` to ``stop``; None for the end."""
    if frames is None:
        return frames
    if isinstance(frames, Tensor):
        return frames[..., start:stop]  # type: ignore[return-value]
    return type(frames)(*(cut(part, start, stop) for part in frames))  # type: ignore[attr-defined]
