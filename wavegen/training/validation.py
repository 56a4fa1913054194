"""Validation: losses of the validation clips, and the comparison that chooses the best checkpoint."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch

from wavegen.corpora.manifest import Clip
from wavegen.evaluation.halves import half
from wavegen.evaluation.metrics import METRICS, available
from wavegen.training import distributed
from wavegen.training.config import TrainingConfig
from wavegen.training.data import read_crop, read_others
from wavegen.training.objectives import Objective


@torch.no_grad()
def validate(
    objective: Objective, clips: Sequence[Clip], config: TrainingConfig, device: torch.device, *, step: int
) -> dict[str, float]:
    """Mean losses over the first ``config.valid_frames`` frames of each clip; the processes share the clips.

    Args:
        objective: the objective of the EMA weights.
        clips: validation clips, the same in every process.
        config: training settings.
        device: the device of this process.
        step: optimiser steps taken so far.
    """
    rank, world = distributed.rank_and_world()
    vocoder = objective.vocoder
    sums: dict[str, float] = {}
    for index in range(rank, len(clips), world):
        clip = clips[index]
        frames = max(objective.shortest_validation_segment, min(config.valid_frames, clip.frames))
        batch = read_crop(clip, vocoder.mel, 0, frames, vocoder.speakers)
        if vocoder.others:
            random = np.random.default_rng(index)
            batch = batch._replace(others=read_others(clips, vocoder.mel, frames, vocoder.others, random))
        for name, value in objective(batch.to(device), step=step).items():
            sums[name] = sums.get(name, 0.0) + float(value)
    return {name: value / len(clips) for name, value in distributed.total(sums, device).items()}


def listened_metrics(best_by: str) -> list[str]:
    """Keys of the metrics of the clips that a validation synthesises.

    They are the metric that chooses the best checkpoint. If the loss chooses it, they are all that are available and
    not costly, for curves.
    """
    if best_by != "loss":
        return [best_by]
    return [key for key in available() if not METRICS[key].is_costly]


def clips_for(purpose: Literal["choice", "report"], clips: Sequence[Clip], best_by: str) -> list[Clip]:
    """The validation clips that choose the best checkpoint, or those that the samples report on.

    If a metric chooses the checkpoint, each purpose has its own half of the clips. If the loss does, both have all.
    """
    valid = [clip for clip in clips if clip.split == "valid"]
    if best_by == "loss":
        return valid
    return half(valid, "first" if purpose == "choice" else "second", name=lambda clip: clip.name)


def best_score(best_by: str, row: Mapping[str, float]) -> float | None:
    """The value that ``best_by`` names in a row of losses and metrics; None if it is not there.

    The "loss" of adversarial training is the reconstruction alone, because the rest changes with the discriminators.
    """
    if best_by == "loss":
        return row.get("reconstruction", row["loss"])
    return row.get(best_by)


def is_improvement(best_by: str, value: float | None, best: float | None) -> bool:
    """Whether ``value`` is better than ``best``, as the loss or metric ``best_by`` orders them.

    Args:
        best_by: ``"loss"`` or a metric's name.
        value: the new value; None if no clip has one, or in a process that does not compute metrics.
        best: the best value so far; None before the first.
    """
    if value is None or not math.isfinite(value):
        return False
    if best is None:
        return True
    return value < best if best_by == "loss" else METRICS[best_by].badness(value) < METRICS[best_by].badness(best)
