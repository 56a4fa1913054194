"""The ``training`` section of a recipe."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from wavegen.config import Config, MayChangeDuringRun, did_you_mean
from wavegen.evaluation.metrics import METRICS
from wavegen.training.loggers import LoggerName

Share = Annotated[float, Field(ge=0, lt=1)]
Resolution = tuple[PositiveInt, PositiveInt]  # n_fft, and a hop or a number of bins


class AdversarialConfig(Config):
    """Discriminators that a vocoder is trained against, in addition to its reconstruction loss.

    The defaults are small enough for a CPU. Published sizes: ``period_channels: [32, 128, 512, 1024]`` (HiFi-GAN,
    arXiv:2010.05646); ``resolutions: [[2048, 512], [1024, 256], [512, 128], [256, 64], [128, 32]]`` with
    ``resolution_channels: 32`` (EnCodec, arXiv:2210.13438).

    Attributes:
        loss: ``"hinge"`` or ``"least-squares"``.
        start_step: steps of reconstruction alone, before the discriminators begin.
        weight: weight of the generator loss, which is the mean over the discriminators.
        feature_weight: weight of the feature matching loss, the relative distance between feature maps.
        periods: periods of the period discriminators, one each.
        period_channels: channels of their layers with stride 3.
        resolutions: (n_fft, hop) of the spectrogram discriminators, one each.
        resolution_channels: channels of their layers.
        dilations: dilations along time of their layers with stride 2 along frequency.
        weight_norm: whether the layers of all discriminators have weight normalisation.
        learning_rate: the discriminators' learning rate; None for the vocoder's. Its warm-up begins at ``start_step``.
        betas: AdamW's decay rates for the discriminators.
        weight_decay: AdamW's weight decay for the discriminators.
        clip_norm: the norm to which the discriminators' gradients are scaled down.
    """

    loss: Literal["hinge", "least-squares"] = "hinge"
    start_step: NonNegativeInt = 0
    weight: PositiveFloat = 1.0
    feature_weight: NonNegativeFloat = 2.0
    periods: tuple[PositiveInt, ...] = (2, 3, 5, 7, 11)
    period_channels: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (8, 16, 32, 64)
    resolutions: tuple[Resolution, ...] = ((1024, 512), (512, 256), (256, 128))
    resolution_channels: PositiveInt = 8
    dilations: tuple[PositiveInt, ...] = (1, 2, 4)
    weight_norm: bool = True
    learning_rate: PositiveFloat | None = None
    betas: tuple[Share, Share] = (0.8, 0.99)
    weight_decay: NonNegativeFloat = 0.01
    clip_norm: PositiveFloat = 5.0

    @model_validator(mode="after")
    def _is_possible(self) -> "AdversarialConfig":
        if not self.periods and not self.resolutions:
            raise ValueError("periods and resolutions are both empty; give at least one period or resolution")
        for name, values in (("periods", self.periods), ("resolutions", self.resolutions)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: {list(values)} has an entry twice; leave one out")
        _refuse_gaps("resolutions", self.resolutions)
        return self


class AugmentationConfig(Config):
    """Random changes of the training segments, so that a vocoder serves recordings and mels unlike those of its corpus.

    The mels and the sound to generate both change. Only ``smoothing`` and ``mel_noise`` disturb the mels alone.

    Attributes:
        levels_db: range of the gain of each segment; a segment is never amplified beyond full scale.
        equalisation: share of the segments that get a random smooth frequency response within about ±10 dB.
        noise: share of the segments that get coloured noise, 5 to 40 dB below the segment.
        reverberation: share of the segments that are reverberated, with reverberation times of 0.1 to 0.8 s.
        synthetic: share of the segments that tones, chords, glides, clicks or noise replace.
        smoothing: share of the steps whose mels are averaged over three frames, as those that a TTS predicts.
        mel_noise: share of the steps whose mels get noise of 5 % of each value.
    """

    levels_db: tuple[float, float] = (-15.0, 6.0)
    equalisation: Share = 0.3
    noise: Share = 0.15
    reverberation: Share = 0.15
    synthetic: Share = 0.05
    smoothing: Share = 0.15
    mel_noise: Share = 0.1


class TrainingConfig(Config):
    """Settings of the training loop.

    Attributes:
        steps: the number of optimiser steps.
        batch_size: segments per step, over all processes.
        segment_frames: length of a training segment in mel frames.
        learning_rate: the learning rate at the end of the warm-up.
        warmup_steps: steps over which the learning rate rises linearly from zero.
        decay: ``"cosine"`` lets the learning rate fall until the last step; ``"constant"`` keeps it.
        final_learning_rate: the learning rate of the last step as a share of ``learning_rate``.
        betas: AdamW's decay rates.
        weight_decay: AdamW's weight decay.
        clip_norm: the norm to which gradients are scaled down.
        ema_decay: decay per step of the EMA weights, which are validated, listened to and saved as the model.
        mel_weight: weight of the log-mel distance in the reconstruction loss.
        mel_scales: (n_fft, bins) of the mels of that distance, over the whole band and with hop n_fft / 4 (as in DAC,
            arXiv:2306.06546, which has (32, 5) to (2048, 320)); if empty, it is the distance of the vocoder's own mel.
        stft_resolutions: (n_fft, hop) of the multi-resolution STFT loss.
        adversarial: discriminators to train against; None for reconstruction alone.
        augmentation: random changes of the training segments, whose mels are then computed from the changed sound; None
            for none.
        logger: the program that shows curves, sounds and pictures: ``"tensorboard"``, ``"wandb"``, ``"mlflow"`` or
            ``"trackio"``. The last three are extras; their own environment variables choose the server and the project.
        log_every: steps between rows of the log.
        validate_every: steps between validations.
        checkpoint_every: steps between checkpoints.
        keep_checkpoints: number of newest checkpoints to keep; the best one is kept too.
        valid_clips: the number of validation clips to use.
        valid_frames: frames of each validation clip to use.
        listen_clips: the number of validation clips to synthesise for the logger.
        listen_frames: frames of each of them to synthesise.
        best_by: the score that chooses the best checkpoint: ``"loss"`` on the validation clips, or the mean of a metric
            such as ``"pesq"`` over the clips that are synthesised for the logger. For a metric, all validation clips
            are from one half of them, and the samples at the end are from the other.
        precision: ``"auto"`` uses bfloat16 autocast on a GPU that has it, for vocoders that allow it, and float32
            elsewhere. ``"float32"`` also keeps convolutions on a GPU from rounding to TF32.
        compile: whether to run the dilated stacks through torch.compile.
        cuda_graphs: whether to record a step's kernels on one GPU and replay them, which gives the same bits but takes
            more memory. Steps that differ from each other, as with ``vocoder.any_mel``, are not recorded.
        deterministic: whether to use kernels that give the same bits on every run; a resumed run then equals an
            uninterrupted one.
        workers: the number of processes that read segments, at most one per core; 0 to read in the training process.
    """

    steps: Annotated[PositiveInt, MayChangeDuringRun()]
    batch_size: PositiveInt = 16
    segment_frames: PositiveInt = 48
    learning_rate: PositiveFloat = 2e-3
    warmup_steps: NonNegativeInt = 50
    decay: Literal["cosine", "constant"] = "cosine"
    final_learning_rate: Share = 0.01
    betas: tuple[Share, Share] = (0.8, 0.99)
    weight_decay: NonNegativeFloat = 0.01
    clip_norm: PositiveFloat = 5.0
    ema_decay: Share = 0.99
    mel_weight: PositiveFloat = 3.0
    mel_scales: tuple[Resolution, ...] = ()
    stft_resolutions: tuple[Resolution, ...] = ((256, 64), (512, 128), (2048, 512))
    adversarial: AdversarialConfig | None = None
    augmentation: AugmentationConfig | None = None
    logger: Annotated[LoggerName, MayChangeDuringRun()] = "tensorboard"
    log_every: Annotated[PositiveInt, MayChangeDuringRun()] = 25
    validate_every: Annotated[PositiveInt, MayChangeDuringRun()] = 1000
    checkpoint_every: Annotated[PositiveInt, MayChangeDuringRun()] = 1000
    keep_checkpoints: Annotated[PositiveInt, MayChangeDuringRun()] = 2
    valid_clips: Annotated[PositiveInt, MayChangeDuringRun()] = 16
    valid_frames: Annotated[PositiveInt, MayChangeDuringRun()] = 188
    listen_clips: Annotated[NonNegativeInt, MayChangeDuringRun()] = 2
    listen_frames: Annotated[PositiveInt, MayChangeDuringRun()] = 376
    best_by: str = "loss"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    cuda_graphs: Annotated[bool, MayChangeDuringRun()] = True
    deterministic: bool = True
    workers: Annotated[NonNegativeInt, MayChangeDuringRun()] = 0

    @model_validator(mode="after")
    def _is_possible(self) -> "TrainingConfig":
        _refuse_gaps("stft_resolutions", self.stft_resolutions)
        for n_fft, bins in self.mel_scales:
            if n_fft % 8 or bins > n_fft // 2:
                raise ValueError(
                    f"mel_scales: ({n_fft}, {bins}) is impossible; n_fft must be a multiple of 8, and at least twice "
                    "the number of bins"
                )
        if self.best_by != "loss":
            if self.best_by not in METRICS:
                raise ValueError(f"best_by: unknown {self.best_by!r}, {did_you_mean(self.best_by, ['loss', *METRICS])}")
            if not self.listen_clips:
                raise ValueError(
                    f"best_by: {self.best_by} needs clips to synthesise, but listen_clips is 0; set it to 1 or more"
                )
        return self


def _refuse_gaps(name: str, resolutions: tuple[Resolution, ...]) -> None:
    for n_fft, hop in resolutions:
        if hop >= n_fft:
            raise ValueError(f"{name}: hop {hop} is not shorter than n_fft {n_fft}; give a shorter hop")
