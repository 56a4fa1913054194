"""The contract that every vocoder keeps: mel frames in, ``hop_length`` samples per frame out, whole or streamed."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, ParamSpec, TypeVar

import torch
from pydantic import NonNegativeInt
from torch import Tensor

from wavegen.blocks import frame_mask, masked, sample_mask
from wavegen.cores import usable_cores
from wavegen.engines import check_engine
from wavegen.errors import ConfigError, MelError
from wavegen.mel import MelSpec, check_compatible
from wavegen.network import Network, NetworkConfig, check_definition
from wavegen.precision import full_float32
from wavegen.source import HIGHEST_F0_HZ, PitchNetwork
from wavegen.vocoders import _arguments as arguments
from wavegen.vocoders._speakers import SpeakerCondition

P = ParamSpec("P")
T = TypeVar("T")
State = tuple[Any, ...]  # a NamedTuple of tensors, None and further such tuples


def inference(method: Callable[P, T]) -> Callable[P, T]:
    """Decorate a method that computes samples: no gradients, and full float32, so that chunks equal the whole."""
    return torch.no_grad()(full_float32()(method))


class VocoderConfig(NetworkConfig):
    """The ``vocoder`` section of a recipe: a vocoder's shape.

    Attributes:
        speaker_channels: channels of the vector that is learned for each speaker; 0 for a vocoder without speakers.
    """

    section: ClassVar[str] = "vocoder"
    speaker_channels: NonNegativeInt = 0


class WindowState(NamedTuple):
    """State of a stream that recomputes the context of every chunk.

    Attributes:
        frames: mel frames that later samples still read, ``[batch, n_mels, kept frames]``.
        first_frame: index in the utterance of ``frames[..., 0]``.
        frames_done: number of frames whose samples have been returned.
        seeds: int64 ``[batch]``.
        speakers: int64 ``[batch]``; None for a vocoder without speakers.
    """

    frames: Tensor
    first_frame: Tensor
    frames_done: Tensor
    seeds: Tensor
    speakers: Tensor | None


class Vocoder(Network, ABC):
    """Base of all vocoders; derive from ``WaveformVocoder``, ``AutoregressiveVocoder`` or ``PitchVocoder``.

    A subclass defines ``Config``, ``context`` and ``generate``, and in its constructor a ``speaker_condition``
    somewhere between the mel and the samples. It inherits synthesis, batches, checks and exact streaming: chunks are
    put together to windows with the declared context on both sides, which costs ``1 + context / chunk`` times the
    work. A causal subclass overrides ``initial_state``, ``step`` and ``flush`` to carry a state of its own instead.

    Args:
        mel: the definition of the mel spectrograms that this vocoder reads.

    Raises:
        ConfigError: when a class is defined that lacks a part of this contract.

    Attributes:
        Config: the class of its recipe section.
        speaker_condition: adds the speaker to features at frame rate.
        speaks_untrained: whether its sound before training is worth comparing with, beside the baselines.
        has_speakers: True if it can learn a voice for each speaker; False if the mel alone says who speaks.
        takes_f0: whether ``synthesize`` and ``step`` take the F0 of a caller.
        names_engine: whether the choice of engine decides if it keeps up with real time, so that commands name it.
        engines: the engines that can compute its samples, each with the precisions of its weights.
        synthesis_options: options that may be set at synthesis, by name, with the attribute that holds each.
    """

    Config: ClassVar[type[VocoderConfig]]
    speaks_untrained: ClassVar[bool] = True
    takes_f0: bool = False
    names_engine: ClassVar[bool] = True
    has_speakers: ClassVar[bool] = True
    engines: ClassVar[Mapping[str, tuple[str, ...]]] = {"torch": ("float32",)}
    synthesis_options: Mapping[str, str] = {}
    speaker_condition: SpeakerCondition

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if ABC not in cls.__bases__:  # otherwise it is a kind of vocoder, not a vocoder
            kinds = WaveformVocoder | AutoregressiveVocoder | PitchVocoder
            derives = "derive from WaveformVocoder, AutoregressiveVocoder or PitchVocoder"
            check_definition(
                cls,
                VocoderConfig,
                "self, mel, config=None, *, speakers=()",
                kind="vocoder",
                faults=[] if issubclass(cls, kinds) else [derives],
            )

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of the speakers in the order of their indices; saved with the weights."""
        return self.speaker_condition.names

    def for_mel(self, mel: MelSpec, where: object = "mel") -> "Vocoder":
        """This vocoder as a reader of mels of another definition; it shares its weights.

        Args:
            mel: the definition.
            where: the place that the error message names, such as a file.

        Raises:
            MelError: the definition differs from ``self.mel`` and is not in ``self.family``; names the fields.
        """
        check_compatible(mel, self.mel, where)
        return self

    @property
    def reads_other_mels(self) -> bool:
        """Whether ``for_mel`` accepts definitions that differ from ``self.mel``."""
        return self.family is not None

    @property
    def latency_samples(self) -> int:
        """How far streamed output lags behind its input."""
        return self.context.right * self.mel.hop_length

    @property
    def steps_natively(self) -> bool:
        """Whether ``step`` carries a state of its own; otherwise it recomputes the context of every chunk."""
        return False

    @property
    def items_at_once(self) -> int:
        """Batch size at which synthesis is fastest, with the same samples as one by one, bit for bit."""
        return 1

    @property
    def jobs_at_once(self) -> int:
        """Threads at which the synthesis of many files is fastest: on a CPU one per core."""
        return usable_cores() if next(self.parameters()).device.type == "cpu" else 1

    def preferred_device(self, device: torch.device) -> torch.device:
        """The device on which synthesis is fastest where ``device`` is available."""
        return device

    @abstractmethod
    def generate(
        self, mel: Tensor, mask: Tensor | None, seeds: Tensor, first_frame: int, speakers: Tensor | None = None
    ) -> Tensor:
        """Compute the samples of a part of an utterance, with silence before and after it.

        Args:
            mel: ``[batch, n_mels, frames]``.
            mask: ``[batch, 1, frames]``, True where a frame is real; None if all are.
            seeds: int64 ``[batch]``.
            first_frame: index of ``mel[..., 0]`` in the utterance. Noise is a function of (seed, position), so it
                does not depend on how the utterance was cut.
            speakers: int64 ``[batch]``, indices of ``self.speakers``; None for a vocoder without speakers.

        Returns:
            ``[batch, frames * hop_length]``.
        """

    @inference
    def synthesize(
        self,
        mel: Tensor,
        *,
        lengths: Tensor | None = None,
        seed: int | Sequence[int] = 0,
        speaker: str | Sequence[str] | None = None,
        f0: Tensor | None = None,
    ) -> Tensor:
        """Turn whole mel spectrograms into sound.

        Args:
            mel: floats ``[batch, n_mels, frames]``, made to ``self.mel``; of any precision, also a numpy array.
            lengths: int ``[batch]``, number of real frames of each item; frames beyond are ignored, NaN included.
            seed: seeds the noise, an int of 64 bits for all items or one each; an item's output depends on its own
                seed only.
            speaker: a name in ``self.speakers``, one for all items or one each; required if there are several.
            f0: fundamental frequency at the centre of each frame in Hz, ``[batch, frames]``, 0 where not voiced and NaN
                where it follows from the mel, as it does everywhere by default. Only for vocoders with ``takes_f0``.

        Returns:
            ``[batch, frames * hop_length]`` in -1…1 or slightly beyond; zeros after each item's end.

        Raises:
            MelError: ``mel`` or ``f0`` has the wrong type or shape, or ``f0`` impossible values.
            ConfigError: ``speaker`` is unknown, missing, or given to a vocoder without speakers; ``f0`` is given to a
                vocoder that does not take it; or ``lengths`` or ``seed`` do not fit the items.
        """
        mel = arguments.floats(mel, like=next(self.parameters()), name="the mel")
        self.check_shape(mel)
        f0 = None if f0 is None else arguments.floats(f0, like=mel, name="F0")
        self.check_f0(f0, mel)
        speakers = self.speaker_condition.indices(speaker, len(mel))
        mask = frame_mask(arguments.lengths(lengths, mel), mel.shape[-1])
        if mel.shape[-1] == 0:
            return mel.new_zeros(len(mel), 0)
        given = {} if f0 is None else {"f0": f0.to(mel)}
        samples = self.generate(masked(mel, mask), mask, self._seeds(seed, mel), 0, speakers, **given)
        return samples if mask is None else masked(samples, sample_mask(mask, self.mel.hop_length)[:, 0])

    def initial_state(
        self, batch: int, *, seed: int | Sequence[int] = 0, speaker: str | Sequence[str] | None = None
    ) -> State:
        """State before the first frame; arguments and errors as in ``synthesize``."""
        frames = next(self.parameters()).new_zeros(batch, self.mel.n_mels, 0)
        speakers = self.speaker_condition.indices(speaker, batch)
        return WindowState(frames, torch.tensor(0), torch.tensor(0), self._seeds(seed, frames), speakers)

    @inference
    def step(self, mel: Tensor, state: Any) -> tuple[Tensor, State]:
        """Take the next frames and return the samples that are ready.

        Args:
            mel: ``[batch, n_mels, frames]``, any number of frames.
            state: the state that ``initial_state`` or the previous ``step`` returned; it is left unchanged.

        Returns:
            ``[batch, samples]`` (none while more look-ahead is needed) and the next state.
        """
        self.check_shape(mel)
        frames = torch.cat((state.frames, mel), dim=-1)
        first = int(state.first_frame)
        ready = first + frames.shape[-1] - self.context.right
        if ready <= int(state.frames_done):
            return frames.new_zeros(len(frames), 0), state._replace(frames=frames)
        samples = self._window(frames, state, ready)
        unneeded = max(0, ready - self.context.left - first)
        return samples, state._replace(
            frames=frames[..., unneeded:],
            first_frame=state.first_frame + unneeded,
            frames_done=torch.tensor(ready),
        )

    def step_later(self, mel: Tensor, state: Any) -> tuple[Callable[[], Tensor], State]:
        """Take the next frames as ``step`` does, and leave the computation of the samples to a function.

        A vocoder does so if its next state does not need them.

        Args:
            mel, state: those of ``step``.

        Returns:
            a function that returns ``[batch, samples]``, to be called at any time and in any thread; and the next
            state, which is valid at once.
        """
        samples, state = self.step(mel, state)
        return lambda: samples, state

    @inference
    def flush(self, state: Any) -> Tensor:
        """The samples ``[batch, samples]`` that waited for look-ahead when the utterance ended."""
        end = int(state.first_frame) + state.frames.shape[-1]
        if end == int(state.frames_done):
            return state.frames.new_zeros(len(state.frames), 0)
        return self._window(state.frames, state, end)

    def streaming_overhead(self, frames: int) -> float:
        """Work of streaming in chunks of ``frames`` as a multiple of offline synthesis."""
        if self.steps_natively:
            return 1.0
        return (frames + self.context.left + self.context.right) / frames

    def use_engine(self, name: str = "auto", precision: str = "float32") -> str:
        """Choose the engine that computes samples from now on; returns its description.

        Args:
            name: one of ``engines``, or ``"auto"`` for the fastest that works here.
            precision: precision of the engine's weights.

        Raises:
            ConfigError: the vocoder has no such engine or precision.
        """
        self.check_engine(name, precision)
        return "torch"

    def check_engine(self, name: str, precision: str) -> None:
        """Raise ConfigError unless this vocoder has the engine, in the precision."""
        check_engine(self.engines, name, precision)

    def set_synthesis_options(self, **options: float | None) -> None:
        """Set options such as ``temperature``; None leaves an option as it is.

        Raises:
            ConfigError: this vocoder does not have the option.
        """
        for name, value in options.items():
            if value is None:
                continue
            if name not in self.synthesis_options:
                known = f"use {' or '.join(self.synthesis_options)}" if self.synthesis_options else "leave it out"
                raise ConfigError(f"this vocoder does not have the option {name}", where=f"--{name}", remedy=known)
            setattr(self, self.synthesis_options[name], value)

    def check_shape(self, mel: Tensor) -> None:
        """Raise MelError unless ``mel`` is ``[batch, n_mels, frames]`` in this vocoder's precision."""
        dtype = next(self.parameters()).dtype
        if not isinstance(mel, Tensor) or mel.dtype != dtype:
            found = mel.dtype if isinstance(mel, Tensor) else type(mel).__name__
            raise MelError(f"the mel holds {found}, not {dtype}", remedy=f"give torch.as_tensor(mel, dtype={dtype})")
        if mel.dim() != 3 or mel.shape[1] != self.mel.n_mels:
            raise MelError(
                f"the mel has shape {list(mel.shape)}, not [batch, {self.mel.n_mels}, frames]",
                remedy="a single mel needs a batch dimension: mel[None]",
            )

    def check_f0(self, f0: Tensor | None, mel: Tensor) -> None:
        """Check the F0 that belongs to ``mel``; None is always right.

        Raises:
            ConfigError: this vocoder does not take F0.
            MelError: its shape is not ``[batch, frames]``, or a value is negative or above ``HIGHEST_F0_HZ``.
        """
        if f0 is None:
            return
        if not self.takes_f0:
            raise ConfigError("this vocoder does not take F0", where="f0", remedy="leave it out")
        if f0.shape != (len(mel), mel.shape[-1]):
            expected = [len(mel), mel.shape[-1]]
            raise MelError(f"F0 has shape {list(f0.shape)}, not {expected}", remedy="give one value for each frame")
        if not (((f0 >= 0) & (f0 <= HIGHEST_F0_HZ)) | f0.isnan()).all():
            raise MelError(
                f"F0 must be from 0 to {HIGHEST_F0_HZ:g} Hz in every frame", remedy="give 0 where a frame is not voiced"
            )

    def normalised(self, mel: Tensor) -> Tensor:
        """Natural-log mel scaled to about -2…2 for speech, whatever the definition's own log and statistics are."""
        return (self.mel.to_linear(mel).clamp(min=self.mel.floor).log() + 5) / 2.5

    def _window(self, frames: Tensor, state: WindowState, end: int) -> Tensor:
        """Samples of the frames from ``state.frames_done`` to ``end``."""
        hop = self.mel.hop_length
        first, start = int(state.first_frame), int(state.frames_done)
        samples = self.generate(frames, None, state.seeds, first, state.speakers)
        return samples[:, (start - first) * hop : (end - first) * hop]

    def _seeds(self, seed: int | Sequence[int], like: Tensor) -> Tensor:
        return arguments.seeds(seed, len(like)).to(like.device)


