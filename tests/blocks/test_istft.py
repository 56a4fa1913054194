"""The inverse STFT against torch's, and Griffin-Lim."""

import math

import pytest
import torch
import torch.nn.functional as F
from support.messages import Messages

from wavegen.blocks import InverseSTFT, griffin_lim
from wavegen.errors import ConfigError


@pytest.mark.parametrize(
    ("n_fft", "win", "hop", "left"), [(64, 64, 16, 24), (64, 64, 16, 32), (60, 40, 13, 30), (64, 48, 16, 24)]
)
def test_inverse_stft_inverts_and_agrees_with_torch(n_fft: int, win: int, hop: int, left: int) -> None:
    torch.manual_seed(0)
    window = F.pad(torch.hann_window(win, dtype=torch.float64), ((n_fft - win) // 2, n_fft - win - (n_fft - win) // 2))
    layer = InverseSTFT(n_fft, hop, window, left_padding=left)
    x = torch.randn(2, 9 * hop, dtype=torch.float64)
    spectrum = layer.analyse(x)
    torch.testing.assert_close(layer(spectrum), x)  # all of it, the first and last samples too
    if left == n_fft // 2:
        theirs = torch.istft(spectrum, n_fft, hop, window=window, center=True, length=8 * hop)
        torch.testing.assert_close(layer(spectrum)[:, : 8 * hop], theirs)


def test_the_tails_of_a_stream_are_those_of_the_signal_and_of_the_window_envelope() -> None:
    layer = InverseSTFT(64, 16, torch.hann_window(64, dtype=torch.float64), left_padding=24)
    spectrum = layer.analyse(torch.randn(2, 3 * 16, dtype=torch.float64))
    samples, state = layer.step(spectrum[..., :1], layer.initial_state(2))
    assert samples.shape == (2, 0)  # the first 24 samples lie before the signal, and a frame gives 16
    assert int(state.to_cut) == 24 - 16
    frame = torch.fft.irfft(spectrum[..., 0], n=64) * layer.window
    torch.testing.assert_close(state.signal_tail, frame[:, 16:])
    torch.testing.assert_close(state.envelope_tail, layer.window.square()[None, 16:])


def test_griffin_lim_approaches_a_consistent_spectrum_and_momentum_hastens_it() -> None:
    torch.manual_seed(0)
    layer = InverseSTFT(64, 16, torch.hann_window(64, dtype=torch.float64), left_padding=24)
    time = torch.arange(40 * 16) / 8000
    x = torch.stack([torch.sin(2 * math.pi * f * time) for f in (300.0, 1234.0)]).double()
    magnitude = layer.analyse(x).abs()
    start = magnitude.to(torch.complex128)

    def error(iterations: int, momentum: float) -> float:
        spectrum = griffin_lim(layer, magnitude, start, iterations=iterations, momentum=momentum)
        return float((layer.analyse(layer(spectrum)).abs() - magnitude).norm() / magnitude.norm())

    assert error(0, 0.0) > error(4, 0.0) > error(20, 0.0) > error(20, 0.99)


def test_a_left_padding_out_of_range_is_refused(messages: Messages) -> None:
    for left_padding in (-1, 50):
        with messages.refused(ConfigError):
            InverseSTFT(64, 16, torch.hann_window(64), left_padding=left_padding)
