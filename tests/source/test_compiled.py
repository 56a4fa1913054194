"""The compiled kernels against torch; filters and Levinson's recursion are tested where they are used."""

import torch

from wavegen.noise import noise_streams, uniform_noise
from wavegen.source import _compiled
from wavegen.source.excitation import initial_pulse_state, pulse_train


def test_noise_is_the_same_bit_for_bit() -> None:
    seeds = torch.tensor([0, -1, 7, 2**62])
    for start in (-64, 0, 2**40):
        found = _compiled.uniform_noise(noise_streams(seeds, 2), start, 1001)
        assert torch.equal(found, uniform_noise(seeds, start, 1001, 2))


def test_pulses_are_the_same_up_to_rounding_and_their_phase_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    f0 = 40 + 1600 * torch.rand(2, 24000, generator=generator, dtype=torch.float64)
    for rate in (8000, 24000, 48000):
        expected, after = pulse_train(f0, rate, initial_pulse_state(2))
        with torch.no_grad():
            found, compiled_after = pulse_train(f0, rate, initial_pulse_state(2))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
        assert torch.equal(compiled_after.phase, after.phase)
