"""Vocoders that begin with what the mel says and end with the mel imposed on their sound, whole or streamed."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from typing_extensions import Self

from wavegen.blocks import Context, DilatedConv1d, DilatedStack
from wavegen.engines import SPECTRAL_ENGINES, EngineCache, PlainTorch, make_spectral_engine
from wavegen.mel import MelProjection, MelSpec
from wavegen.source import PitchNetwork, ShapedSource
from wavegen.vocoders._base import State, Vocoder, WaveformVocoder, content_seeds, inference
from wavegen.vocoders._frames import count, cut, joined
from wavegen.vocoders._source import SourceStage
from wavegen.vocoders._spoken import Features, SpokenStage, StageParts

if TYPE_CHECKING:
    from wavegen.engines.spectral.chain import CompiledChain

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

    stage: Any
    features: Features
    first_frame: Tensor
    frames_done: Tensor
    network: Any
    speakers: Tensor | None


class SourcedVocoder(Vocoder, ABC):
    """Base of the vocoders that begin with a stage, a shaped source for most: stage, then ``render``.

    In a stream the stage runs ahead and carries its state. The windowed rest is computed again for the context
    of every chunk.

    Args:
        mel: the mel definition.
        stage: the stage; by default a ``SourceStage`` with the shipped pitch network.

    Attributes:
        stage: computes what the mel says of each frame.
        projection: imposes the mel.
        refinement_iterations: Griffin-Lim iterations of training and synthesis.
        synthesis_iterations: further iterations of synthesis.
        streams_natively: whether the vocoder's own network carries a state in a stream.
    """

    synthesis_options: Mapping[str, str] = {"iterations": "synthesis_iterations", "pitch": "pitch_shift"}
    engines: ClassVar[Mapping[str, tuple[str, ...]]] = SPECTRAL_ENGINES
    names_engine = False
    takes_f0 = True
    speaks_untrained = False  # untrained, it sounds like the source-filter baseline
    refinement_iterations = 0
    synthesis_iterations: int
    streams_natively = False

    def __init__(self, mel: MelSpec, stage: SpokenStage | None = None) -> None:
        super().__init__(mel)
        self.stage = stage or SourceStage(mel, PitchNetwork.shipped())
        self.projection = MelProjection(mel)
        self._engines: EngineCache[Any] = EngineCache(make_spectral_engine)

    @property
    def frame_stack(self) -> DilatedStack | None:
        """The stack of the vocoder's own network, if it has one at frame rate that its engine computes."""
        return None

    @property
    def frame_output(self) -> DilatedConv1d | None:
        """The layer after this stack and its norm, which reads one frame at a time."""
        return None

    def prepared_for_synthesis(self) -> Self:
        """As in ``Vocoder``; from now on the engine is kept."""
        self._engines.keep()
        return super().prepared_for_synthesis()

    def use_engine(self, name: str = "auto", precision: str = "float32") -> str:
        """Choose the engine that computes samples from now on, see ``wavegen.engines.make_spectral_engine``."""
        self.check_engine(name, precision)
        self._engines.choose(name, precision)
        return str(self._engines.engine(self).description)

    def compiled(self) -> "CompiledChain | None":
        """The numba engine if it is the chosen one; None if gradients are enabled, because it computes none."""
        engine = PlainTorch() if torch.is_grad_enabled() else self._engines.engine(self)
        return None if isinstance(engine, PlainTorch) else engine

    @property
    def running_stage(self) -> SpokenStage:
        """The stage as synthesis uses it."""
        return self.stage

    @property
    def pitch(self) -> PitchNetwork:
        """The pitch network of the stage."""
        network = self.stage.network
        assert isinstance(network, PitchNetwork)
        return network

    @property
    def shaped(self) -> ShapedSource:
        """The shaped source of the stage."""
        assert isinstance(self.stage, SourceStage)
        return self.stage.shaped

    @property
    def pitch_shift(self) -> float:
        """Semitones by which F0 is raised; if not 0, only the envelope of the mel is imposed, not its old harmonics."""
        return self.stage.pitch_shift

    @pitch_shift.setter
    def pitch_shift(self, semitones: float) -> None:
        self.stage.pitch_shift = semitones
        self.projection.blur_hz = HARMONICS_BLUR_HZ if semitones else 0.0

    @property
    def iterations(self) -> int:
        """Griffin-Lim iterations of synthesis, trained and further ones."""
        return self.refinement_iterations + self.synthesis_iterations

    @property
    @abstractmethod
    def render_context(self) -> Context:
        """Frames of features read around the frame whose samples are rendered."""

    @abstractmethod
    def render(
        self,
        features: Features,
        mask: Tensor | None,
        speakers: Tensor | None,
        iterations: int,
        compiled: "CompiledChain | None" = None,
    ) -> Tensor:
        """Compute the samples of frames from their features, with silence before and after them.

        Args:
            features: the features.
            mask: ``[batch, 1, frames]``, True where a frame is real; None if all are.
            speakers: int64 ``[batch]``; None for a vocoder without speakers.
            iterations: Griffin-Lim iterations at the end.
            compiled: the engine that computes them; None for torch.

        Returns:
            ``[batch, frames * hop_length]``.
        """

    def source_frames_read(self, first_sample: int, last_sample: int) -> Context:
        """As ``SourceStage.frames_read``."""
        assert isinstance(self.stage, SourceStage)
        return self.stage.frames_read(first_sample, last_sample)

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
        other.projection.removes_dc = self.projection.removes_dc
        other._engines = self._engines.for_another_reader()
        return other

    def initial_network_state(self, features: Features, seeds: Tensor) -> tuple[Features, Any]:
        """Add what a natively streaming network computes to no ``features``, and return its state before the first."""
        raise NotImplementedError  # streams_natively is False

    def step_network(
        self,
        features: Features,
        state: Any,
        speakers: Tensor | None,
        compiled: "CompiledChain | None" = None,
        *,
        ended: bool,
    ) -> tuple[Features, Any]:
        """Add what a natively streaming network computes to the next features; those that wait for it come later.

        Args:
            features: the next features.
            state: the network's state.
            speakers: int64 ``[batch]``; None for a vocoder without speakers.
            compiled: that of ``render``.
            ended: whether no frames follow.
        """
        raise NotImplementedError  # streams_natively is False

    @property
    def context(self) -> Context:
        """Mel frames read around a frame, given the state of the source before it."""
        return self.source_frames_read(*self.projection.samples_read(self.iterations))

    @property
    def latency_samples(self) -> int:
        """How far streamed output lags: the look-ahead of the stage and of the windowed rest, in whole frames."""
        return (self.stage.look_ahead + self.render_context.right) * self.mel.hop_length

    def streaming_overhead(self, frames: int) -> float:
        """As in ``Vocoder``, of the windowed rest; the source stage computes nothing twice."""
        return (frames + self.render_context.left + self.render_context.right) / frames

    def generate(
        self,
        mel: Tensor,
        mask: Tensor | None,
        seeds: Tensor,
        first_frame: int,
        speakers: Tensor | None = None,
        f0: Tensor | None = None,
    ) -> Tensor:
        """Synthesis with all iterations; the source begins with the first given frame, whatever its index."""
        compiled = self.compiled()
        features = self.running_stage(mel, mask, seeds, f0, parts=_stage_parts(compiled))
        return self.render(features, mask, speakers, self.iterations, compiled)

    def initial_state(
        self, batch: int, *, seed: int | Sequence[int] = 0, speaker: str | Sequence[str] | None = None
    ) -> State:
        """State before the first frame; arguments and errors as in ``synthesize``."""
        like = next(self.parameters())
        seeds = self._seeds(seed, like.new_zeros(batch))
        features = self.running_stage.no_features(batch)
        network = None
        if self.streams_natively:
            features, network = self.initial_network_state(features, seeds)
        speakers = self.speaker_condition.indices(speaker, batch)
        return SourcedState(
            self.running_stage.initial_state(seeds), features, torch.tensor(0), torch.tensor(0), network, speakers
        )

    @inference
    def step(self, mel: Tensor, state: Any, f0: Tensor | None = None) -> tuple[Tensor, State]:
        """Take the next frames, with their F0 as in ``synthesize``, and return the samples that are ready."""
        samples, state = self.step_later(mel, state, f0)
        return samples(), state

    @inference
    def step_later(self, mel: Tensor, state: Any, f0: Tensor | None = None) -> tuple[Callable[[], Tensor], State]:
        """As in ``Vocoder``: the windowed rest is left to the function."""
        self.check_shape(mel)
        self.check_f0(f0, mel)
        return self._advance(mel, state, None if f0 is None else f0.to(mel), ended=False)

    @inference
    def flush(self, state: Any) -> Tensor:
        """The samples that waited for look-ahead when the utterance ended."""
        mel = state.features.spoken.mel.to(next(self.parameters()))
        samples, _ = self._advance(mel[..., :0], state, None, ended=True)
        return samples()

    def _advance(
        self, mel: Tensor, state: SourcedState, f0: Tensor | None, *, ended: bool
    ) -> tuple[Callable[[], Tensor], SourcedState]:
        compiled = self.compiled()
        new, stage = self.running_stage.step(mel, state.stage, f0, ended=ended, parts=_stage_parts(compiled))
        network = state.network
        if self.streams_natively:
            new, network = self.step_network(new, network, state.speakers, compiled, ended=ended)
        features = joined(state.features, new)
        first, done, hop = int(state.first_frame), int(state.frames_done), self.mel.hop_length
        context, iterations = self.render_context, self.iterations
        ready = first + count(features) - (0 if ended else context.right)
        if ready <= done:
            nothing = mel.new_zeros(len(mel), 0)
            return lambda: nothing, state._replace(stage=stage, network=network, features=features)

        @inference
        def samples() -> Tensor:
            rendered = self.render(features, None, state.speakers, iterations, compiled)
            return rendered[:, (done - first) * hop : (ready - first) * hop]

        unneeded = max(0, ready - context.left - first)
        return samples, state._replace(
            stage=stage,
            network=network,
            features=cut(features, unneeded, None),
            first_frame=state.first_frame + unneeded,
            frames_done=torch.tensor(ready),
        )


def _stage_parts(compiled: "CompiledChain | None") -> StageParts | None:
    return None if compiled is None else StageParts(compiled.invert, compiled.pitch_stack, compiled.shaped)


class SourcedWaveformVocoder(SourcedVocoder, WaveformVocoder, ABC):
    """A vocoder with a source stage whose own network corrects the sources and is trained on waveforms."""

    def forward(self, mel: Tensor, mask: Tensor | None = None, *, speakers: Tensor | None = None) -> Tensor:
        """Differentiable synthesis, as trained: without ``synthesis_iterations``. The source is taken as given.

        Its noise is seeded by the mels themselves. Arguments and result as in ``WaveformVocoder``.
        """
        with torch.no_grad(), torch.autocast(mel.device.type, enabled=False):
            features = self.stage(mel, mask, content_seeds(mel))
        return self.render(features, mask, speakers, self.refinement_iterations)
