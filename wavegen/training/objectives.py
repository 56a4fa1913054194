"""What training minimises: one ``losses(batch)`` for training and validation alike."""

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from wavegen.blocks import masked
from wavegen.mel import LogMel, MelSpec
from wavegen.training.config import AdversarialConfig, TrainingConfig
from wavegen.training.data import Batch
from wavegen.training.discriminators import Discriminators, Judgement
from wavegen.training.losses import (
    LogMelDistance,
    MultiResolutionSTFTLoss,
    MultiScaleMelDistance,
    deception_loss,
    discriminator_loss,
    feature_matching_loss,
)
from wavegen.vocoders import AutoregressiveVocoder, Vocoder, frame_mask

Losses = dict[str, Tensor]


class Objective(nn.Module, ABC):
    """What a vocoder's training minimises, over a batch.

    Args:
        vocoder: in training, or its average in validation.
    """

    def __init__(self, vocoder: Vocoder) -> None:
        super().__init__()
        self.vocoder = vocoder

    @abstractmethod
    def forward(self, batch: Batch, *, step: int = 0) -> Losses:
        """The losses of a batch.

        Args:
            batch: segments of clips.
            step: optimiser steps taken so far; some terms begin later than others.

        Returns:
            scalars: ``loss``, which the vocoder minimises, ``discriminator_loss`` where there are discriminators
            to minimise it, and for the log what these consist of.
        """

    def kind(self, step: int) -> Hashable:
        """What ``step`` changes in ``forward``: equal for steps that compute the same of their batches."""
        return None


class LikelihoodObjective(Objective):
    """Negative log-likelihood of an autoregressive vocoder, teacher-forced.

    The first samples of a segment that does not start its clip are not counted: the samples that they should be
    predicted from lie before the segment.
    """

    def forward(self, batch: Batch, *, step: int = 0) -> Losses:
        """``loss`` in nats, and ``bits_per_sample``."""
        hop = self.vocoder.mel.hop_length
        mask = frame_mask(batch.lengths, batch.mel.shape[-1])
        assert mask is not None
        log_prob = self.vocoder.log_prob(  # type: ignore[operator]
            batch.audio, masked(batch.mel, mask), mask, speakers=batch.speakers
        )
        unseen = torch.where(batch.starts > 0, past_samples(self.vocoder), 0)
        position = torch.arange(batch.audio.shape[-1], device=batch.audio.device)
        counted = (position >= unseen[:, None]) & mask[:, 0].repeat_interleave(hop, dim=-1)
        nats = torch.where(counted, -log_prob, 0.0).sum()
        # By the nominal size, not by the count: then the mean over processes is the loss of one process.
        return {
            "loss": nats / batch.audio.numel(),
            "bits_per_sample": nats.detach() / counted.sum().clamp(min=1) / math.log(2),
        }


class ReconstructionObjective(Objective):
    """Distance between the waveform a vocoder makes of a mel and the one the mel was made of."""

    def __init__(self, vocoder: Vocoder, mel: MelSpec, config: TrainingConfig) -> None:
        super().__init__(vocoder)
        self.mel_weight = config.mel_weight
        self.mel_distance = (
            MultiScaleMelDistance(mel.sample_rate_hz, config.mel_scales) if config.mel_scales else LogMelDistance(mel)
        )
        self.stft_loss = MultiResolutionSTFTLoss(config.stft_resolutions)

    def forward(self, batch: Batch, *, step: int = 0) -> Losses:
        """``loss`` and its parts, ``mel`` and ``stft``."""
        return self.distance(self.generate(batch, step=step), batch.audio)

    def kind(self, step: int) -> Hashable:
        """The definition that is read; none where it is the vocoder's own."""
        return self._drawn(step)

    def generate(self, batch: Batch, *, step: int = 0) -> Tensor:
        """Samples ``[batch, frames * hop_length]`` in float32.

        In training a vocoder of a family of mel definitions reads one that is drawn for the step, in place of its own.
        """
        frames = batch.mel.shape[-1]
        mask = frame_mask(batch.lengths, frames)
        vocoder, mel = self.vocoder, batch.mel
        if (drawn := self._drawn(step)) is not None:
            vocoder = vocoder.for_mel(drawn)
            # Centred framing has one frame more. The segment's ends are mirrored as a clip's ends are.
            mel = LogMel(vocoder.mel).to(mel.device)(batch.audio)[..., :frames]
        return vocoder(masked(mel, mask), mask, speakers=batch.speakers).float()

    def _drawn(self, step: int) -> MelSpec | None:
        family = self.vocoder.family if self.vocoder.training else None
        return None if family is None else family.draw(step)

    def distance(self, generated: Tensor, real: Tensor) -> Losses:
        """The losses of samples ``[batch, samples]`` made for recorded ones."""
        with torch.autocast(real.device.type, enabled=False):
            mel, stft = self.mel_distance(generated, real), self.stft_loss(generated, real)
        return {"loss": self.mel_weight * mel + stft, "mel": mel.detach(), "stft": stft.detach()}


