"""Objectives: the losses that training minimises and validation reports, computed from a batch."""

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from wavegen.blocks import frame_mask, masked, sample_mask
from wavegen.mel import LogMel, MelSpec
from wavegen.mel.family import RATE_STEPS
from wavegen.models import Model, ModelBatch
from wavegen.network import Network
from wavegen.source.pitch import Pitch, decode
from wavegen.training import distributed
from wavegen.training.augmentation import Disturbance, disturbed, dithered, draw_disturbance, resample
from wavegen.training.config import AdversarialConfig, TrainingConfig
from wavegen.training.data import Batch
from wavegen.training.discriminators import DiscriminatorOutput, Discriminators
from wavegen.training.losses import (
    LogMelDistance,
    MultiResolutionSTFTLoss,
    MultiScaleMelDistance,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
)
from wavegen.training.pitch import (
    Condition,
    draw_condition,
    frame_labels,
    pitch_losses,
    pitch_scores,
    spectrum,
    training_spectrum,
)
from wavegen.training.shortest import shortest_segment
from wavegen.vocoders import AutoregressiveVocoder, PitchVocoder, Vocoder, WaveformVocoder
from wavegen.vocoders._base import content_seeds

Losses = dict[str, Tensor]

# About half of the frames of speech are voiced: twice a mean over all frames is about the mean over the voiced ones.
PITCH_WEIGHT = 2.0


class Objective(nn.Module, ABC):
    """The losses of a vocoder, or of another model, for a batch.

    Args:
        vocoder: the vocoder or other model in training, or its EMA copy in validation.

    Attributes:
        shortest_validation_segment: frames of the shortest segment that validation computes the losses of; shorter
            clips are padded to it. Such a segment begins at the start of its clip.
    """

    shortest_validation_segment: int

    def __init__(self, vocoder: Network) -> None:
        super().__init__()
        self.vocoder = vocoder

    @abstractmethod
    def forward(self, batch: Batch, *, step: int = 0) -> Losses:
        """The losses of a batch.

        Args:
            batch: segments of clips.
            step: optimiser steps taken so far; some terms begin at a later step than others.

        Returns:
            scalars by name: ``loss``, which the vocoder minimises; ``discriminator_loss``, which the discriminators
            minimise, if there are any; and detached parts of these for the log.
        """

    def add_gradients(self, losses: Losses) -> None:
        """Add the gradients of a batch's losses to the ``grad`` of the weights that learn from them."""
        _backward(losses["loss"], self.vocoder)

    def kind(self, step: int) -> Hashable:
        """A value that is equal for steps whose ``forward`` runs the same computation, on whatever batch."""
        return None


class LikelihoodObjective(Objective):
    """Negative log-likelihood of an autoregressive vocoder, with teacher forcing.

    The first samples of a segment that starts inside its clip are not counted, because the samples that they depend on
    lie before the segment.
    """

    shortest_validation_segment = 1  # at the start of a clip every sample counts; padding would dilute the mean
    vocoder: AutoregressiveVocoder

    def forward(self, batch: Batch, *, step: int = 0) -> Losses:
        """``loss`` in nats, and ``bits_per_sample`` of 256 mu-law classes, on one scale for all distributions."""
        hop = self.vocoder.mel.hop_length
        mask = frame_mask(batch.lengths, batch.mel.shape[-1])
        assert mask is not None
        mel = masked(batch.mel, mask)
        likelihood = self.vocoder.log_likelihood(batch.audio, mel, mask, speakers=batch.speakers)
        uncounted = torch.where(batch.starts > 0, self.vocoder.warm_up_samples, 0)
        position = torch.arange(batch.audio.shape[-1], device=batch.audio.device)
        counted = (position >= uncounted[:, None]) & sample_mask(mask, hop)[:, 0]
        nats, class_nats = (torch.where(counted, -part, 0.0).sum() for part in likelihood)
        # Divide by the batch's size, not by the count: the mean over processes is then the loss of one process.
        return {
            "loss": nats / batch.audio.numel(),
            "bits_per_sample": class_nats.detach() / counted.sum().clamp(min=1) / math.log(2),
        }


