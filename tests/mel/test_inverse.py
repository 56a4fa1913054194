"""Mel frames back to magnitudes, and a mel imposed on a sound."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.mels import CENTRED_SHORT_WINDOW, TINY
from support.signals import noise_like, speech
from torch import Tensor

from wavegen.blocks import griffin_lim_context
from wavegen.mel import LogMel, MelInverse, MelProjection, MelSpec, profile

SPECS = ["bigvgan-24k", "vocos-24k", "diffwave-22k", "r9y9-22k", "pwg-24k", "nsf-44k"]


def sound_and_mel(spec: MelSpec) -> tuple[Tensor, Tensor]:
    """Noise, and the mel of speech at the same level: what is to be imposed is not there yet."""
    samples = speech(0.5, rate=spec.sample_rate_hz)
    mel = LogMel(spec)(torch.from_numpy(samples)[None])
    other = torch.from_numpy(noise_like(samples))[None, : mel.shape[-1] * spec.hop_length]
    return torch.nn.functional.pad(other, (0, mel.shape[-1] * spec.hop_length - other.shape[-1])), mel


def log_error(spec: MelSpec, found: Tensor, wanted: Tensor) -> float:
    """Median distance of two mels, in nepers, where there is sound."""
    found, wanted = (spec.to_linear(mel).clamp(min=1e-7).log() for mel in (found, wanted))
    return float((found - wanted).abs()[wanted > wanted.max() - 7].median())


def mel_of(spec: MelSpec, magnitude: Tensor) -> Tensor:
    return spec.from_linear(torch.tensor(spec.filterbank(), dtype=magnitude.dtype) @ magnitude / MelInverse(spec).scale)


@pytest.mark.parametrize("name", SPECS)
def test_the_inverse_has_the_mel(name: str) -> None:
    spec = profile(name)
    _, mel = sound_and_mel(spec)
    assert log_error(spec, mel_of(spec, MelInverse(spec)(mel)), mel) < 0.02


@pytest.mark.parametrize("name", SPECS)
def test_an_imposed_magnitude_is_close_to_the_mel_after_three_updates(name: str) -> None:
    spec = profile(name)
    samples, mel = sound_and_mel(spec)
    projection = MelProjection(spec)
    own = projection.istft.analyse(samples).abs()
    imposed = MelInverse(spec).impose(mel, own)
    assert log_error(spec, mel_of(spec, own), mel) > 0.5
    assert log_error(spec, mel_of(spec, imposed), mel) < 0.1
    torch.testing.assert_close(MelInverse(spec).impose(mel, own, updates=3), imposed)


def test_what_already_has_the_mel_stays_as_it_is() -> None:
    spec = profile("bigvgan-24k")
    magnitude = 0.01 + torch.rand(1, spec.n_fft // 2 + 1, 9)
    mel = mel_of(spec, magnitude)
    torch.testing.assert_close(MelInverse(spec).impose(mel, magnitude), magnitude, rtol=1e-3, atol=0)


@pytest.mark.parametrize("blur_hz", [0.0, 150.0])
def test_products_by_blocks_have_the_values_and_gradients_of_whole_ones(blur_hz: float) -> None:
    spec = profile("r9y9-22k")  # whose filters leave bins unread
    filters = MelInverse(spec).filter_blocks(torch.float64, blur_hz)
    magnitude = torch.rand(2, spec.n_fft // 2 + 1, 3, dtype=torch.float64, requires_grad=True)
    linear = torch.rand(2, spec.n_mels, 3, dtype=torch.float64)
    weights = torch.rand_like(magnitude)

    def whole(magnitude: Tensor) -> Tensor:
        ratio = linear / (filters.filters @ magnitude).clamp(min=1e-12)
        return (filters.weights.t() @ ratio).index_fill(1, filters.unread, 1.0)

    values, slopes, curvatures = zip(
        *(derivatives(function, magnitude, weights) for function in (lambda x: filters.gain(x, linear), whole)),
        strict=True,
    )
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*slopes)
    torch.testing.assert_close(*curvatures)
    torch.testing.assert_close(filters.read(magnitude), filters.filters @ magnitude)


def derivatives(function: Callable[[Tensor], Tensor], x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The value of a weighted sum of the function, its gradient, and the gradient of that gradient's squares."""
    value = (function(x) * weights).sum()
    (slope,) = torch.autograd.grad(value, x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.square().sum(), x)
    return value, slope, curvature


