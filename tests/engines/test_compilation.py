"""The compiled loop on other processors, and its cache on disk. Each test compiles in a process of its own."""

import ast
import inspect
import platform
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from safetensors.torch import save_file
from support.engines import NETWORKS, reference_logits, run_python

from wavegen.engines import simd
from wavegen.engines.autoregressive import compiled
from wavegen.engines.spectral import functions

CHECK_ALL = """
import torch
from safetensors.torch import load_file
from support.engines import check_lock_step, check_logits
from wavegen.engines import simd
from wavegen.engines.packed import int8
torch.set_num_threads(1)
for name, expected in load_file({logits!r}).items():
    check_logits(name, expected)
    for precision in {precisions!r}:
        check_lock_step(name, precision)
print(simd.LANES, int8.AVAILABLE)
"""
CALLEE = """
from numba import njit
@njit
def number():
    return 42
"""
CALLER = """
from numba import njit
import callee
from wavegen.engines.compilation import CompiledOnce
def define(fingerprint, cached):
    @njit(cache=cached)
    def answer():
        return callee.number(), fingerprint
    return answer
def answer():
    return CompiledOnce(define, [callee]).get(lambda function: function())()[0]
"""


def check_on(tmp_path: Path, *precisions: str, **environment: str) -> str:
    """Check all networks for another processor; return its lanes, and whether it has products of bytes."""
    logits = tmp_path / "logits.safetensors"
    save_file({name: reference_logits(name).contiguous() for name in NETWORKS}, logits)
    return run_python(CHECK_ALL.format(logits=str(logits), precisions=precisions), **environment)


def skip_unless_lanes(lanes: int) -> None:
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("NEON is the only width here, and the other tests run it")
    if lanes > simd.LANES:
        pytest.skip(f"this processor has no vectors of {lanes}")


def test_vectors_of_8(tmp_path: Path) -> None:
    skip_unless_lanes(8)
    processor = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}
    assert check_on(tmp_path, "float32", **processor) == "8 False"


@pytest.mark.slow
def test_products_of_bytes_in_vectors_of_8(tmp_path: Path) -> None:
    skip_unless_lanes(8)
    if "+avxvnni" not in simd.TARGET[2].split(","):
        pytest.skip("this processor has no products of bytes in vectors of 8")
    processor = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma,+avxvnni"}
    assert check_on(tmp_path, "int8", **processor) == "8 True"


@pytest.mark.slow
def test_vectors_of_4_and_a_cache_folder_that_cannot_be_created(tmp_path: Path) -> None:
    """Both in one process, because compiling takes the time."""
    skip_unless_lanes(4)
    (tmp_path / "file").touch()
    processor = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2"}
    assert check_on(tmp_path, "float32", NUMBA_CACHE_DIR=str(tmp_path / "file" / "below"), **processor) == "4 False"


# --- the cache on disk, of a small function ---


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with two modules: a function that is compiled and kept, and one that it calls."""
    (tmp_path / "callee.py").write_text(CALLEE)
    (tmp_path / "caller.py").write_text(CALLER)
    return tmp_path


def answer(folder: Path, before: str = "") -> str:
    """What the compiled function returns in another process."""
    code = f"import sys\nsys.path.insert(0, {str(folder)!r})\nimport caller\nprint(caller.answer())"
    return run_python(before + code, NUMBA_CACHE_DIR=str(folder / "cache"))


def test_a_full_disk_costs_only_the_cache(small: Path) -> None:
    """Files that may not grow stand in for a full disk."""
    pytest.importorskip("resource")
    limit = "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    assert answer(small, limit) == "42"
    assert sum(path.stat().st_size for path in small.rglob("*.nb*")) == 0


def test_a_change_of_what_a_function_calls_is_not_served_from_the_cache(small: Path) -> None:
    def kept() -> int:
        return len(list((small / "cache").rglob("*.nbc")))

    assert (answer(small), kept()) == ("42", 1)
    assert (answer(small), kept()) == ("42", 1)  # served from the cache
    (small / "callee.py").write_text(CALLEE.replace("42", "43"))
    assert (answer(small), kept()) == ("43", 2)


@pytest.mark.parametrize("defining", [compiled._define_loop, functions._define], ids=["autoregressive", "spectral"])
def test_the_engines_functions_enclose_the_number_that_stands_for_their_sources(defining: Callable[..., Any]) -> None:
    defined = defining(1234567, False)
    for function in defined if isinstance(defined, tuple) else [defined]:
        assert 1234567 in [cell.cell_contents for cell in function.py_func.__closure__]


@pytest.mark.parametrize("defining", [compiled, functions], ids=["autoregressive", "spectral"])
def test_the_cache_knows_every_module_that_is_compiled(defining: ModuleType) -> None:
    """Modules of the engines that any compiled one imports from must be compiled ones themselves."""
    known = {module.__name__ for module in defining.COMPILED}
    assert "wavegen.engines.simd" in known
    for module in defining.COMPILED:
        imports = [node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.ImportFrom)]
        imported = {node.module for node in imports if (node.module or "").startswith("wavegen.engines")}
        assert imported - {"wavegen.engines.base"} <= known, module.__name__
