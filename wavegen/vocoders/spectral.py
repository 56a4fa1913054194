"""A dilated stack at frame rate with an inverse STFT head: quick to train, and fast on a CPU."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from wavegen.blocks import (
    Context,
    DilatedConv1d,
    DilatedStack,
    Padding,
    SeparableResidualBlock,
    exponential_dilations,
    masked,
)
from wavegen.config import KeepsWeights
from wavegen.errors import ConfigError
from wavegen.mel import MelFamily, MelSpec
from wavegen.vocoders._base import Vocoder, VocoderConfig
from wavegen.vocoders._frames import cut, joined
from wavegen.vocoders._sourced import SourcedWaveformVocoder
from wavegen.vocoders._speakers import SpeakerCondition
from wavegen.vocoders._spoken import PITCH_CHANNELS, Features, Spoken, pitch_channels

if TYPE_CHECKING:
    from wavegen.engines.spectral.chain import CompiledChain

LARGEST_CORRECTION = 6.0  # nepers
SMALLEST_MAGNITUDE = 1e-3  # the network sees smaller ones as silence; a full-scale sine has about n_fft / 4


class SpectralConfig(VocoderConfig):
    """Shape of a spectral vocoder in a recipe.

    Attributes:
        padding: ``"same"``, or ``"causal"`` for the lowest latency (the inverse STFT and the iterations still look
            ahead, by what ``context`` says).
        spectrum_channels: channels to which a layer reduces the magnitude spectrum before the stack.
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
    spectrum_channels: PositiveInt = 100
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
        dilated = cls(spectrum_channels=9, channels=5, layers=3, kernel_size=3, dilation_depth=2)
        plain = [
            dilated.model_copy(update={"padding": padding, "refinement_iterations": n, "synthesis_iterations": n})
            for padding in ("causal", "same")
            for n in (0, 1)
        ]
        causal = cls(padding="causal", spectrum_channels=9, channels=5, layers=2, kernel_size=5, synthesis_iterations=0)
        ahead = [
            causal.model_copy(update={"look_ahead": look_ahead, "refinement_iterations": n})
            for look_ahead, n in ((1, 0), (4, 0), (2, 1))
        ]
        tiny = cls(
            spectrum_channels=12, channels=8, layers=2, kernel_size=3, refinement_iterations=1, synthesis_iterations=1
        )
        return (tiny, *plain, *ahead)


class Corrections(NamedTuple):
    """What the network says of each bin: ``[batch, bins, frames]`` each, all 0 for no correction.

    Attributes:
        periodic: log-gain of the periodic source, before the mel is imposed.
        aperiodic: log-gain of the aperiodic source.
        magnitude: log-gain after the mel is imposed.
        phase: phase to add, in radians.
    """

    periodic: Tensor
    aperiodic: Tensor
    magnitude: Tensor
    phase: Tensor


class NetworkState(NamedTuple):
    """State of a natively streaming network.

    Attributes:
        waiting: features of the frames that wait for the look-ahead.
        early: outputs of the input layer that are still to be dropped because they precede the first frame.
        input: state of the input layer.
        stack: state of the dilated stack.
    """

    waiting: Features
    early: Tensor
    input: Tensor
    stack: Any


