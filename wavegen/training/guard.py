"""The loss guard: skips steps whose loss or gradient is NaN or infinite, and goes back after too many of them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from wavegen.errors import TrainingError
from wavegen.training import distributed
from wavegen.training.run_folder import RunFolder
from wavegen.training.state import TrainingState

SKIPS_IN_A_ROW = 3
ROLLBACKS = 2
_MAX_CLIPS_SHOWN = 3


class Skip(NamedTuple):
    """A step that was skipped.

    Attributes:
        step: its number.
        wrong: names of the losses and gradient norms that were NaN or infinite in this process.
        clips: names of the clips in its batch, over all processes.
    """

    step: int
    wrong: list[str]
    clips: list[str]

    def __str__(self) -> str:
        wrong = ", ".join(self.wrong) or "a loss in another process"
        clips = ", ".join(self.clips[:_MAX_CLIPS_SHOWN]) + (", …" if len(self.clips) > _MAX_CLIPS_SHOWN else "")
        return f"step {self.step} skipped: NaN or infinite {wrong} (clips {clips})"


def all_finite(values: Mapping[str, Tensor]) -> bool:
    """Whether all scalars are finite, in every process. Waits for the GPU, once."""
    return distributed.everywhere(torch.stack([v.detach().float() for v in values.values()]).isfinite().all())


def skip(state: TrainingState, values: Mapping[str, Tensor], clips: Sequence[str]) -> Skip:
    """Skip a step: the next one reads the next batch, while weights, EMA weights and optimisers stay as they are."""
    state.step += 1
    return Skip(state.step, [name for name, value in values.items() if not value.isfinite()], list(clips))


def roll_back(state: TrainingState, run: RunFolder, skips: Sequence[Skip]) -> None:
    """Go back to the newest checkpoint, and halve the learning rates from there on.

    The checkpoint is saved again with the lower rates, so that a resumed run does not fail again first. Every process
    must call it.

    Raises:
        TrainingError: a checkpoint is missing, or ``ROLLBACKS`` rollbacks did not help.
    """
    where = f"step {skips[-1].step}"
    wrong = sorted({name for skip in skips for name in skip.wrong})
    what = f"{len(skips)} steps in a row had a NaN or infinite loss or gradient ({', '.join(wrong)})"
    remedy = (
        f"check the clips in the rows 'skipped' of {run.log}, or start a new run with a lower training.learning_rate"
    )
    if state.rollbacks == ROLLBACKS:
        raise TrainingError(f"{what}, after going back {ROLLBACKS} times", where=where, remedy=remedy)
    rollbacks = state.rollbacks + 1
    if not run.restore(state):
        raise TrainingError(f"{what}, and the run has no checkpoint to go back to", where=where, remedy=remedy)
    state.rollbacks = rollbacks
    distributed.wait_for_all()  # until all have read the checkpoint
    if distributed.is_first():
        run.save(state)


def refuse_broken_weights(state: TrainingState) -> None:
    """Raise TrainingError if a weight is NaN or infinite, before a model is made of them."""
    if not state.weights_are_finite():
        raise TrainingError(
            "some weights are NaN or infinite",
            where=f"step {state.step}",
            remedy="the checkpoint before is kept; start a new run with a lower training.learning_rate",
        )
