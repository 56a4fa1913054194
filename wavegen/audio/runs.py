"""Runs of a condition: of lost samples, silence or a label."""

import numpy as np


def runs(condition: np.ndarray) -> list[tuple[int, int]]:
    """Runs of True in bool ``[length]``: the first index of each, and the first after it."""
    edges = np.flatnonzero(np.diff(condition.astype(np.int8), prepend=0, append=0))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]
