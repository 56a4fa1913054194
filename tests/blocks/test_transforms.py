"""Reflection against torch's own, and the magnitude of complex spectra."""

import pytest
import torch
import torch.nn.functional as F
from support.messages import Messages

from wavegen.blocks import complex_magnitude, reflect_pad
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