class ReconstructionObjective(Objective):
    """Distance between the waveform that a vocoder generates from a mel and the recording of that mel.

    Args:
        vocoder: that of ``Objective``.
        config: weights and resolutions of the distances.
    """

    vocoder: WaveformVocoder

    def __init__(self, vocoder: WaveformVocoder, config: TrainingConfig) -> None:
        super().__init__(vocoder)
        self.shortest_validation_segment = shortest_segment(vocoder, config)
        self.augmentation = config.augmentation
        self.mel_weight = config.mel_weight
        self.mel_distance = (
            MultiScaleMelDistance(vocoder.mel.sample_rate_hz, config.mel_scales)
            if config.mel_scales
            else LogMelDistance(vocoder.mel)
        )
        self.stft_loss = MultiResolutionSTFTLoss(config.stft_resolutions)

    def forward(self, batch: Batch, *, step: int = 0) -> Losses:
        """``loss`` and its parts, ``mel`` and ``stft``."""
        vocoder, batch = self.task(batch, step)
        return self.distance(self.generate(vocoder, batch), batch.audio)

    def kind(self, step: int) -> Hashable:
        """The vocoder's mel definition in the step, and what disturbs the mels."""
        return self._definition(step), self._disturbance(step)

    def task(self, batch: Batch, step: int) -> tuple[Vocoder, Batch]:
        """Return the vocoder that reads the step's mel definition, and the batch with these mels and their sound.

        In validation, both are returned unchanged. In training, a vocoder that reads a family of mel definitions gets a
        definition and a sample rate drawn for the step, and with augmentation the mels are computed from the changed
        sound.
        """
        definition, disturbance = self._definition(step), self._disturbance(step)
        if definition is None:
            return self.vocoder, batch
        own, vocoder = self.vocoder.mel, self.vocoder.for_mel(definition)

        # Resample, and keep whole frames.
        audio, lengths, frames = batch.audio, batch.lengths, batch.mel.shape[-1]
        if definition.sample_rate_hz != own.sample_rate_hz:
            assert self.vocoder.family is not None
            steps = self.vocoder.family.rate_steps(definition)
            frames, lengths = frames * steps // RATE_STEPS, lengths * steps // RATE_STEPS
            audio = resample(audio, RATE_STEPS, steps)[:, : frames * own.hop_length]
        audio = dithered(audio, content_seeds(batch.mel))

        # The segment's ends are mirrored like a clip's ends. Centred framing gives one frame more: drop it.
        mel = LogMel(vocoder.mel).to(audio.device)(audio)[..., :frames]
        mel = disturbed(mel, definition, disturbance, content_seeds(mel))
        return vocoder, batch._replace(audio=audio, mel=mel, lengths=lengths)

    def generate(self, vocoder: Vocoder, batch: Batch) -> Tensor:
        """Generated samples ``[batch, frames * hop_length]`` in float32."""
        mask = frame_mask(batch.lengths, batch.mel.shape[-1])
        if is_whole(mask):
            return vocoder(batch.mel, speakers=batch.speakers).float()
        return vocoder(masked(batch.mel, mask), mask, speakers=batch.speakers).float()

    def distance(self, generated: Tensor, real: Tensor) -> Losses:
        """The losses of generated samples ``[batch, samples]``, compared with recorded ones."""
        with torch.autocast(real.device.type, enabled=False):
            mel = self.mel_distance(generated, real)
            stft = self.stft_loss(generated, real)
        return {"loss": self.mel_weight * mel + stft, "mel": mel.detach(), "stft": stft.detach()}

    def _definition(self, step: int) -> MelSpec | None:
        """The definition of the mels that are computed from the segments; None for the mels of the batch."""
        if not self.vocoder.training:
            return None
        if self.vocoder.family is not None:
            return self.vocoder.family.draw(step)
        return None if self.augmentation is None else self.vocoder.mel

    def _disturbance(self, step: int) -> Disturbance:
        if self.augmentation is None or not self.vocoder.training:
            return Disturbance()
        return draw_disturbance(self.augmentation, step)


