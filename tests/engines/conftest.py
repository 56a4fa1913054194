"""What the tests of the engines share."""

import pytest


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """The reference's steps are too small to share, and on a busy machine threads wait for each other."""
