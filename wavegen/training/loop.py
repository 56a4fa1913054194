"""The training loop."""

import contextlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from wavegen.checkpoint import MODEL
from wavegen.corpora.manifest import Clip, take_evenly
from wavegen.errors import ConfigError
from wavegen.evaluation.metrics import METRICS, available, missing_note
from wavegen.network import Network
from wavegen.progress import Notify
from wavegen.training import distributed
from wavegen.training.compilation import compile_stacks, explain_failed_compilation
from wavegen.training.config import TrainingConfig
from wavegen.training.data import Batch, Segments, explain_lost_workers
from wavegen.training.guard import SKIPS_IN_A_ROW, Skip, all_finite, refuse_broken_weights, roll_back, skip
from wavegen.training.interruption import Interruption
from wavegen.training.objectives import Objective, build_objective
from wavegen.training.precision import training_switches, uses_bfloat16
from wavegen.training.progress import Progress
from wavegen.training.replay import Gradients, Replayed
from wavegen.training.run_folder import RunFolder
from wavegen.training.state import TrainingState
from wavegen.training.validation import best_score, clips_for, is_improvement, validate


def train(
    vocoder: Network,
    clips: Sequence[Clip],
    config: TrainingConfig,
    run: RunFolder,
    *,
    seed: int,
    device: torch.device,
    notify: Notify,
    init: Path | None = None,
) -> Path | None:
    """Train a vocoder or another model to ``config.steps``, from the run's newest checkpoint if it has one.

    Processes that torchrun started share each batch and take the steps that one process would.

    Args:
        vocoder: the vocoder or other model with its initial weights, the same in every process.
        clips: training and validation clips.
        config: training settings.
        run: the folder for checkpoints and logs.
        seed: seeds the choice of segments.
        device: the device this process trains on.
        notify: prints a line for the user; only the first process calls it.
        init: another run, whose weights a new run starts from.

    Returns:
        the finished model's file; None if the run was interrupted, after saving a checkpoint.

    Raises:
        ConfigError: the batch or clips cannot be shared by the processes, or ``best_by`` needs a missing package.
        CheckpointError, OutputError: a checkpoint cannot be used or written; earlier ones are kept.
        TrainingError: losses or gradients stayed NaN or infinite, a process that reads segments was killed, or
            torch.compile does not work here.
        AudioError, MelError: a recording or mel was removed or damaged while the training ran.
    """
    with _prepared(vocoder, clips, config, run, seed, device, notify, init) as job, Interruption() as interruption:
        state, progress = job.state, job.progress
        batches = job.batches()
        skips: list[Skip] = []  # the steps skipped since the last one that was taken
        while state.step < config.steps:
            # Read this process's share of the batch, and compute its gradients.
            with progress.waiting_for_data():
                batch = next(batches).to(device)
            values = job.gradients(batch, step=state.step)

            # Take the step if all losses and gradients are finite; after several that are not, go back.
            if all_finite(values):
                state.take_step()
                progress.took_step(values)
                skips = []
            else:
                skips.append(skip(state, values, job.segments.names(state.step, config.batch_size)))
                progress.skipped_step(skips[-1])
            if len(skips) == SKIPS_IN_A_ROW:
                roll_back(state, run, skips)
                progress.rolled_back(state, skips)
                batches, skips = job.batches(), []
                continue

            # Log the means over the steps since the last row.
            is_last = state.step == config.steps
            if state.step % config.log_every == 0 or is_last:
                progress.log_means(state)

            # Validate the EMA weights. After a skip no checkpoint is saved, so none can be the best.
            is_best = False
            if state.step % config.validate_every == 0 or is_last:
                score = job.validate()
                is_best = not skips and is_improvement(config.best_by, score, state.best)
                state.best = score if is_best else state.best

            # Save a checkpoint if one is due, and stop if the user asked for it.
            stop = interruption.agreed(state.step, config.log_every, device) and not skips
            if checkpoint_due(state, config, is_best=is_best, stop=stop, skipped=bool(skips)):
                run.save(state, is_best=is_best)
            if stop:
                break
    return _finish(state, run, notify, interrupted=interruption.requested)


def checkpoint_due(state: TrainingState, config: TrainingConfig, *, is_best: bool, stop: bool, skipped: bool) -> bool:
    """Whether this process saves a checkpoint after the current step.

    Only the first process saves. Training must be able to go on from a checkpoint, so its step must not have been
    skipped, except for the last, and its weights must be finite.
    """
    is_last = state.step == config.steps
    due = state.step % config.checkpoint_every == 0 or is_best or is_last or stop
    return distributed.is_first() and due and (is_last or not skipped) and state.weights_are_finite()


@dataclass
class _Job:
    """The objects that the loop works with."""

    config: TrainingConfig
    device: torch.device
    state: TrainingState
    segments: Segments
    gradients: Gradients
    validation: Objective
    validation_clips: Sequence[Clip]
    autocast: torch.autocast
    progress: Progress
    reading: Generator[Batch, None, None] | None = None

    def batches(self) -> Iterator[Batch]:
        """This process's batches from the current step to the last, in place of those of an earlier call."""
        self.close()
        rank, world = distributed.rank_and_world()
        self.reading = self.segments.batches(
            self.state.step,
            self.config.steps,
            self.config.batch_size,
            rank=rank,
            world=world,
            workers=self.config.workers,
        )
        return self.reading

    def close(self) -> None:
        """End the processes that read."""
        if self.reading is not None:
            self.reading.close()

    def validate(self) -> float | None:
        """Validate and log; returns the score by which the best checkpoint is chosen."""
        with self.autocast:
            losses = validate(self.validation, self.validation_clips, self.config, self.device, step=self.state.step)
        scores = self.progress.log_validation(self.state, losses, self.validation_clips)
        return best_score(self.config.best_by, losses | scores)


