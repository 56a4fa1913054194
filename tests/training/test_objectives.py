"""What training minimises: distances, likelihood, what discriminators say, and what is not counted."""

import numpy as np
import pytest
import torch
from support.corpus import voice
from support.vocoders import new_vocoder

from wavegen.mel import LogMel, profile
from wavegen.training.config import TrainingConfig
from wavegen.training.data import Batch
from wavegen.training.losses import (
    LogMelDistance,
    MultiScaleMelDistance,
    deception_loss,
    discriminator_loss,
    feature_matching_loss,
)
from wavegen.training.objectives import LikelihoodObjective, ReconstructionObjective, past_samples
from wavegen.vocoders import VOCODERS, AutoregressiveVocoder

MEL = profile("bigvgan-24k")


def random_batch(lengths: list[int], starts: list[int], frames: int = 12) -> Batch:
    torch.manual_seed(0)
    audio = torch.rand(len(lengths), frames * 256) - 0.5
    mel = torch.randn(len(lengths), MEL.n_mels, frames)
    for i, length in enumerate(lengths):
        audio[i, length * 256 :] = 0
    return Batch(audio, mel, torch.tensor(lengths), torch.tensor(starts))


def with_nan_padding(batch: Batch) -> Batch:
    mel = batch.mel.clone()
    for i, length in enumerate(batch.lengths.tolist()):
        mel[i, :, length:] = float("nan")
    return batch._replace(mel=mel)


@pytest.mark.parametrize("name", sorted(VOCODERS))
def test_padding_reaches_neither_loss_nor_gradient(name: str) -> None:
    torch.manual_seed(0)
    shape = {
        "spectral": {"channels": 8, "layers": 1},
        "wavenet": {"cycles": 1, "depth": 3, "residual_channels": 4},
        "parallel": {"cycles": 1, "depth": 3, "residual_channels": 4},
    }
    vocoder = new_vocoder(name, MEL, **shape[name])
    objective = (
        LikelihoodObjective(vocoder)
        if isinstance(vocoder, AutoregressiveVocoder)
        else ReconstructionObjective(vocoder, MEL, TrainingConfig(steps=1))
    )
    batch = random_batch([12, 5], [0, 0])
    clean = objective(batch)["loss"]
    dirty = objective(with_nan_padding(batch))["loss"]
    assert torch.equal(clean, dirty)
    dirty.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in vocoder.parameters())


def test_samples_without_their_past_are_not_counted() -> None:
    vocoder = new_vocoder("wavenet", MEL, cycles=1, depth=6, residual_channels=4)
    objective = LikelihoodObjective(vocoder)
    batch = random_batch([12], [40])
    log_prob = vocoder.log_prob(batch.audio, batch.mel)
    first = past_samples(vocoder)
    assert first >= vocoder.receptive_field_samples
    expected = -log_prob[:, first:].sum() / batch.audio.numel()
    torch.testing.assert_close(objective(batch)["loss"], expected)
    from_the_start = objective(batch._replace(starts=torch.tensor([0])))["loss"]
    torch.testing.assert_close(from_the_start, -log_prob.mean())


def test_reconstruction_of_the_recording_itself_costs_nothing() -> None:
    class Perfect(torch.nn.Module):
        audio, family = random_batch([12], [0]).audio, None

        def forward(self, mel: torch.Tensor, mask: torch.Tensor, speakers: torch.Tensor | None) -> torch.Tensor:
            return self.audio

    objective = ReconstructionObjective(Perfect(), MEL, TrainingConfig(steps=1))  # type: ignore[arg-type]
    assert objective(random_batch([12], [0]))["loss"] == 0
    Perfect.audio = Perfect.audio * 0.5
    halved = objective(random_batch([12], [0]))
    assert float(halved["mel"]) == pytest.approx(np.log(2), rel=1e-3)


def test_the_likelihood_of_padding_is_not_counted() -> None:
    vocoder = new_vocoder("wavenet", MEL, cycles=1, depth=3, residual_channels=4)
    batch = random_batch([12, 5], [0, 0])
    log_prob = vocoder.log_prob(batch.audio, batch.mel * (torch.arange(12) < batch.lengths[:, None])[:, None])
    expected = -(log_prob[0].sum() + log_prob[1, : 5 * 256].sum()) / batch.audio.numel()
    torch.testing.assert_close(LikelihoodObjective(vocoder)(batch)["loss"], expected)


REAL = [torch.tensor([[2.0, 0.5]]), torch.tensor([-1.0])]
FAKE = [torch.tensor([[-3.0, 0.25]]), torch.tensor([0.5])]


def test_hinge_and_least_squares_are_the_published_equations() -> None:
    # max(0, 1 - real) + max(0, 1 + fake), the mean over patches, then over the two discriminators
    assert discriminator_loss("hinge", REAL, FAKE) == ((0 + 0.5) / 2 + (0 + 1.25) / 2 + 2 + 1.5) / 2
    assert deception_loss("hinge", FAKE) == ((4 + 0.75) / 2 + 0.5) / 2
    # (real - 1)² + fake²
    assert discriminator_loss("least-squares", REAL, FAKE) == ((1 + 0.25) / 2 + (9 + 0.0625) / 2 + 4 + 0.25) / 2
    assert deception_loss("least-squares", FAKE) == ((16 + 0.5625) / 2 + 0.25) / 2


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


def test_mels_at_several_scales_are_compared_alike() -> None:
    distance = MultiScaleMelDistance(24000, ((512, 40), (128, 20)))
    real, generated = (torch.tensor(voice(0.2, seed=seed), dtype=torch.float32)[None] for seed in (0, 1))
    expected = []
    for n_fft, bins in ((512, 40), (128, 20)):
        spec = MEL.replace(n_fft=n_fft, win_length=n_fft, hop_length=n_fft // 4, n_mels=bins)
        expected.append(float((LogMel(spec)(generated) - LogMel(spec)(real)).abs().mean()))
    assert float(distance(generated, real)) == pytest.approx(np.mean(expected), rel=1e-5)
    assert distance(real, real) == 0
    vocoder = new_vocoder("spectral", MEL, channels=4, layers=1)
    chosen = ReconstructionObjective(vocoder, MEL, TrainingConfig(steps=1, mel_scales=((512, 40), (128, 20))))
    assert float(chosen.distance(generated, real)["mel"]) == pytest.approx(np.mean(expected), rel=1e-5)
    assert isinstance(ReconstructionObjective(vocoder, MEL, TrainingConfig(steps=1)).mel_distance, LogMelDistance)


@pytest.mark.parametrize("scale", [(510, 40), (64, 33), (100, 20)])
def test_impossible_scales_are_refused(scale: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="mel_scales"):
        TrainingConfig(steps=1, mel_scales=(scale,))


def test_impossible_resolutions_are_refused() -> None:
    with pytest.raises(ValueError, match="hop 512 is not shorter than n_fft 256"):
        TrainingConfig(steps=1, stft_resolutions=((256, 512),))