def test_fine_structure_is_kept() -> None:
    """Neighbouring bins under the same wide filters keep their ratio, which the mel does not know."""
    spec = profile("bigvgan-24k")
    magnitude = torch.ones(1, spec.n_fft // 2 + 1, 5)
    magnitude[:, ::2] *= 4
    mel = torch.full((1, spec.n_mels, 5), -2.0)
    imposed = MelInverse(spec).impose(mel, magnitude)
    high = imposed[0, 250:500]  # filters there span tens of bins
    torch.testing.assert_close(high[0::2] / high[1::2], torch.full((125, 5), 4.0), rtol=0.1, atol=0)


def test_a_blurred_mel_gives_its_envelope_and_not_its_harmonics() -> None:
    """A sound with harmonics of 200 Hz gets the level of a mel that has those of 300 Hz, and keeps its own."""
    spec = profile("bigvgan-24k")
    hz = torch.arange(spec.n_fft // 2 + 1) * spec.sample_rate_hz / spec.n_fft

    def harmonics(f0_hz: float, level: float) -> Tensor:
        return level * (0.05 + (torch.pi * hz / f0_hz).cos() ** 8)[None, :, None].expand(1, -1, 3)

    mel, sound = mel_of(spec, harmonics(300, 4.0)), harmonics(200, 1.0)
    low = slice(10, 60)  # 230 to 1400 Hz
    blurred = MelInverse(spec).impose(mel, sound, blur_hz=150.0)[:, low] / sound[:, low]
    sharp = MelInverse(spec).impose(mel, sound)[:, low] / sound[:, low]
    torch.testing.assert_close(blurred, torch.full_like(blurred, float(blurred.mean())), rtol=0.15, atol=0)
    assert 3 < blurred.mean() < 5
    assert sharp.max() > 3 * sharp.min()


def test_bins_that_no_filter_reads_are_unchanged() -> None:
    spec = profile("r9y9-22k")  # 125 to 7600 Hz
    magnitude = torch.rand(1, spec.n_fft // 2 + 1, 4) + 0.1
    imposed = MelInverse(spec).impose(torch.full((1, spec.n_mels, 4), -1.0), magnitude)
    unread = spec.filterbank().sum(0) == 0
    assert 100 < unread.sum() < 200
    assert torch.equal(imposed[:, unread], magnitude[:, unread])
    assert not torch.isclose(imposed[:, ~unread], magnitude[:, ~unread]).any()


@pytest.mark.parametrize("name", SPECS)
def test_a_sound_gets_the_mel(name: str) -> None:
    spec = profile(name)
    samples, mel = sound_and_mel(spec)
    projected = MelProjection(spec)(samples, mel, iterations=8)
    assert projected.shape == samples.shape
    before, after = (
        log_error(spec, LogMel(spec)(x)[..., : mel.shape[-1]], mel[..., : spec.frames(x.shape[-1])])
        for x in (samples, projected)
    )
    assert after < 0.25 < 0.5 < before


def test_silence_stays_silent_and_its_gradient_is_finite() -> None:
    spec = profile("bigvgan-24k")
    samples = torch.zeros(1, 10 * spec.hop_length, requires_grad=True)
    mel = torch.full((1, spec.n_mels, 10), float(np.log(1e-5)))
    projected = MelProjection(spec)(samples, mel, iterations=1)
    projected.square().sum().backward()
    assert samples.grad is not None
    assert torch.isfinite(samples.grad).all()
    assert projected.detach().abs().max() < 1e-3


@pytest.mark.parametrize("iterations", [0, 1, 3])
@pytest.mark.parametrize("spec", [TINY, CENTRED_SHORT_WINDOW], ids=["uncentred", "centred"])
def test_the_projections_context_is_the_one_measured(spec: MelSpec, iterations: int) -> None:
    projection = MelProjection(spec).double()
    context, hop = projection.context(iterations), spec.hop_length
    frames = context.receptive_field + 4
    target = context.left + 2
    samples = torch.randn(1, frames * hop, dtype=torch.float64, requires_grad=True)
    mel = torch.randn(1, spec.n_mels, frames, dtype=torch.float64, requires_grad=True)
    output = projection(samples, mel, iterations=iterations)[:, target * hop : (target + 1) * hop]
    of_samples, of_mel = torch.autograd.grad((output * torch.randn_like(output)).sum(), (samples, mel))

    read = of_samples[0].nonzero().flatten() - target * hop
    first, last = projection.samples_read(iterations)
    # A window of an even length is 0 at its first sample only, so the bounds are exact.
    assert (int(read.min()), int(read.max())) == (first, last)
    assert (-(first // hop), last // hop) == (context.left, context.right)
    read_mel = of_mel[0].abs().sum(0).nonzero().flatten() - target
    reach = projection.istft.context
    for _ in range(iterations):
        reach = reach + griffin_lim_context(projection.istft)
    assert (-int(read_mel.min()), int(read_mel.max())) == (reach.left, reach.right)


def test_padding_does_not_reach_an_items_sound() -> None:
    projection = MelProjection(TINY).double()
    samples = torch.randn(1, 12 * TINY.hop_length, dtype=torch.float64)
    mel = torch.randn(1, TINY.n_mels, 12, dtype=torch.float64)
    mask = torch.arange(12)[None, None] < 7
    short = projection(samples[:, : 7 * TINY.hop_length], mel[..., :7], iterations=2)
    masked = samples.clone()
    masked[:, 7 * TINY.hop_length :] = 0
    long = projection(masked, mel, mask, iterations=2)
    torch.testing.assert_close(long[:, : 7 * TINY.hop_length], short, rtol=0, atol=1e-12)
    assert not long[:, 7 * TINY.hop_length :].any()


def updated(magnitude: Tensor, spec: MelSpec, mel: Tensor, updates: int) -> Tensor:
    """The updates by whole matrices, as the paper writes them."""
    filters = torch.tensor(spec.filterbank(), dtype=torch.float32).double()
    weights = filters.t() / filters.sum(0)[:, None].clamp(min=1e-12)
    linear = spec.to_linear(mel) * MelInverse(spec).scale
    for _ in range(updates):
        magnitude = magnitude * (weights @ (linear / (filters @ magnitude).clamp(min=1e-12)))
    return torch.where(filters.sum(0)[:, None] > 0, magnitude, 0)


@pytest.mark.parametrize("name", SPECS)
def test_block_by_block_the_filters_give_what_their_whole_matrix_gives(name: str) -> None:
    spec = profile(name)
    mel = sound_and_mel(spec)[1].double()
    expected = updated(torch.ones(1, spec.n_fft // 2 + 1, mel.shape[-1]).double(), spec, mel, updates=10)
    inverse = MelInverse(spec)
    torch.testing.assert_close(inverse.double()(mel), expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(inverse.float()(mel.float()).double(), expected, rtol=1e-3, atol=1e-3)

    own = torch.rand_like(expected) + 0.1
    imposed = inverse.double().impose(mel, own)
    read = expected > 0
    torch.testing.assert_close(imposed[read], updated(own, spec, mel, updates=3)[read], rtol=1e-10, atol=0)
    assert torch.equal(imposed[~read], own[~read])


def test_an_iteration_is_a_projection_with_the_mel_imposed_again() -> None:
    """Written out in complex numbers, with whole matrices and torch's own transforms."""
    spec = profile("vocos-24k")  # centred, so torch.istft inverts it
    samples, mel = (x.double() for x in sound_and_mel(spec))
    projection = MelProjection(spec).double()
    magnitude, spectrum = projection.impose(projection.istft.analyse(samples), mel)
    found = projection.iterate(magnitude, spectrum, 3)

    filters = torch.tensor(spec.filterbank(), dtype=torch.float32).double()
    read = filters.sum(0)[:, None] > 0
    goal = spec.from_linear(filters @ magnitude)
    previous = torch.zeros_like(spectrum)
    for step in range(3):
        consistent = projection.istft.analyse(projection.istft(spectrum))
        ahead = consistent - (0.5 / 1.5) * previous if step else consistent
        previous = consistent
        own = (ahead.abs().square() + 1e-10).sqrt()
        spectrum = ahead / own * torch.where(read, updated(own, spec, goal, updates=1), magnitude)
    torch.testing.assert_close(found, spectrum, rtol=0, atol=1e-9 * float(spectrum.abs().max()))


def test_built_on_the_meta_device_its_constants_are_there() -> None:
    with torch.device("meta"):
        inverse = MelInverse(TINY)
    assert torch.equal(inverse.filters, MelInverse(TINY).filters)
    assert not inverse.state_dict()
