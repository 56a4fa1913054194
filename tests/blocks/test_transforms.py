"""Reflection against torch's own, and the magnitude of complex spectra."""

import pytest
import torch
import torch.nn.functional as F
from support.messages import Messages

from wavegen.blocks import complex_magnitude, overlap_add, reflect_pad, stft
from wavegen.errors import ConfigError


@pytest.mark.parametrize("padding", [(0, 0), (3, 3), (0, 5), (4, 1)])
def test_reflection_is_torchs_own(padding: tuple[int, int]) -> None:
    x = torch.randn(2, 3, 6)
    assert torch.equal(reflect_pad(x, padding), F.pad(x, padding, mode="reflect"))
    assert torch.equal(reflect_pad(x, 2), F.pad(x, (2, 2), mode="reflect"))
    assert torch.equal(reflect_pad(x[0, 0], 2), F.pad(x, (2, 2), mode="reflect")[0, 0])


@pytest.mark.parametrize("padding", [4, (0, 4), (4, 0)])
def test_a_signal_that_is_too_short_to_mirror_is_refused(padding: int | tuple[int, int], messages: Messages) -> None:
    assert reflect_pad(torch.zeros(1, 5), padding).shape[-1] in (9, 13)
    with messages.refused(ConfigError):
        reflect_pad(torch.zeros(1, 4), padding)


def test_the_magnitude_is_the_absolute_value_but_for_the_smallest_power() -> None:
    spectrum = torch.randn(2, 5, 7, dtype=torch.complex128)
    torch.testing.assert_close(complex_magnitude(spectrum, 0.0), spectrum.abs())
    torch.testing.assert_close(complex_magnitude(spectrum, 0.25), (spectrum.abs() ** 2 + 0.25).sqrt())


def test_the_logarithm_of_silence_and_its_gradient_are_finite() -> None:
    silence = torch.zeros(3, dtype=torch.complex64, requires_grad=True)
    value = complex_magnitude(silence, 1e-10).log()
    value.sum().backward()
    assert value.isfinite().all()
    assert silence.grad is not None
    assert torch.equal(silence.grad, torch.zeros(3, dtype=torch.complex64))


@pytest.mark.parametrize(("n_fft", "hop"), [(16, 4), (16, 6), (15, 5), (12, 12)])
def test_the_stft_and_its_gradient_are_torchs_own(n_fft: int, hop: int) -> None:
    window = torch.rand(n_fft, dtype=torch.float64)
    samples = torch.randn(2, 59, dtype=torch.float64, requires_grad=True)  # the last frame ends before the signal does
    found = stft(samples, window, hop)
    expected = torch.stft(samples, n_fft, hop, window=window, center=False, return_complex=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    weights = torch.randn_like(expected)
    gradients = [torch.autograd.grad((x * weights).real.sum(), samples)[0] for x in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("length", "hop"), [(16, 4), (14, 4), (4, 4)])
def test_overlap_add_and_its_gradient_are_those_of_fold(length: int, hop: int) -> None:
    frames = torch.randn(2, 5, length, dtype=torch.float64, requires_grad=True)
    size = (1, 4 * hop + length)
    expected = F.fold(frames.mT, size, kernel_size=(1, length), stride=(1, hop))[:, 0, 0]
    torch.testing.assert_close(overlap_add(frames, hop), expected, rtol=0, atol=1e-12)
    weights = torch.randn_like(expected)
    gradients = [torch.autograd.grad((x * weights).sum(), frames)[0] for x in (overlap_add(frames, hop), expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


def test_the_gradient_of_the_magnitude_is_its_derivative() -> None:
    spectrum = torch.randn(2, 5, 7, dtype=torch.complex128, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: complex_magnitude(x, 0.25), spectrum)
