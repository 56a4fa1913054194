"""The training loop."""

import math
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from wavegen.blocks import DilatedStack
from wavegen.checkpoint import MODEL
from wavegen.corpora.manifest import Clip, spread
from wavegen.errors import ConfigError
from wavegen.evaluation.metrics import METRICS, available, missing_note
from wavegen.training import distributed
from wavegen.training.board import Board
from wavegen.training.config import TrainingConfig
from wavegen.training.data import Batch, Segments, lost_readers_named, read_crop
from wavegen.training.guard import SKIPS_IN_A_ROW, Skip, all_finite, refuse_broken_weights, roll_back, skip
from wavegen.training.objectives import Losses, Objective, build_objective, shortest_segment
from wavegen.training.replay import Gradients, Replayed
from wavegen.training.state import RunFolder, TrainingState
from wavegen.vocoders import AutoregressiveVocoder, Vocoder

Say = Callable[[str], None]


def train(
    vocoder: Vocoder,
    clips: Sequence[Clip],
    config: TrainingConfig,
    run: RunFolder,
    *,
    seed: int,
    device: torch.device,
    say: Say,
    init: Path | None = None,
) -> Path | None:
    """Train a vocoder until ``config.steps``, from its newest checkpoint where the run has one.

    Started by torchrun, the processes share each batch: they take the steps that one process would.

    Args:
        vocoder: with the weights to start from, the same in every process.
        clips: of both splits.
        config: training settings.
        run: the folder for checkpoints and logs.
        seed: of the choice of segments.
        device: of this process.
        say: prints a line for the user; called by the first process only.
        init: another run, whose weights to begin with where this one has no checkpoint yet.

    Returns:
        the finished model's file; None where the run was interrupted, after saving a checkpoint.

    Raises:
        ConfigError: the batch cannot be shared evenly.
        CheckpointError: the newest checkpoint cannot be used.
        OutputError: a checkpoint cannot be written; the earlier ones are still there.
        TrainingError: losses or gradients are no numbers, and going back with a lower learning rate has not helped;
            or a process that reads segments was killed.
        AudioError, MelError: a recording or mel is gone or damaged since the training began.
    """
    rank, world = distributed.rank_and_world()
    if config.batch_size % world:
        raise ConfigError(
            f"training.batch_size {config.batch_size} cannot be shared by {world} processes",
            remedy="give a multiple of it: the batch size is global",
        )
    train_clips = [clip for clip in clips if clip.split == "train"]
    valid_clips = spread([clip for clip in clips if clip.split == "valid"], config.valid_clips)
    if not train_clips or len(valid_clips) < world:
        raise ConfigError(
            f"{len(train_clips)} clips to train on and {len(valid_clips)} held back, for {world} processes",
            where="data.held_out",
            remedy="there must be one to train on, and one held back for each process",
        )
    if config.best_by in METRICS and config.best_by not in available():
        raise ConfigError(str(missing_note()), where=f"training.best_by={config.best_by}")
    use_deterministic_kernels(config.deterministic)
    torch.backends.cudnn.allow_tf32 = config.precision != "float32"  # with it, float32 convolutions keep 10 bits
    state = TrainingState(vocoder.to(device).train(), config)
    resumed = run.restore(state)
    began = f"resuming at step {state.step}" if resumed else init and run.start_from(state, init)
    if not resumed and rank == 0:
        run.forget_log_after(0)
    if began and rank == 0:
        say(began)
    if rank == 0 and config.adversarial is not None:
        begin = config.adversarial.start_step
        if begin >= config.steps:
            say(f"no discriminators: training.adversarial.start_step is {begin}, and there are {config.steps} steps")
        elif state.step < begin:
            say(f"reconstruction alone to step {begin}, from there on against discriminators")
    objective = build_objective(vocoder, config, state.discriminators).to(device)
    validation = build_objective(state.average, config, state.discriminators).to(device)
    if config.compile:
        for module in vocoder.modules():  # the stacks are the work; the transforms around them have complex numbers
            if isinstance(module, DilatedStack):
                module.compile()
    losses: Callable[..., Losses] = objective
    if world > 1:
        losses = DistributedDataParallel(
            objective, device_ids=[device] if device.type == "cuda" else None, broadcast_buffers=False
        )
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(config, vocoder, device))

    def compute_gradients(batch: Batch, *, step: int) -> dict[str, torch.Tensor]:
        state.forget_gradients()
        with autocast:
            parts = losses(batch, step=step)
        torch.autograd.backward([parts[name] for name in ("loss", "discriminator_loss") if name in parts])
        if state.discriminators is not None:
            distributed.average_gradients(state.discriminators)
        return {name: part.detach() for name, part in parts.items()} | state.clip_gradients()

    gradients: Gradients = compute_gradients
    if config.cuda_graphs and device.type == "cuda" and world == 1:
        gradients = Replayed(compute_gradients, objective.kind)

    segments = Segments(train_clips, vocoder.mel, frames=config.segment_frames, seed=seed, speakers=vocoder.speakers)

    def batches_from(step: int) -> Iterator[Batch]:
        return segments.batches(step, config.steps, config.batch_size, rank=rank, world=world, workers=config.workers)

    batches = batches_from(state.step)
    report = _Report(run, config, state.step, say) if rank == 0 else None
    window = _Window()
    skipped: list[Skip] = []  # in a row, before this step

    with _Interruption() as interruption, lost_readers_named():
        while state.step < config.steps:
            waiting = time.perf_counter()
            batch = next(batches).to(device)
            window.waited += time.perf_counter() - waiting
            values = gradients(batch, step=state.step)
            if all_finite(values):
                state.take_step()
                window.add(values)
                skipped = []
            else:
                skipped.append(skip(state, values, segments.names(state.step, config.batch_size)))
                if report:
                    report.skipped(skipped[-1])
            if len(skipped) == SKIPS_IN_A_ROW:
                roll_back(state, run, skipped)
                if report:
                    report.rolled_back(state, skipped)
                batches, window, skipped = batches_from(state.step), _Window(), []
                continue
            if report:
                report.bar.update()

            is_last = state.step == config.steps
            if window.count and (state.step % config.log_every == 0 or is_last):
                row = window.means(device) | {"learning_rate": state.optimizer.param_groups[0]["lr"]}
                window = _Window()
                if report:
                    report.training(state.step, row)
            is_best = False
            if state.step % config.validate_every == 0 or is_last:
                with autocast:
                    row = validate(validation, valid_clips, vocoder, config, device, step=state.step)
                if report:
                    report.validation(state.step, row)
                    row |= report.listening(state, valid_clips, config, device)
                # Discriminators move the loss that they are a part of.
                score = row.get("reconstruction", row["loss"]) if config.best_by == "loss" else row.get(config.best_by)
                is_best = not skipped and is_improvement(config.best_by, score, state.best)
                state.best = score if is_best else state.best
                window = _Window()  # time spent here is no training time
            stop = interruption.requested
            if world > 1:  # all must agree, and asking waits for the GPU: not at every step
                asked = state.step % config.log_every == 0
                stop = asked and distributed.total({"stop": float(stop)}, device)["stop"] > 0
            stop = stop and not skipped
            due = state.step % config.checkpoint_every == 0 or is_best or is_last or stop
            # A checkpoint is good: the steps around it were taken (after the last there is none to go back for), and
            # every weight in it is a number.
            if rank == 0 and due and (is_last or not skipped) and state.is_finite():
                run.save(state, is_best=is_best)
            if stop:
                break
    if report:
        report.close()
    if state.step < config.steps:
        if rank == 0:
            say(f"stopped at step {state.step}; the same command goes on from there")
        return None
    refuse_broken_weights(state)
    model = run.save_model(state, MODEL) if rank == 0 else run.path / MODEL
    if interruption.requested:  # during the last step: the model is there, what comes after it is not wanted
        raise KeyboardInterrupt
    return model


