"""What training minimises: one ``losses(batch)`` for training and validation alike."""

import math

import torch
from torch import Tensor, nn

from wavegen.blocks import masked
from wavegen.melspec import MelSpec
from wavegen.training.config import TrainingConfig
from wavegen.training.data import Batch
from wavegen.training.losses import LogMelDistance, MultiResolutionSTFTLoss
from wavegen.vocoders import Vocoder, frame_mask

Losses = dict[str, Tensor]


class LikelihoodObjective(nn.Module):
    """Negative log-likelihood of an autoregressive vocoder, teacher-forced.

    The first samples of a segment that does not start its clip are not counted: the samples that they should be
    predicted from lie before the segment.
    """

    def __init__(self, vocoder: Vocoder) -> None:
        super().__init__()
        self.vocoder = vocoder

    def forward(self, batch: Batch) -> Losses:
        """``loss`` in nats, and ``bits_per_sample``."""
        hop = self.vocoder.mel.hop_length
        mask = frame_mask(batch.lengths, batch.mel.shape[-1])
        assert mask is not None
        log_prob = self.vocoder.log_prob(batch.audio, masked(batch.mel, mask), mask)  # type: ignore[operator]
        unseen = torch.where(batch.starts > 0, past_samples(self.vocoder), 0)
        position = torch.arange(batch.audio.shape[-1], device=batch.audio.device)
        counted = (position >= unseen[:, None]) & mask[:, 0].repeat_interleave(hop, dim=-1)
        nats = torch.where(counted, -log_prob, 0.0).sum()
        # By the nominal size, not by the count: then the mean over processes is the loss of one process.
        return {
            "loss": nats / batch.audio.numel(),
            "bits_per_sample": nats.detach() / counted.sum().clamp(min=1) / math.log(2),
        }


class ReconstructionObjective(nn.Module):
    """Distance between the waveform a vocoder makes of a mel and the one the mel was made of."""

    def __init__(self, vocoder: Vocoder, mel: MelSpec, config: TrainingConfig) -> None:
        super().__init__()
        self.vocoder = vocoder
        self.mel_weight = config.mel_weight
        self.mel_distance = LogMelDistance(mel)
        self.stft_loss = MultiResolutionSTFTLoss(config.stft_resolutions)

    def forward(self, batch: Batch) -> Losses:
        """``loss`` and its parts, ``mel`` and ``stft``."""
        mask = frame_mask(batch.lengths, batch.mel.shape[-1])
        generated = self.vocoder(masked(batch.mel, mask), mask)
        with torch.autocast(batch.audio.device.type, enabled=False):
            generated = generated.float()
            mel, stft = self.mel_distance(generated, batch.audio), self.stft_loss(generated, batch.audio)
        return {"loss": self.mel_weight * mel + stft, "mel": mel.detach(), "stft": stft.detach()}


def past_samples(vocoder: Vocoder) -> int:
    """Samples, and held mel frames in samples, before one that its distribution depends on."""
    return max(vocoder.receptive_field_samples, vocoder.context.left * vocoder.mel.hop_length)


def shortest_segment(vocoder: Vocoder, config: TrainingConfig) -> int:
    """Frames of the shortest segment that the vocoder's objective can be computed on.

    Likelihood needs more than the past that is not counted; reconstruction needs enough for its longest transform to
    mirror at the edges. Crops shorter than the context are allowed only where the vocoder normalises over channels.
    """
    mel = vocoder.mel
    if vocoder.objective == "likelihood":
        samples = past_samples(vocoder) + 1
    else:
        mirrored = [(n_fft - hop) // 2 + 1 for n_fft, hop in config.stft_resolutions]
        samples = max(mel.shortest_clip, *mirrored)
        if not vocoder.normalised_over_channels:
            samples = max(samples, vocoder.receptive_field_samples + 1)
    return math.ceil(samples / mel.hop_length)


def build_objective(vocoder: Vocoder, config: TrainingConfig) -> nn.Module:
    """The objective that suits the vocoder."""
    if vocoder.objective == "likelihood":
        return LikelihoodObjective(vocoder)
    return ReconstructionObjective(vocoder, vocoder.mel, config)
