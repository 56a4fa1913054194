"""Objectives: the losses of a batch, what is not counted, and which network learns from which loss."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from support.corpus import voice
from support.runs import SMALL
from support.vocoders import new_vocoder, tiny_vocoder
from torch import Tensor, nn

from wavegen.blocks import frame_mask
from wavegen.corpora.pitch_labels import LABELS_PER_FRAME
from wavegen.mel import LogMel, profile
from wavegen.training import objectives
from wavegen.training.config import AdversarialConfig, TrainingConfig
from wavegen.training.data import Batch
from wavegen.training.discriminators import (
    Discriminators,
)
from wavegen.training.losses import (
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
)
from wavegen.training.objectives import (
    AdversarialObjective,
    LikelihoodObjective,
    ReconstructionObjective,
    build_objective,
)
from wavegen.training.shortest import shortest_segment
from wavegen.training.state import TrainingState
from wavegen.vocoders import VOCODERS, WaveformVocoder

MEL = profile("bigvgan-24k")


def random_batch(lengths: list[int], starts: list[int], frames: int = 12) -> Batch:
    torch.manual_seed(0)
    audio = torch.rand(len(lengths), frames * 256) - 0.5
    mel = torch.randn(len(lengths), MEL.n_mels, frames)
    for i, length in enumerate(lengths):
        audio[i, length * 256 :] = 0
    f0 = 100 + 100 * torch.rand(len(lengths), frames * LABELS_PER_FRAME)
    return Batch(audio, mel, torch.tensor(lengths), torch.tensor(starts), f0=f0)


def with_nan_padding(batch: Batch) -> Batch:
    mel = batch.mel.clone()
    for i, length in enumerate(batch.lengths.tolist()):
        mel[i, :, length:] = float("nan")
    return batch._replace(mel=mel)


@pytest.mark.parametrize("name", sorted(VOCODERS))
def test_padding_reaches_neither_loss_nor_gradient(name: str) -> None:
    vocoder = tiny_vocoder(name, spec=MEL)
    objective = build_objective(vocoder, TrainingConfig(steps=1))
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
    log_prob = vocoder.log_likelihood(batch.audio, batch.mel).trained
    first = vocoder.warm_up_samples
    assert first >= vocoder.receptive_field_samples
    expected = -log_prob[:, first:].sum() / batch.audio.numel()
    torch.testing.assert_close(objective(batch)["loss"], expected)
    from_the_start = objective(batch._replace(starts=torch.tensor([0])))["loss"]
    torch.testing.assert_close(from_the_start, -log_prob.mean())


def test_the_likelihood_of_padding_is_not_counted() -> None:
    vocoder = new_vocoder("wavenet", MEL, cycles=1, depth=3, residual_channels=4)
    batch = random_batch([12, 5], [0, 0])
    mel = batch.mel * (torch.arange(12) < batch.lengths[:, None])[:, None]
    log_prob = vocoder.log_likelihood(batch.audio, mel).trained
    expected = -(log_prob[0].sum() + log_prob[1, : 5 * 256].sum()) / batch.audio.numel()
    torch.testing.assert_close(LikelihoodObjective(vocoder)(batch)["loss"], expected)


@torch.no_grad()
def test_bits_per_sample_are_those_of_mu_law_classes_for_every_distribution() -> None:
    """Uniform over all classes is 8 bits; a mixture that fits the samples needs fewer than its 16-bit loss."""
    vocoder = new_vocoder("wavenet", MEL, cycles=1, depth=3, residual_channels=4)
    vocoder.output.weight.zero_()
    vocoder.output.bias.zero_()
    losses = LikelihoodObjective(vocoder)(random_batch([12], [0]))
    assert float(losses["bits_per_sample"]) == pytest.approx(8.0)
    assert float(losses["loss"]) == pytest.approx(8 * math.log(2))
    mixture = new_vocoder("wavenet", MEL, output="logistic-mixture", cycles=1, depth=3, residual_channels=4)
    losses = LikelihoodObjective(mixture)(random_batch([12], [0]))
    assert float(losses["bits_per_sample"]) < float(losses["loss"]) / math.log(2) - 4


def test_reconstruction_of_the_recording_itself_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = ReconstructionObjective(tiny_vocoder("spectral", spec=MEL), TrainingConfig(steps=1))
    batch = random_batch([12], [0])
    monkeypatch.setattr(objective.vocoder, "forward", lambda *_, **__: batch.audio)
    assert objective(batch)["loss"] == 0
    monkeypatch.setattr(objective.vocoder, "forward", lambda *_, **__: batch.audio * 0.5)
    assert float(objective(batch)["mel"]) == pytest.approx(np.log(2), rel=1e-3)


@pytest.mark.parametrize("adversarial", [None, SMALL])
@pytest.mark.parametrize("name", sorted(VOCODERS))
def test_the_shortest_segments_have_a_loss(name: str, adversarial: AdversarialConfig | None) -> None:
    """Validation may use one frame for pitch, and for a likelihood, which counts all samples from a clip's start."""
    vocoder = tiny_vocoder(name, spec=MEL)
    if adversarial is not None and not vocoder.accepts_discriminators:
        pytest.skip("no adversarial training")
    config = TrainingConfig(steps=1, adversarial=adversarial)
    objective = build_objective(vocoder, config, None if adversarial is None else Discriminators(adversarial))
    shortest = shortest_segment(vocoder, config)
    assert objective.shortest_validation_segment == (shortest if isinstance(vocoder, WaveformVocoder) else 1)
    for frames, start, trains in ((shortest, 40, True), (objective.shortest_validation_segment, 0, False)):
        vocoder.train(trains)
        losses = objective(random_batch([frames], [start], frames))
        assert all(loss.isfinite() for loss in losses.values())
        assert losses["loss"] > 0


