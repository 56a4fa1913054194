"""What every vocoder is: mel frames in, ``hop_length`` samples per frame out, whole or streamed."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeInt
from torch import Tensor, nn

from wavegen.blocks import Context, fold_weight_norm, masked
from wavegen.config import Config
from wavegen.errors import ConfigError, MelError
from wavegen.mel import MelFamily, MelSpec, check_compatible
from wavegen.vocoders._speakers import SpeakerCondition

State = tuple  # of tensors, nested where a part has a state of its own


class VocoderConfig(Config):
    """A vocoder's shape in a recipe; every field but ``name`` is a keyword of the vocoder's constructor.

    ``speaker_channels`` are those of the vector that is learned for each speaker; 0 for a vocoder that is not told who
    speaks.
    """

    name: str
    speaker_channels: NonNegativeInt = 0


class Vocoder(nn.Module, ABC):
    """Base of all vocoders.

    A subclass implements ``generate``, and has a ``speaker_condition`` somewhere on the way from the mel. Streaming
    comes with it: pieces of mel are put together into windows with the declared context on both sides, which is exact
    for causal and same-padded models alike and costs ``1 + context / piece`` times the work. A causal subclass
    overrides ``initial_state``, ``step`` and ``flush`` to carry its own state and recompute nothing.

    Args:
        mel: the definition of the mel spectrograms this vocoder understands.
    """

    Config: ClassVar[type[VocoderConfig]]
    objective: ClassVar[Literal["likelihood", "reconstruction"]]
    normalised_over_channels: ClassVar[bool] = False
    trains_in_bfloat16: ClassVar[bool] = True  # where ``training.precision`` is left to wavegen
    speaker_condition: SpeakerCondition
    family: MelFamily | None = None  # the mel definitions that ``for_mel`` takes; None for the vocoder's own alone

    def __init__(self, mel: MelSpec) -> None:
        super().__init__()
        self.mel = mel

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of those who may speak, in the order of their indices; saved with the weights."""
        return self.speaker_condition.names

    def for_mel(self, mel: MelSpec, where: object = "mel") -> "Vocoder":
        """This vocoder as a reader of mels of another definition: the same weights, not a copy of them.

        Args:
            mel: the definition.
            where: what to blame where it does not suit, such as a file.

        Raises:
            MelError: it is neither ``self.mel`` nor of ``self.family``; with what differs.
        """
        check_compatible(mel, self.mel, where)
        return self

    @property
    @abstractmethod
    def context(self) -> Context:
        """Mel frames read around the frame whose samples are made."""

    @property
    def receptive_field_samples(self) -> int:
        """Samples of mel context and output that one output sample depends on; training crops are compared to it."""
        return self.context.receptive_field * self.mel.hop_length

    @property
    def latency_samples(self) -> int:
        """How far streamed output lags behind the mel that has been fed in."""
        return self.context.right * self.mel.hop_length

    @property
    def steps_natively(self) -> bool:
        """Whether ``step`` carries its own state; if not, it recomputes the context of every piece."""
        return False

    @property
    def items_at_once(self) -> int:
        """Utterances that are best synthesised as one batch: faster than one by one, and the same, bit for bit."""
        return 1

    @abstractmethod
    def generate(
        self, mel: Tensor, mask: Tensor | None, seeds: Tensor, first_frame: int, speakers: Tensor | None = None
    ) -> Tensor:
        """Make the samples of a piece of mel with nothing known around it.

        Args:
            mel: ``[batch, n_mels, frames]``.
            mask: ``[batch, 1, frames]``, True where a frame is real; None for all.
            seeds: int64 ``[batch]``.
            first_frame: index of ``mel[..., 0]`` in the whole utterance: noise is a function of
                (seed, position), never of how the utterance was cut.
            speakers: int64 ``[batch]``, indices of ``self.speakers``; None where there are none.

        Returns:
            ``[batch, frames * hop_length]``.
        """

    @torch.no_grad()
    def synthesize(
        self,
        mel: Tensor,
        *,
        lengths: Tensor | None = None,
        seed: int | Sequence[int] = 0,
        speaker: str | Sequence[str] | None = None,
    ) -> Tensor:
        """Turn whole mel spectrograms into sound.

        Args:
            mel: ``[batch, n_mels, frames]``, made to ``self.mel``.
            lengths: int ``[batch]``, real frames of each item; what lies beyond is ignored, NaN included.
            seed: one for all items, or one each; an item's output depends on its own seed only.
            speaker: of ``self.speakers``, one for all items, or one each; needed where there are several.

        Returns:
            ``[batch, frames * hop_length]`` in -1…1 or slightly beyond; zeros after each item's end.

        Raises:
            MelError: ``mel`` has the wrong shape.
            ConfigError: ``speaker`` is unknown, missing, or one too many; with the names that are known.
        """
        self.check_shape(mel)
        who = self.speaker_condition.indices(speaker, len(mel))
        mask = frame_mask(None if lengths is None else lengths.to(mel.device), mel.shape[-1])
        if mel.shape[-1] == 0:
            return mel.new_zeros(len(mel), 0)
        samples = self.generate(masked(mel, mask), mask, self._seeds(seed, mel), 0, *who)
        return samples if mask is None else masked(samples, _per_sample(mask, self.mel.hop_length))

    def initial_state(
        self, batch: int, *, seed: int | Sequence[int] = 0, speaker: str | Sequence[str] | None = None
    ) -> State:
        """State before the first frame: frames kept for context, index of the first of them, frames done, seeds.

        Where there are speakers, their indices come last. Raises ConfigError as ``synthesize`` does.
        """
        like = next(self.parameters())
        kept = like.new_zeros(batch, self.mel.n_mels, 0)
        who = self.speaker_condition.indices(speaker, batch)
        return kept, torch.tensor(0), torch.tensor(0), self._seeds(seed, kept), *who

    @torch.no_grad()
    def step(self, mel: Tensor, state: State) -> tuple[Tensor, State]:
        """Take the next frames; give the samples that are ready.

        Args:
            mel: ``[batch, n_mels, frames]`` for any number of frames.
            state: what ``initial_state`` or the step before returned; it is not changed.

        Returns:
            ``[batch, samples]`` (none where more look-ahead is needed) and the next state.
        """
        self.check_shape(mel)
        kept, first, done, *items = state
        kept = torch.cat((kept, mel), dim=-1)
        ready = int(first) + kept.shape[-1] - self.context.right
        if ready <= int(done):
            return kept.new_zeros(len(kept), 0), (kept, first, done, *items)
        samples = self._window(kept, int(first), int(done), ready, *items)
        unneeded = max(0, ready - self.context.left - int(first))
        return samples, (kept[..., unneeded:], first + unneeded, torch.tensor(ready), *items)

    @torch.no_grad()
    def flush(self, state: State) -> Tensor:
        """The samples that waited for look-ahead which will not come, ``[batch, samples]``."""
        kept, first, done, *items = state
        end = int(first) + kept.shape[-1]
        if end == int(done):
            return kept.new_zeros(len(kept), 0)
        return self._window(kept, int(first), int(done), end, *items)

    def streaming_overhead(self, frames: int) -> float:
        """Times the work of offline synthesis that streaming in pieces of ``frames`` takes."""
        if self.steps_natively:
            return 1.0
        return (frames + self.context.left + self.context.right) / frames

    def prepared_for_synthesis(self) -> "Vocoder":
        """This vocoder in evaluation mode with its weight normalisation folded; changes the module itself."""
        return fold_weight_norm(self).eval().requires_grad_(False)

    def use_engine(self, name: str = "auto", precision: str = "float32") -> str | None:
        """Choose the engine of a vocoder that has some; returns its description, or None for one that needs none.

        Raises:
            ConfigError: an engine or precision that cannot be had.
        """
        if (name, precision) != ("auto", "float32"):
            raise ConfigError(
                f"no engine {name!r} in {precision} for a vocoder that does not go sample by sample",
                remedy="leave the engine and its precision out",
            )
        return None

    def check_shape(self, mel: Tensor) -> None:
        """Raise MelError where ``mel`` is not ``[batch, n_mels, frames]``."""
        if mel.dim() != 3 or mel.shape[1] != self.mel.n_mels:
            raise MelError(
                f"a mel of shape {list(mel.shape)}",
                remedy=f"give [batch, {self.mel.n_mels}, frames]; a single one is mel[None]",
            )

    def normalised(self, mel: Tensor) -> Tensor:
        """Natural-log mel scaled to about -2…2 for speech, whatever the contract's own log and statistics are."""
        return (self.mel.to_linear(mel).clamp(min=self.mel.floor).log() + 5) / 2.5

    def _window(self, kept: Tensor, first: int, start: int, end: int, seeds: Tensor, *who: Tensor) -> Tensor:
        hop = self.mel.hop_length
        return self.generate(kept, None, seeds, first, *who)[:, (start - first) * hop : (end - first) * hop]

    def _seeds(self, seed: int | Sequence[int], like: Tensor) -> Tensor:
        seeds = [seed] * len(like) if isinstance(seed, int) else list(seed)
        return torch.tensor(seeds, dtype=torch.int64, device=like.device)


def frame_mask(lengths: Tensor | None, frames: int) -> Tensor | None:
    """``[batch, 1, frames]``, True before each item's length; None for None."""
    if lengths is None:
        return None
    return (torch.arange(frames, device=lengths.device) < lengths[:, None])[:, None]


def _per_sample(mask: Tensor, hop_length: int) -> Tensor:
    return mask[:, 0].repeat_interleave(hop_length, dim=-1)
