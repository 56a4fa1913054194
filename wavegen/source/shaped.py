"""The shaped source: pulses and noise through the filter that a spectrum implies, a classical source-filter voice."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavegen.blocks import Context
from wavegen.noise import noise_streams, uniform_noise
from wavegen.source import compiled
from wavegen.source.compiled import compiled_code_runs
from wavegen.source.excitation import PulseState, crossover_filters, initial_pulse_state, pulse_train
from wavegen.source.linear_prediction import LinearPrediction, Predictor, synthesise_from_error
from wavegen.source.pitch import Pitch

CROSSOVER_HZ, CROSSOVER_WIDTH_HZ = 5000.0, 200.0
CROSSOVER_REACH_S = 64 / 24000
# The steepness of the change from noise to pulses around a voicing of one half.
VOICING_STEEPNESS = 20.0
LOWEST_F0_HZ, HIGHEST_F0_HZ = 1.0, 1600.0
LEAST_WEIGHT = 1e-4  # of a frame that is not voiced, in the interpolation of F0
FINE_STEPS = 2.0**24  # of a frame's gate and log-F0, see ``_on_fine_grid``


class SourceState(NamedTuple):
    """What a shaped source carries from one sample to the next.

    Attributes:
        pulse: phase of the pulse train.
        pulses: the last pulses, which the crossover filter still reads, ``[batch, 2 * reach]``; none before the start.
        memory: the last samples of both filtered sources, ``[batch, 2, order]``.
        samples_done: index of the next sample.
        seeds: int64 ``[batch]``.
    """

    pulse: PulseState
    pulses: Tensor
    memory: Tensor
    samples_done: Tensor
    seeds: Tensor


class ShapedSource(nn.Module):
    """Pulses where a voice is voiced, noise where it is not, through the filter of linear prediction.

    ::

        F0 ─ pulses ─ below the crossover ─ × √voicing ─────────────────────────── filter ─ periodic
        noise ─────── above the crossover ─ × √voicing ───┬─ + ─────────────────── filter ─ aperiodic
        noise ───────────────────────────── × √(1-voicing)┘

    The two noises are independent, so that the powers of all parts add up to 1 at any voicing. Sources are weighted as
    samples, before the filter, so that a pulse rings on after its frame.

    Args:
        window, hop_length, sample_rate_hz, centre: those of ``LinearPrediction``.
        order: coefficients of the filter, at most ``n_fft / 4``.
        sub_frames: filters per frame; the largest divisor of ``hop_length`` up to this number.
        crossover_hz: the frequency above which voiced frames consist of noise.
    """

    def __init__(
        self,
        window: Tensor,
        hop_length: int,
        sample_rate_hz: int,
        *,
        centre: float,
        order: int = 32,
        sub_frames: int = 4,
        crossover_hz: float = CROSSOVER_HZ,
    ) -> None:
        super().__init__()
        self.hop_length, self.sample_rate_hz, self.centre = hop_length, sample_rate_hz, centre
        divisor = max(n for n in range(1, sub_frames + 1) if hop_length % n == 0)
        self.prediction = LinearPrediction(
            window, hop_length, sample_rate_hz, centre=centre, order=min(order, len(window) // 4), sub_frames=divisor
        )
        self.reach = round(CROSSOVER_REACH_S * sample_rate_hz)
        low, high = crossover_filters(sample_rate_hz, crossover_hz, CROSSOVER_WIDTH_HZ, self.reach)
        # In float32 from the start, so that they are the same in a module that was converted and back.
        self.register_buffer("low", low.float(), persistent=False)
        self.register_buffer("high", high.float(), persistent=False)
        self.low: Tensor
        self.high: Tensor

    @property
    def context(self) -> Context:
        """Frames read around a frame to compute its samples."""
        return self.frames_read(0, self.hop_length - 1)

    def frames_read(self, first_sample: int, last_sample: int) -> Context:
        """Frames read around a frame to compute samples that are counted from its start, given the state before them.

        Filters and pitch are interpolated between frames. The crossover reads pulses before and after a sample.
        """
        hop, sub_frame = self.hop_length, self.prediction.sub_frame_length
        begin = first_sample // sub_frame * sub_frame  # within a sub-frame the filter reads all samples before
        first_pitch = math.floor((begin - self.reach - self.centre) / hop)
        last_pitch = math.ceil((last_sample + self.reach - self.centre) / hop)
        first_filter = math.floor((begin + sub_frame / 2 - self.centre) / hop)
        last_filter = math.ceil((last_sample // sub_frame * sub_frame + sub_frame / 2 - self.centre) / hop)
        return Context(max(0, -min(first_pitch, first_filter)), max(0, last_pitch, last_filter))

    def initial_state(self, seeds: Tensor) -> SourceState:
        """The state before the first sample; ``seeds`` is int64 ``[batch]``."""
        batch = len(seeds)
        return SourceState(
            pulse=initial_pulse_state(batch, self.low.device),
            pulses=self.low.new_zeros(batch, 0),
            memory=self.low.new_zeros(batch, 2, self.prediction.order),
            samples_done=torch.zeros((), dtype=torch.int64),
            seeds=seeds,
        )

    def forward(
        self, magnitude: Tensor, pitch: Pitch, state: SourceState, *, first_frame: int = 0, end: int | None = None
    ) -> tuple[Tensor, SourceState]:
        """Compute the next samples.

        Args:
            magnitude: ``[batch, n_fft / 2 + 1, frames]``, with the context of the frames to compute on both sides, or
                with the start or end of the utterance there. In a batch, frames after an item's end repeat its last.
            pitch: the pitch of these frames.
            state: the state after the samples before.
            first_frame: index in the utterance of the first given frame.
            end: index after the last frame to compute; by default after the last given one.

        Returns:
            ``[batch, 2, samples]``, the periodic and the aperiodic part, and the next state.
        """
        end = first_frame + magnitude.shape[-1] if end is None else end
        stop = end * self.hop_length
        return self._compute(magnitude, pitch, state, int(state.samples_done), stop, first_frame)

    def whole(self, magnitude: Tensor, pitch: Pitch, seeds: Tensor) -> Tensor:
        """Compute whole utterances, as ``forward`` from the initial state; a CUDA graph can record it.

        Args:
            magnitude: ``[batch, n_fft / 2 + 1, frames]``.
            pitch: the pitch of these frames.
            seeds: int64 ``[batch]``.

        Returns:
            ``[batch, 2, frames * hop_length]``.
        """
        stop = magnitude.shape[-1] * self.hop_length
        return self._compute(magnitude, pitch, self.initial_state(seeds), 0, stop, 0)[0]

    def _compute(
        self, magnitude: Tensor, pitch: Pitch, before: SourceState, start: int, stop: int, first_frame: int
    ) -> tuple[Tensor, SourceState]:
        """The samples from ``start`` to ``stop``, which the host knows without reading the state."""
        excitation, pulse, pulses = self._excitation(pitch, before, start, stop, first_frame)

        predictor = self._predictor(magnitude, start, stop, first_frame)
        samples, memory = self._synthesised(excitation, predictor, before.memory.to(magnitude))
        return samples, SourceState(pulse, pulses, memory.detach(), torch.full((), stop), before.seeds)

    def _synthesised(self, excitation: Tensor, predictor: Predictor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Filter both excitations ``[batch, 2, samples]``; returns samples of this shape, and the last ``order``."""
        # Both go through the same filters: let them be two items of one batch.
        rows = Predictor(*(part.repeat_interleave(2, dim=0) for part in predictor))
        samples, memory = synthesise_from_error(excitation.flatten(0, 1), rows, past.flatten(0, 1))
        return samples.unflatten(0, (-1, 2)), memory.unflatten(0, (-1, 2))

    def _excitation(
        self, pitch: Pitch, before: SourceState, start: int, stop: int, first_frame: int
    ) -> tuple[Tensor, PulseState, Tensor]:
        """Both excitations ``[batch, 2, samples]`` of unit power together, the phase, and the pulses to keep."""
        f0, voiced = self._at_each_sample(pitch, start, stop, first_frame, before.pulses.shape[1])
        new_pulses, pulse = pulse_train(f0, self.sample_rate_hz, before.pulse)

        # The filters reach as far to both sides: the pulses run ahead, and noise is known at every position.
        dtype = pitch.f0_hz.dtype
        pulses = torch.cat((before.pulses.to(dtype), new_pulses.to(dtype)), dim=1)
        excitation = self._mixed(pulses, voiced, before.seeds, start)
        kept = pulses[:, pulses.shape[1] - 2 * self.reach :]
        return excitation, pulse, kept.detach()

    def _at_each_sample(
        self, pitch: Pitch, start: int, stop: int, first_frame: int, skipped: int
    ) -> tuple[Tensor, Tensor]:
        """F0 from ``reach`` samples before ``start`` to as many after ``stop``, and how much of a sample is voiced.

        Returns:
            F0 in Hz, float64, without the first ``skipped`` samples; and a share for each sample from ``start`` to
            ``stop``, in the precision of the pitch.
        """
        gate = _on_fine_grid(torch.sigmoid((pitch.voicing.double() - 0.5) * VOICING_STEEPNESS))

        # Between two frames F0 is interpolated where both are voiced; otherwise it is that of the voiced one.
        log_f0 = _on_fine_grid(pitch.f0_hz.double().clamp(LOWEST_F0_HZ, HIGHEST_F0_HZ).log())
        frames = torch.cat(((gate + LEAST_WEIGHT) * log_f0, gate + LEAST_WEIGHT), dim=1)
        weighted, weight = self._at_samples(frames, start - self.reach, stop + self.reach, first_frame).unbind(1)
        f0 = (weighted[:, skipped:] / weight[:, skipped:]).exp()
        voiced = (weight[:, self.reach : self.reach + stop - start] - LEAST_WEIGHT).clamp(0, 1)
        return f0, voiced.to(pitch.f0_hz.dtype)

    def _mixed(self, pulses: Tensor, voiced: Tensor, seeds: Tensor, start: int | Tensor) -> Tensor:
        """Both excitations ``[batch, 2, samples]`` of pulses that reach further on both sides, from ``start`` on."""
        samples = voiced.shape[1]
        first, count = start - self.reach, samples + 2 * self.reach
        if compiled_code_runs(pulses):
            noises = compiled.uniform_noise(noise_streams(seeds, 2), int(first), count).to(pulses.dtype)
        else:
            noises = uniform_noise(seeds, first, count, 2, pulses.device).to(pulses.dtype)
        noises = (noises - 0.5) * math.sqrt(12)
        low, high = self._filtered(pulses, self.low), self._filtered(noises[:, 0], self.high)
        pulsed = voiced.sqrt()
        periodic = pulsed * low
        aperiodic = pulsed * high + (1 - voiced).sqrt() * noises[:, 1, self.reach : self.reach + samples]
        return torch.stack((periodic, aperiodic), dim=1)

    def _at_samples(self, x: Tensor, start: int, stop: int, first_frame: int) -> Tensor:
        """Interpolate frames ``[batch, channels, frames]`` linearly at the samples from ``start`` to ``stop``."""
        # Between the centres of two frames are ``hop_length`` samples, the same fractions of the way for all frames.
        hop, centre = self.hop_length, math.ceil(self.centre)
        share = (torch.arange(hop, device=x.device, dtype=torch.float64) + (centre - self.centre)) / hop
        first, last = (start - centre) // hop, (stop - 1 - centre) // hop
        near = torch.arange(first, last + 2, device=x.device).sub_(first_frame).clamp_(0, x.shape[-1] - 1)
        frames = x[..., near][..., None]
        samples = torch.lerp(frames[..., :-1, :], frames[..., 1:, :], share.to(x.dtype)).flatten(-2)
        skipped = start - (centre + first * hop)
        return samples[..., skipped : skipped + stop - start]

    def _filtered(self, x: Tensor, taps: Tensor) -> Tensor:
        """Filter ``[batch, samples + 2 * reach]`` to ``[batch, samples]``, whole sub-frames.

        All samples of a sub-frame are one row of a product with the taps, shifted from column to column: several times
        faster than a convolution with a single channel.
        """
        length = self.prediction.sub_frame_length
        shifted = F.pad(taps.to(x.dtype), (length - 1, length - 1)).unfold(0, length, 1).flip(1)
        return (x.unfold(1, length + 2 * self.reach, length) @ shifted).flatten(1)

    def _predictor(self, magnitude: Tensor, start: int, stop: int, first_frame: int) -> Predictor:
        """The predictors of the samples from ``start`` to ``stop``."""
        hop, per_frame = self.hop_length, self.prediction.sub_frames
        context = self.prediction.context
        first = max(start // hop - context.left, first_frame)
        last = min(stop // hop + context.right, first_frame + magnitude.shape[-1])
        predictor = self.prediction(magnitude[..., first - first_frame : last - first_frame])
        kept = slice((start // hop - first) * per_frame, (stop // hop - first) * per_frame)
        return Predictor(*(part[..., kept] for part in predictor))


def _on_fine_grid(x: Tensor) -> Tensor:
    """``x`` in steps of 2^-24, so that rounding errors, which depend on chunks, do not add up in the phase."""
    return x + ((x * FINE_STEPS).round() / FINE_STEPS - x).detach()


def hold_last(x: Tensor, mask: Tensor | None) -> Tensor:
    """Repeat each item's last real frame in the frames after its end.

    Args:
        x: ``[batch, channels, frames]``.
        mask: ``[batch, 1, frames]``, True where a frame is real; None if all are.
    """
    if mask is None:
        return x
    last = (mask[:, 0].sum(-1) - 1).clamp(min=0)
    index = torch.minimum(torch.arange(x.shape[-1], device=x.device), last[:, None])
    return x.gather(-1, index[:, None].expand(x.shape))