def content_seeds(mel: Tensor) -> Tensor:
    """A seed ``[batch]`` from the sum of each item's bits, which no order and no trailing zeros change."""
    return mel.detach().double().contiguous().view(torch.int64).sum(dim=(1, 2))


class WaveformVocoder(Vocoder, ABC):
    """A vocoder that computes all samples at once and is trained on the distance between waveforms."""

    accepts_discriminators = True

    @abstractmethod
    def forward(self, mel: Tensor, mask: Tensor | None = None, *, speakers: Tensor | None = None) -> Tensor:
        """Differentiable synthesis, as trained.

        Args:
            mel: ``[batch, n_mels, frames]``.
            mask: ``[batch, 1, frames]``, True where a frame is real; None if all are.
            speakers: int64 ``[batch]``, indices of ``self.speakers``; None for a vocoder without speakers.

        Returns:
            ``[batch, frames * hop_length]``.
        """


class Likelihood(NamedTuple):
    """Log-likelihoods of samples in nats, each given all samples before it; ``[batch, samples]``.

    Attributes:
        trained: the value that training maximises, in the vocoder's own distribution.
        of_class: that of the sample's class among 256 mu-law classes, which compares vocoders of any distribution.
    """

    trained: Tensor
    of_class: Tensor


class AutoregressiveVocoder(Vocoder, ABC):
    """A vocoder that draws one sample after another and is trained on their likelihood."""

    speaks_untrained = False  # untrained, it is slow noise

    @abstractmethod
    def log_likelihood(
        self, samples: Tensor, mel: Tensor, mask: Tensor | None = None, *, speakers: Tensor | None = None
    ) -> Likelihood:
        """Log-likelihood of each sample, given all samples before it.

        Args:
            samples: waveform ``[batch, frames * hop_length]`` in -1…1.
            mel: ``[batch, n_mels, frames]``.
            mask: ``[batch, 1, frames]``, True where a frame is real; None if all are.
            speakers: int64 ``[batch]``, indices of ``self.speakers``; None for a vocoder without speakers.
        """

    @property
    def warm_up_samples(self) -> int:
        """Samples at the start of a segment that lack the past samples or frames that their distributions read."""
        return max(self.receptive_field_samples, self.context.left * self.mel.hop_length)

    def preferred_device(self, device: torch.device) -> torch.device:
        """The CPU: sample by sample, compiled code there is faster than a GPU."""
        return torch.device("cpu")


class PitchVocoder(Vocoder, ABC):
    """A vocoder that is computed from the mel, of which only the pitch network is trained, on labelled F0.

    Its config says so with ``reads_pitch_labels``.
    """

    @property
    @abstractmethod
    def pitch(self) -> PitchNetwork:
        """The pitch network, a submodule; it reads the magnitude that ``MelInverse`` finds for a mel."""
