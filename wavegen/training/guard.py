"""The loss guard: steps whose loss or gradient is no number are not taken, and too many of them are undone."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from wavegen.errors import TrainingError
from wavegen.training import distributed
from wavegen.training.state import RunFolder, TrainingState

SKIPS_IN_A_ROW = 3
ROLLBACKS = 2


class Skip(NamedTuple):
    """A step that was not taken.

    Attributes:
        step: its number.
        wrong: the losses and gradient norms that were no numbers in this process.
        clips: the names of the clips in its batch, over all processes.
    """

    step: int
    wrong: list[str]
    clips: list[str]

    def __str__(self) -> str:
        shown = f"{', '.join(self.clips[:3])}{', …' if len(self.clips) > 3 else ''}"
        return f"step {self.step}: not finite: {', '.join(self.wrong) or 'a loss elsewhere'}; skipped (clips {shown})"


def all_finite(values: Mapping[str, Tensor]) -> bool:
    """Whether all scalars are numbers, in every process. Waits for the GPU, once."""
    return distributed.everywhere(torch.stack([v.detach().float() for v in values.values()]).isfinite().all())


def skip(state: TrainingState, values: Mapping[str, Tensor], clips: Sequence[str]) -> Skip:
    """Leave a step out: the data goes on, weights, averages and optimisers stay as they are."""
    state.step += 1
    return Skip(state.step, [name for name, value in values.items() if not value.isfinite()], list(clips))


def roll_back(state: TrainingState, run: RunFolder, skipped: Sequence[Skip]) -> None:
    """Bring ``state`` to the last good checkpoint, with half the learning rate from there on.

    The checkpoint is written again with the lower rate, so that a resumed run does not fail anew first. Every
    process must call it.

    Raises:
        TrainingError: there is no checkpoint, or lower rates have not helped before.
    """
    where = f"step {skipped[-1].step}"
    wrong = sorted({name for step in skipped for name in step.wrong})
    what = f"{len(skipped)} steps in a row were not finite ({', '.join(wrong)})"
    remedy = f"look at the clips of the rows 'skipped' in {run.log}, or start anew with a lower training.learning_rate"
    if state.rollbacks == ROLLBACKS:
        raise TrainingError(f"{what}, after going back {ROLLBACKS} times", where=where, remedy=remedy)
    rollbacks = state.rollbacks + 1
    if not run.restore(state):
        raise TrainingError(f"{what}, and there is no checkpoint to go back to", where=where, remedy=remedy)
    state.rollbacks = rollbacks
    distributed.wait_for_all()  # until all have read it
    if distributed.rank_and_world()[0] == 0:
        run.save(state)


def refuse_broken_weights(state: TrainingState) -> None:
    """Raise TrainingError where a model would be made of weights that are no numbers."""
    if not state.is_finite():
        raise TrainingError(
            "some weights are no numbers",
            where=f"step {state.step}",
            remedy="the checkpoint before is kept; start anew with a lower training.learning_rate",
        )
