"""A training step's gradients as a CUDA graph: recorded once, then replayed.

A step of a small network is thousands of kernels of a few microseconds each, and launching them one by one takes
several times as long as running them.
"""

from collections.abc import Callable, Hashable
from typing import Protocol

import torch
from torch import Tensor

from wavegen.errors import TrainingError
from wavegen.training.data import Batch

# Libraries choose their kernels and make their plans and handles in the first steps; a graph can hold none of that.
STEPS_BEFORE_RECORDING = 3


class Gradients(Protocol):
    """Leaves the gradients of a batch in the weights' ``grad``, and returns detached scalars."""

    def __call__(self, batch: Batch, *, step: int) -> dict[str, Tensor]: ...  # noqa: D102


class Replayed:
    """``gradients`` on a GPU, replayed from the fourth step of a kind on: the same kernels, so the same bits.

    Args:
        gradients: launches the same kernels for all steps of a kind, over whatever the weights and the batch are.
        kind: of a step, by its number.
    """

    def __init__(self, gradients: Gradients, kind: Callable[[int], Hashable]) -> None:
        self.gradients, self.kind = gradients, kind
        self._kind: Hashable = None
        self._seen = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Batch, *, step: int) -> dict[str, Tensor]:
        """As ``gradients``.

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
        # A copy: the next replay overwrites what this one has left, and sums over steps go on.
        return dict(zip(self._names, self._values.clone().unbind(), strict=True))

    def _record(self, batch: Batch, step: int) -> torch.cuda.CUDAGraph:
        """The graph of ``gradients``; it reads ``_batch``, and leaves ``_values`` beside the gradients."""
        self._batch = Batch._make(None if part is None else part.clone() for part in batch)
        graph = torch.cuda.CUDAGraph()
        try:
            # The thread that pins the batches to come calls CUDA meanwhile, which is no concern of the graph's.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                values = self.gradients(self._batch, step=step)
                self._names, self._values = tuple(values), torch.stack([value.float() for value in values.values()])
        except RuntimeError as error:
            raise TrainingError(
                f"the step cannot be recorded as a CUDA graph: {str(error).splitlines()[0]}",
                where="training.cuda_graphs",
                remedy="set it to false",
            ) from error
        return graph
