"""What all tests share."""

import pytest

import wavegen.commands  # noqa: F401  (before torch: says how its threads wait)

import torch  # isort: skip
from browser import browser, opened, small_page  # noqa: F401  isort: skip  (fixtures)


def pytest_configure() -> None:
    # Two threads at most: CI machines have two cores, and more only make small tensors slower.
    torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture
def gpu() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device("cuda")
