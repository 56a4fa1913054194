"""What a graph carries from one chunk of a stream to the next."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wavegen.blocks import DilatedStack


class Carried:
    """The past of all sequences that a graph reads, in one chunk of a stream.

    A chunk is computed as if the utterance ended with it. The last steps of a sequence are therefore *provisional*: the
    next chunk computes them again, and what is kept ends before them::

        before      |- kept -|
        new                  |---------- final ----------|- provisional -|
        after                                   |- kept -|

    Args:
        before: the kept steps by name; None in the first chunk.
        frames: frames of the chunk.
        first_frame: int64 ``[1]``, index in the utterance of the first of them.

    Attributes:
        initial: the kept steps before the first frame, by name: zeros.
        after: the kept steps for the next chunk.
    """

    def __init__(self, before: Mapping[str, Tensor] | None, frames: int, first_frame: Tensor) -> None:
        self._before = before
        self._frames, self._first_frame = frames, first_frame
        self.initial: dict[str, Tensor] = {}
        self.after: dict[str, Tensor] = {}

    def kept(self, name: str, initial: Tensor) -> Tensor:
        """What was kept of a sequence; ``initial`` before the first frame."""
        self.initial[name] = initial
        return initial if self._before is None else self._before[name]

    def keep(self, name: str, steps: Tensor, provisional: int, kept: int, axis: int = -1) -> None:
        """Keep the last steps of a sequence for the next chunk, but for the provisional ones at its end."""
        # Constants counted from the end: a runtime cuts them to what there is, where an exporter would ask which it is.
        for start, stop in ((None, -provisional or None), (-kept, None)):
            steps = steps[(slice(None),) * (axis % steps.ndim) + (slice(start, stop),)]
        self.after[name] = steps

    def past(
        self, name: str, new: Tensor, provisional: int, kept: int, *, axis: int = -1, at_first: int | None = None
    ) -> Tensor:
        """Return the steps before the new ones, and keep the last steps of both for the next chunk.

        Args:
            name: a name of the sequence.
            new: the new steps.
            provisional: number of provisional steps at the end.
            kept: number of steps to keep.
            axis: the axis of the steps.
            at_first: number of steps before the first frame, zeros; ``kept`` by default.
        """
        if kept == 0:
            return new.narrow(axis, 0, 0)
        shape = list(new.shape)
        shape[axis] = kept if at_first is None else at_first
        past = self.kept(name, new.new_zeros(shape))
        self.keep(name, torch.cat((past, new), dim=axis), provisional, kept, axis)
        return past

    def seen(
        self, name: str, new: Tensor, provisional: int, kept: int, *, axis: int = -1, at_first: int | None = None
    ) -> Tensor:
        """The kept steps and the new ones; arguments as in ``past``."""
        return torch.cat((self.past(name, new, provisional, kept, axis=axis, at_first=at_first), new), dim=axis)

    def seen_all(self, name: str, new: Any, provisional: int, kept: int) -> Any:
        """As ``seen`` for each tensor of a nested named tuple, whose fields name them further."""
        if new is None:
            return None
        if isinstance(new, Tensor):
            return self.seen(name, new, provisional, kept)
        parts = zip(new._fields, new, strict=True)
        return type(new)(*(self.seen_all(f"{name}_{field}", part, provisional, kept) for field, part in parts))

    def real(self, count: int) -> Tensor:
        """Which of the last ``count`` frames belong to the utterance, float ``[count]``: 0 before its first one."""
        index = torch.arange(count) + (self._frames - count) + self._first_frame
        return (index >= 0).float()

    def through(
        self, stack: DilatedStack, x: Tensor, name: str, provisional: int, condition: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The next steps of a causal stack: residual and sum of skips, as ``DilatedStack.step`` returns them."""
        total = torch.zeros(())
        for index, block in enumerate(stack.blocks):
            past = self.past(f"{name}_{index}", x, provisional, block.context.left)  # type: ignore[union-attr,arg-type]
            (x, skip), _ = block.step(x, past, condition)  # type: ignore[operator]
            total = total + skip
        return x, total
