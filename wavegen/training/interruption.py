"""Stopping a run on request, between two steps."""

import signal
from types import FrameType, TracebackType

import torch

from wavegen.training import distributed


class Interruption:
    """Within the block, SIGINT (Ctrl-C) and SIGTERM ask the loop to stop after the current step.

    A second signal raises KeyboardInterrupt at once.

    Attributes:
        requested: whether this process has been asked to stop.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "Interruption":
        self._handlers = {number: signal.signal(number, self._request) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def agreed(self, step: int, ask_every: int, device: torch.device) -> bool:
        """Whether any process has been asked to stop; every process must call it.

        Several processes only ask each other after every ``ask_every`` steps, because the answer waits for the GPU.
        """
        _, world = distributed.rank_and_world()
        if world == 1:
            return self.requested
        return step % ask_every == 0 and distributed.total({"stop": float(self.requested)}, device)["stop"] > 0

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