@torch.no_grad()
def validate(
    objective: Objective,
    clips: Sequence[Clip],
    vocoder: Vocoder,
    config: TrainingConfig,
    device: torch.device,
    *,
    step: int,
) -> dict[str, float]:
    """Mean losses after ``step`` steps over the beginnings of the held-back clips, shared among the processes."""
    rank, world = distributed.rank_and_world()
    # Shorter clips are padded as in training; the likelihood is defined for any length and would be diluted.
    least = 1 if isinstance(vocoder, AutoregressiveVocoder) else shortest_segment(vocoder, config)
    sums: dict[str, float] = {}
    for clip in clips[rank::world]:
        frames = max(least, min(config.valid_frames, clip.frames))
        batch = read_crop(clip, vocoder.mel, 0, frames, vocoder.speakers).to(device)
        for name, value in objective(batch, step=step).items():
            sums[name] = sums.get(name, 0.0) + float(value)
    return {name: value / len(clips) for name, value in distributed.total(sums, device).items()}


def is_improvement(best_by: str, value: float | None, best: float | None) -> bool:
    """Whether ``value`` is better than the ``best`` so far, as the loss or the metric ``best_by`` means it."""
    if value is None or not math.isfinite(value):  # None: no clip could be scored, or only the first process scores
        return False
    if best is None:
        return True
    return value < best if best_by == "loss" else METRICS[best_by].badness(value) < METRICS[best_by].badness(best)


