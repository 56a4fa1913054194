"""The compiled kernels: where they run, and how they are compiled."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from inspect import isfunction
from pathlib import Path
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
    _run(_kernels.pulse_train, *arguments)
    return pulses, units[:, -1]


def compiled_code_runs(x: Tensor) -> bool:
    """Whether compiled code may compute with a tensor: on a CPU, and without gradients."""
    if x.device.type != "cpu" or torch.is_grad_enabled():
        return False
    return (_blocks_without_compiling == 0 or _is_ready()) and numba_compiles()


@contextlib.contextmanager
def without_compiling() -> Iterator[None]:
    """Inside the block, compile nothing: kernels that are not on disk yet leave their work to torch. For all threads.

    Compiling them takes as long as torch takes for half a minute of sound.
    """
    global _blocks_without_compiling
    with _lock:
        _blocks_without_compiling += 1
    try:
        yield
    finally:
        with _lock:
            _blocks_without_compiling -= 1


def may_be_on_disk(source: str) -> bool:
    """Whether numba may have kept code that it compiled from a source file. Does not load numba.

    numba keeps code in ``NUMBA_CACHE_DIR``, beside the source, or in a folder of the user. This function looks into the
    first two; if numba can use neither, it says yes.
    """
    chosen, beside = os.environ.get("NUMBA_CACHE_DIR"), Path(source).parent
    if not chosen and not os.access(beside, os.W_OK):
        return True
    return any(Path(chosen or beside / "__pycache__").rglob(f"{Path(source).stem}.*.nbi"))


def is_on_disk(function: Any) -> bool:
    """Whether numba's cache has the code of a function that ``numba.njit`` returned, for arguments of any types."""
    try:
        cache = function._cache
        wanted = cache._index_key(None, function.targetctx.codegen())[1:]  # all but the types
        return any(key[1:] == wanted for key in cache._cache_file._load_index())
    except Exception:  # a damaged cache, or names that another release of numba has changed
        return False


@lru_cache(maxsize=1)
def numba_compiles() -> bool:
    """Whether numba can be imported and compiles; without it, torch computes the same several times slower."""
    try:
        import numba
    except Exception:  # a numba built for another numpy raises any of several
        return False
    return not numba.config.DISABLE_JIT


@lru_cache(maxsize=1)
def _is_ready() -> bool:
    """Whether all kernels have been compiled before; a process looks once, so that its sound is computed in one way."""
    if not (may_be_on_disk(_kernels.__file__) and numba_compiles()):
        return False
    kernels = [value for value in vars(_kernels).values() if isfunction(value)]
    return all(is_on_disk(_compiled(kernel, cache=True)) for kernel in kernels)


def _run(kernel: Callable[..., None], *arguments: Any) -> None:
    """Run a kernel with tensors as arrays; its first call for a type of numbers compiles it or loads it from disk.

    If the cache on disk cannot be used, because it cannot be written or is damaged, the kernel is compiled without it.

    Args:
        kernel: a function of ``_kernels``.
        arguments: its arguments.
    """
    arrays = [argument.numpy() if isinstance(argument, Tensor) else argument for argument in arguments]
    key = kernel, *(array.dtype for array in arrays if hasattr(array, "dtype"))
    if key not in _READY:
        nothing = [array[:0] if hasattr(array, "dtype") else array for array in arrays]
        try:
            ready = _compiled(kernel, cache=True)
            ready(*nothing)  # computes nothing, so any error is the cache's
        except Exception:
            ready = _compiled(kernel, cache=False)
        _READY[key] = ready
    _READY[key](*arrays)


def _compiled(kernel: Callable[..., None], *, cache: bool) -> Callable[..., None]:
    import numba  # takes its time to load

    # Pulses are rounded by ``(x + ROUND) - ROUND``, which another order would undo.
    fastmath = {"contract"} if kernel is _kernels.pulse_train else {"reassoc", "contract"}
    return numba.njit(cache=cache, nogil=True, error_model="numpy", fastmath=fastmath)(kernel)


_READY: dict[Any, Callable[..., None]] = {}
_lock = threading.Lock()
_blocks_without_compiling = 0
