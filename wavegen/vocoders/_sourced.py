"""Vocoders that begin with the source stage and end with the mel imposed on their sound, whole or streamed."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from typing_extensions import Self

from wavegen.blocks import Context
from wavegen.mel import MelProjection, MelSpec
from wavegen.source import PitchNetwork
from wavegen.vocoders._base import State, Vocoder, content_seeds, inference
from wavegen.vocoders._frames import count, cut, joined
from wavegen.vocoders._source import Features, SourceStage, StageState

# The narrow filters of a mel resolve harmonics. A mean over this width does not, up to an F0 of about 350 Hz.
HARMONICS_BLUR_HZ = 150.0


class SourcedState(NamedTuple):
    """State of the stream of a vocoder with a source stage.

    Attributes:
        stage: state of the source stage.
        features: features of the frames that later samples still read.
        first_frame: index in the utterance of the first of them.
        frames_done: number of frames whose samples have been returned.
        network: state of the vocoder's own network, if it streams natively; else None.
        speakers: int64 ``[batch]``; None for a vocoder without speakers.
    """

    stage: StageState
    features: Features
    first_frame: Tensor
    frames_done: Tensor
    network: Any
    speakers: Tensor | None


class SourcedVocoder(Vocoder, ABC):
    """Base of the vocoders with a source stage: source, then ``render``.

    In a stream the source stage runs ahead and carries its state. The windowed rest is computed again for the context
    of every chunk.

    Args:
        mel: the mel definition.

    Attributes:
        stage: the source stage.
        projection: imposes the mel.
        synthesis_iterations: Griffin-Lim iterations of the projection.
    """

    synthesis_options: ClassVar[Mapping[str, str]] = {"iterations": "synthesis_iterations", "pitch": "pitch_shift"}
    synthesis_iterations: int

    def __init__(self, mel: MelSpec) -> None:
        super().__init__(mel)
        self.stage = SourceStage(mel, PitchNetwork.shipped())
        self.projection = MelProjection(mel)

    @property
    def pitch(self) -> PitchNetwork:
        """The pitch network of the source stage."""
        return self.stage.network

    @property
    def pitch_shift(self) -> float:
        """Semitones by which F0 is raised; if not 0, only the envelope of the mel is imposed, not its old harmonics."""
        return self.stage.pitch_shift

    @pitch_shift.setter
    def pitch_shift(self, semitones: float) -> None:
        self.stage.pitch_shift = semitones
        self.projection.blur_hz = HARMONICS_BLUR_HZ if semitones else 0.0

    @property
    @abstractmethod
    def render_context(self) -> Context:
        """Frames of features read around the frame whose samples are rendered."""

    @abstractmethod
    def render(self, features: Features, mask: Tensor | None, speakers: Tensor | None) -> Tensor:
        """Compute the samples of frames from their features, with silence before and after them.

        Args:
            features: the features.
            mask: ``[batch, 1, frames]``, True where a frame is real; None if all are.
            speakers: int64 ``[batch]``; None for a vocoder without speakers.

        Returns:
            ``[batch, frames * hop_length]``.
        """

    def reading(self, mel: MelSpec) -> Self:
        """This vocoder as a reader of another definition, unchecked; it shares all weights."""
        if mel == self.mel:
            return self
        other = copy.copy(self)
        other._modules = dict(self._modules)  # shares all layers except those that follow from the definition
        other.mel = mel
        other.stage = self.stage.for_mel(mel)
        like = next(self.parameters())
        other.projection = MelProjection(mel).to(like)
        other.projection.blur_hz = self.projection.blur_hz
        return other

    def given_features(self, mel: Tensor, mask: Tensor | None) -> Features:
        """Features for training, without gradients; the noise is seeded by the mels themselves."""
        with torch.no_grad(), torch.autocast(mel.device.type, enabled=False):
            return self.stage(mel, mask, content_seeds(mel))

    def initial_network_state(self, features: Features) -> tuple[Features, Any]:
        """Add what a natively streaming network computes to no ``features``, and return its state before the first."""
        return features, None

    def step_network(
        self, features: Features, state: Any, speakers: Tensor | None, *, ended: bool
    ) -> tuple[Features, Any]:
        """Add what a natively streaming network computes to the next features; those that wait for it come later.

        Args:
            features: the next features.
            state: the network's state.
            speakers: int64 ``[batch]``; None for a vocoder without speakers.
            ended: whether no frames follow.
        """
        return features, state

    @property
    def context(self) -> Context:
        """Mel frames read around a frame, given the state of the source before it."""
        return self.stage.frames_read(*self.projection.samples_read(self.synthesis_iterations))

    @property
    def latency_samples(self) -> int:
        """How far streamed output lags: the look-ahead of the source and of the windowed rest, in whole frames."""
        return (self.stage.shaped.context.right + self.render_context.right) * self.mel.hop_length

    def streaming_overhead(self, frames: int) -> float:
        """As in ``Vocoder``, of the windowed rest; the source stage computes nothing twice."""
        return (frames + self.render_context.left + self.render_context.right) / frames

    def generate(
        self, mel: Tensor, mask: Tensor | None, seeds: Tensor, first_frame: int, speakers: Tensor | None = None
    ) -> Tensor:
        """Synthesis with all iterations; the source begins with the first given frame, whatever its index."""
        return self.render(self.stage(mel, mask, seeds), mask, speakers)

    def initial_state(
        self, batch: int, *, seed: int | Sequence[int] = 0, speaker: str | Sequence[str] | None = None
    ) -> State:
        """State before the first frame; arguments and errors as in ``synthesize``."""
        like = next(self.parameters())
        stage = self.stage.initial_state(self._seeds(seed, like.new_zeros(batch)))
        features = Features(stage.frames, like.new_zeros(batch, 2 * self.mel.hop_length, 0))
        features, network = self.initial_network_state(features)
        speakers = self.speaker_condition.indices(speaker, batch)
        return SourcedState(stage, features, torch.tensor(0), torch.tensor(0), network, speakers)

    @inference
    def step(self, mel: Tensor, state: Any) -> tuple[Tensor, State]:
        """Take the next frames and return the samples that are ready."""
        self.check_shape(mel)
        return self._advance(mel, state, ended=False)

    @inference
    def flush(self, state: Any) -> Tensor:
        """The samples that waited for look-ahead when the utterance ended."""
        mel = state.stage.frames.mel
        return self._advance(mel[..., :0], state, ended=True)[0]

    def _advance(self, mel: Tensor, state: SourcedState, *, ended: bool) -> tuple[Tensor, SourcedState]:
        new, stage = self.stage.step(mel, state.stage, ended=ended)
        new, network = self.step_network(new, state.network, state.speakers, ended=ended)
        features = joined(state.features, new)
        first, done, hop = int(state.first_frame), int(state.frames_done), self.mel.hop_length
        context = self.render_context
        ready = first + count(features) - (0 if ended else context.right)
        if ready <= done:
            return mel.new_zeros(len(mel), 0), state._replace(stage=stage, network=network, features=features)
        samples = self.render(features, None, state.speakers)[:, (done - first) * hop : (ready - first) * hop]
        unneeded = max(0, ready - context.left - first)
        return samples, state._replace(
            stage=stage,
            network=network,
            features=cut(features, unneeded, None),
            first_frame=state.first_frame + unneeded,
            frames_done=torch.tensor(ready),
        )
