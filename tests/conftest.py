"""What all tests share."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Processes of ``pytest -n`` share the cores already, so that torch uses one thread in each, and in what they start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# torch's compiler believes what the processor says of its vectors; trying each of them out takes it 20 s.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")

import wavegen.commands  # noqa: F401  (before torch: says how its threads wait)

import torch  # isort: skip
from wavegen.progress import one_torch_thread  # isort: skip
from support.browser import browser, opened, small_page  # noqa: F401  isort: skip  (fixtures)
from support.commands import folder, refused  # noqa: F401  isort: skip  (fixtures)
from support.extraction import made  # noqa: F401  isort: skip  (fixture)
from support.messages import messages, same_messages  # noqa: F401  isort: skip  (fixtures)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-messages", action="store_true", help="write tests/messages.txt instead of comparing")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``-n``, let each process take neighbouring tests, which share what their module prepares."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--update-messages") and getattr(config.option, "numprocesses", None):
        raise pytest.UsageError("--update-messages writes one file, so it needs one process: leave out -n")
    # Two threads at most: CI machines have two cores, and more only make small tensors slower.
    torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture
def gpu() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device("cuda")


HOLD = """
import sys, time
from pathlib import Path
from wavegen.files import lock_folder
with lock_folder(Path(sys.argv[1]), ""):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def another_holds() -> Iterator[Callable[[Path], None]]:
    """Let another process hold a folder until the test ends."""
    processes: list[subprocess.Popen[str]] = []

    def hold(path: Path) -> None:
        process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"

    yield hold
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Run the test with one thread of torch."""
    with one_torch_thread():
        yield


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run the test in an empty folder, with one thread, and restore torch's random state afterwards."""
    monkeypatch.chdir(tmp_path)
    with one_torch_thread(), torch.random.fork_rng(devices=[]):
        yield
