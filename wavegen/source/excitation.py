"""Excitation of a voice: a band-limited pulse train that follows F0."""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class PulseState(NamedTuple):
    """State of a pulse train.

    Attributes:
        phase: position within the period before the next sample, in cycles, float64 ``[batch]``.
    """

    phase: Tensor


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

    Its power is K/2, so it is scaled by ``sqrt(2/K)`` to unit power.

    Args:
        f0_hz: fundamental frequency of every sample, ``[batch, samples]``; more than 0.
        sample_rate_hz: sample rate.
        state: the running phase, which has no finite context: it is carried, not recomputed.
        highest_hz: limit of the harmonics; just below half the sample rate by default.

    Returns:
        ``[batch, samples]`` in the dtype of ``f0_hz``, and the next state.
    """
    f0 = f0_hz.double()
    cycles = state.phase[:, None] + torch.cumsum(f0 / sample_rate_hz, dim=1)
    phase = cycles % 1.0
    harmonics = ((highest_hz or 0.49 * sample_rate_hz) / f0).floor().clamp(min=1)
    half = math.pi * phase
    sine = half.sin()
    at_pulse = sine.abs() < 1e-7  # there the quotient has the limit 2K + 1
    kernel = torch.where(
        at_pulse, 2 * harmonics + 1, ((2 * harmonics + 1) * half).sin() / torch.where(at_pulse, 1.0, sine)
    )
    pulses = (kernel - 1) / 2 * (2 / harmonics).sqrt()
    last = phase[:, -1] if phase.shape[1] else state.phase
    return pulses.to(f0_hz.dtype), PulseState(last)
