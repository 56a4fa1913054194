"""The training loop."""

import math
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from wavegen.blocks import DilatedStack
from wavegen.checkpoint import MODEL
from wavegen.corpus import Clip, spread
from wavegen.errors import ConfigError, TrainingError
from wavegen.evaluation.metrics import METRICS, available, missing_note
from wavegen.training import distributed
from wavegen.training.board import Board
from wavegen.training.config import TrainingConfig
from wavegen.training.data import Batch, Segments, read_crop
from wavegen.training.objectives import Losses, build_objective, shortest_segment
from wavegen.training.state import RunFolder, TrainingState
from wavegen.vocoders import Vocoder

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

    Returns:
        the finished model's file; None where the run was interrupted, after saving a checkpoint.

    Raises:
        ConfigError: the batch cannot be shared evenly.
        CheckpointError: the newest checkpoint cannot be used.
        OutputError: a checkpoint cannot be written; the earlier ones are still there.
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
    if run.restore(state) and rank == 0:
        say(f"resuming at step {state.step}")
    start = state.step
    objective = build_objective(vocoder, config).to(device)
    validation = build_objective(state.average, config).to(device)
    if config.compile:
        for module in vocoder.modules():  # the stacks are the work; the transforms around them have complex numbers
            if isinstance(module, DilatedStack):
                module.compile()
    losses: Callable[[Batch], Losses] = objective
    if world > 1:
        losses = DistributedDataParallel(
            objective, device_ids=[device] if device.type == "cuda" else None, broadcast_buffers=False
        )
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(config, device))

    segments = Segments(train_clips, vocoder.mel, frames=config.segment_frames, seed=seed)
    loader = iter(
        segments.loader(start, config.steps, config.batch_size, rank=rank, world=world, workers=config.workers)
    )
    report = _Report(run, config, start, say) if rank == 0 else None
    window = _Window()

    with _Interruption() as interruption:
        while state.step < config.steps:
            waiting = time.perf_counter()
            batch = next(loader).to(device)
            window.waited += time.perf_counter() - waiting
            for group in state.optimizer.param_groups:
                group["lr"] = learning_rate(config, state.step)
            state.optimizer.zero_grad()
            with autocast:
                parts = losses(batch)
            parts["loss"].backward()
            norm = nn.utils.clip_grad_norm_(vocoder.parameters(), config.clip_norm)
            state.optimizer.step()
            state.step += 1
            state.update_average()
            window.add({**parts, "gradient_norm": norm})
            if report:
                report.bar.update()

            is_last = state.step == config.steps
            if state.step % config.log_every == 0 or is_last:
                row = window.means(device) | {"learning_rate": state.optimizer.param_groups[0]["lr"]}
                window = _Window()
                refuse_non_finite(state.step, row)
                if report:
                    report.training(state.step, row)
            is_best = False
            if state.step % config.validate_every == 0 or is_last:
                with autocast:
                    row = validate(validation, valid_clips, vocoder, config, device)
                refuse_non_finite(state.step, row)
                if report:
                    report.validation(state.step, row)
                    row |= report.listening(state, valid_clips, config, device)
                is_best = is_improvement(config.best_by, row.get(config.best_by), state.best)
                state.best = row[config.best_by] if is_best else state.best
                window = _Window()  # time spent here is no training time
            stop = interruption.requested
            if world > 1:  # all must agree, and asking waits for the GPU: not at every step
                asked = state.step % config.log_every == 0
                stop = asked and distributed.total({"stop": float(stop)}, device)["stop"] > 0
            if rank == 0 and (state.step % config.checkpoint_every == 0 or is_best or is_last or stop):
                refuse_non_finite(state.step, {"loss": parts["loss"].item(), "gradient_norm": norm.item()})
                run.save(state, is_best=is_best)
            if stop:
                break
    if report:
        report.close()
    if state.step < config.steps:
        if rank == 0:
            say(f"stopped at step {state.step}; the same command goes on from there")
        return None
    model = run.save_model(state, MODEL) if rank == 0 else run.path / MODEL
    if interruption.requested:  # during the last step: the model is there, what comes after it is not wanted
        raise KeyboardInterrupt
    return model


@torch.no_grad()
def validate(
    objective: nn.Module, clips: Sequence[Clip], vocoder: Vocoder, config: TrainingConfig, device: torch.device
) -> dict[str, float]:
    """Mean losses over the beginnings of the held-back clips, shared among the processes."""
    rank, world = distributed.rank_and_world()
    # Shorter clips are padded as in training; the likelihood is defined for any length and would be diluted.
    least = 1 if vocoder.objective == "likelihood" else shortest_segment(vocoder, config)
    sums: dict[str, float] = {}
    for clip in clips[rank::world]:
        batch = read_crop(clip, vocoder.mel, 0, max(least, min(config.valid_frames, clip.frames))).to(device)
        for name, value in objective(batch).items():
            sums[name] = sums.get(name, 0.0) + float(value)
    return {name: value / len(clips) for name, value in distributed.total(sums, device).items()}


def is_improvement(best_by: str, value: float | None, best: float | None) -> bool:
    """Whether ``value`` is better than the ``best`` so far, as the loss or the metric ``best_by`` means it."""
    if value is None or best is None:  # None: no clip could be scored, or only the first process scores
        return value is not None
    return value < best if best_by == "loss" else METRICS[best_by].badness(value) < METRICS[best_by].badness(best)


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Linear warm-up, then cosine decay to ``final_learning_rate`` at the last step, or none."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    if config.decay == "constant":
        return config.learning_rate * warm
    floor = config.final_learning_rate
    return config.learning_rate * warm * (floor + (1 - floor) * (1 + math.cos(math.pi * step / config.steps)) / 2)


def uses_bfloat16(config: TrainingConfig, device: torch.device) -> bool:
    """Whether the forward pass runs in bfloat16."""
    if config.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return config.precision == "bfloat16"


def refuse_non_finite(step: int, values: Mapping[str, float]) -> None:
    """Raise TrainingError before weights that are no longer numbers are saved over good ones."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise TrainingError(
                f"{name} is {value}",
                where=f"step {step}",
                remedy="the checkpoint before is kept; start anew with a lower training.learning_rate or clip_norm",
            )


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
        self.count, self.waited, self.started = 0, 0.0, time.perf_counter()

    def add(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, value in values.items():
            value = value.detach()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.count += 1

    def means(self, device: torch.device) -> dict[str, float]:
        """Means over steps and processes, steps per second, and the share of time spent waiting for data."""
        _, world = distributed.rank_and_world()
        elapsed = time.perf_counter() - self.started
        totals = distributed.total({name: float(value) / self.count for name, value in self.sums.items()}, device)
        return {
            **{name: value / world for name, value in totals.items()},
            "steps_per_s": self.count / elapsed,
            "data_wait_share": self.waited / elapsed,
        }


class _Report:
    """Where the first process shows what is going on: log file, TensorBoard, bar or plain lines."""

    def __init__(self, run: RunFolder, config: TrainingConfig, start: int, say: Say) -> None:
        self.run, self.say = run, say
        self.board = Board(run.path / "tensorboard", first_step=start)
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
        elapsed_s = round(time.monotonic() - self.started, 3)  # of this process: a resumed one starts at 0
        self.run.append({"step": step, "kind": kind, "elapsed_s": elapsed_s, **row})
        self.board.scalars(kind, step, row)


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
