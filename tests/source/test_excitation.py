"""The pulse train against a sum of cosines, in chunks, and against physics."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from wavegen.source.excitation import crossover_filters, initial_pulse_state, pulse_train

RATE = 16000


@pytest.fixture(autouse=True, params=["torch", "compiled"])
def _both_ways(request: pytest.FixtureRequest) -> Iterator[None]:
    """With gradients torch computes the pulses, otherwise compiled code."""
    with torch.set_grad_enabled(request.param == "torch"):
        yield


def gliding_f0(samples: int) -> torch.Tensor:
    return torch.linspace(90, 340, samples, dtype=torch.float64)[None].repeat(2, 1) * torch.tensor([[1.0], [1.7]])


def test_it_is_the_sum_of_all_harmonics() -> None:
    f0 = gliding_f0(2000)
    pulses, _ = pulse_train(f0, RATE, initial_pulse_state(2), highest_hz=4000)
    phase = 2 * math.pi * np.cumsum(f0.numpy() / RATE, axis=1)
    count = np.floor(4000 / f0.numpy())
    expected = sum(np.cos(k * phase) * (k <= count) for k in range(1, 45)) * np.sqrt(2 / count)
    np.testing.assert_allclose(pulses.numpy(), expected, rtol=0, atol=1e-9)


def test_its_power_is_one_and_nothing_lies_above_the_limit() -> None:
    pulses, _ = pulse_train(torch.full((1, RATE), 125.0).double(), RATE, initial_pulse_state(1), highest_hz=3000)
    assert float(pulses.square().mean()) == pytest.approx(1, rel=1e-6)
    spectrum = np.abs(np.fft.rfft(pulses[0].numpy()))
    assert spectrum[3001:].max() < 1e-6 * spectrum.max()


@pytest.mark.parametrize("chunks", [[1000], [1] * 1000, [7, 0, 500, 493]])
def test_the_running_phase_is_state(chunks: list[int]) -> None:
    f0 = gliding_f0(1000)
    whole, end = pulse_train(f0, RATE, initial_pulse_state(2))
    parts, state = [], initial_pulse_state(2)
    for part in f0.split(chunks, dim=1):
        pulses, state = pulse_train(part, RATE, state)
        parts.append(pulses)
    assert torch.equal(torch.cat(parts, 1), whole)  # bit for bit
    assert torch.equal(state.phase, end.phase)


def test_a_restarted_phase_is_seen() -> None:
    f0 = gliding_f0(1000)
    whole, _ = pulse_train(f0, RATE, initial_pulse_state(2))
    second, _ = pulse_train(f0[:, 500:], RATE, initial_pulse_state(2))
    assert (second - whole[:, 500:]).abs().max() > 1


def power_response(taps: torch.Tensor, hz: list[float], rate: int) -> np.ndarray:
    phase = 2 * math.pi * np.outer(hz, np.arange(len(taps))) / rate
    return np.abs(np.exp(-1j * phase) @ taps.numpy()) ** 2


@pytest.mark.parametrize("rate", [22050, 24000, 44100])
def test_the_crossover_filters_share_the_power(rate: int) -> None:
    low, high = crossover_filters(rate, 5000, 200, round(rate * 64 / 24000))
    hz = np.linspace(300, rate / 2 - 300, 200).tolist()
    at_low, at_high = power_response(low, hz, rate), power_response(high, hz, rate)
    np.testing.assert_allclose(at_low + at_high, 1, atol=0.03)
    np.testing.assert_allclose(at_low, 1 / (1 + np.exp((np.array(hz) - 5000) / 200)), atol=0.06)
    for taps in (low, high):
        assert power_response(taps, [5000.0], rate)[0] == pytest.approx(0.5, abs=0.02)
        torch.testing.assert_close(taps, taps.flip(0), rtol=0, atol=1e-12)  # linear phase around the middle tap


def test_what_lies_above_half_the_sample_rate_is_left_out() -> None:
    """At 8 kHz there is nothing above the crossover, so that pulses pass as they are and noise does not."""
    low, high = crossover_filters(8000, 5000, 200, 21)
    hz = np.linspace(200, 3800, 50).tolist()
    np.testing.assert_allclose(power_response(low, hz, 8000), 1, atol=0.05)
    assert power_response(high, hz, 8000).max() < 0.01