class AdversarialObjective(Objective):
    """Reconstruction, and from a step on discriminators that learn beside the vocoder and that it learns to deceive.

    Both sides are computed from the same discriminators and one pass of the vocoder, so that one backward pass gives
    both gradients: ``loss`` reaches the vocoder alone, because the discriminators' weights are held constant in it,
    and ``discriminator_loss`` the discriminators alone, because the generated sound is.

    Args:
        reconstruction: of the same vocoder.
        discriminators: shared by the objectives of training and validation.
        config: weights of the terms, and when they begin.
    """

    def __init__(
        self, reconstruction: ReconstructionObjective, discriminators: Discriminators, config: AdversarialConfig
    ) -> None:
        super().__init__(reconstruction.vocoder)
        self.reconstruction, self.config = reconstruction, config
        # In a tuple they are no submodule: DistributedDataParallel would wait for their gradients before they begin.
        self._discriminators = (discriminators,)

    @property
    def discriminators(self) -> Discriminators:
        """What the vocoder is trained against."""
        return self._discriminators[0]

    def kind(self, step: int) -> Hashable:
        """As ``ReconstructionObjective``, and whether the discriminators have begun."""
        return self.reconstruction.kind(step), self._has_begun(step)

    def _has_begun(self, step: int) -> bool:
        return step >= self.config.start_step

    def forward(self, batch: Batch, *, step: int = 0) -> Losses:
        """As ``ReconstructionObjective``, whose ``loss`` is called ``reconstruction`` here, and more.

        ``adversarial`` and ``feature_matching`` are the parts of ``loss`` that are new; ``real_score`` and
        ``fake_score`` the mean logits. Recordings and fakes are told apart where the first is the higher.
        """
        generated = self.reconstruction.generate(batch, step=step)
        parts = self.reconstruction.distance(generated, batch.audio)
        parts["reconstruction"] = parts["loss"].detach()
        if not self._has_begun(step):
            return parts
        real, fake = self.discriminators(batch.audio), self.discriminators(generated.detach())
        constants = {name: parameter.detach() for name, parameter in self.discriminators.named_parameters()}
        deceived = functional_call(self.discriminators, constants, generated)
        adversarial = deception_loss(self.config.loss, _logits(deceived))
        matching = feature_matching_loss(
            [[layer.detach().float() for layer in judgement.features] for judgement in real],
            [[layer.float() for layer in judgement.features] for judgement in deceived],
        )
        parts["loss"] = parts["loss"] + self.config.weight * adversarial + self.config.feature_weight * matching
        return parts | {
            "discriminator_loss": discriminator_loss(self.config.loss, _logits(real), _logits(fake)),
            "adversarial": adversarial.detach(),
            "feature_matching": matching.detach(),
            "real_score": _mean_score(real),
            "fake_score": _mean_score(fake),
        }


def _logits(judgements: Sequence[Judgement]) -> list[Tensor]:
    return [judgement.logits.float() for judgement in judgements]


def _mean_score(judgements: Sequence[Judgement]) -> Tensor:
    return torch.stack([logits.detach().mean() for logits in _logits(judgements)]).mean()


def past_samples(vocoder: Vocoder) -> int:
    """Samples, and held mel frames in samples, before one that its distribution depends on."""
    return max(vocoder.receptive_field_samples, vocoder.context.left * vocoder.mel.hop_length)


def shortest_segment(vocoder: Vocoder, config: TrainingConfig) -> int:
    """Frames of the shortest segment that the vocoder's objective can be computed on.

    Likelihood needs more than the past that is not counted; reconstruction needs enough for its longest transform to
    mirror at the edges, and for the discriminators. Crops shorter than the context are allowed only where the vocoder
    normalises over channels.
    """
    mel = vocoder.mel
    if isinstance(vocoder, AutoregressiveVocoder):
        samples = past_samples(vocoder) + 1
    else:
        mirrored = [(n_fft - hop) // 2 + 1 for n_fft, hop in config.stft_resolutions]
        mirrored += [3 * n_fft // 8 + 1 for n_fft, _ in config.mel_scales]
        mirrored += [mel.n_fft // 2 + 1] * (vocoder.family is not None)  # drawn definitions are centred, some of them
        samples = max(mel.shortest_clip, *mirrored, *shortest_for_discriminators(config).values())
        if not vocoder.normalised_over_channels:
            samples = max(samples, vocoder.receptive_field_samples + 1)
    return math.ceil(samples / mel.hop_length)


def shortest_for_discriminators(config: TrainingConfig) -> dict[str, int]:
    """Samples that each discriminator of a recipe needs, by its name; empty where there are none."""
    if config.adversarial is None:
        return {}
    with torch.device("meta"):  # shapes and no numbers
        return Discriminators(config.adversarial).shortest_segments()


def build_objective(
    vocoder: Vocoder, config: TrainingConfig, discriminators: Discriminators | None = None
) -> Objective:
    """The objective that suits the vocoder; an adversarial one where there are discriminators."""
    if isinstance(vocoder, AutoregressiveVocoder):
        return LikelihoodObjective(vocoder)
    reconstruction = ReconstructionObjective(vocoder, vocoder.mel, config)
    if discriminators is None or config.adversarial is None:
        return reconstruction
    return AdversarialObjective(reconstruction, discriminators, config.adversarial)
