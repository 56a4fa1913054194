"""How short a segment may be to train on."""

import math

import torch

from wavegen.mel.family import RATE_STEPS, SLOWEST
from wavegen.models import Model
from wavegen.network import Network
from wavegen.training.config import TrainingConfig
from wavegen.training.discriminators import Discriminators
from wavegen.training.pitch import shortest_training_segment
from wavegen.vocoders import AutoregressiveVocoder, PitchVocoder


def shortest_segment(vocoder: Network, config: TrainingConfig) -> int:
    """Frames of the shortest segment that a vocoder or another model can be trained on.

    Likelihood needs more samples than those that it does not count. Pitch needs enough samples for each of the mel
    definitions of its training. Reconstruction needs enough samples for its
    longest transform to mirror at the edges and for the discriminators; also the vocoder's context, unless the vocoder
    normalises over channels. Other models need a frame, or likewise their context.
    """
    mel = vocoder.mel
    if isinstance(vocoder, AutoregressiveVocoder):
        samples = vocoder.warm_up_samples + 1
    elif isinstance(vocoder, PitchVocoder):
        samples = shortest_training_segment(mel)
    elif isinstance(vocoder, Model):
        samples = mel.min_samples if vocoder.normalised_over_channels else vocoder.receptive_field_samples + 1
    else:
        mirrored = [(n_fft - hop) // 2 + 1 for n_fft, hop in config.stft_resolutions]
        mirrored += [3 * n_fft // 8 + 1 for n_fft, _ in config.mel_scales]
        mirrored += [mel.n_fft // 2 + 1] * (vocoder.family is not None)  # some of the drawn definitions are centred
        samples = max(mel.min_samples, *mirrored, *shortest_for_discriminators(config).values())
        if vocoder.family is not None:  # at the lowest drawn sample rate, a segment has fewer samples and whole frames
            samples = math.ceil((samples + mel.hop_length) * RATE_STEPS / SLOWEST)
        if not vocoder.normalised_over_channels:
            samples = max(samples, vocoder.receptive_field_samples + 1)
    return math.ceil(samples / mel.hop_length)


def shortest_for_discriminators(config: TrainingConfig) -> dict[str, int]:
    """Number of samples that each discriminator of a recipe needs, by its name; empty if there are none."""
    if config.adversarial is None:
        return {}
    with torch.device("meta"):  # shapes without numbers
        return Discriminators(config.adversarial).shortest_segments()
