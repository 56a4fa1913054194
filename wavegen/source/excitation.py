"""Excitation of a voice: a band-limited pulse train that follows F0, and filters that share the band with noise."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from wavegen.source import compiled
from wavegen.source.compiled import compiled_code_runs

# The phase is counted in whole units of 2^-48 cycles, because sums of integers do not depend on how they are cut.
UNITS_PER_CYCLE = 1 << 48


class PulseState(NamedTuple):
    """State of a pulse train.

    Attributes:
        phase: position within the period before the next sample, in cycles, float64 ``[batch]``.
    """

    phase: Tensor


def highest_harmonic_hz(sample_rate_hz: float) -> float:
    """The usual limit of the harmonics, just below half the sample rate."""
    return 0.49 * sample_rate_hz


def initial_pulse_state(batch: int, device: torch.device | str = "cpu") -> PulseState:
    """The state before the first sample."""
    return PulseState(torch.zeros(batch, dtype=torch.float64, device=device))


def pulse_train(
    f0_hz: Tensor, sample_rate_hz: int, state: PulseState, *, highest_hz: float | None = None
) -> tuple[Tensor, PulseState]:
    """Pulses at the fundamental frequency, as a sum of all harmonics up to a limit.

    With the phase φ (in radians, the running sum of the frequency) and K harmonics of equal amplitude the sum has a
    closed form, the Dirichlet kernel::

        Σ cos(kφ) = (sin((2K+1) φ/2) / sin(φ/2) - 1) / 2,   k = 1…K

    Its power is K/2, so it is scaled by ``sqrt(2/K)`` to unit power. A train that is cut anywhere is the same train,
    bit for bit. Gradients take the phase before each sample as given.

    Args:
        f0_hz: fundamental frequency of every sample, ``[batch, samples]``; more than 0.
        sample_rate_hz: sample rate.
        state: the running phase, which has no finite context: it is carried, not recomputed.
        highest_hz: limit of the harmonics; just below half the sample rate by default.

    Returns:
        ``[batch, samples]`` in the dtype of ``f0_hz``, and the next state.
    """
    f0 = f0_hz.double()
    if compiled_code_runs(f0) and f0.shape[1]:
        highest = highest_hz or highest_harmonic_hz(sample_rate_hz)
        before = (state.phase * UNITS_PER_CYCLE).round().long()
        pulses, units = compiled.pulse_train(f0, before, UNITS_PER_CYCLE, sample_rate_hz, highest)
        return pulses.to(f0_hz.dtype), PulseState(units.double() / UNITS_PER_CYCLE)
    advance = f0 / sample_rate_hz
    phase = running_phase(advance.detach(), state)
    last = phase[:, -1] if phase.shape[1] else state.phase
    if advance.requires_grad:
        phase = phase + (advance - advance.detach())
    twice = ((highest_hz or highest_harmonic_hz(sample_rate_hz)) / f0).floor().clamp(min=1) * 2
    half = math.pi * phase.clamp(3e-8, 1 - 3e-8)  # at a pulse, sin(φ/2) is 0; there the quotient is still 2K + 1
    kernel = ((twice + 1) * half).sin() / half.sin()
    pulses = (kernel - 1) * twice.rsqrt()
    return pulses.to(f0_hz.dtype), PulseState(last)


def running_phase(advance: Tensor, state: PulseState) -> Tensor:
    """The phase of every sample, float64 ``[batch, samples]`` in 0…1, by what each one advances it in cycles."""
    before = (state.phase * UNITS_PER_CYCLE).round().long()
    units = before[:, None] + torch.cumsum((advance * UNITS_PER_CYCLE).round().long(), dim=1)
    units.bitwise_and_(UNITS_PER_CYCLE - 1)
    return units.double() / UNITS_PER_CYCLE


def crossover_filters(sample_rate_hz: int, crossover_hz: float, width_hz: float, reach: int) -> tuple[Tensor, Tensor]:
    """Two linear-phase filters that share the band: the pulses below the crossover, the noise above it.

    Their power responses are ``w`` and ``1 - w`` with the logistic function ``w(f) = 1 / (1 + exp((f - crossover) /
    width))``, so that the sum of two uncorrelated signals of equal spectra keeps its spectrum.

    Args:
        sample_rate_hz: sample rate.
        crossover_hz: frequency at which both have half the power.
        width_hz: width of the logistic function.
        reach: taps before and after the middle one.

    Returns:
        low and high filter, float64 ``[2 * reach + 1]`` each.
    """
    size = 16 * (2 * reach + 1)  # far more points than taps, so that the response is not folded in time
    frequency = torch.fft.rfftfreq(size, 1 / sample_rate_hz, dtype=torch.float64)
    low_power = torch.sigmoid((crossover_hz - frequency) / width_hz)
    window = torch.hann_window(2 * reach + 3, periodic=False, dtype=torch.float64)[1:-1]
    low, high = (
        torch.fft.irfft(power.sqrt(), n=size).roll(reach)[: 2 * reach + 1] * window
        for power in (low_power, 1 - low_power)
    )
    return low, high
