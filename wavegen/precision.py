"""Global switches of torch that decide how numbers are computed; each is set for a block and then put back."""

import contextlib
import os
import threading
from collections.abc import Iterator

import torch

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_lock = threading.Lock()
_users = 0
_before = (False, False)


@contextlib.contextmanager
def deterministic(enabled: bool) -> Iterator[None]:
    """Within the block, use kernels that give the same bits on every run (True), or any kernels (False).

    Where torch has no deterministic kernel, it warns and uses another one.
    """
    was_enabled = torch.are_deterministic_algorithms_enabled()
    warned_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: bool = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    workspace = os.environ.get(_WORKSPACE)
    os.environ.setdefault(_WORKSPACE, ":4096:8")  # cuBLAS reads it once, before its first call
    torch.use_deterministic_algorithms(enabled, warn_only=True)
    # Filling new memory takes a tenth of the time, and only guards against reading memory before writing it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = memory  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(was_enabled, warn_only=warned_only)
        if workspace is None:
            os.environ.pop(_WORKSPACE, None)


def tf32_convolutions(enabled: bool) -> contextlib.AbstractContextManager[None]:
    """Within the block, let float32 convolutions on a GPU round to the 11 bits of TF32 (True), or keep 24 (False)."""
    return _cudnn_switch("allow_tf32", enabled)


def cudnn_benchmark(enabled: bool) -> contextlib.AbstractContextManager[None]:
    """Within the block, whether cuDNN times its kernels and takes the fastest, which may differ from run to run."""
    return _cudnn_switch("benchmark", enabled)


@contextlib.contextmanager
def _cudnn_switch(name: str, value: bool) -> Iterator[None]:
    before = getattr(torch.backends.cudnn, name)
    setattr(torch.backends.cudnn, name, value)
    try:
        yield
    finally:
        setattr(torch.backends.cudnn, name, before)


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 convolutions and matrix products on a GPU with all bits of float32, not as TF32 with 10.

    With TF32, the rounding depends on the shape, so that the chunks of a stream differ audibly from the whole. May be
    entered by several threads at once; the last one to leave restores the switches.
    """
    global _users, _before
    with _lock:
        if _users == 0:
            _before = (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = _before
