"""The shaped source in compiled code."""

import copy

import numpy as np
import torch
from torch import Tensor

from wavegen.engines.simd import LANES
from wavegen.engines.spectral.excitation import Scratch, Voice
from wavegen.engines.spectral.filters import LARGEST_ORDER
from wavegen.engines.spectral.functions import Functions
from wavegen.engines.spectral.predictors import Prediction
from wavegen.engines.spectral.workspace import Workspace
from wavegen.noise import noise_streams
from wavegen.source import Pitch, ShapedSource, SourceState
from wavegen.source.excitation import UNITS_PER_CYCLE, PulseState, highest_harmonic_hz
from wavegen.source.linear_prediction import LEAST_ERROR, LEAST_FLOOR, SMALLEST_SCALE, SPLITTER
from wavegen.source.shaped import FINE_STEPS, HIGHEST_F0_HZ, LEAST_WEIGHT, LOWEST_F0_HZ, VOICING_STEEPNESS

PIECE_FRAMES = 256


class CompiledSource(ShapedSource):
    """Computes what a float32 ``ShapedSource`` of order 32 or less does; made by ``of``."""

    _functions: Functions
    _voice: Voice
    _constants: Prediction
    _lags: Tensor
    _workspace: Workspace

    @classmethod
    def of(cls, shaped: ShapedSource, functions: Functions) -> "CompiledSource":
        """The same source, which shares all constants."""
        other = copy.copy(shaped)
        other.__class__ = cls
        assert isinstance(other, cls)
        other._functions, other._workspace = functions, Workspace()
        prediction, rate = shaped.prediction, float(shaped.sample_rate_hz)
        other._voice = Voice(
            shaped.hop_length, float(shaped.centre), VOICING_STEEPNESS, LOWEST_F0_HZ, HIGHEST_F0_HZ,
            LEAST_WEIGHT, FINE_STEPS, rate,
            highest_harmonic_hz(rate), float(UNITS_PER_CYCLE), shaped.low.numpy(), shaped.high.numpy(),
        )  # fmt: skip
        other._constants = Prediction(
            np.array(prediction.positions), prediction.lag_window[:, 0].double().numpy(), prediction.noise_floor,
            SPLITTER, prediction.window_energy, LEAST_FLOOR, LEAST_ERROR, SMALLEST_SCALE,
        )  # fmt: skip
        other._lags = prediction.cosines.double().t()
        return other

    def _compute(
        self, magnitude: Tensor, pitch: Pitch, before: SourceState, start: int, stop: int, first_frame: int
    ) -> tuple[Tensor, SourceState]:
        # In pieces, because arrays of whole utterances would have to be asked for, and given back, every time.
        pieces, state, length = [], before, PIECE_FRAMES * self.hop_length
        for begin in range(start, stop, length) or (start,):
            end = min(begin + length, stop)
            samples, state = self._piece(magnitude, pitch, state, begin, end, first_frame)
            pieces.append(samples)
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=-1), state

    def _piece(
        self, magnitude: Tensor, pitch: Pitch, before: SourceState, start: int, stop: int, first_frame: int
    ) -> tuple[Tensor, SourceState]:
        batch, order, count = len(magnitude), self.prediction.order, stop - start
        samples = torch.empty(batch, 2, LARGEST_ORDER + count)
        samples[..., : LARGEST_ORDER - order] = 0
        samples[..., LARGEST_ORDER - order : LARGEST_ORDER] = before.memory
        excitation = samples[..., LARGEST_ORDER:]
        phase, pulses = self._excite(excitation, pitch, before, start, first_frame)
        coefficients, scale = self._predict(magnitude, start, stop, first_frame)
        length = self.prediction.sub_frame_length
        self._functions.all_pole(samples.view(-1).numpy(), length, coefficients.view(-1).numpy(), scale.numpy())
        memory = samples[..., LARGEST_ORDER + count - order :]
        return excitation, SourceState(PulseState(phase), pulses, memory, torch.full((), stop), before.seeds)

    def _excite(
        self, excitation: Tensor, pitch: Pitch, before: SourceState, start: int, first_frame: int
    ) -> tuple[Tensor, Tensor]:
        """Write both excitations ``[batch, 2, samples]``; returns the phase and the pulses to keep."""
        batch, _, count = excitation.shape
        total, known = count + 2 * self.reach, before.pulses.shape[1]
        pulses = torch.zeros(batch, total + LANES)
        pulses[:, :known] = before.pulses
        phase = before.pulse.phase.clone()
        room = self._workspace
        scratch = Scratch(
            frames=room.empty("frames", 2, pitch.f0_hz.shape[-1], dtype=torch.float64).numpy(),
            f0=room.empty("f0", 1, total, dtype=torch.float64).numpy(),
            pulses=room.empty("pulses", 1, total, dtype=torch.float64).numpy(),
            phase=room.empty("phase", 1, 1 + total, dtype=torch.int64).numpy(),
            noise=room.empty("noise", 1, 2, total + LANES).numpy(),  # the last vector is for samples that are dropped
            filtered=room.empty("filtered", 2, count + LANES).numpy(),
            voiced=room.empty("voiced", count).numpy(),
        )
        f0_hz, voicing = (part[:, 0].contiguous().numpy() for part in pitch)
        streams = noise_streams(before.seeds, 2).numpy()
        self._functions.excite(
            self._voice, f0_hz, voicing, first_frame, start, phase.numpy(), streams, known, pulses.numpy(), scratch,
            excitation.numpy(),
        )  # fmt: skip
        return phase, pulses[:, count:total]

    def _predict(self, magnitude: Tensor, start: int, stop: int, first_frame: int) -> tuple[Tensor, Tensor]:
        """Coefficients ``[batch, sub-frames, 2 * LARGEST_ORDER]`` and scales ``[batch, sub-frames]``."""
        hop, per_frame, context = self.hop_length, self.prediction.sub_frames, self.prediction.context
        first = max(start // hop - context.left, first_frame)
        last = min(stop // hop + context.right, first_frame + magnitude.shape[-1])
        wanted, order = (stop - start) // hop * per_frame, self.prediction.order
        near = magnitude[..., first - first_frame : last - first_frame].mT
        power = near.to(torch.float64, memory_format=torch.contiguous_format).square()
        lags = torch.bmm(power, self._lags.expand(len(power), -1, -1)).mT.contiguous()
        room, sub_frames = self._workspace, lags.shape[-1] * per_frame
        coefficients = room.zeros("coefficients", len(lags), wanted, 2 * LARGEST_ORDER)
        scale = room.empty("scale", len(lags), wanted)
        self._functions.predict(
            self._constants, lags.numpy(),
            room.empty("at_sub_frames", *lags.shape[:2], sub_frames, dtype=torch.float64).numpy(),
            room.empty("solved", len(lags), order, sub_frames, dtype=torch.float64).numpy(),
            room.empty("error", len(lags), sub_frames, dtype=torch.float64).numpy(),
            (start // hop - first) * per_frame, coefficients.numpy(), scale.numpy(),
        )  # fmt: skip
        return coefficients, scale
