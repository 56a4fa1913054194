"""The source stage of a vocoder: what follows from a mel by arithmetic and pitch, before any network of its own."""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wavegen.blocks import Context, masked
from wavegen.mel import MelInverse, MelSpec
from wavegen.source import Pitch, PitchNetwork, ShapedSource, SourceState, hold_last
from wavegen.vocoders._frames import count, cut, joined

SOURCES = 2  # the periodic and the aperiodic one
PITCH_CHANNELS = 2


class Spoken(NamedTuple):
    """What a mel says of each frame without any sound: all ``[batch, channels, frames]``.

    Attributes:
        mel: the mel.
        magnitude: a magnitude spectrum that has this mel.
        pitch: fundamental frequency and voicing.
    """

    mel: Tensor
    magnitude: Tensor
    pitch: Pitch


class Features(NamedTuple):
    """The output of the source stage.

    Attributes:
        spoken: mel, magnitude and pitch of each frame.
        sources: samples of the periodic and of the aperiodic source, ``[batch, 2 * hop_length, frames]``.
        corrections: what a natively streaming network has computed from the rest; else None.
    """

    spoken: Spoken
    sources: Tensor
    corrections: Tensor | None = None

    def source_samples(self) -> Tensor:
        """The two sources as samples, ``[batch, 2, frames * hop_length]``."""
        batch, channels, frames = self.sources.shape
        return self.sources.view(batch, 2, channels // 2, frames).transpose(2, 3).flatten(2)


class StageState(NamedTuple):
    """State of a source stage's stream.

    Attributes:
        network: state of the pitch network.
        frames: frames that the shaped source still reads.
        first_frame: index in the utterance of the first of them.
        source: what the shaped source carries: the phase and the memory of its filters.
    """

    network: Any
    frames: Spoken
    first_frame: Tensor
    source: SourceState


class SourceStage(nn.Module):
    """Mel to pitch and shaped source::

        mel ─ inverse filters ─┬─ pitch network ─ F0, voicing ─┬─ pulses and noise ─┐
                               └─ linear prediction ───────────┼──── filter ────────┴─ two sources
                               magnitude                      pitch

    Magnitude and pitch have a finite *context*. The phase of the pulses and the memory of the filter run on without
    end: they are *state*, carried from frame to frame.

    Args:
        mel: the mel definition.
        network: the pitch network; its weights are shared by the readers of other definitions.

    Attributes:
        pitch_shift: semitones by which F0 is raised.
    """

    def __init__(self, mel: MelSpec, network: PitchNetwork) -> None:
        super().__init__()
        self.network = network
        self.pitch_shift = 0.0
        self._read(mel)

    def for_mel(self, mel: MelSpec) -> "SourceStage":
        """This stage as a reader of another definition; it shares the pitch network."""
        other = copy.copy(self)
        other._modules = dict(self._modules)
        other._read(mel)
        like = next(self.parameters())
        for part in (other.mel_inverse, other.shaped):
            part.to(like)
        return other

    def _read(self, mel: MelSpec) -> None:
        self.mel = mel
        self.mel_inverse = MelInverse(mel)
        centre = mel.n_fft / 2 - mel.left_padding
        self.shaped = ShapedSource(mel.window(), mel.hop_length, mel.sample_rate_hz, centre=centre)

    def frames_read(self, first_sample: int, last_sample: int) -> Context:
        """Mel frames read around a frame to compute samples counted from its start, given the state before them."""
        return self.network.context + self.shaped.frames_read(first_sample, last_sample)

    def forward(self, mel: Tensor, mask: Tensor | None, seeds: Tensor, f0: Tensor | None = None) -> Features:
        """Compute whole utterances.

        Args:
            mel: ``[batch, n_mels, frames]``; zeros where the mask is False.
            mask: ``[batch, 1, frames]``, True where a frame is real; None if all are.
            seeds: int64 ``[batch]``, seeds of the noise.
            f0: fundamental frequency at the centre of each frame in Hz, ``[batch, frames]``, 0 where not voiced and NaN
                where the pitch network is to find it, as it does everywhere by default.
        """
        magnitude = self.mel_inverse(hold_last(mel, mask))
        found = self.network.pitch(magnitude, self.mel.sample_rate_hz, mask)
        pitch = self._shifted(with_given(found, f0))
        held = Pitch(*(hold_last(part, mask) for part in pitch))
        samples = self.shaped.whole(magnitude, held, seeds)
        return Features(Spoken(mel, magnitude, held), masked(self._as_frames(samples), mask))

    def initial_state(self, seeds: Tensor) -> StageState:
        """State before the first frame; ``seeds`` is int64 ``[batch]``."""
        batch = len(seeds)
        like = next(self.parameters())
        none = like.new_zeros(batch, 1, 0)
        frames = Spoken(
            like.new_zeros(batch, self.mel.n_mels, 0),
            like.new_zeros(batch, self.mel.n_fft // 2 + 1, 0),
            Pitch(none, none),
        )
        return StageState(self.network.initial_state(batch), frames, torch.tensor(0), self.shaped.initial_state(seeds))

    def step(
        self, mel: Tensor, state: StageState, f0: Tensor | None = None, *, ended: bool = False
    ) -> tuple[Features, StageState]:
        """Take the next frames and compute those that are ready.

        Args:
            mel: ``[batch, n_mels, frames]``.
            state: the state that ``initial_state`` or the previous ``step`` returned; it is left unchanged.
            f0: as in ``forward``, of these frames.
            ended: whether no frames follow, so that those that wait for the next one are computed too.
        """
        magnitude = self.mel_inverse(mel)
        pitch, network = self.network.step(magnitude, self.mel.sample_rate_hz, state.network)
        frames = joined(state.frames, Spoken(mel, magnitude, self._shifted(with_given(pitch, f0))))

        first, done = int(state.first_frame), int(state.source.samples_done) // self.mel.hop_length
        ready = first + count(frames) - (0 if ended else self.shaped.context.right)
        if ready <= done:
            nothing = Features(cut(frames, 0, 0), mel.new_zeros(len(mel), 2 * self.mel.hop_length, 0))
            return nothing, state._replace(network=network, frames=frames)
        samples, source = self.shaped(frames.magnitude, frames.pitch, state.source, first_frame=first, end=ready)
        features = Features(cut(frames, done - first, ready - first), self._as_frames(samples))
        unneeded = max(0, ready - self.shaped.context.left - first)
        state = StageState(network, cut(frames, unneeded, None), state.first_frame + unneeded, source)
        return features, state

    def _shifted(self, pitch: Pitch) -> Pitch:
        return pitch._replace(f0_hz=pitch.f0_hz * 2 ** (self.pitch_shift / 12)) if self.pitch_shift else pitch

    def _as_frames(self, samples: Tensor) -> Tensor:
        """``[batch, 2, frames * hop_length]`` to ``[batch, 2 * hop_length, frames]``."""
        return samples.unflatten(2, (-1, self.mel.hop_length)).transpose(2, 3).flatten(1, 2)


def with_given(pitch: Pitch, f0: Tensor | None) -> Pitch:
    """``pitch`` with the F0 that a caller gives, ``[batch, frames]``: 0 where not voiced, NaN to keep the found one."""
    if f0 is None:
        return pitch
    f0 = f0[:, None]
    return Pitch(
        torch.where(f0 > 0, f0, pitch.f0_hz), torch.where(f0.isnan(), pitch.voicing, (f0 > 0).to(pitch.voicing))
    )


def pitch_channels(pitch: Pitch) -> Tensor:
    """Pitch as input of a network, ``[batch, 2, frames]``: F0 in octaves around 150 Hz, where voiced, and voicing."""
    octaves = (pitch.f0_hz / 150).log2() * pitch.voicing
    return torch.cat((octaves, 2 * pitch.voicing - 1), dim=1)
