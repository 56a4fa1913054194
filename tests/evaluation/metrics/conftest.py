"""What the tests of metrics share."""

import pytest


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """As the workers that score: a second thread waits if another process keeps its core busy."""
