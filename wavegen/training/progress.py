"""What a run shows and logs while it trains: log file, board, and a bar or plain lines."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from tqdm import tqdm

from wavegen.corpora.manifest import Clip
from wavegen.progress import LinePacer, Notify, shows_bars
from wavegen.training import distributed
from wavegen.training.board import Board
from wavegen.training.config import TrainingConfig
from wavegen.training.guard import Skip
from wavegen.training.loggers import open_logger
from wavegen.training.run_folder import RunFolder
from wavegen.training.state import TrainingState


class Window:
    """Sums over the steps since the last log row. They stay on the device: reading a value waits for the GPU."""

    def __init__(self) -> None:
        self.steps = 0
        self.waited_s = 0.0
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: Counter[str] = Counter()  # some losses begin at a later step than others
        self._started = time.perf_counter()

    def add(self, values: Mapping[str, torch.Tensor]) -> None:
        """Count one step."""
        for name, value in values.items():
            value = value.detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] += 1
        self.steps += 1

    def means(self, device: torch.device) -> dict[str, float]:
        """Means over steps and processes, steps per second, and the share of time spent waiting for data."""
        _, world = distributed.rank_and_world()
        elapsed_s = time.perf_counter() - self._started
        means = {name: float(value) / self._counts[name] for name, value in self._sums.items()}
        totals = distributed.total(means, device)
        return {
            **{name: value / world for name, value in totals.items()},
            "steps_per_s": self.steps / elapsed_s,
            "data_wait_share": self.waited_s / elapsed_s,
        }


class Progress:
    """Shows and logs the progress of a run.

    Every process has one, because means are taken over all processes; only the first one shows or writes anything.

    Args:
        run: the folder for the logs.
        config: training settings.
        first_step: the step that the run starts or resumes at.
        device: the device of this process.
        notify: prints a line for the user.
    """

    def __init__(
        self, run: RunFolder, config: TrainingConfig, first_step: int, device: torch.device, notify: Notify
    ) -> None:
        self.run, self.config, self.device, self.notify = run, config, device, notify
        self.is_first = distributed.is_first()
        self.window = Window()
        self.board = self._open_board(first_step)
        self.bar = tqdm(
            total=config.steps,
            initial=first_step,
            desc="training",
            unit="step",
            disable=not (self.is_first and shows_bars()),
        )
        self._started = time.monotonic()
        self._pacer = LinePacer()

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Count the time of the block as waiting for data."""
        began = time.perf_counter()
        yield
        self.window.waited_s += time.perf_counter() - began

    def took_step(self, values: Mapping[str, torch.Tensor]) -> None:
        """Count a step that was taken, with its losses and gradient norms."""
        self.window.add(values)
        self.bar.update()

    def skipped_step(self, skip: Skip) -> None:
        """Show a step that was skipped."""
        self._append("skipped", skip.step, {"wrong": skip.wrong, "clips": skip.clips})
        self._notify(str(skip))
        self.bar.update()

    def rolled_back(self, state: TrainingState, skips: Sequence[Skip]) -> None:
        """Show a rollback. The log rows of the undone steps are gone, so its row repeats what was skipped."""
        factor = 0.5**state.rollbacks
        undone = {"from_step": skips[-1].step, "skipped": [skip._asdict() for skip in skips]}
        self._append("rollback", state.step, {**undone, "learning_rate_factor": factor})
        self._notify(
            f"{len(skips)} steps skipped in a row: back to step {state.step}, with {factor:g} times the learning rate"
        )
        self.window = Window()
        self._close_board()
        self.board = self._open_board(state.step)
        self.bar.n = state.step
        self.bar.refresh()

    def log_means(self, state: TrainingState) -> None:
        """Show the means over the steps taken since the last row, if there were any."""
        if not self.window.steps:
            return
        row = self.window.means(self.device) | {"learning_rate": state.optimizer.param_groups[0]["lr"]}
        self.window = Window()
        self._log("train", state.step, row)
        self.bar.set_postfix_str(f"loss {row['loss']:.3f}")
        if self.bar.disable and self._pacer.is_due():
            speed = f"{row['steps_per_s']:.2f} steps/s"
            self._notify(f"step {state.step}/{self.config.steps}  loss {row['loss']:.3f}  {speed}")

    def log_validation(
        self, state: TrainingState, losses: Mapping[str, float], clips: Sequence[Clip]
    ) -> dict[str, float]:
        """Show the validation losses, and let the board hear the EMA weights.

        Returns:
            the mean scores of the clips that were synthesised, in the first process; otherwise nothing.
        """
        self._log("valid", state.step, losses)
        values = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
        self._notify(f"step {state.step}  validation: {values}")
        scores = {} if self.board is None else self.board.listen(state.step, state.ema, clips, self.config, self.device)
        if scores:
            self._log("listened", state.step, scores)
        self.window = Window()  # time spent here is not training time
        return scores

    def close(self) -> None:
        """Close the bar and the board."""
        self.bar.close()
        self._close_board()

    def _notify(self, line: str) -> None:
        if self.is_first:
            self.notify(line)

    def _log(self, kind: str, step: int, row: Mapping[str, float]) -> None:
        self._append(kind, step, row)
        if self.board is not None:
            self.board.scalars(kind, step, row)

    def _append(self, kind: str, step: int, row: Mapping[str, Any]) -> None:
        if self.is_first:
            elapsed_s = round(time.monotonic() - self._started, 3)  # of this process: a resumed one starts at 0
            self.run.append_to_log({"step": step, "kind": kind, "elapsed_s": elapsed_s, **row})

    def _open_board(self, first_step: int) -> Board | None:
        if not self.is_first:
            return None
        name = self.config.logger
        return Board(open_logger(name, self.run.path, first_step=first_step, settings=self.run.recipe))

    def _close_board(self) -> None:
        if self.board is not None:
            self.board.close()