@contextlib.contextmanager
def _prepared(
    vocoder: Network,
    clips: Sequence[Clip],
    config: TrainingConfig,
    run: RunFolder,
    seed: int,
    device: torch.device,
    notify: Notify,
    init: Path | None,
) -> Iterator[_Job]:
    """Prepare the loop's objects, and put torch's switches back after the loop; arguments as for ``train``."""
    rank, world = distributed.rank_and_world()
    train_clips, validation_clips = _split_clips(clips, config, world)
    with training_switches(config), explain_failed_compilation(), explain_lost_workers():
        # Start or resume.
        state = TrainingState(vocoder.to(device).train(), config)
        line = _start(state, run, init)
        if rank == 0:
            for text in (line, _discriminators_line(state, config)):
                if text:
                    notify(text)

        # Build the objectives, and compile and wrap the one to train on.
        objective = build_objective(vocoder, config, state.discriminators).to(device)
        validation = build_objective(state.ema, config, state.discriminators).to(device)
        if config.compile:
            compile_stacks(vocoder)
        losses: nn.Module = objective
        if world > 1:
            device_ids = [device] if device.type == "cuda" else None
            losses = DistributedDataParallel(objective, device_ids=device_ids, broadcast_buffers=False)

        # Compute gradients, on one GPU by replaying a CUDA graph.
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(config, vocoder, device))
        gradients = _gradients_of(state, objective, losses, autocast)
        if config.cuda_graphs and device.type == "cuda" and world == 1:
            gradients = Replayed(gradients, objective.kind)

        # Read data, and report.
        segments = Segments(
            train_clips,
            vocoder.mel,
            frames=config.segment_frames,
            seed=seed,
            speakers=vocoder.speakers,
            augmentation=config.augmentation,
            others=vocoder.others,
        )
        with contextlib.closing(Progress(run, config, state.step, device, notify)) as progress:
            job = _Job(config, device, state, segments, gradients, validation, validation_clips, autocast, progress)
            with contextlib.closing(job):
                yield job


def _split_clips(clips: Sequence[Clip], config: TrainingConfig, world: int) -> tuple[list[Clip], list[Clip]]:
    """The clips to train on and the clips to validate on. Raises ConfigError if they cannot be shared."""
    distributed.check_batch_size(config.batch_size, world)
    train_clips = [clip for clip in clips if clip.split == "train"]
    validation_clips = take_evenly(clips_for("choice", clips, config.best_by), config.valid_clips)
    if not train_clips or len(validation_clips) < world:
        raise ConfigError(
            f"{len(train_clips)} training clips and {len(validation_clips)} validation clips are too few",
            where="data.held_out",
            remedy=f"give at least 1 training clip, and as many validation clips as processes ({world})",
        )
    if config.best_by in METRICS and config.best_by not in available():
        raise ConfigError(str(missing_note()), where=f"training.best_by={config.best_by}")
    return train_clips, validation_clips


def _start(state: TrainingState, run: RunFolder, init: Path | None) -> str | None:
    """Load the newest checkpoint, or ``init`` for a new run; returns a line for the user."""
    if run.restore(state):
        return f"resuming at step {state.step}"
    line = run.start_from(state, init) if init else None
    if distributed.is_first():
        run.truncate_log(0)
    return line


def _discriminators_line(state: TrainingState, config: TrainingConfig) -> str | None:
    """A line for the user about when adversarial training starts; None if it is off or has started."""
    if config.adversarial is None:
        return None
    start = config.adversarial.start_step
    if start >= config.steps:
        return f"no adversarial training: it would start at step {start}, but training.steps is {config.steps}"
    if state.step >= start:
        return None
    return f"reconstruction alone until step {start}, then adversarial training"


def _gradients_of(state: TrainingState, objective: Objective, losses: nn.Module, autocast: torch.autocast) -> Gradients:
    """The function that computes the gradients of a batch; ``losses`` calls the objective."""

    def compute(batch: Batch, *, step: int) -> dict[str, Tensor]:
        state.zero_gradients()
        with autocast:
            parts = losses(batch, step=step)
        objective.add_gradients(parts)
        if state.discriminators is not None:
            distributed.average_gradients(state.discriminators)
        return {name: part.detach() for name, part in parts.items()} | state.clip_gradients()

    return compute


def _finish(state: TrainingState, run: RunFolder, notify: Notify, *, interrupted: bool) -> Path | None:
    """Save the finished model and return its file; None if steps are left."""
    if state.step < state.config.steps:
        if distributed.is_first():
            notify(f"stopped at step {state.step}; the same command resumes from there")
        return None
    refuse_broken_weights(state)
    model = run.save_model(state, MODEL) if distributed.is_first() else run.path / MODEL
    if interrupted:  # during the last step: the model is there, but the user does not want what comes after it
        raise KeyboardInterrupt
    return model
