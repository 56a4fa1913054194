"""Arguments of synthesis as callers have them: converted where that is exact, otherwise refused in one line."""

import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavegen.errors import ConfigError, MelError


def floats(values: Any, *, like: Tensor, name: str) -> Tensor:
    """A tensor of floats in the precision and on the device of ``like``.

    Args:
        values: a tensor or a numpy array of any float type.
        like: a weight of the vocoder.
        name: the error's name for the values.

    Raises:
        MelError: the values are not floats.
    """
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        # torch knows neither another byte order nor floats of more than 64 bits, and warns about read-only arrays.
        values = torch.from_numpy(np.array(values, dtype=np.float64 if values.dtype.itemsize > 4 else np.float32))
    if not isinstance(values, Tensor) or not values.is_floating_point():
        found = values.dtype if isinstance(values, Tensor | np.ndarray) else f"a {type(values).__name__}"
        raise MelError(f"{name} holds {found}, not floats", remedy="give a float tensor or array")
    return values.to(device=like.device, dtype=like.dtype)


def lengths(given: Any, mel: Tensor) -> Tensor | None:
    """The number of real frames of each item of ``mel``, int64 ``[batch]`` on its device; None if all are real.

    Raises:
        ConfigError: there is not one whole number from 0 to the frames of ``mel`` for each item.
    """
    if given is None:
        return None
    batch, _, frames = mel.shape
    counts = _integers(given, "lengths")
    if len(counts) != batch:
        raise ConfigError(f"{len(counts)} lengths for {batch} items", where="lengths", remedy="give one for each item")
    if counts and not 0 <= min(counts) <= max(counts) <= frames:
        wrong = next(count for count in counts if not 0 <= count <= frames)
        raise ConfigError(f"{wrong} of {frames} frames", where="lengths", remedy=f"give numbers from 0 to {frames}")
    return torch.tensor(counts, dtype=torch.int64, device=mel.device)


def seeds(given: Any, batch: int) -> Tensor:
    """Seeds int64 ``[batch]`` from one for all items or one for each.

    Raises:
        ConfigError: a seed is not a whole number of 64 bits, or their number is wrong.
    """
    values = _integers(given, "seed")
    if not isinstance(given, Iterable) or (isinstance(given, Tensor | np.ndarray) and given.ndim == 0):
        values *= batch
    if len(values) != batch:
        raise ConfigError(
            f"{len(values)} seeds for {batch} items", where="seed", remedy="give one for all items or one for each"
        )
    for value in values:
        if not -(2**63) <= value < 2**63:
            raise ConfigError(f"{value} has more than 64 bits", where="seed", remedy="give 0 to 2^63 - 1")
    return torch.tensor(values, dtype=torch.int64)


def _integers(given: Any, name: str) -> list[int]:
    """One integer or several of any kind: Python's, numpy's, or a tensor's."""
    values = given.tolist() if isinstance(given, Tensor | np.ndarray) else given
    values = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else [values]
    try:
        return [operator.index(value) for value in values]
    except TypeError as error:
        raise ConfigError(f"{given!r:.60} is not a whole number", where=name, remedy="give integers") from error