class PitchObjective(Objective):
    """Pitch and voicing that a vocoder's pitch network finds in the mel, against labels of the recordings.

    Training disturbs each segment, with random numbers that depend on the step and on the place in the batch only: see
    ``draw_condition`` and ``training_spectrum``. Validation reads the mels of the vocoder's own definition as they are.
    """

    shortest_validation_segment = 1
    vocoder: PitchVocoder

    def kind(self, step: int) -> Hashable:
        """Steps differ in their mel definition and sample rate."""
        return step

    def forward(self, batch: Batch, *, step: int = 0) -> Losses:
        """``loss`` and its parts, ``pitch`` and ``voicing``; in validation also the scores of ``pitch_scores``.

        A validation score is then the mean over clips.
        """
        assert batch.f0 is not None, "the config of a PitchVocoder has reads_pitch_labels"
        own = self.vocoder.mel
        condition = Condition(own)

        # Turn the segments into spectra.
        if self.vocoder.training:
            condition = draw_condition(own, step)
            rank, world = distributed.rank_and_world()
            place = rank + world * torch.arange(len(batch.audio), device=batch.audio.device)
            magnitude = training_spectrum(batch.audio, condition, place + (step << 24))
        else:
            magnitude = spectrum(masked(batch.mel, frame_mask(batch.lengths, batch.mel.shape[-1])), own)

        # Compare what the network finds with the labels.
        f0_hz, mask = frame_labels(batch.f0, batch.lengths, own, condition.definition, magnitude.shape[-1])
        f0_hz = f0_hz * condition.rate_factor
        logits, voicing = self.vocoder.pitch(magnitude, own.sample_rate_hz * condition.rate_factor, mask)
        pitch_loss, voicing_loss = pitch_losses(logits, voicing, f0_hz, mask)
        losses = {
            "loss": PITCH_WEIGHT * pitch_loss + voicing_loss,
            "pitch": pitch_loss.detach(),
            "voicing": voicing_loss.detach(),
        }
        if self.vocoder.training:
            return losses
        return losses | pitch_scores(Pitch(decode(logits.float()), voicing.float().sigmoid()), f0_hz, mask)


class ModelObjective(Objective):
    """What a model that is not a vocoder says of a batch: its own ``losses``."""

    shortest_validation_segment = 1
    vocoder: Model

    def kind(self, step: int) -> Hashable:
        """Steps differ in what is drawn for them."""
        return step

    def forward(self, batch: Batch, *, step: int = 0) -> Losses:
        """The losses, with seeds that are unique to a step and a place in the batch, or to a validation clip."""
        mask = frame_mask(batch.lengths, batch.mel.shape[-1])
        assert mask is not None
        mel = masked(batch.mel, mask)
        seeds = content_seeds(mel)
        if self.vocoder.training:
            rank, world = distributed.rank_and_world()
            seeds = rank + world * torch.arange(len(mel), device=mel.device) + (step << 24)
        return self.vocoder.losses(ModelBatch(mel, mask, batch.audio, seeds, batch.labels, batch.others))


