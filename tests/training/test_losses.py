"""Losses: distances between sounds, and the published equations of adversarial training."""

import numpy as np
import pytest
import torch
from support.corpus import voice
from support.vocoders import new_vocoder

from wavegen.mel import LogMel, profile
from wavegen.training.config import TrainingConfig
from wavegen.training.losses import (
    LogMelDistance,
    MultiScaleMelDistance,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
)
from wavegen.training.objectives import (
    ReconstructionObjective,
)

MEL = profile("bigvgan-24k")
REAL = [torch.tensor([[2.0, 0.5]]), torch.tensor([-1.0])]
FAKE = [torch.tensor([[-3.0, 0.25]]), torch.tensor([0.5])]


def test_hinge_and_least_squares_are_the_published_equations() -> None:
    # max(0, 1 - real) + max(0, 1 + fake), the mean over patches, then over the two discriminators
    assert discriminator_loss("hinge", REAL, FAKE) == ((0 + 0.5) / 2 + (0 + 1.25) / 2 + 2 + 1.5) / 2
    assert generator_loss("hinge", FAKE) == ((4 + 0.75) / 2 + 0.5) / 2
    # (real - 1)² + fake²
    assert discriminator_loss("least-squares", REAL, FAKE) == ((1 + 0.25) / 2 + (9 + 0.0625) / 2 + 4 + 0.25) / 2
    assert generator_loss("least-squares", FAKE) == ((16 + 0.5625) / 2 + 0.25) / 2


def test_feature_matching_is_relative_to_the_recording_item_by_item() -> None:
    real = [[torch.tensor([[1.0, -3.0], [8.0, 0.0]]), torch.tensor([[[4.0]], [[1.0]]])], [torch.tensor([[0.5], [0.5]])]]
    fake = [[torch.tensor([[2.0, -3.0], [8.0, 1.0]]), torch.tensor([[[5.0]], [[1.0]]])], [torch.tensor([[0.5], [0.0]])]]
    expected = np.mean([(0.5 / 2 + 0.5 / 4) / 2, (1 / 4 + 0) / 2, (0 + 0.5 / 0.5) / 2])
    assert float(feature_matching_loss(real, fake)) == pytest.approx(expected)
    tenfold = [[[10 * layer for layer in layers] for layers in maps] for maps in (real, fake)]
    torch.testing.assert_close(feature_matching_loss(*tenfold), feature_matching_loss(real, fake))
    halves = [
        feature_matching_loss(*([[x[i : i + 1] for x in layers] for layers in maps] for maps in (real, fake)))
        for i in (0, 1)
    ]
    torch.testing.assert_close(torch.stack(halves).mean(), feature_matching_loss(real, fake))
    assert feature_matching_loss(real, real) == 0
    silence, whisper = [[torch.zeros(1, 3)]], [[torch.full((1, 3), 1e-4)]]
    assert feature_matching_loss(silence, silence) == 0
    assert float(feature_matching_loss(silence, whisper)) == pytest.approx(0.01)


def test_the_mel_distance_is_the_mean_over_its_scales() -> None:
    distance = MultiScaleMelDistance(24000, ((512, 40), (128, 20)))
    real, generated = (torch.tensor(voice(0.2, seed=seed), dtype=torch.float32)[None] for seed in (0, 1))
    expected = []
    for n_fft, bins in ((512, 40), (128, 20)):
        spec = MEL.replace(n_fft=n_fft, win_length=n_fft, hop_length=n_fft // 4, n_mels=bins)
        expected.append(float((LogMel(spec)(generated) - LogMel(spec)(real)).abs().mean()))
    assert float(distance(generated, real)) == pytest.approx(np.mean(expected), rel=1e-5)
    assert distance(real, real) == 0
    vocoder = new_vocoder("spectral", MEL, channels=4, layers=1)
    chosen = ReconstructionObjective(vocoder, TrainingConfig(steps=1, mel_scales=((512, 40), (128, 20))))
    assert float(chosen.distance(generated, real)["mel"]) == pytest.approx(np.mean(expected), rel=1e-5)
    assert isinstance(ReconstructionObjective(vocoder, TrainingConfig(steps=1)).mel_distance, LogMelDistance)