@pytest.mark.parametrize("name", sorted(name for name, kind in VOCODERS.items() if issubclass(kind, WaveformVocoder)))
def test_a_batch_without_padding_needs_no_mask(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def losses(*, masked: bool) -> list[Tensor]:
        vocoder = tiny_vocoder(name, spec=MEL)
        objective = ReconstructionObjective(vocoder, TrainingConfig(steps=1))
        with monkeypatch.context() as patch:
            if masked:
                patch.setattr(objectives, "is_whole", lambda mask: False)
            parts = objective(random_batch([12, 12], [0, 3]))
        objective.add_gradients(parts)
        return [parts["loss"], *gradients(objective.vocoder)]

    assert all(torch.equal(a, b) for a, b in zip(losses(masked=False), losses(masked=True), strict=True))
    lengths = torch.tensor([3, 2])
    assert objectives.is_whole(frame_mask(lengths[:1], 3))
    assert not objectives.is_whole(frame_mask(lengths, 3))


# --- adversarial training -----------------------------------------------------------------------------------------


def adversarial_objective(**changes: Any) -> AdversarialObjective:
    torch.manual_seed(0)
    adversarial = SMALL.model_copy(update=changes)
    config = TrainingConfig(steps=9, adversarial=adversarial)
    built = build_objective(new_vocoder("spectral", MEL, channels=4, layers=1), config, Discriminators(adversarial))
    assert isinstance(built, AdversarialObjective)
    return built


def voiced_batch(frames: int = 16) -> Batch:
    audio = torch.tensor(np.stack([voice(frames * 256 / 24000, seed=i) for i in range(2)]), dtype=torch.float32)
    return Batch(audio, LogMel(MEL)(audio)[:, :, :frames], torch.tensor([frames, frames]), torch.tensor([0, 0]))


def gradients(module: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("kind", ["hinge", "least-squares"])
def test_the_parts_of_the_loss_follow_from_the_discriminators_outputs(kind: Any) -> None:
    tested, given = adversarial_objective(loss=kind, weight=0.7, feature_weight=1.3), voiced_batch()
    parts = tested(given)
    generated = tested.vocoder(given.mel).detach()
    real, fake = tested.discriminators(given.audio), tested.discriminators(generated)
    logits = [[output.logits for output in outputs] for outputs in (real, fake)]
    maps = [[output.features for output in outputs] for outputs in (real, fake)]
    torch.testing.assert_close(parts["adversarial"], generator_loss(kind, logits[1]))
    torch.testing.assert_close(parts["discriminator_loss"], discriminator_loss(kind, *logits))
    torch.testing.assert_close(parts["feature_matching"], feature_matching_loss(*maps))
    for name, members in (("real_score", logits[0]), ("fake_score", logits[1])):
        assert float(parts[name]) == pytest.approx(np.mean([float(x.detach().mean()) for x in members]), rel=1e-5)
    reconstruction = tested.reconstruction(given)["loss"]
    torch.testing.assert_close(parts["reconstruction"], reconstruction)
    torch.testing.assert_close(
        parts["loss"], reconstruction + 0.7 * parts["adversarial"] + 1.3 * parts["feature_matching"]
    )


def test_each_side_learns_from_its_own_loss_alone() -> None:
    tested = adversarial_objective()
    sides = tested.vocoder, tested.discriminators
    weights = [[weight for weight in side.parameters() if weight.requires_grad] for side in sides]
    expected = [
        torch.autograd.grad(tested(voiced_batch())[name], own, allow_unused=True)
        for name, own in zip(("loss", "discriminator_loss"), weights, strict=True)
    ]
    tested.add_gradients(tested(voiced_batch()))
    for own, gradients_of_own_loss in zip(weights, expected, strict=True):
        for weight, gradient in zip(own, gradients_of_own_loss, strict=True):
            torch.testing.assert_close(weight.grad, gradient, rtol=0, atol=0)
    assert len(gradients(tested.discriminators)) == len(list(tested.discriminators.parameters()))
    # The generator loss moves the vocoder, not only the reconstruction.
    with_them, without = (adversarial_objective(weight=weight, feature_weight=0.0) for weight in (1e3, 1e-9))
    for variant in (with_them, without):
        variant.add_gradients(variant(voiced_batch()))
    pairs = zip(gradients(with_them.vocoder), gradients(without.vocoder), strict=True)
    assert any(not torch.allclose(a, b, rtol=0.1) for a, b in pairs)


def test_feature_matching_moves_the_vocoder_through_the_feature_maps() -> None:
    with_it, without = (adversarial_objective(weight=1e-9, feature_weight=weight) for weight in (1e3, 0.0))
    for variant in (with_it, without):
        variant.add_gradients(variant(voiced_batch()))
    pairs = zip(gradients(with_it.vocoder), gradients(without.vocoder), strict=True)
    assert any(not torch.allclose(a, b, rtol=0.1) for a, b in pairs)


def test_a_step_passes_through_the_vocoder_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tested, passes = adversarial_objective(), []
    original = tested.vocoder.forward
    monkeypatch.setattr(tested.vocoder, "forward", lambda *a, **kw: passes.append(1) or original(*a, **kw))
    tested(voiced_batch())
    assert passes == [1]


def test_before_the_start_step_there_is_only_reconstruction() -> None:
    tested = adversarial_objective(start_step=3)
    before, at = tested(voiced_batch(), step=2), tested(voiced_batch(), step=3)
    assert set(before) == {"loss", "mel", "stft", "reconstruction"}
    assert torch.equal(before["loss"], tested.reconstruction(voiced_batch())["loss"])
    assert {"discriminator_loss", "adversarial", "feature_matching", "real_score", "fake_score"} <= set(at)
    assert torch.equal(at["reconstruction"], before["reconstruction"])


def test_discriminators_learn_to_tell_recordings_from_generated_sound() -> None:
    torch.manual_seed(0)
    config = TrainingConfig(
        steps=60, warmup_steps=1, decay="constant", learning_rate=5e-3, adversarial=SMALL, ema_decay=0.0
    )
    state = TrainingState(new_vocoder("spectral", MEL, channels=4, layers=1), config)
    state.vocoder.requires_grad_(False)
    tested, given = build_objective(state.vocoder, config, state.discriminators), voiced_batch()
    losses = []
    for _ in range(60):
        state.zero_gradients()
        parts = tested(given)
        parts["discriminator_loss"].backward()  # the vocoder's weights are constants
        state.clip_gradients()
        state.take_step()
        losses.append(float(parts["discriminator_loss"].detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert parts["real_score"] > parts["fake_score"] + 0.5


def test_padding_with_discriminators_reaches_neither_loss_nor_gradient() -> None:
    tested, given = adversarial_objective(), voiced_batch()
    lengths = torch.tensor([16, 9])
    mel, audio = given.mel.clone(), given.audio.clone()
    audio[1, 9 * 256 :] = 0
    mel[1, :, 9:] = 0
    clean = tested(Batch(audio, mel, lengths, given.starts))
    mel[1, :, 9:] = float("nan")
    dirty = tested(Batch(audio, mel, lengths, given.starts))
    assert torch.equal(clean["loss"], dirty["loss"])
    tested.add_gradients(dirty)
    assert all(
        gradient.isfinite().all()
        for module in (tested.vocoder, tested.discriminators)
        for gradient in gradients(module)
    )


def test_steps_of_a_kind_run_the_same_computation() -> None:
    """Discriminators begin at a step; drawn mel definitions differ from step to step."""
    config = TrainingConfig(steps=1)
    state = TrainingState(new_vocoder("spectral", MEL, channels=4, layers=1), config)
    assert build_objective(state.vocoder, config).kind(0) == build_objective(state.vocoder, config).kind(9)
    config = TrainingConfig(steps=9, adversarial=SMALL.model_copy(update={"start_step": 3}))
    state = TrainingState(new_vocoder("spectral", MEL, channels=4, layers=1), config)
    objective = build_objective(state.vocoder, config, state.discriminators)
    assert objective.kind(0) == objective.kind(2) != objective.kind(3) == objective.kind(8)
    family = new_vocoder("spectral", MEL, channels=4, layers=1, any_mel=True)
    drawn = build_objective(family.train(), config, state.discriminators)
    assert len({drawn.kind(step) for step in range(9)}) == 9
    assert len({build_objective(family.eval(), config, state.discriminators).kind(step) for step in range(3)}) == 1
