"""A dilated stack at frame rate with an inverse STFT head: quick to train, hundreds of times real time."""

import copy
import math
from collections.abc import Sequence
from typing import Literal

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
from wavegen.errors import ConfigError
from wavegen.mel import MelFamily, MelInverse, MelSpec
from wavegen.vocoders._base import State, Vocoder, VocoderConfig
from wavegen.vocoders._speakers import SpeakerCondition

# Magnitudes below this are silence to the network; a full-scale sine has about n_fft / 4.
SMALLEST_MAGNITUDE = 1e-3
# Of the Griffin-Lim iterations (Perraudin et al., 2013).
MOMENTUM = 0.99


class SpectralConfig(VocoderConfig):
    """Shape of a spectral vocoder in a recipe."""

    name: Literal["spectral"] = "spectral"
    padding: Padding = "same"
    channels: PositiveInt = 160
    layers: PositiveInt = 6
    kernel_size: PositiveInt = 7
    dilation_depth: PositiveInt = 1
    expansion: PositiveInt = 3
    refinement_iterations: NonNegativeInt = 2
    synthesis_iterations: NonNegativeInt = 6
    any_mel: bool = False
    look_ahead: NonNegativeInt = 0


class SpectralVocoder(Vocoder):
    """Predicts each frame's spectrum as a correction of what the mel already tells, then inverts it.

    ::

        mel ─ inverse filters ─ log ─┬── 1×1 ─ conv ─ + speaker ─ separable dilated blocks ─ norm ─ 1×1 ─┬── phase ──┐
                                     └───────────────────────────────────────────────────────────────── + ── magnitude
        spectrum ─ a few Griffin-Lim iterations, trained through ─ inverse STFT ─ samples

    The magnitude that explains the mel is a better start than any first minutes of training (as FreeV,
    arXiv:2406.08196, shows with the pseudo-inverse). Phase is referenced to the frame's centre: bin ``k`` times
    ``(-1)^k``.

    Args:
        mel: the mel contract.
        padding: ``"same"``, or ``"causal"`` for the lowest latency (the inverse STFT and the iterations still look
            ahead by what ``context`` says).
        channels: channels of the stack.
        layers: blocks.
        kernel_size: taps of the blocks' depthwise convolutions and of the input's.
        dilation_depth: dilations grow 1, 2, … 2^(depth - 1) and start over; 1 for none.
        expansion: hidden channels of each block as a multiple of ``channels``.
        refinement_iterations: Griffin-Lim iterations within the model, trained through.
        synthesis_iterations: further fast iterations at synthesis only: a dial between quality and speed.
        any_mel: whether it reads every definition of ``MelFamily(mel)``: in training each step draws one. The network
            reads the spectrum that explains a mel, so its weights are of the same shape for them all.
        look_ahead: frames that a causal model reads beyond the one it makes, up to ``kernel_size - 1``: much of what
            ``"same"`` gains, for a latency that is chosen.
        speakers: names of those who may speak; none for a vocoder that is not told who does.
        speaker_channels: channels of the vector that is learned for each.

    Raises:
        ConfigError: a look-ahead that is not for this padding or kernel.
        MelError: ``any_mel`` with a definition that is none of its family.
    """

    Config = SpectralConfig
    objective = "reconstruction"
    normalised_over_channels = True

    def __init__(
        self,
        mel: MelSpec,
        *,
        padding: Padding = "same",
        channels: int = 160,
        layers: int = 6,
        kernel_size: int = 7,
        dilation_depth: int = 1,
        expansion: int = 3,
        refinement_iterations: int = 2,
        synthesis_iterations: int = 6,
        any_mel: bool = False,
        look_ahead: int = 0,
        speakers: Sequence[str] = (),
        speaker_channels: int = 0,
    ) -> None:
        super().__init__(mel)
        if look_ahead and (padding != "causal" or look_ahead >= kernel_size):
            raise ConfigError(
                f"look_ahead {look_ahead} with padding {padding} and kernel_size {kernel_size}",
                remedy="it is for padding causal, and must be less than kernel_size",
            )
        bins = mel.n_fft // 2 + 1
        self.refinement_iterations, self.synthesis_iterations = refinement_iterations, synthesis_iterations
        cycles = math.ceil(layers / dilation_depth)
        dilations = exponential_dilations(cycles, dilation_depth)[:layers]
        self.reduce = DilatedConv1d(bins, mel.n_mels, 1)
        self.input = DilatedConv1d(mel.n_mels, channels, kernel_size, padding=padding)
        self.input_norm = nn.LayerNorm(channels)
        self.stack = DilatedStack(
            SeparableResidualBlock(
                channels,
                kernel_size=kernel_size,
                dilation=dilation,
                padding=padding,
                expansion=expansion,
                initial_scale=1 / layers,
            )
            for dilation in dilations
        )
        self.output_norm = nn.LayerNorm(channels)
        self.magnitude = DilatedConv1d(channels, bins, 1)
        self.phase = DilatedConv1d(channels, bins, 1)
        self.any_mel, self.look_ahead = any_mel, look_ahead
        self.family = MelFamily(mel) if any_mel else None  # readers of other definitions keep it as it is
        self._read(mel)
        self.register_buffer("centre_sign", 1.0 - 2.0 * (torch.arange(bins)[:, None] % 2), persistent=False)
        self.centre_sign: Tensor
        self.largest_log_magnitude = math.log(float(mel.window().sum()))
        self._initialise()
        self.speaker_condition = SpeakerCondition(speakers, speaker_channels, channels)

    def for_mel(self, mel: MelSpec, where: object = "mel") -> "SpectralVocoder":
        """A vocoder of the same weights for another definition; training one trains the other."""
        if self.family is None:
            super().for_mel(mel, where)
            return self
        self.family.check(mel, where)
        if mel == self.mel:
            return self
        other = copy.copy(self)
        other._modules = dict(self._modules)  # the same layers, but for what follows from the definition
        other._read(mel)
        like = next(self.parameters())
        other.istft.to(like)
        other.mel_inverse.to(like)
        return other

    def _read(self, mel: MelSpec) -> None:
        """Make the parts that follow from the definition of the mels; they have no weights."""
        self.mel = mel
        self.istft = InverseSTFT(mel.n_fft, mel.hop_length, mel.window(), left_padding=mel.left_padding)
        self.mel_inverse = MelInverse(mel)

    @property
    def context(self) -> Context:
        """Frames read by the stack, by the iterations at synthesis and by the inverse STFT."""
        reads = self.input.context
        total = Context(reads.left - self.look_ahead, reads.right + self.look_ahead)
        total = total + self.stack.context + self.istft.context
        iteration = griffin_lim_context(self.istft)
        for _ in range(self.refinement_iterations + self.synthesis_iterations):
            total = total + iteration
        return total

    @property
    def latency_samples(self) -> int:
        """A causal stack without iterations waits for its look-ahead and the inverse STFT's overlap alone."""
        if not self.steps_natively:
            return super().latency_samples
        return self.look_ahead * self.mel.hop_length + self.istft.latency_samples

    def forward(self, mel: Tensor, mask: Tensor | None = None, *, speakers: Tensor | None = None) -> Tensor:
        """Differentiable synthesis as trained: without the iterations that synthesis adds.

        Args:
            mel: ``[batch, n_mels, frames]``.
            mask: ``[batch, 1, frames]``, True where a frame is real.
            speakers: int64 ``[batch]``, indices of ``self.speakers``; None where there are none.

        Returns:
            ``[batch, frames * hop_length]``.
        """
        return self._synthesize(mel, mask, speakers, synthesis_iterations=0)

    def generate(
        self, mel: Tensor, mask: Tensor | None, seeds: Tensor, first_frame: int, speakers: Tensor | None = None
    ) -> Tensor:
        """Synthesis with all iterations; there is no noise, so seeds and position do not matter."""
        return self._synthesize(mel, mask, speakers, synthesis_iterations=self.synthesis_iterations)

    def initial_state(
        self, batch: int, *, seed: int | Sequence[int] = 0, speaker: str | Sequence[str] | None = None
    ) -> State:
        """State before the first frame.

        That is: priors of the frames that wait for the look-ahead, outputs of the input layer still to drop because
        they belong before the first frame, the states of the layers in turn, and any speakers.
        """
        if not self.steps_natively:
            return super().initial_state(batch, seed=seed, speaker=speaker)
        return (
            next(self.parameters()).new_zeros(batch, self.magnitude.out_channels, 0),
            torch.tensor(self.look_ahead),
            self.input.initial_state(batch),
            self.stack.initial_state(batch),
            self.istft.initial_state(batch),
            *self.speaker_condition.indices(speaker, batch),
        )

    @torch.no_grad()
    def step(self, mel: Tensor, state: State) -> tuple[Tensor, State]:
        """Take the next frames; give the samples that are ready."""
        if not self.steps_natively:
            return super().step(mel, state)
        self.check_shape(mel)
        return self._step(*self._prior(mel), state)

    @torch.no_grad()
    def flush(self, state: State) -> Tensor:
        """The samples that waited for frames which will not come."""
        if not self.steps_natively:
            return super().flush(state)
        batch = len(state[0])
        like = next(self.parameters())  # after the last frame the input layer reads zeros, as it does offline
        after = like.new_zeros(batch, self.input.in_channels, self.look_ahead)
        samples, state = self._step(like.new_zeros(batch, self.magnitude.out_channels, 0), after, state)
        return torch.cat((samples, self.istft.flush(state[4])), dim=-1)

    def _step(self, prior: Tensor, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Take the next priors and inputs of the network; give the samples that are ready."""
        waiting, early, input_state, stack_state, istft_state, *who = state
        waiting = torch.cat((waiting, prior), dim=-1)
        h, input_state = self.input.step(x, input_state)
        dropped = min(int(early), h.shape[-1])
        h = h[..., dropped:]
        ready = h.shape[-1]
        (h, _), stack_state = self.stack.step(self._stack_input(h, *who), stack_state)
        samples, istft_state = self.istft.step(self._spectrum(waiting[..., :ready], h)[1], istft_state)
        return samples, (waiting[..., ready:], early - dropped, input_state, stack_state, istft_state, *who)

    @property
    def steps_natively(self) -> bool:
        """True for a causal stack without iterations, which reread what came before."""
        iterations = self.refinement_iterations + self.synthesis_iterations
        return self.input.context.right == self.stack.context.right == iterations == 0

    def _synthesize(
        self, mel: Tensor, mask: Tensor | None, speakers: Tensor | None, *, synthesis_iterations: int
    ) -> Tensor:
        prior, x = self._prior(mel)
        # What the causal layer says of a frame, it has said ``look_ahead`` frames later.
        h = self.input(F.pad(masked(x, mask), (0, self.look_ahead)))[..., self.look_ahead :]
        h, _ = self.stack(self._stack_input(h, speakers), None, mask)
        magnitude, spectrum = self._spectrum(prior, h)
        with torch.autocast(mel.device.type, enabled=False):  # transforms have no half precision
            iterations = self.refinement_iterations + synthesis_iterations
            spectrum = griffin_lim(self.istft, magnitude, spectrum, iterations=iterations, momentum=MOMENTUM, mask=mask)
            return self.istft(spectrum, mask)

    def _prior(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Log-magnitude that explains the mel ``[batch, bins, frames]``, and the network's input made of it."""
        prior = self.mel_inverse(mel).clamp(min=SMALLEST_MAGNITUDE).log()
        return prior, self.reduce((prior + 3) / 2)  # speech averages about -3

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
        # Start where Griffin-Lim would: the magnitude that explains the mel, and phase 0 at each frame's centre.
        nn.init.zeros_(self.magnitude.weight)
        nn.init.zeros_(self.phase.weight)