def uses_bfloat16(config: TrainingConfig, vocoder: Vocoder, device: torch.device) -> bool:
    """Whether the forward pass runs in bfloat16."""
    if config.precision == "auto":
        return (
            vocoder.trains_in_bfloat16
            and device.type == "cuda"
            and torch.cuda.is_bf16_supported(including_emulation=False)
        )
    return config.precision == "bfloat16"


def use_deterministic_kernels(deterministic: bool) -> None:
    """Ask torch for kernels that give the same bits every time; where one has none it warns and goes on."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it said before its first call
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    # Filling memory before its use takes a tenth of the time, and guards only against reading it unwritten.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not deterministic


class _Window:
    """Sums since the last log line. Values stay on the device until then: reading one waits for the GPU."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: Counter[str] = Counter()  # some losses begin later than others
        self.count, self.waited, self.started = 0, 0.0, time.perf_counter()

    def add(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, value in values.items():
            value = value.detach()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] += 1
        self.count += 1

    def means(self, device: torch.device) -> dict[str, float]:
        """Means over steps and processes, steps per second, and the share of time spent waiting for data."""
        _, world = distributed.rank_and_world()
        elapsed = time.perf_counter() - self.started
        means = {name: float(value) / self.counts[name] for name, value in self.sums.items()}
        totals = distributed.total(means, device)
        return {
            **{name: value / world for name, value in totals.items()},
            "steps_per_s": self.count / elapsed,
            "data_wait_share": self.waited / elapsed,
        }


class _Report:
    """Where the first process shows what is going on: log file, TensorBoard, bar or plain lines."""

    def __init__(self, run: RunFolder, config: TrainingConfig, start: int, say: Say) -> None:
        self.run, self.say = run, say
        self.board = self._open_board(start)
        self.bar = tqdm(
            total=config.steps, initial=start, desc="training", unit="step", disable=not sys.stderr.isatty()
        )
        self.lines_every_s, self.last_line, self.started = 10.0, -math.inf, time.monotonic()

    def training(self, step: int, row: Mapping[str, float]) -> None:
        self._log("train", step, row)
        self.bar.set_postfix_str(f"loss {row['loss']:.3f}")
        now = time.monotonic()
        if self.bar.disable and now - self.last_line > self.lines_every_s:  # no terminal: a line now and then
            self.last_line = now
            self.say(f"step {step}/{self.bar.total}  loss {row['loss']:.3f}  {row['steps_per_s']:.2f} steps/s")

    def validation(self, step: int, row: Mapping[str, float]) -> None:
        self._log("valid", step, row)
        self.say(f"step {step}  held back: " + "  ".join(f"{name} {value:.3f}" for name, value in row.items()))

    def skipped(self, skipped: Skip) -> None:
        self._append("skipped", skipped.step, {"wrong": skipped.wrong, "clips": skipped.clips})
        self.say(str(skipped))

    def rolled_back(self, state: TrainingState, skipped: Sequence[Skip]) -> None:
        """Say so; the rows of the steps undone are gone from the log, and what was wrong is told in this one."""
        lowered = 0.5**state.rollbacks
        undone = {"from_step": skipped[-1].step, "skipped": [step._asdict() for step in skipped]}
        self._append("rollback", state.step, {**undone, "learning_rate_factor": lowered})
        self.say(
            f"{len(skipped)} such steps in a row: back to step {state.step}, with the learning rate times {lowered:g}"
        )
        self.board.close()
        self.board = self._open_board(state.step)
        self.bar.n = state.step
        self.bar.refresh()

    def listening(
        self, state: TrainingState, clips: Sequence[Clip], config: TrainingConfig, device: torch.device
    ) -> dict[str, float]:
        scores = self.board.listen(state.step, state.average, clips, config, device)
        if scores:
            self._log("listened", state.step, scores)
        return scores

    def close(self) -> None:
        self.bar.close()
        self.board.close()

    def _log(self, kind: str, step: int, row: Mapping[str, float]) -> None:
        self._append(kind, step, row)
        self.board.scalars(kind, step, row)

    def _append(self, kind: str, step: int, row: Mapping[str, Any]) -> None:
        elapsed_s = round(time.monotonic() - self.started, 3)  # of this process: a resumed one starts at 0
        self.run.append({"step": step, "kind": kind, "elapsed_s": elapsed_s, **row})

    def _open_board(self, first_step: int) -> Board:
        return Board(self.run.path / "tensorboard", first_step=first_step)


class _Interruption:
    """Turns Ctrl-C and a polite kill into a request that the loop honours after the step at hand."""

    def __enter__(self) -> "_Interruption":
        self.requested = False
        self._before = {s: signal.signal(s, self._request) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:  # asked twice: at once
            raise KeyboardInterrupt
        self.requested = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