class AdversarialObjective(Objective):
    """Reconstruction and, from ``config.start_step`` on, training against discriminators.

    One pass of the vocoder, and one of the discriminators over its sound, give both losses: ``loss`` for the vocoder
    and ``discriminator_loss`` for the discriminators. ``add_gradients`` keeps them apart.

    Args:
        reconstruction: the objective of the same vocoder without discriminators.
        discriminators: shared by the objectives of training and validation.
        config: weights of the terms, and the step at which they begin.
    """

    def __init__(
        self, reconstruction: ReconstructionObjective, discriminators: Discriminators, config: AdversarialConfig
    ) -> None:
        super().__init__(reconstruction.vocoder)
        self.shortest_validation_segment = reconstruction.shortest_validation_segment
        self.reconstruction, self.config = reconstruction, config
        # A tuple hides the submodule from DistributedDataParallel, which would wait for its gradients from step 0 on.
        self._discriminators = (discriminators,)

    @property
    def discriminators(self) -> Discriminators:
        """The discriminators that the vocoder is trained against."""
        return self._discriminators[0]

    def kind(self, step: int) -> Hashable:
        """As for ``ReconstructionObjective``, and whether adversarial training has begun."""
        return self.reconstruction.kind(step), self._has_begun(step)

    def forward(self, batch: Batch, *, step: int = 0) -> Losses:
        """The losses of a batch.

        Returns:
            as from ``ReconstructionObjective``, whose ``loss`` is called ``reconstruction`` here. From ``start_step``
            on also ``discriminator_loss``; the parts ``adversarial`` and ``feature_matching`` of ``loss``; and the
            mean logits ``real_score`` and ``fake_score``, of which the first is higher if the discriminators can tell
            recordings from generated sound.
        """
        vocoder, batch = self.reconstruction.task(batch, step)
        generated = self.reconstruction.generate(vocoder, batch)
        parts = self.reconstruction.distance(generated, batch.audio)
        parts["reconstruction"] = parts["loss"].detach()
        if not self._has_begun(step):
            return parts

        with parametrize.cached():  # normalise the weights once for both passes
            real, fake = self.discriminators(batch.audio), self.discriminators(generated)
        adversarial = generator_loss(self.config.loss, _logits(fake))
        matching = feature_matching_loss(
            [[layer.detach().float() for layer in output.features] for output in real],
            [[layer.float() for layer in output.features] for output in fake],
        )
        parts["loss"] = parts["loss"] + self.config.weight * adversarial + self.config.feature_weight * matching
        return parts | {
            "discriminator_loss": discriminator_loss(self.config.loss, _logits(real), _logits(fake)),
            "adversarial": adversarial.detach(),
            "feature_matching": matching.detach(),
            "real_score": _mean_score(real),
            "fake_score": _mean_score(fake),
        }

    def add_gradients(self, losses: Losses) -> None:
        """Like the base class, and for the discriminators too."""
        if "discriminator_loss" in losses:
            _backward(losses["discriminator_loss"], self.discriminators, retain_graph=True)
        super().add_gradients(losses)

    def _has_begun(self, step: int) -> bool:
        return step >= self.config.start_step


def build_objective(
    vocoder: Network, config: TrainingConfig, discriminators: Discriminators | None = None
) -> Objective:
    """The objective of a vocoder: likelihood, pitch, or reconstruction, which may have discriminators.

    Any other model has its own losses.
    """
    if isinstance(vocoder, Model):
        return ModelObjective(vocoder)
    if isinstance(vocoder, AutoregressiveVocoder):
        return LikelihoodObjective(vocoder)
    if isinstance(vocoder, PitchVocoder):
        return PitchObjective(vocoder)
    assert isinstance(vocoder, WaveformVocoder)
    reconstruction = ReconstructionObjective(vocoder, config)
    if discriminators is None or config.adversarial is None:
        return reconstruction
    return AdversarialObjective(reconstruction, discriminators, config.adversarial)


def is_whole(mask: Tensor) -> bool:
    """True if all frames are known to be real; always False on a GPU, where asking would wait for it."""
    return mask.device.type == "cpu" and bool(mask.all())


def _backward(loss: Tensor, network: nn.Module, *, retain_graph: bool = False) -> None:
    """Add the gradients of a loss to the ``grad`` of one network's weights alone."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    torch.autograd.backward(loss, inputs=weights, retain_graph=retain_graph)


def _logits(outputs: Sequence[DiscriminatorOutput]) -> list[Tensor]:
    return [output.logits.float() for output in outputs]


def _mean_score(outputs: Sequence[DiscriminatorOutput]) -> Tensor:
    return torch.stack([logits.detach().mean() for logits in _logits(outputs)]).mean()
