"""A dilated stack at frame rate with an inverse STFT head: quick to train, and fast on a CPU."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from wavegen.blocks import (
    Context,
    DilatedConv1d,
    DilatedStack,
    InverseSTFT,
    Padding,
    SeparableResidualBlock,
    exponential_dilations,
    griffin_lim,
    griffin_lim_context,
    masked,
)
from wavegen.config import KeepsWeights
from wavegen.errors import ConfigError
from wavegen.mel import MelFamily, MelInverse, MelSpec
from wavegen.vocoders._base import State, VocoderConfig, WaveformVocoder, inference
from wavegen.vocoders._speakers import SpeakerCondition

SMALLEST_MAGNITUDE = 1e-3  # the network sees smaller ones as silence; a full-scale sine has about n_fft / 4
MOMENTUM = 0.99  # of the Griffin-Lim iterations (Perraudin et al., 2013)


class SpectralConfig(VocoderConfig):
    """Shape of a spectral vocoder in a recipe.

    Attributes:
        padding: ``"same"``, or ``"causal"`` for the lowest latency (the inverse STFT and the iterations still look
            ahead, by what ``context`` says).
        channels: channels of the stack.
        layers: number of blocks.
        kernel_size: taps of the blocks' depthwise convolutions and of the input layer.
        dilation_depth: dilations grow 1, 2, … 2^(depth - 1) and start over; 1 for no dilation.
        expansion: hidden channels of each block as a multiple of ``channels``.
        refinement_iterations: Griffin-Lim iterations within the model; training backpropagates through them.
        synthesis_iterations: further iterations at synthesis only: more of them sound better and take longer.
        any_mel: read every definition of ``MelFamily(mel)``: each training step draws one. The network reads the
            spectrum that explains a mel, so its weights have the same shapes for all of them.
        look_ahead: frames that a causal model reads beyond the one it computes, up to ``kernel_size - 1``. It gains
            much of what ``"same"`` does, for a latency that you choose.
    """

    name: Literal["spectral"] = "spectral"
    padding: Padding = "same"
    channels: PositiveInt = 160
    layers: PositiveInt = 6
    kernel_size: PositiveInt = 7
    dilation_depth: PositiveInt = 1
    expansion: PositiveInt = 3
    refinement_iterations: Annotated[NonNegativeInt, KeepsWeights()] = 2
    synthesis_iterations: Annotated[NonNegativeInt, KeepsWeights()] = 6
    any_mel: Annotated[bool, KeepsWeights()] = False
    look_ahead: NonNegativeInt = 0

    @property
    def draws_mel_definitions(self) -> bool:
        """True with ``any_mel``."""
        return self.any_mel

    @classmethod
    def examples(cls) -> tuple["SpectralConfig", ...]:
        """Both paddings with and without iterations, and causal models with look-ahead."""
        dilated = cls(channels=5, layers=3, kernel_size=3, dilation_depth=2)
        plain = [
            dilated.model_copy(update={"padding": padding, "refinement_iterations": n, "synthesis_iterations": n})
            for padding in ("causal", "same")
            for n in (0, 1)
        ]
        causal = cls(padding="causal", channels=5, layers=2, kernel_size=5, synthesis_iterations=0)
        ahead = [
            causal.model_copy(update={"look_ahead": look_ahead, "refinement_iterations": n})
            for look_ahead, n in ((1, 0), (4, 0), (2, 1))
        ]
        tiny = cls(channels=8, layers=2, kernel_size=3, refinement_iterations=1, synthesis_iterations=1)
        return (tiny, *plain, *ahead)


class SpectralState(NamedTuple):
    """State of a natively streaming spectral vocoder.

    Attributes:
        waiting: log-magnitudes of the frames that wait for the look-ahead, ``[batch, bins, frames]``.
        early: outputs of the input layer that are still to be dropped because they precede the first frame.
        input: state of the input layer.
        stack: state of the dilated stack.
        istft: state of the inverse STFT.
        speakers: int64 ``[batch]``; None for a vocoder without speakers.
    """

    waiting: Tensor
    early: Tensor
    input: Tensor
    stack: Any
    istft: Any
    speakers: Tensor | None


class SpectralVocoder(WaveformVocoder):
    """Predicts each frame's spectrum as a correction of the one that the mel implies, and inverts it.

    ::

        mel ─ inverse filters ─ log ─┬── 1×1 ─ conv ─ + speaker ─ separable dilated blocks ─ norm ─ 1×1 ─┬── phase ──┐
                                     └───────────────────────────────────────────────────────────────── + ── magnitude
        spectrum ─ a few Griffin-Lim iterations, trained through ─ inverse STFT ─ samples

    The magnitude that explains the mel is a better start than the first minutes of any training (as FreeV,
    arXiv:2406.08196, shows with the pseudo-inverse). Phase is referenced to the frame's centre: bin ``k`` times
    ``(-1)^k``.

    Args:
        mel: the mel definition.
        config: the shape; by default that of the config's defaults.
        speakers: names of the speakers; empty for a vocoder without speakers.

    Raises:
        ConfigError: the padding or the kernel does not allow the look-ahead.
        MelError: ``any_mel`` with a definition that is outside its family.
    """

    Config = SpectralConfig
    normalised_over_channels = True
    synthesis_options: ClassVar[Mapping[str, str]] = {"iterations": "synthesis_iterations"}

    def __init__(self, mel: MelSpec, config: SpectralConfig | None = None, *, speakers: Sequence[str] = ()) -> None:
        super().__init__(mel)
        config = config or SpectralConfig()
        padding, channels, kernel_size = config.padding, config.channels, config.kernel_size
        if config.look_ahead and (padding != "causal" or config.look_ahead >= kernel_size):
            raise ConfigError(
                f"look_ahead {config.look_ahead} needs padding causal and a larger kernel_size; they are {padding} and "
                f"{kernel_size}",
                remedy="change one of the three",
            )
        bins = mel.n_fft // 2 + 1
        cycles = math.ceil(config.layers / config.dilation_depth)
        dilations = exponential_dilations(cycles, config.dilation_depth)[: config.layers]
        self.reduce = DilatedConv1d(bins, mel.n_mels, 1)
        self.input = DilatedConv1d(mel.n_mels, channels, kernel_size, padding=padding)
        self.input_norm = nn.LayerNorm(channels)
        self.stack = DilatedStack(
            SeparableResidualBlock(
                channels,
                kernel_size=kernel_size,
                dilation=dilation,
                padding=padding,
                expansion=config.expansion,
                initial_scale=1 / config.layers,
            )
            for dilation in dilations
        )
        self.output_norm = nn.LayerNorm(channels)
        self.magnitude = DilatedConv1d(channels, bins, 1)
        self.phase = DilatedConv1d(channels, bins, 1)
        self.refinement_iterations = config.refinement_iterations
        self.synthesis_iterations = config.synthesis_iterations
        self.look_ahead = config.look_ahead
        self.family = MelFamily(mel) if config.any_mel else None  # the same in the readers of other definitions
        self._read(mel)
        self.register_buffer("centre_sign", 1.0 - 2.0 * (torch.arange(bins)[:, None] % 2), persistent=False)
        self.centre_sign: Tensor
        self.largest_log_magnitude = math.log(float(mel.window().sum()))
        self._initialise()
        self.speaker_condition = SpeakerCondition(speakers, config.speaker_channels, channels)

    def for_mel(self, mel: MelSpec, where: object = "mel") -> "SpectralVocoder":
        """This vocoder as a reader of another definition. It shares its weights: training one trains the other."""
        if self.family is None:
            super().for_mel(mel, where)
            return self
        self.family.check(mel, where)
        if mel == self.mel:
            return self
        other = copy.copy(self)
        other._modules = dict(self._modules)  # shares all layers except those that follow from the definition
        other._read(mel)
        like = next(self.parameters())
        other.istft.to(like)
        other.mel_inverse.to(like)
        return other

    def _read(self, mel: MelSpec) -> None:
        """Make the parts that follow from the mel definition; they have no weights."""
        self.mel = mel
        self.istft = InverseSTFT(mel.n_fft, mel.hop_length, mel.window(), left_padding=mel.left_padding)
        self.mel_inverse = MelInverse(mel)

    @property
    def context(self) -> Context:
        """Mel frames read by the stack, by all iterations of synthesis and by the inverse STFT."""
        reads = self.input.context
        total = Context(reads.left - self.look_ahead, reads.right + self.look_ahead)
        total = total + self.stack.context + self.istft.context
        iteration = griffin_lim_context(self.istft)
        for _ in range(self.refinement_iterations + self.synthesis_iterations):
            total = total + iteration
        return total

    @property
    def latency_samples(self) -> int:
        """Look-ahead plus the overlap of the inverse STFT for a natively streaming model; otherwise the context."""
        if not self.steps_natively:
            return super().latency_samples
        return self.look_ahead * self.mel.hop_length + self.istft.latency_samples

    def forward(self, mel: Tensor, mask: Tensor | None = None, *, speakers: Tensor | None = None) -> Tensor:
        """Differentiable synthesis, as trained: without ``synthesis_iterations``.

        Args:
            mel: ``[batch, n_mels, frames]``.
            mask: ``[batch, 1, frames]``, True where a frame is real.
            speakers: int64 ``[batch]``, indices of ``self.speakers``; None for a vocoder without speakers.

        Returns:
            ``[batch, frames * hop_length]``.
        """
        return self._synthesize(mel, mask, speakers, synthesis_iterations=0)

    def generate(
        self, mel: Tensor, mask: Tensor | None, seeds: Tensor, first_frame: int, speakers: Tensor | None = None
    ) -> Tensor:
        """Synthesis with all iterations. It uses no noise, so seeds and position do not matter."""
        return self._synthesize(mel, mask, speakers, synthesis_iterations=self.synthesis_iterations)

    def initial_state(
        self, batch: int, *, seed: int | Sequence[int] = 0, speaker: str | Sequence[str] | None = None
    ) -> State:
        """State before the first frame; arguments and errors as in ``synthesize``."""
        if not self.steps_natively:
            return super().initial_state(batch, seed=seed, speaker=speaker)
        return SpectralState(
            waiting=next(self.parameters()).new_zeros(batch, self.magnitude.out_channels, 0),
            early=torch.tensor(self.look_ahead),
            input=self.input.initial_state(batch),
            stack=self.stack.initial_state(batch),
            istft=self.istft.initial_state(batch),
            speakers=self.speaker_condition.indices(speaker, batch),
        )

    @inference
    def step(self, mel: Tensor, state: Any) -> tuple[Tensor, State]:
        """Take the next frames and return the samples that are ready."""
        if not self.steps_natively:
            return super().step(mel, state)
        self.check_shape(mel)
        return self._step(*self._prior(mel), state)

    @inference
    def flush(self, state: Any) -> Tensor:
        """The samples that waited for look-ahead when the utterance ended."""
        if not self.steps_natively:
            return super().flush(state)
        batch = len(state.waiting)
        like = next(self.parameters())  # after the last frame the input layer reads zeros, as it does offline
        after = like.new_zeros(batch, self.input.in_channels, self.look_ahead)
        samples, state = self._step(like.new_zeros(batch, self.magnitude.out_channels, 0), after, state)
        return torch.cat((samples, self.istft.flush(state.istft)), dim=-1)

    def _step(self, prior: Tensor, x: Tensor, state: SpectralState) -> tuple[Tensor, SpectralState]:
        """Take the next log-magnitudes and inputs of the network and return the samples that are ready."""
        waiting = torch.cat((state.waiting, prior), dim=-1)
        h, input_state = self.input.step(x, state.input)
        dropped = min(int(state.early), h.shape[-1])
        h = h[..., dropped:]
        ready = h.shape[-1]
        (h, _), stack_state = self.stack.step(self._stack_input(h, state.speakers), state.stack)
        samples, istft_state = self.istft.step(self._spectrum(waiting[..., :ready], h)[1], state.istft)
        return samples, state._replace(
            waiting=waiting[..., ready:],
            early=state.early - dropped,
            input=input_state,
            stack=stack_state,
            istft=istft_state,
        )

    @property
    def steps_natively(self) -> bool:
        """True for a causal stack without iterations; these reread earlier frames."""
        iterations = self.refinement_iterations + self.synthesis_iterations
        return self.input.context.right == self.stack.context.right == iterations == 0

    def _synthesize(
        self, mel: Tensor, mask: Tensor | None, speakers: Tensor | None, *, synthesis_iterations: int
    ) -> Tensor:
        prior, x = self._prior(mel)
        # A causal layer's output at t + look_ahead belongs to frame t, so drop the first look_ahead frames.
        h = self.input(F.pad(masked(x, mask), (0, self.look_ahead)))[..., self.look_ahead :]
        h, _ = self.stack(self._stack_input(h, speakers), None, mask)
        magnitude, spectrum = self._spectrum(prior, h)
        with torch.autocast(mel.device.type, enabled=False):  # FFTs need float32
            iterations = self.refinement_iterations + synthesis_iterations
            spectrum = griffin_lim(self.istft, magnitude, spectrum, iterations=iterations, momentum=MOMENTUM, mask=mask)
            return self.istft(spectrum, mask)

    def _prior(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """The log-magnitude that explains the mel ``[batch, bins, frames]``, and the network's input made of it."""
        prior = self.mel_inverse(mel).clamp(min=SMALLEST_MAGNITUDE).log()
        return prior, self.reduce((prior + 3) / 2)  # the mean over speech is about -3

    def _stack_input(self, h: Tensor, speakers: Tensor | None = None) -> Tensor:
        return self._norm(self.input_norm, self.speaker_condition(h, speakers))

    def _spectrum(self, prior: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Magnitude and complex spectrum, ``[batch, bins, frames]`` each, in the precision of ``prior``."""
        h = self._norm(self.output_norm, h)
        log_magnitude, phase = prior + self.magnitude(h).to(prior.dtype), self.phase(h).to(prior.dtype)
        magnitude = log_magnitude.clamp(max=self.largest_log_magnitude).exp()
        centred = magnitude * self.centre_sign.to(prior.dtype)
        return magnitude, torch.complex(centred * phase.cos(), centred * phase.sin())

    @staticmethod
    def _norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
        return norm(x.transpose(1, 2)).transpose(1, 2)

    def _initialise(self) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Conv1d | nn.Linear):
                fan_in = layer.weight[0].numel()
                std = 0.02 if isinstance(layer, nn.Linear) else 1 / math.sqrt(fan_in)
                nn.init.trunc_normal_(layer.weight, std=std)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        # Start where Griffin-Lim starts: with the magnitude that explains the mel, and phase 0 at each frame's centre.
        nn.init.zeros_(self.magnitude.weight)
        nn.init.zeros_(self.phase.weight)
