"""The source stage of a vocoder: what follows from a mel by arithmetic and pitch, before any network of its own."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from wavegen.blocks import Context, masked
from wavegen.mel import MelSpec
from wavegen.source import ShapedSource, SourceState
from wavegen.vocoders._frames import count, cut, joined
from wavegen.vocoders._spoken import Features, Spoken, SpokenStage, StageParts

SOURCES = 2  # the periodic and the aperiodic one


class StageState(NamedTuple):
    """State of a source stage's stream.

    Attributes:
        network: state of the pitch network.
        frames: frames that the shaped source still reads.
        first_frame: index in the utterance of the first of them.
        source: the state of the shaped source: the phase and the memory of its filters.
    """

    network: Any
    frames: Spoken
    first_frame: Tensor
    source: SourceState


class SourceStage(SpokenStage):
    """Mel to pitch and shaped source::

        mel ─ inverse filters ─┬─ pitch network ─ F0, voicing ─┬─ pulses and noise ─┐
                               └─ linear prediction ───────────┼──── filter ────────┴─ two sources
                               magnitude                      pitch

    Magnitude and pitch have a finite *context*. The phase of the pulses and the memory of the filter run on without
    end: they are *state*, carried from frame to frame.

    Args:
        mel, network: those of ``SpokenStage``.
    """

    def _read(self, mel: MelSpec) -> None:
        super()._read(mel)
        centre = mel.n_fft / 2 - mel.left_padding
        self.shaped = ShapedSource(mel.window(), mel.hop_length, mel.sample_rate_hz, centre=centre)

    @property
    def look_ahead(self) -> int:
        """Frames that the shaped source reads after a frame."""
        return self.shaped.context.right

    def frames_read(self, first_sample: int, last_sample: int) -> Context:
        """Mel frames read around a frame to compute samples counted from its start, given the state before them."""
        return self.network.context + self.shaped.frames_read(first_sample, last_sample)

    def forward(
        self,
        mel: Tensor,
        mask: Tensor | None,
        seeds: Tensor,
        f0: Tensor | None = None,
        *,
        parts: StageParts | None = None,
    ) -> Features:
        """Compute whole utterances; arguments as in ``SpokenStage``, with the seeds of the noise."""
        spoken = self.spoken(mel, mask, f0, parts=parts)
        shaped = self.shaped if parts is None else parts.shaped
        samples = shaped.whole(spoken.magnitude, spoken.pitch, seeds)
        return Features(spoken, masked(self._as_frames(samples), mask))

    def initial_state(self, seeds: Tensor) -> StageState:
        """State before the first frame; ``seeds`` is int64 ``[batch]``."""
        network, frames = super().initial_state(seeds)
        return StageState(network, frames, torch.tensor(0), self.shaped.initial_state(seeds))

    def no_features(self, batch: int) -> Features:
        """The features of no frames."""
        spoken = self._no_frames(batch)
        return Features(spoken, spoken.mel.new_zeros(batch, SOURCES * self.mel.hop_length, 0))

    def step(
        self,
        mel: Tensor,
        state: StageState,
        f0: Tensor | None = None,
        *,
        ended: bool = False,
        parts: StageParts | None = None,
    ) -> tuple[Features, StageState]:
        """As in ``SpokenStage``."""
        spoken, network = self.next_spoken(mel, state.network, f0, parts=parts)
        frames = joined(state.frames, spoken)

        first, done = int(state.first_frame), int(state.source.samples_done) // self.mel.hop_length
        ready = first + count(frames) - (0 if ended else self.look_ahead)
        if ready <= done:
            return self.no_features(len(mel)), state._replace(network=network, frames=frames)
        shaped = self.shaped if parts is None else parts.shaped
        samples, source = shaped(frames.magnitude, frames.pitch, state.source, first_frame=first, end=ready)
        features = Features(cut(frames, done - first, ready - first), self._as_frames(samples))
        unneeded = max(0, ready - self.shaped.context.left - first)
        state = StageState(network, cut(frames, unneeded, None), state.first_frame + unneeded, source)
        return features, state

    def _as_frames(self, samples: Tensor) -> Tensor:
        """``[batch, 2, frames * hop_length]`` to ``[batch, 2 * hop_length, frames]``."""
        return samples.unflatten(2, (-1, self.mel.hop_length)).transpose(2, 3).flatten(1, 2)
