"""The compiled kernels: where they run, and how they are compiled."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from wavegen.source import _kernels


def all_pole(samples: Tensor, coefficients: Tensor, order: int) -> None:
    """Filter an excitation in place, see ``_kernels.all_pole``."""
    _run(_kernels.all_pole, samples, coefficients, order)


def interpolate_frames(x: Tensor, positions: Sequence[float]) -> Tensor:
    """As ``wavegen.source.linear_prediction.interpolate_frames``."""
    result, places = x.new_empty(*x.shape[:2], x.shape[2] * len(positions)), x.new_empty(len(positions))
    for place, position in zip(places, positions, strict=True):
        place.fill_(position)
    _run(_kernels.interpolate_frames, x.contiguous(), places, result)
    return result


def levinson(autocorrelation: Tensor) -> tuple[Tensor, Tensor]:
    """As ``wavegen.source.linear_prediction.levinson``."""
    batch, count, steps = autocorrelation.shape
    coefficients = autocorrelation.new_empty(batch, count - 1, steps)
    error = autocorrelation.new_empty(batch, steps)
    _run(_kernels.levinson, autocorrelation.contiguous(), coefficients, error)
    return coefficients, error[:, None]


def uniform_noise(streams: Tensor, start: int, count: int) -> Tensor:
    """As ``wavegen.noise.uniform_noise``, of given streams."""
    noise = torch.empty(*streams.shape, count)
    _run(_kernels.uniform_noise, streams, start, noise)
    return noise


def pulse_train(f0: Tensor, before: Tensor, unit: float, sample_rate: float, highest: float) -> tuple[Tensor, Tensor]:
    """Pulses, and the phase after the last of them.

    Args:
        f0: float64 ``[batch, samples]``.
        before: int64 ``[batch]``, phase before the first sample in units.
        unit: units of a cycle.
        sample_rate: sample rate.
        highest: limit of the harmonics in hertz.

    Returns:
        float64 ``[batch, samples]``, and int64 ``[batch]``.
    """
    units = torch.empty(len(f0), 1 + f0.shape[1], dtype=torch.int64)
    units[:, 0] = before
    pulses = torch.empty_like(f0, memory_format=torch.contiguous_format)
    arguments = f0.contiguous(), units, float(unit), float(sample_rate), float(highest), pulses
    _run(_kernels.pulse_train, *arguments, rearrange=False)
    return pulses, units[:, -1]


def compiled_code_runs(x: Tensor) -> bool:
    """Whether compiled code may compute with a tensor: on a CPU, and without gradients."""
    return x.device.type == "cpu" and not torch.is_grad_enabled() and numba_compiles()


@lru_cache(maxsize=1)
def numba_compiles() -> bool:
    """Whether numba can be imported and compiles; without it, torch computes the same several times slower."""
    try:
        import numba
    except Exception:  # a numba built for another numpy raises any of several
        return False
    return not numba.config.DISABLE_JIT


def _run(kernel: Callable[..., None], *arguments: Any, rearrange: bool = True) -> None:
    """Run a kernel with tensors as arrays; its first call for a type of numbers compiles it or loads it from disk.

    If the cache on disk cannot be used, because it cannot be written or is damaged, the kernel is compiled without it.

    Args:
        kernel: a function of ``_kernels``.
        arguments: its arguments.
        rearrange: whether sums may be added up in another order.
    """
    arrays = [argument.numpy() if isinstance(argument, Tensor) else argument for argument in arguments]
    key = kernel, *(array.dtype for array in arrays if hasattr(array, "dtype"))
    if key not in _READY:
        nothing = [array[:0] if hasattr(array, "dtype") else array for array in arrays]
        try:
            ready = _compiled(kernel, cache=True, rearrange=rearrange)
            ready(*nothing)  # computes nothing, so any error is the cache's
        except Exception:
            ready = _compiled(kernel, cache=False, rearrange=rearrange)
        _READY[key] = ready
    _READY[key](*arrays)


def _compiled(kernel: Callable[..., None], *, cache: bool, rearrange: bool) -> Callable[..., None]:
    import numba  # takes its time to load

    fastmath = {"reassoc", "contract"} if rearrange else {"contract"}
    return numba.njit(cache=cache, nogil=True, error_model="numpy", fastmath=fastmath)(kernel)


_READY: dict[Any, Callable[..., None]] = {}