class SpectralVocoder(SourcedWaveformVocoder):
    """Corrects the spectrum of the source-filter vocoder frame by frame, and inverts it.

    ::

        mel ─ source stage ─┬─ magnitude, pitch ─ conv ─ + speaker ─ separable dilated blocks ─ norm ─ 1×1 ─┐
                            ├─ periodic source ─ STFT ─ × gain ─┐                     gains, magnitude, phase
                            └─ aperiodic source ─ STFT ─ × gain ┴─ mel imposed ─ × magnitude, + phase ──────┐
        samples ─ inverse STFT ─ a few Griffin-Lim iterations, trained through ─────────────────────────────┘

    All corrections are zero at first: training begins with the sound of the source-filter vocoder, which is better than
    the first hour of any training from nothing.

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
        self.reduce = DilatedConv1d(bins, config.spectrum_channels, 1)
        self.input = DilatedConv1d(config.spectrum_channels + PITCH_CHANNELS, channels, kernel_size, padding=padding)
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
        self.corrections = DilatedConv1d(channels, len(Corrections._fields) * bins, 1)
        self.refinement_iterations = config.refinement_iterations
        self.synthesis_iterations = config.synthesis_iterations
        self.look_ahead = config.look_ahead
        self.streams_natively = padding == "causal"
        self.family = MelFamily(mel) if config.any_mel else None  # the same in the readers of other definitions
        self.largest_log_magnitude = math.log(float(mel.window().sum()))
        self._initialise()
        self.speaker_condition = SpeakerCondition(speakers, config.speaker_channels, channels)

    def for_mel(self, mel: MelSpec, where: object = "mel") -> "SpectralVocoder":
        """This vocoder as a reader of another definition. It shares its weights: training one trains the other."""
        if self.family is None:
            Vocoder.for_mel(self, mel, where)
            return self
        self.family.check(mel, where)
        return self.reading(mel)

    @property
    def frame_stack(self) -> DilatedStack:
        """The stack of the network."""
        return self.stack

    @property
    def frame_output(self) -> DilatedConv1d:
        """The layer that gives the corrections."""
        return self.corrections

    @property
    def network_context(self) -> Context:
        """Frames of features that the network reads around a frame."""
        reads = self.input.context
        return Context(reads.left - self.look_ahead, reads.right + self.look_ahead) + self.stack.context

    @property
    def corrected_context(self) -> Context:
        """Frames of corrections that a frame's samples depend on."""
        return self.projection.spectra_context(self.iterations)

    @property
    def render_context(self) -> Context:
        """Frames of features read by the projection and, unless it streams natively, by the network."""
        projection = self.projection.context(self.iterations)
        if self.streams_natively:
            return projection
        network = self.network_context + self.corrected_context
        return Context(max(projection.left, network.left), max(projection.right, network.right))

    @property
    def context(self) -> Context:
        """Mel frames read around a frame, by the source and by the network, given the state of the source before it."""
        source = self.source_frames_read(*self.projection.samples_read(self.iterations))
        network = self.pitch.context + self.network_context + self.corrected_context
        return Context(max(source.left, network.left), max(source.right, network.right))

    @property
    def latency_samples(self) -> int:
        """How far streamed output lags behind its input."""
        ahead = self.look_ahead if self.streams_natively else 0
        return super().latency_samples + ahead * self.mel.hop_length

    def initial_network_state(self, features: Features, seeds: Tensor) -> tuple[Features, Any]:
        """As in ``SourcedVocoder``."""
        batch = len(features.spoken.mel)
        corrections = features.spoken.magnitude.new_zeros(batch, self.corrections.out_channels, 0)
        state = NetworkState(
            waiting=features,
            early=torch.tensor(self.look_ahead),
            input=self.input.initial_state(batch),
            stack=self.stack.initial_state(batch),
        )
        return features._replace(corrections=corrections), state

    def step_network(
        self,
        features: Features,
        state: Any,
        speakers: Tensor | None,
        compiled: "CompiledChain | None" = None,
        *,
        ended: bool,
    ) -> tuple[Features, Any]:
        """As in ``SourcedVocoder``; a network with look-ahead keeps features waiting."""
        waiting = joined(state.waiting, features)
        x = self._network_input(features.spoken)
        if ended:  # after the last frame the input layer reads zeros, as it does offline
            x = F.pad(x, (0, self.look_ahead))
        h, input_state = self.input.step(x, state.input)
        dropped = min(int(state.early), h.shape[-1])
        h = h[..., dropped:]
        (h, _), stack_state = self._stack_of(compiled).step(self._stack_input(h, speakers), state.stack)
        h = self._stack_output(h)
        corrections = self.corrections(h) if compiled is None else compiled.corrections(h)
        ready = cut(waiting, 0, h.shape[-1])._replace(corrections=corrections)
        return ready, NetworkState(cut(waiting, h.shape[-1], None), state.early - dropped, input_state, stack_state)

    def render(
        self,
        features: Features,
        mask: Tensor | None,
        speakers: Tensor | None,
        iterations: int,
        compiled: "CompiledChain | None" = None,
    ) -> Tensor:
        """Invert the corrected spectra of the sources."""
        corrections = features.corrections
        if compiled is not None:
            known = corrections is not None
            return compiled.projection(
                features.source_samples(),
                features.spoken.mel,
                mask,
                iterations=iterations,
                corrections=corrections if known else self._hidden(features.spoken, mask, speakers, compiled),
                limits=(LARGEST_CORRECTION, math.exp(self.largest_log_magnitude)),
                output=None if known else compiled.output,
            )
        if corrections is None:
            corrections = self._correct(features.spoken, mask, speakers)
        with torch.autocast(corrections.device.type, enabled=False):  # FFTs need float32
            magnitude, spectrum = self._spectrum(features, corrections)
            return self.projection.istft(self.projection.iterate(magnitude, spectrum, iterations, mask), mask)

    def _spectrum(self, features: Features, corrections: Tensor) -> tuple[Tensor, Tensor]:
        """Magnitude and complex spectrum, ``[batch, bins, frames]`` each, in the precision of the sources."""
        dtype = features.spoken.magnitude.dtype
        gains = Corrections(*corrections.to(dtype).chunk(len(Corrections._fields), dim=1))
        sources = features.source_samples()
        spectra = self.projection.istft.analyse(sources.flatten(0, 1)).unflatten(0, (-1, 2))

        # Mix both sources, impose the mel on the mixture, and only then correct it: what the network adds to the
        # magnitude is what the mel does not say.
        mixture = spectra[:, 0] * _gain(gains.periodic) + spectra[:, 1] * _gain(gains.aperiodic)
        imposed, spectrum = self.projection.impose(mixture, features.spoken.mel)
        correction = _gain(gains.magnitude)
        largest = math.exp(self.largest_log_magnitude)
        magnitude = (imposed * correction).clamp(max=largest)
        turn = torch.complex(correction * gains.phase.cos(), correction * gains.phase.sin())  # torch.polar is slow
        return magnitude, spectrum * turn

    def _correct(self, spoken: Spoken, mask: Tensor | None, speakers: Tensor | None) -> Tensor:
        """The network: corrections ``[batch, 4 * bins, frames]`` of whole utterances or windows."""
        return self.corrections(self._hidden(spoken, mask, speakers))

    def _hidden(
        self,
        spoken: Spoken,
        mask: Tensor | None,
        speakers: Tensor | None,
        compiled: "CompiledChain | None" = None,
    ) -> Tensor:
        """What the output layer reads, ``[batch, channels, frames]``, of whole utterances or windows."""
        # A causal layer's output at t + look_ahead belongs to frame t, so drop the first look_ahead frames.
        x = masked(self._network_input(spoken), mask)
        h = self.input(F.pad(x, (0, self.look_ahead)) if self.look_ahead else x)[..., self.look_ahead :]
        h, _ = self._stack_of(compiled)(self._stack_input(h, speakers), None, mask)
        return self._stack_output(h)

    def _stack_of(self, compiled: "CompiledChain | None") -> Any:
        """The stack, or what the engine computes in its place."""
        return self.stack if compiled is None else compiled.stack

    def _network_input(self, spoken: Spoken) -> Tensor:
        """Log-magnitude, reduced to fewer channels, and pitch."""
        magnitude = self.reduce((spoken.magnitude.clamp(min=SMALLEST_MAGNITUDE).log() + 3) / 2)  # the mean is about -3
        return torch.cat((magnitude, pitch_channels(spoken.pitch).to(magnitude.dtype)), dim=1)

    def _stack_input(self, h: Tensor, speakers: Tensor | None = None) -> Tensor:
        return self._norm(self.input_norm, self.speaker_condition(h, speakers))

    def _stack_output(self, h: Tensor) -> Tensor:
        return self._norm(self.output_norm, h)

    @staticmethod
    def _norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
        return norm(x.transpose(1, 2)).transpose(1, 2)

    def _initialise(self) -> None:
        layers = (self.reduce, self.input, *self.stack.modules(), self.corrections)
        for layer in layers:
            if isinstance(layer, nn.Conv1d | nn.Linear):
                fan_in = layer.weight[0].numel()
                std = 0.02 if isinstance(layer, nn.Linear) else 1 / math.sqrt(fan_in)
                nn.init.trunc_normal_(layer.weight, std=std)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.corrections.weight)


def _gain(logarithm: Tensor) -> Tensor:
    return logarithm.clamp(-LARGEST_CORRECTION, LARGEST_CORRECTION).exp()
