"""What a mel says of each frame without any sound: a magnitude spectrum, and pitch; whole or streamed."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wavegen.blocks import Context
from wavegen.mel import MelInverse, MelSpec
from wavegen.source import Pitch, PitchNetwork, ShapedSource, hold_last
from wavegen.vocoders._frames import joined

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
    """What a vocoder's stages have found for each frame.

    Attributes:
        spoken: mel, magnitude and pitch.
        sources: samples of the periodic and of the aperiodic source, ``[batch, 2 * hop_length, frames]``; None without
            a shaped source.
        corrections: the outputs of a natively streaming network for the rest; else None.
    """

    spoken: Spoken
    sources: Tensor | None = None
    corrections: Tensor | None = None

    def source_samples(self) -> Tensor:
        """The two sources as samples, ``[batch, 2, frames * hop_length]``."""
        assert self.sources is not None
        batch, channels, frames = self.sources.shape
        return self.sources.view(batch, 2, channels // 2, frames).transpose(2, 3).flatten(2)


class StageParts(NamedTuple):
    """What an engine computes in the place of parts of a stage.

    Attributes:
        invert: replaces its ``mel_inverse``.
        stack: replaces the pitch network's stack.
        shaped: replaces its shaped source.
    """

    invert: Callable[[Tensor], Tensor]
    stack: Any
    shaped: ShapedSource


class SpokenState(NamedTuple):
    """State of a ``SpokenStage``'s stream.

    Attributes:
        network: state of the pitch network.
        frames: no frames, of the right shapes.
    """

    network: Any
    frames: Spoken


class NoInverse(nn.Module):
    """In the place of a ``MelInverse`` whose magnitude nobody reads: a magnitude without bins, at no cost."""

    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filters", torch.zeros(0), persistent=False)

    def forward(self, mel: Tensor) -> Tensor:
        """``[batch, n_mels, frames]`` to ``[batch, 0, frames]``."""
        return mel[:, :0]


class NoPitch(nn.Module):
    """In the place of a pitch network whose findings nobody reads: no frame is voiced, at no cost."""

    context = Context()

    def pitch(self, magnitude: Tensor, sample_rate_hz: float, mask: Tensor | None = None, stack: Any = None) -> Pitch:
        """As ``PitchNetwork.pitch``."""
        batch, _, frames = magnitude.shape
        return Pitch(magnitude.new_ones(batch, 1, frames), magnitude.new_zeros(batch, 1, frames))

    def initial_state(self, batch: int) -> None:
        """As ``PitchNetwork.initial_state``: nothing is carried."""
        return

    def step(self, magnitude: Tensor, sample_rate_hz: float, state: None, stack: Any = None) -> tuple[Pitch, None]:
        """As ``PitchNetwork.step``."""
        return self.pitch(magnitude, sample_rate_hz), None


class SpokenStage(nn.Module):
    """Mel to magnitude and pitch::

        mel ─ inverse filters ─┬─ pitch network ─ F0, voicing
                               └─ magnitude

    Args:
        mel: the mel definition.
        network: the pitch network; its weights are shared by the readers of other definitions.
        reads_magnitude: whether anything reads the magnitude; otherwise it has no bins.

    Attributes:
        pitch_shift: semitones by which F0 is raised.
    """

    def __init__(self, mel: MelSpec, network: PitchNetwork | NoPitch, *, reads_magnitude: bool = True) -> None:
        super().__init__()
        self.network = network
        self.reads_magnitude = reads_magnitude
        self.pitch_shift = 0.0
        self._read(mel)

    def for_mel(self, mel: MelSpec) -> "SpokenStage":
        """This stage as a reader of another definition; it shares the pitch network."""
        other = copy.copy(self)
        other._modules = dict(self._modules)
        other._read(mel)
        like = self.mel_inverse.filters
        for name, part in other.named_children():
            if name != "network":
                part.to(like)
        return other

    def _read(self, mel: MelSpec) -> None:
        self.mel = mel
        self.mel_inverse = MelInverse(mel) if self.reads_magnitude else NoInverse()

    @property
    def look_ahead(self) -> int:
        """Frames that a frame's features wait for in a stream."""
        return 0

    def spoken(
        self, mel: Tensor, mask: Tensor | None, f0: Tensor | None = None, *, parts: StageParts | None = None
    ) -> Spoken:
        """Magnitude and pitch of whole utterances; after an item's end its last frame holds.

        Args:
            mel: ``[batch, n_mels, frames]``; zeros where the mask is False.
            mask: ``[batch, 1, frames]``, True where a frame is real; None if all are.
            f0: fundamental frequency at the centre of each frame in Hz, ``[batch, frames]``, 0 where not voiced and NaN
                where the pitch network is to find it, as it does everywhere by default.
            parts: functions that compute parts of this stage in its place; None for none.
        """
        mel = mel.to(self._dtype)
        invert, stack = (self.mel_inverse, None) if parts is None else (parts.invert, parts.stack)
        magnitude = invert(hold_last(mel, mask))
        found = self.network.pitch(magnitude, self.mel.sample_rate_hz, mask, stack)
        pitch = self._shifted(with_given(found, f0))
        return Spoken(mel, magnitude, Pitch(*(hold_last(part, mask) for part in pitch)))

    def next_spoken(
        self, mel: Tensor, network: Any, f0: Tensor | None = None, *, parts: StageParts | None = None
    ) -> tuple[Spoken, Any]:
        """Magnitude and pitch of the next frames of a stream, and the next state of the pitch network."""
        mel = mel.to(self._dtype)
        invert, stack = (self.mel_inverse, None) if parts is None else (parts.invert, parts.stack)
        magnitude = invert(mel)
        pitch, network = self.network.step(magnitude, self.mel.sample_rate_hz, network, stack)
        return Spoken(mel, magnitude, self._shifted(with_given(pitch, f0))), network

    def forward(
        self,
        mel: Tensor,
        mask: Tensor | None,
        seeds: Tensor,
        f0: Tensor | None = None,
        *,
        parts: StageParts | None = None,
    ) -> Features:
        """The features of whole utterances.

        Args:
            mel, mask, f0, parts: those of ``spoken``.
            seeds: int64 ``[batch]``, seeds of any noise.
        """
        return Features(self.spoken(mel, mask, f0, parts=parts))

    def initial_state(self, seeds: Tensor) -> Any:
        """State before the first frame; ``seeds`` is int64 ``[batch]``."""
        return SpokenState(self.network.initial_state(len(seeds)), self._no_frames(len(seeds)))

    def no_features(self, batch: int) -> Features:
        """The features of no frames."""
        return Features(self._no_frames(batch))

    def step(
        self,
        mel: Tensor,
        state: Any,
        f0: Tensor | None = None,
        *,
        ended: bool = False,
        parts: StageParts | None = None,
    ) -> tuple[Features, Any]:
        """Take the next frames and compute those that are ready.

        Args:
            mel: ``[batch, n_mels, frames]``.
            state: the state that ``initial_state`` or the previous ``step`` returned; it is left unchanged.
            f0: that of ``spoken``, for these frames.
            ended: whether no frames follow, so that those that wait for the next one are computed too.
            parts: those of ``spoken``.
        """
        spoken, network = self.next_spoken(mel, state.network, f0, parts=parts)
        return Features(joined(state.frames, spoken)), state._replace(network=network)

    @property
    def _dtype(self) -> torch.dtype:
        return self.mel_inverse.filters.dtype

    def _no_frames(self, batch: int) -> Spoken:
        like = self.mel_inverse.filters
        mel, none = like.new_zeros(batch, self.mel.n_mels, 0), like.new_zeros(batch, 1, 0)
        return Spoken(mel, self.mel_inverse(mel), Pitch(none, none))

    def _shifted(self, pitch: Pitch) -> Pitch:
        return pitch._replace(f0_hz=pitch.f0_hz * 2 ** (self.pitch_shift / 12)) if self.pitch_shift else pitch


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
