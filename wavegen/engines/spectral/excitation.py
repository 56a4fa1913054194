"""Pulses and noise of a shaped source, sample by sample, as compiled code."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from wavegen.engines.simd import LANES, load, splat, store
from wavegen.source import _kernels

_NOISES = 2  # above the crossover, and where a voice is not voiced
_ROUND = _kernels.ROUND  # added and subtracted, it rounds to an integer
_ROOT_TWELVE = np.float32(12**0.5)
_HALF, _ZERO, _ONE = np.float32(0.5), np.float32(0), np.float32(1)

_uniform_noise = njit(_kernels.uniform_noise)
_pulse_train = njit(fastmath={"contract"})(_kernels.pulse_train)


class Voice(NamedTuple):
    """What does not change from sample to sample.

    Attributes:
        hop_length: samples of a frame.
        centre: centre of a frame's window, in samples from the start of its own samples.
        steepness: slope of the change from noise to pulses around a voicing of one half.
        lowest_hz, highest_hz: limits of F0.
        least_weight: weight of a frame that is not voiced.
        fine_steps: steps to which frames are rounded, so that rounding errors do not add up in the phase.
        sample_rate_hz: sample rate.
        harmonics_hz: limit of the harmonics.
        units: units of a cycle in which the phase is counted.
        low, high: the crossover filters, float32 ``[2 * reach + 1]``.
    """

    hop_length: int
    centre: float
    steepness: float
    lowest_hz: float
    highest_hz: float
    least_weight: float
    fine_steps: float
    sample_rate_hz: float
    harmonics_hz: float
    units: float
    low: np.ndarray
    high: np.ndarray


class Scratch(NamedTuple):
    """Room for one item: values of frames, and of the samples with ``reach`` more on both sides.

    Attributes:
        frames: float64 ``[2, frames]``.
        f0, pulses: float64 ``[1, samples + 2 * reach]``.
        phase: int64 ``[1, 1 + samples + 2 * reach]``.
        noise: float32 ``[1, 2, samples + 2 * reach + LANES]``.
        filtered: float32 ``[2, samples + LANES]``.
        voiced: float32 ``[samples]``.
    """

    frames: np.ndarray
    f0: np.ndarray
    pulses: np.ndarray
    phase: np.ndarray
    noise: np.ndarray
    filtered: np.ndarray
    voiced: np.ndarray


@njit(fastmath={"contract"})
def excite(
    voice: Voice,
    f0_hz: Any,
    voicing: Any,
    first_frame: int,
    start: int,
    phase: Any,
    streams: Any,
    known: int,
    pulses: Any,
    scratch: Scratch,
    excitation: Any,
) -> None:
    """Both excitations of a batch.

    Args:
        voice: the constants.
        f0_hz, voicing: float32 ``[batch, frames]``.
        first_frame: index in the utterance of the first of them.
        start: index of the first sample.
        phase: float64 ``[batch]``, the phase in cycles after the known pulses; becomes that after all pulses.
        streams: random streams of both noises, int64 ``[batch, 2]``.
        known: number of pulses that are known.
        pulses: float32 ``[batch, samples + 2 * reach + LANES]``: the known ones, then the resulting ones.
        scratch: room.
        excitation: float32 ``[batch, 2, samples]``, the result.
    """
    batch, _, samples = excitation.shape
    reach = len(voice.low) // 2
    total = samples + 2 * reach
    for item in range(batch):
        _at_frames(voice, f0_hz[item], voicing[item], scratch.frames)
        for i in range(total):
            weighted, weight = _at_sample(voice, scratch.frames, start - reach + i, first_frame)
            scratch.f0[0, i] = weighted / weight
            if reach <= i < reach + samples:
                scratch.voiced[i - reach] = min(max(weight - voice.least_weight, 0.0), 1.0)
        for i in range(known, total):
            scratch.f0[0, i] = np.exp(scratch.f0[0, i])

        # The filters reach as far to both sides: the pulses run ahead, and noise is known at every position.
        scratch.phase[0, known] = np.int64((phase[item] * voice.units + _ROUND) - _ROUND)
        _pulse_train(
            scratch.f0[:, known:], scratch.phase[:, known:], voice.units, voice.sample_rate_hz, voice.harmonics_hz,
            scratch.pulses[:, known:],
        )  # fmt: skip
        phase[item] = scratch.phase[0, total] / voice.units
        for i in range(known, total):
            pulses[item, i] = scratch.pulses[0, i]
        _uniform_noise(streams[item : item + 1], start - reach, scratch.noise[:, :, :total])
        for draw in range(_NOISES):
            for i in range(total):
                scratch.noise[0, draw, i] = (scratch.noise[0, draw, i] - _HALF) * _ROOT_TWELVE

        _convolve(pulses[item], voice.low, scratch.filtered[0], samples)
        _convolve(scratch.noise[0, 0], voice.high, scratch.filtered[1], samples)
        for t in range(samples):
            voiced = scratch.voiced[t]
            pulsed = np.sqrt(voiced)
            noise = np.sqrt(_ONE - voiced) * scratch.noise[0, 1, reach + t]
            excitation[item, 0, t] = pulsed * scratch.filtered[0, t]
            excitation[item, 1, t] = pulsed * scratch.filtered[1, t] + noise


@njit(fastmath={"contract"})
def _at_frames(voice: Voice, f0_hz: Any, voicing: Any, frames: Any) -> None:
    """The weight of each frame, and its weighted log-F0."""
    for k in range(len(f0_hz)):
        gate = 1 / (1 + np.exp((0.5 - np.float64(voicing[k])) * voice.steepness))
        f0 = min(max(np.float64(f0_hz[k]), voice.lowest_hz), voice.highest_hz)
        weight = _in_steps(gate, voice.fine_steps) + voice.least_weight
        frames[0, k], frames[1, k] = weight * _in_steps(np.log(f0), voice.fine_steps), weight


@njit(forceinline=True)
def _in_steps(x: float, steps: float) -> float:
    return ((x * steps + _ROUND) - _ROUND) / steps


@njit(forceinline=True)
def _at_sample(voice: Voice, frames: Any, sample: int, first_frame: int) -> Any:
    """Both rows of ``frames`` at a sample, interpolated; beyond the ends the first and last frame hold."""
    whole = np.int64(np.ceil(voice.centre))
    frame = (sample - whole) // voice.hop_length
    share = (sample - whole - frame * voice.hop_length + (whole - voice.centre)) / voice.hop_length
    last = frames.shape[1] - 1
    before = min(max(frame - first_frame, 0), last)
    after = min(max(frame + 1 - first_frame, 0), last)
    weighted = frames[0, before] + share * (frames[0, after] - frames[0, before])
    return weighted, frames[1, before] + share * (frames[1, after] - frames[1, before])


@njit
def _convolve(x: Any, taps: Any, result: Any, samples: int) -> None:
    """``result[t] = Σ taps[k] x[t + k]``; writes whole vectors."""
    for t in range(0, samples, LANES):
        even, odd = splat(_ZERO), splat(_ZERO)  # two sums, because each addition waits for the one before
        for k in range(0, len(taps) - 1, 2):
            even = even + splat(taps[k]) * load(x, t + k)
            odd = odd + splat(taps[k + 1]) * load(x, t + k + 1)
        if len(taps) % 2:
            even = even + splat(taps[len(taps) - 1]) * load(x, t + len(taps) - 1)
        store(result, t, even + odd)
