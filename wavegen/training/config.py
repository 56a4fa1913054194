"""How a vocoder is trained: the ``training`` section of a recipe."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from wavegen.config import Config, did_you_mean
from wavegen.evaluation.metrics import METRICS

Share = Annotated[float, Field(ge=0, lt=1)]
Resolution = tuple[PositiveInt, PositiveInt]


class TrainingConfig(Config):
    """Settings of the training loop.

    Attributes:
        steps: optimiser steps in all.
        batch_size: segments per step over all processes.
        segment_frames: length of a training segment in mel frames.
        learning_rate: at its highest, after the warm-up.
        warmup_steps: linear rise from zero.
        decay: ``"cosine"`` to ``final_learning_rate`` at the last step, or ``"constant"``.
        final_learning_rate: as a share of ``learning_rate``.
        betas, weight_decay: of AdamW.
        clip_norm: gradients are scaled down to this norm.
        ema_decay: of the averaged weights that are validated, saved as the model and heard.
        mel_weight: weight of the log-mel term of the reconstruction loss.
        stft_resolutions: (n_fft, hop) of its multi-resolution STFT terms.
        log_every, validate_every, checkpoint_every: in steps.
        keep_checkpoints: the newest so many are kept, and the best.
        valid_clips: held-back clips that validation uses.
        valid_frames: how much of each.
        listen_clips, listen_frames: how many of them are also synthesised for TensorBoard, and how much of each.
        precision: ``"auto"`` is bfloat16 autocast on a GPU that has it and float32 elsewhere; ``"float32"`` also
            keeps convolutions on a GPU from rounding to TF32.
        compile: run the dilated stacks through torch.compile.
        deterministic: only kernels that give the same bits every time; a resumed run then equals an uninterrupted one.
        best_by: what the best checkpoint is chosen by: ``"loss"`` of the held-back clips, or a metric such as
            ``"pesq"``, its mean over the clips that are listened to.
        workers: processes that read segments, at most one a core; 0 reads in the training process.
    """

    steps: PositiveInt
    batch_size: PositiveInt = 16
    segment_frames: PositiveInt = 48
    learning_rate: PositiveFloat = 2e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    decay: Literal["cosine", "constant"] = "cosine"
    final_learning_rate: Share = 0.01
    betas: tuple[Share, Share] = (0.8, 0.99)
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_norm: PositiveFloat = 5.0
    ema_decay: Share = 0.99
    mel_weight: PositiveFloat = 3.0
    stft_resolutions: tuple[Resolution, ...] = ((256, 64), (512, 128), (2048, 512))
    log_every: PositiveInt = 25
    validate_every: PositiveInt = 1000
    checkpoint_every: PositiveInt = 1000
    keep_checkpoints: PositiveInt = 2
    valid_clips: PositiveInt = 16
    valid_frames: PositiveInt = 188
    listen_clips: Annotated[int, Field(ge=0)] = 2
    listen_frames: PositiveInt = 376
    best_by: str = "loss"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    deterministic: bool = True
    workers: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _is_possible(self) -> "TrainingConfig":
        for n_fft, hop in self.stft_resolutions:
            if hop >= n_fft:
                raise ValueError(f"stft_resolutions: hop {hop} is not shorter than n_fft {n_fft}")
        if self.best_by != "loss":
            if self.best_by not in METRICS:
                raise ValueError(f"best_by: unknown {self.best_by!r}, {did_you_mean(self.best_by, ['loss', *METRICS])}")
            if not self.listen_clips:
                raise ValueError(
                    f"best_by: {self.best_by} is scored on the clips that are listened to; listen_clips is 0"
                )
        return self
