"""The spectral vocoder begins as the source-filter vocoder, and learns corrections of it."""

from typing import Any

import pytest
import torch
from support.corpus import voice
from support.recordings import WOMAN, log_mel_distance, mel_of, recording
from support.vocoders import new_vocoder
from torch import Tensor

from wavegen.mel import LogMel, profile
from wavegen.source import PitchNetwork
from wavegen.vocoders.spectral import Corrections, SpectralVocoder

MEL = profile("bigvgan-24k")


def small(**options: Any) -> SpectralVocoder:
    torch.manual_seed(0)
    vocoder = new_vocoder("spectral", MEL, **({"channels": 16, "layers": 2} | options))
    assert isinstance(vocoder, SpectralVocoder)
    return vocoder.eval()


def spectrum(samples: Tensor) -> Tensor:
    return torch.stft(samples, 1024, 256, window=torch.hann_window(1024).to(samples), return_complex=True)[..., 4:-4]


@pytest.mark.parametrize(
    "options",
    [
        {"refinement_iterations": 2, "synthesis_iterations": 6},
        {"refinement_iterations": 0, "synthesis_iterations": 0},
        {"padding": "causal", "refinement_iterations": 0, "synthesis_iterations": 2},
        {"padding": "causal", "look_ahead": 2, "refinement_iterations": 1, "synthesis_iterations": 0},
    ],
    ids=str,
)
def test_before_training_it_is_the_source_filter_vocoder(options: dict[str, Any]) -> None:
    iterations = options["refinement_iterations"] + options["synthesis_iterations"]
    mel = mel_of(recording(WOMAN, seconds=0.6), MEL).double()
    expected = new_vocoder("source-filter", MEL, synthesis_iterations=iterations).double().synthesize(mel, seed=3)
    found = small(**options).double().synthesize(mel, seed=3)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)
    assert expected.std() > 0.01


@pytest.mark.parametrize("padding", ["causal", "same"])
def test_before_training_it_is_that_vocoder_for_every_mel_definition(padding: str) -> None:
    spec = profile("vocos-24k")
    mel = mel_of(recording(WOMAN, seconds=0.4), spec).double()
    expected = new_vocoder("source-filter", spec).double().synthesize(mel, seed=3)
    for vocoder in (small(padding=padding, any_mel=True).for_mel(spec), new_vocoder("spectral", spec, padding=padding)):
        torch.testing.assert_close(vocoder.double().synthesize(mel, seed=3), expected, rtol=0, atol=1e-8)


def test_training_begins_there_too_and_its_gradients_reach_every_weight() -> None:
    """The noise of training is seeded by the mel itself, and there are only the iterations that are trained through."""
    vocoder = small().train()
    mel = mel_of(recording(WOMAN, seconds=0.4), MEL)
    generated = vocoder(mel)
    assert torch.equal(vocoder(mel), generated)
    assert log_mel_distance(generated[0].detach().numpy(), mel, MEL) < 0.3
    torch.nn.init.normal_(vocoder.corrections.weight, std=0.01)  # at zero, it lets no gradient through
    vocoder(mel).square().sum().backward()
    for name, parameter in vocoder.named_parameters():
        if name.startswith("stage.network."):
            assert not parameter.requires_grad
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def corrected(**corrections: float) -> tuple[Tensor, Tensor]:
    """Spectra of the sound before and after corrections of every bin."""
    vocoder = small(refinement_iterations=0, synthesis_iterations=0).double()
    mel = mel_of(recording(WOMAN, seconds=0.6), MEL).double()
    before = vocoder.synthesize(mel)
    biases = Corrections(*vocoder.corrections.bias.detach().chunk(4))
    for name, value in corrections.items():
        getattr(biases, name).fill_(value)
    return spectrum(before), spectrum(vocoder.synthesize(mel))


def test_a_correction_of_the_magnitude_is_a_gain_in_nepers() -> None:
    before, after = corrected(magnitude=-0.5)
    torch.testing.assert_close(after, before * torch.tensor(-0.5).double().exp(), rtol=0, atol=1e-9)


def test_a_correction_of_the_phase_turns_every_bin() -> None:
    before, after = corrected(phase=1.2)
    turned = before[:, 1:-1] * torch.polar(torch.tensor(1.0), torch.tensor(1.2)).to(before)
    assert (after[:, 1:-1] - turned).abs().mean() < 0.02 * before.abs().mean()


def test_gains_of_both_sources_change_their_mixture_but_not_its_level() -> None:
    """The mel is imposed on the mixture, so equal gains do nothing, and unequal ones keep the mel."""
    before, after = (x[:, 3:-3] for x in corrected(periodic=0.7, aperiodic=0.7))  # no filter reads the outermost bins
    torch.testing.assert_close(after, before, rtol=0, atol=1e-3 * float(before.abs().max()))
    before, after = corrected(aperiodic=-3.0)
    assert (after - before).abs().mean() > 0.02 * before.abs().mean()
    assert after.abs().mean() == pytest.approx(float(before.abs().mean()), rel=0.1)


def test_corrections_are_bounded() -> None:
    """Whatever the network says, the magnitude is at most that of a full-scale sound."""
    vocoder = small(refinement_iterations=0, synthesis_iterations=0)
    Corrections(*vocoder.corrections.bias.detach().chunk(4)).magnitude.fill_(1e4)
    sound = vocoder.synthesize(mel_of(recording(WOMAN, seconds=0.4), MEL))
    assert torch.isfinite(sound).all()


def test_its_pitch_network_is_the_shipped_one_and_takes_no_part_in_training() -> None:
    vocoder, shipped = small(), PitchNetwork.shipped()
    for name, parameter in shipped.named_parameters():
        own = vocoder.get_parameter(f"stage.network.{name}")
        assert torch.equal(own, parameter)
        assert not own.requires_grad


def test_a_causal_network_carries_a_state_and_a_same_padded_one_is_recomputed() -> None:
    causal, same = (small(padding=p, refinement_iterations=0, synthesis_iterations=0) for p in ("causal", "same"))
    projection = causal.projection.context(0)
    assert causal.render_context == projection
    assert same.render_context.left > projection.left
    assert same.render_context.right > projection.right
    assert not causal.steps_natively
    assert causal.streaming_overhead(10) == (10 + projection.left + projection.right) / 10


def test_its_latency_is_the_one_that_the_design_states() -> None:
    """The source looks 1 frame ahead, the imposed mel 4, and every iteration 3."""
    hop = MEL.hop_length
    for iterations in (0, 1, 2):
        options = {"padding": "causal", "refinement_iterations": 0, "synthesis_iterations": iterations}
        source_filter = new_vocoder("source-filter", MEL, synthesis_iterations=iterations)
        for vocoder in (small(**options), source_filter):
            assert vocoder.latency_samples == (5 + 3 * iterations) * hop
            assert vocoder.streaming_overhead(10) == (10 + 8 + 6 * iterations) / 10
        assert small(**options, look_ahead=2).latency_samples == (7 + 3 * iterations) * hop


def test_the_iterations_keep_the_magnitude_that_the_network_adds() -> None:
    vocoder = new_vocoder("spectral", profile("bigvgan-24k"), channels=4, layers=1, synthesis_iterations=6).eval()
    mel = LogMel(vocoder.mel)(torch.from_numpy(voice(0.5)).float()[None])
    plain = vocoder.synthesize(mel)
    with torch.no_grad():
        Corrections(*vocoder.corrections.bias.chunk(4)).magnitude.add_(0.5)
    louder = vocoder.synthesize(mel)
    assert (louder.std() / plain.std()).log().item() == pytest.approx(0.5, abs=0.02)
