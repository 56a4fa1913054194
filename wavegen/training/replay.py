"""A training step's gradients as a CUDA graph: recorded once, then replayed.

A step of a small network runs thousands of kernels of a few microseconds each. Launching them one by one takes several
times as long as running them.
"""

from collections.abc import Callable, Hashable
from typing import Protocol

import torch
from torch import Tensor

from wavegen.errors import TrainingError
from wavegen.training.data import Batch

# Libraries choose kernels and create plans and handles during the first steps, which cannot be part of a graph.
STEPS_BEFORE_RECORDING = 3


class Gradients(Protocol):
    """Computes the gradients of a batch."""

    def __call__(self, batch: Batch, *, step: int) -> dict[str, Tensor]:
        """Write the gradients to the weights' ``grad``; returns detached losses and gradient norms by name."""


class Replayed:
    """``gradients`` on a GPU, replayed from the fourth step of a kind on: the same kernels, so the same bits.

    Args:
        gradients: launches the same kernels for all steps of one kind, whatever the weights and the batch are.
        kind: returns the kind of a step, given its number.
    """

    def __init__(self, gradients: Gradients, kind: Callable[[int], Hashable]) -> None:
        self.gradients, self.kind = gradients, kind
        self._kind: Hashable = None
        self._seen = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Batch, *, step: int) -> dict[str, Tensor]:
        """Compute the gradients of a batch, like ``gradients``.

        Raises:
            TrainingError: the step cannot be recorded.
        """
        if (kind := self.kind(step)) != self._kind:
            self._kind, self._seen, self._graph = kind, 0, None
        self._seen += 1
        if self._seen <= STEPS_BEFORE_RECORDING:
            return self.gradients(batch, step=step)
        if self._graph is None:
            self._graph = self._record(batch, step)
        for static, given in zip(self._batch, batch, strict=True):
            if static is not None and given is not None:
                static.copy_(given)
        self._graph.replay()
        # Copy the values: the next replay overwrites them, while sums over several steps still need them.
        return dict(zip(self._names, self._values.clone().unbind(), strict=True))

    def _record(self, batch: Batch, step: int) -> torch.cuda.CUDAGraph:
        """The graph of ``gradients``, which reads ``_batch`` and writes ``_values`` and the gradients."""
        self._batch = Batch._make(None if part is None else part.clone() for part in batch)
        graph = torch.cuda.CUDAGraph()
        try:
            # thread_local: meanwhile another thread calls CUDA to pin the next batches, which must not end the capture.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                values = self.gradients(self._batch, step=step)
                self._names, self._values = tuple(values), torch.stack([value.float() for value in values.values()])
        except RuntimeError as error:
            raise TrainingError(
                f"the step cannot be recorded as a CUDA graph: {str(error).splitlines()[0]}",
                where="training.cuda_graphs",
                remedy="set training.cuda_graphs=false",
            ) from error
        return graph
