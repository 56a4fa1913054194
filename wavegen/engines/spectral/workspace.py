"""Arrays without content between calls, kept so that each call need not ask the system for fresh memory."""

import math
import threading
from collections.abc import Callable

import torch
from torch import Tensor

LARGEST_KEPT = 2**26  # bytes of an array; longer sound comes in windows


class Workspace(threading.local):
    """The arrays of each thread, by name."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def empty(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """An array of unspecified content, valid until the next call with this name."""
        return self._of(name, shape, dtype, torch.empty)

    def zeros(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """As ``empty``, of zeros at first: what nobody writes stays 0 if the last axis keeps its size."""
        return self._of(name, shape, dtype, torch.zeros)

    def _of(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, make: Callable[..., Tensor]) -> Tensor:
        size = math.prod(shape)
        array = self._kept.get(name)
        if array is None or len(array) < size:
            array = make(size, dtype=dtype)
            if array.nbytes <= LARGEST_KEPT:
                self._kept[name] = array
        return array[:size].view(shape)
