"""The compiled loop on other processors, and its cache on disk. Each test compiles in a process of its own."""

import ast
import inspect
import platform
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from safetensors.torch import save_file
from support.engines import NETWORKS, reference_logits, run_python

import wavegen
from wavegen.engines import simd
from wavegen.engines.autoregressive import compiled
from wavegen.engines.spectral import functions

CHECK_ALL = """
import torch
from safetensors.torch import load_file
from support.engines import check_lock_step, check_logits
from wavegen.engines import simd
from wavegen.engines.autoregressive import int8
torch.set_num_threads(1)
for name, expected in load_file({logits!r}).items():
    check_logits(name, expected)
    for precision in {precisions!r}:
        check_lock_step(name, precision)
print(simd.LANES, int8.AVAILABLE)
"""
GENERATE = """
import torch
from support.engines import agreeing_samples, generate, inputs, network
from wavegen.engines import ReferenceEngine, make_engine
model = network("one-block")
_, condition, noise = inputs(model, 1, 20)
samples, expected = (generate(e, condition, noise) for e in (make_engine(model, "numba"), ReferenceEngine(model)))
print(agreeing_samples(samples, expected))
"""
QUICKLY = {"NUMBA_OPT": "1"}  # the tests of the cache need no fast code, and without any optimisation numba caches none


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


@pytest.mark.slow
def test_a_full_disk_costs_only_the_cache(tmp_path: Path) -> None:
    """Files that may not grow stand in for a full disk."""
    pytest.importorskip("resource")
    limit = "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    assert run_python(limit + GENERATE, NUMBA_CACHE_DIR=str(tmp_path), **QUICKLY) == "20"
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.nb*")) == 0


@pytest.mark.slow
def test_a_change_of_the_source_is_not_served_from_the_cache(tmp_path: Path) -> None:
    shutil.copytree(Path(wavegen.__file__).parent, tmp_path / "wavegen", ignore=shutil.ignore_patterns("__pycache__"))
    cache = tmp_path / "cache"

    def samples() -> str:  # those that agree with the reference
        return run_python(GENERATE, package=tmp_path, NUMBA_CACHE_DIR=str(cache), **QUICKLY)

    def compiled_loops() -> int:
        return len(list(cache.rglob("*.nbc")))

    assert (samples(), compiled_loops()) == ("20", 1)
    assert (samples(), compiled_loops()) == ("20", 1)  # served from the cache
    module = tmp_path / "wavegen" / "engines" / "simd.py"
    source = module.read_text(encoding="utf-8")
    assert "np.float32(-2)" in source
    module.write_text(source.replace("np.float32(-2)", "np.float32(-1)"), encoding="utf-8")  # in tanh
    assert int(samples()) < 20
    assert compiled_loops() == 2


@pytest.mark.parametrize("defining", [compiled, functions], ids=["autoregressive", "spectral"])
def test_the_cache_knows_every_module_that_is_compiled(defining: ModuleType) -> None:
    """Modules of the engines that any compiled one imports from must be compiled ones themselves."""
    known = {module.__name__ for module in defining.COMPILED}
    assert "wavegen.engines.simd" in known
    for module in defining.COMPILED:
        imports = [node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.ImportFrom)]
        imported = {node.module for node in imports if (node.module or "").startswith("wavegen.engines")}
        assert imported - {"wavegen.engines.base"} <= known, module.__name__
