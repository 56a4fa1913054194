"""How a vocoder is trained: the ``training`` section of a recipe."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from wavegen.config import Config, did_you_mean
from wavegen.evaluation.metrics import METRICS

Share = Annotated[float, Field(ge=0, lt=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Resolution = tuple[PositiveInt, PositiveInt]


class AdversarialConfig(Config):
    """Discriminators that a vocoder is trained against, beside its reconstruction loss.

    The defaults are small enough for a CPU. Published sizes: ``period_channels: [32, 128, 512, 1024]`` (HiFi-GAN,
    arXiv:2010.05646); ``resolutions: [[2048, 512], [1024, 256], [512, 128], [256, 64], [128, 32]]`` with
    ``resolution_channels: 32`` (EnCodec, arXiv:2210.13438).

    Attributes:
        loss: ``"hinge"`` or ``"least-squares"``.
        start_step: steps of reconstruction alone before.
        weight: of the term that rewards deceiving the discriminators, the mean over all of them.
        feature_weight: of the distance between their feature maps, as a share of these and the mean over all.
        periods: of the period discriminators.
        period_channels: of their layers, each in strides of 3.
        resolutions: (n_fft, hop) of the spectrogram discriminators.
        resolution_channels: of their layers.
        dilations: along time, of their layers of stride 2 along frequency.
        weight_norm: normalise the weights of all discriminators.
        learning_rate: of the discriminators, with the vocoder's decay and a warm-up of their own; None: the vocoder's.
        betas, weight_decay: of their AdamW.
        clip_norm: their gradients are scaled down to this norm.
    """

    loss: Literal["hinge", "least-squares"] = "hinge"
    start_step: NonNegativeInt = 0
    weight: PositiveFloat = 1.0
    feature_weight: Annotated[float, Field(ge=0)] = 2.0
    periods: tuple[PositiveInt, ...] = (2, 3, 5, 7, 11)
    period_channels: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (8, 16, 32, 64)
    resolutions: tuple[Resolution, ...] = ((1024, 512), (512, 256), (256, 128))
    resolution_channels: PositiveInt = 8
    dilations: tuple[PositiveInt, ...] = (1, 2, 4)
    weight_norm: bool = True
    learning_rate: PositiveFloat | None = None
    betas: tuple[Share, Share] = (0.8, 0.99)
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_norm: PositiveFloat = 5.0

    @model_validator(mode="after")
    def _is_possible(self) -> "AdversarialConfig":
        if not self.periods and not self.resolutions:
            raise ValueError("periods and resolutions are both empty; give one of either at least")
        for name, values in (("periods", self.periods), ("resolutions", self.resolutions)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: {list(values)} has one twice")
        _refuse_gaps("resolutions", self.resolutions)
        return self


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
        mel_scales: (n_fft, bins) of mels over the whole band, hop n_fft / 4, whose mean distance that term is (as in
            DAC, arXiv:2306.06546, which has (32, 5) to (2048, 320)); none: the vocoder's own mel alone.
        stft_resolutions: (n_fft, hop) of its multi-resolution STFT terms.
        adversarial: discriminators to train against; None for reconstruction alone.
        log_every, validate_every, checkpoint_every: in steps.
        keep_checkpoints: the newest so many are kept, and the best.
        valid_clips: held-back clips that validation uses.
        valid_frames: how much of each.
        listen_clips, listen_frames: how many of them are also synthesised for TensorBoard, and how much of each.
        precision: ``"auto"`` is bfloat16 autocast on a GPU that has it and float32 elsewhere; ``"float32"`` also
            keeps convolutions on a GPU from rounding to TF32.
        compile: run the dilated stacks through torch.compile.
        cuda_graphs: on one GPU, record the kernels of a step once and replay them, which gives the same bits; they
            take more memory. Steps that differ, as those of ``vocoder.any_mel``, are not recorded.
        deterministic: only kernels that give the same bits every time; a resumed run then equals an uninterrupted one.
        best_by: what the best checkpoint is chosen by: ``"loss"`` of the held-back clips, or a metric such as
            ``"pesq"``, its mean over the clips that are listened to.
        workers: processes that read segments, at most one a core; 0 reads in the training process.
    """

    steps: PositiveInt
    batch_size: PositiveInt = 16
    segment_frames: PositiveInt = 48
    learning_rate: PositiveFloat = 2e-3
    warmup_steps: NonNegativeInt = 50
    decay: Literal["cosine", "constant"] = "cosine"
    final_learning_rate: Share = 0.01
    betas: tuple[Share, Share] = (0.8, 0.99)
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_norm: PositiveFloat = 5.0
    ema_decay: Share = 0.99
    mel_weight: PositiveFloat = 3.0
    mel_scales: tuple[Resolution, ...] = ()
    stft_resolutions: tuple[Resolution, ...] = ((256, 64), (512, 128), (2048, 512))
    adversarial: AdversarialConfig | None = None
    log_every: PositiveInt = 25
    validate_every: PositiveInt = 1000
    checkpoint_every: PositiveInt = 1000
    keep_checkpoints: PositiveInt = 2
    valid_clips: PositiveInt = 16
    valid_frames: PositiveInt = 188
    listen_clips: NonNegativeInt = 2
    listen_frames: PositiveInt = 376
    best_by: str = "loss"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    cuda_graphs: bool = True
    deterministic: bool = True
    workers: NonNegativeInt = 0

    @model_validator(mode="after")
    def _is_possible(self) -> "TrainingConfig":
        _refuse_gaps("stft_resolutions", self.stft_resolutions)
        for n_fft, bins in self.mel_scales:
            if n_fft % 8 or bins > n_fft // 2:
                raise ValueError(f"mel_scales: {n_fft} is no multiple of 8, or has no {bins} bins")
        if self.best_by != "loss":
            if self.best_by not in METRICS:
                raise ValueError(f"best_by: unknown {self.best_by!r}, {did_you_mean(self.best_by, ['loss', *METRICS])}")
            if not self.listen_clips:
                raise ValueError(
                    f"best_by: {self.best_by} is scored on the clips that are listened to; listen_clips is 0"
                )
        return self


def _refuse_gaps(name: str, resolutions: tuple[Resolution, ...]) -> None:
    for n_fft, hop in resolutions:
        if hop >= n_fft:
            raise ValueError(f"{name}: hop {hop} is not shorter than n_fft {n_fft}")
