"""A WaveNet that computes all samples at once: shaped source and upsampled mel in, waveform out."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from wavegen.blocks import (
    Context,
    DilatedConv1d,
    DilatedStack,
    GatedResidualBlock,
    Padding,
    StagedUpsampler,
    apply_weight_norm,
    exponential_dilations,
    masked,
    sample_mask,
    small_factors,
)
from wavegen.config import KeepsWeights
from wavegen.engines import PARALLEL_ENGINES, EngineCache, TiledEngine, make_parallel_engine
from wavegen.errors import ConfigError
from wavegen.mel import MelSpec
from wavegen.vocoders._base import VocoderConfig
from wavegen.vocoders._frames import count
from wavegen.vocoders._source import SOURCES
from wavegen.vocoders._sourced import SourcedWaveformVocoder
from wavegen.vocoders._speakers import SpeakerCondition
from wavegen.vocoders._spoken import PITCH_CHANNELS, Features, Spoken, pitch_channels

if TYPE_CHECKING:
    from wavegen.engines.spectral.chain import CompiledChain

SOURCE_GAIN = 10.0  # speech has a level of about a tenth


class ParallelConfig(VocoderConfig):
    """Shape of a parallel WaveNet in a recipe. The defaults are the shape of Parallel WaveGAN's first version.

    Attributes:
        padding: ``"same"``, or ``"causal"``, whose network adds no latency and recomputes nothing in a stream.
        residual_channels: channels between blocks.
        gate_channels: channels before the gates halve them.
        skip_channels: channels of the skips and of the layer before the last.
        condition_channels: channels of the upsampled mel; by default as many as the mel has bins.
        condition_window: mel frames before, and with ``"same"`` padding after, that are mixed into each frame.
        upsample_factors: stages from frames to samples; their product is the hop length. By default its
            ``small_factors``.
        cycles: number of times that the dilations start over.
        depth: blocks per cycle, with dilations 1, 2, … 2^(depth - 1).
        kernel_size: taps of the dilated convolutions.
        weight_norm: normalise the weights in training; folded before synthesis.
        refinement_iterations: Griffin-Lim iterations after the mel is imposed; training backpropagates through them.
        synthesis_iterations: further iterations at synthesis only: more of them sound better and take longer.
    """

    name: Literal["parallel"] = "parallel"
    padding: Padding = "same"
    residual_channels: PositiveInt = 64
    gate_channels: PositiveInt = 128
    skip_channels: PositiveInt = 64
    condition_channels: PositiveInt | None = None
    condition_window: NonNegativeInt = 2
    upsample_factors: tuple[PositiveInt, ...] | None = None
    cycles: PositiveInt = 3
    depth: PositiveInt = 10
    kernel_size: PositiveInt = 3
    weight_norm: bool = False
    refinement_iterations: Annotated[NonNegativeInt, KeepsWeights()] = 0
    synthesis_iterations: Annotated[NonNegativeInt, KeepsWeights()] = 8

    @classmethod
    def examples(cls) -> tuple["ParallelConfig", ...]:
        """Both paddings, with and without a window over frames, and a kernel of one tap."""
        tiny = cls(
            residual_channels=4,
            gate_channels=6,
            skip_channels=16,  # a few could all end behind a ReLU
            condition_channels=3,
            condition_window=1,
            synthesis_iterations=0,
        )
        shapes: tuple[dict[str, Any], ...] = (
            {"cycles": 2, "depth": 3},
            {"cycles": 1, "depth": 4, "kernel_size": 2, "condition_window": 0, "condition_channels": None},
        )
        paddings = ("causal", "same")
        both = [tiny.model_copy(update={"padding": padding, **shape}) for padding in paddings for shape in shapes]
        wide = tiny.model_copy(update={"gate_channels": 8, "condition_channels": 4, "cycles": 1, "depth": 3})
        one_tap = tiny.model_copy(
            update={"kernel_size": 1, "cycles": 1, "depth": 2, "refinement_iterations": 1, "synthesis_iterations": 1}
        )
        return (wide, *both, one_tap)


class NetworkState(NamedTuple):
    """State of a causal network.

    Attributes:
        frame_conv: state of the frame-rate convolution.
        frames: the last frames of the condition, which the upsampler still reads.
        stack: state of the dilated stack.
    """

    frame_conv: Tensor
    frames: Tensor
    stack: Any


class ParallelWaveNet(SourcedWaveformVocoder):
    """Non-autoregressive WaveNet at sample rate: the generator of Parallel WaveGAN (arXiv:1910.11480, section 3).

    ::

        mel, pitch ─ conv ─ + speaker ─ hold and smooth, in stages ─┐ condition
        sources ─┬─ 1×1 ─ gated dilated blocks ─────────────────────┴─ sum of skips ─ ReLU ─ 1×1 ─ ReLU ─ 1×1 ─┐
                 └─────────────────────────────────────────────────────────────────────────────────────────── + ─┐
        samples ─ a few Griffin-Lim iterations ─ mel imposed ────────────────────────────────────────────────────┘

    Where Parallel WaveGAN has white noise, this one has the shaped source: pulses and noise through the mel's own
    filter. The last layer begins with zeros, so that training begins with the sound of the source-filter vocoder.

    The names in the public implementation and here::

        first_conv · conv_layers · last_conv_layers    input · stack · hidden, output
        upsample_net.conv_in, aux_context_window       frame_conv (its bias 0), condition_window
        upsample_net.upsample, upsample_scales         upsample (kernels from right to left), upsample_factors
        layers, stacks, aux_channels                   cycles * depth, cycles, condition_channels

    There, the caller pads the mel by ``aux_context_window`` frames; here, frames beyond the ends are zeros on the scale
    of ``normalised``.

    Args:
        mel: the mel definition.
        config: the shape; by default that of the config's defaults.
        speakers: names of the speakers; empty for a vocoder without speakers.

    Raises:
        ConfigError: the product of the upsampling factors is not the hop length.
    """

    Config = ParallelConfig
    engines = PARALLEL_ENGINES
    names_engine = True
    trains_in_bfloat16 = False  # the samples would have 8 bits, and the sum of many skips hardly more

    def __init__(self, mel: MelSpec, config: ParallelConfig | None = None, *, speakers: Sequence[str] = ()) -> None:
        super().__init__(mel)
        config = config or ParallelConfig()
        padding = config.padding
        condition_channels = config.condition_channels or mel.n_mels
        window = config.condition_window + 1 if padding == "causal" else 2 * config.condition_window + 1
        self.frame_conv = DilatedConv1d(mel.n_mels + PITCH_CHANNELS, condition_channels, window, padding=padding)
        factors = config.upsample_factors or small_factors(mel.hop_length)
        if math.prod(factors) != mel.hop_length:
            raise ConfigError(
                f"{' · '.join(map(str, factors))} = {math.prod(factors)}, which must be the mel's hop length "
                f"{mel.hop_length}",
                where="vocoder.upsample_factors",
                remedy=f"leave it out to get {list(small_factors(mel.hop_length))}",
            )
        self.upsample = StagedUpsampler(factors, padding=padding)
        self.input = DilatedConv1d(SOURCES, config.residual_channels, 1)
        self.stack = DilatedStack(
            GatedResidualBlock(
                config.residual_channels,
                kernel_size=config.kernel_size,
                dilation=dilation,
                padding=padding,
                gate_channels=config.gate_channels,
                skip_channels=config.skip_channels,
                condition_channels=condition_channels,
            )
            for dilation in exponential_dilations(config.cycles, config.depth)
        )
        self.skip_scale = math.sqrt(1 / (config.cycles * config.depth))  # keeps the variance of the sum
        self.hidden = DilatedConv1d(config.skip_channels, config.skip_channels, 1)
        self.output = DilatedConv1d(config.skip_channels, 1, 1)
        self.refinement_iterations = config.refinement_iterations
        self.synthesis_iterations = config.synthesis_iterations
        self.streams_natively = padding == "causal"
        self._initialise()
        if config.weight_norm:
            for part in (self.frame_conv, self.input, self.stack, self.hidden):  # zeros have no norm to divide by
                apply_weight_norm(part)
        self.speaker_condition = SpeakerCondition(speakers, config.speaker_channels, condition_channels)
        self._engines = EngineCache(make_parallel_engine)

    def frames_conditioned(self, first_sample: int, last_sample: int) -> Context:
        """Frames of mel and pitch that the network reads to compute samples counted from a frame's start."""
        reads = self.stack.condition_context
        first, last = self.upsample.frames_reached(first_sample - reads.left, last_sample + reads.right)
        return Context(max(0, -first), max(0, last)) + self.frame_conv.context

    @property
    def network_context(self) -> Context:
        """Frames of features that the network reads around a frame."""
        hop, stack = self.mel.hop_length, self.stack.context
        condition = self.frames_conditioned(0, hop - 1)
        sources = Context(-(-stack.left // hop), (hop - 1 + stack.right) // hop)
        return Context(max(condition.left, sources.left), max(condition.right, sources.right))

    @property
    def receptive_field_samples(self) -> int:
        """Samples that an output sample of the network depends on; what is not trained does not count."""
        return self.network_context.receptive_field * self.mel.hop_length

    @property
    def render_context(self) -> Context:
        """Frames of features read by the projection and, unless it streams natively, by the network."""
        projection = self.projection.context(self.iterations)
        if self.streams_natively:
            return projection
        return projection + self.network_context

    @property
    def context(self) -> Context:
        """Mel frames read around a frame, by the source and by the network, given the state of the source before it."""
        first, last = self.projection.samples_read(self.iterations)
        source = self.source_frames_read(first - self.stack.context.left, last + self.stack.context.right)
        condition = self.pitch.context + self.frames_conditioned(first, last)
        return Context(max(source.left, condition.left), max(source.right, condition.right))

    def compiled(self) -> None:
        """Frames take a small part of this vocoder's time, so its engines do not compile them."""
        return

    def initial_network_state(self, features: Features, seeds: Tensor) -> tuple[Features, Any]:
        """As in ``SourcedVocoder``."""
        batch = len(features.spoken.mel)
        frame_state = self.frame_conv.initial_state(batch)
        state = NetworkState(
            frame_conv=frame_state,
            frames=frame_state.new_zeros(batch, self.frame_conv.out_channels, self.upsample.context.left),
            stack=self.stack.initial_state(batch),
        )
        corrections = features.spoken.magnitude.new_zeros(batch, self.mel.hop_length, 0)
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
        """As in ``SourcedVocoder``."""
        batch, hop = len(features.spoken.mel), self.mel.hop_length
        if count(features) == 0:
            return features._replace(corrections=features.spoken.magnitude.new_zeros(batch, hop, 0)), state
        h, frame_state = self.frame_conv.step(self._condition_input(features.spoken), state.frame_conv)
        h = self.speaker_condition(h, speakers)
        # Frames are kept instead of the upsampler's own state: a causal one takes zeros for what precedes the first.
        frames = torch.cat((state.frames, h), dim=-1)
        samples, stack_state = self._continue(self._network_input(features), frames, state.stack)
        corrections = samples.unflatten(1, (-1, hop)).transpose(1, 2)
        kept = frames[..., frames.shape[-1] - self.upsample.context.left :]
        return features._replace(corrections=corrections), NetworkState(frame_state, kept, stack_state)

    def render(
        self,
        features: Features,
        mask: Tensor | None,
        speakers: Tensor | None,
        iterations: int,
        compiled: "CompiledChain | None" = None,
    ) -> Tensor:
        """Impose the mel on the sources and what the network adds; zeros outside the mask."""
        if features.corrections is None:
            correction = self._correct(features, mask, speakers)
        else:
            correction = features.corrections.transpose(1, 2).flatten(1)
        samples = features.source_samples().sum(1) + correction.to(features.spoken.magnitude.dtype)
        real = sample_mask(mask, self.mel.hop_length)
        samples = masked(samples, None if real is None else real[:, 0])
        return self.projection(samples, features.spoken.mel, mask, iterations=iterations)

    def _correct(self, features: Features, mask: Tensor | None, speakers: Tensor | None) -> Tensor:
        """What the network adds to the sources, ``[batch, samples]``, for whole utterances or windows."""
        frames = self.speaker_condition(self.frame_conv(self._condition_input(features.spoken), mask), speakers)
        sources, hop = self._network_input(features), self.mel.hop_length
        engine = self._tiled_engine()
        if engine is None:
            # A causal stack needs no mask, because nothing after an item's end can reach it; without one it is faster.
            real = None if self.streams_natively else sample_mask(mask, hop)
            _, skips = self.stack(self.input(sources), self.upsample(frames, mask), real)
            return self._waveform(skips)
        lengths = [frames.shape[-1]] * len(frames) if mask is None else mask[:, 0].sum(-1).tolist()
        samples, nothing_before = torch.zeros_like(sources[:, 0]), self.stack.initial_state(1)
        for item, length in enumerate(lengths):
            of_item = sources[item, :, : length * hop], frames[item, :, :length]
            samples[item, : length * hop], _ = engine.run(*of_item, nothing_before)
        return samples

    def _continue(self, sources: Tensor, frames: Tensor, stack_state: Any) -> tuple[Tensor, Any]:
        """The network's samples for ``sources``, conditioned on the last of ``frames``, and the stack's next state."""
        engine = self._tiled_engine()
        if engine is not None:
            items = [
                engine.run(sources[i], frames[i], tuple(history[i : i + 1] for history in stack_state))
                for i in range(len(sources))
            ]
            after = tuple(torch.cat(histories) for histories in zip(*(state for _, state in items), strict=True))
            return torch.stack([samples for samples, _ in items]), after
        condition = self.upsample(frames)[..., -sources.shape[-1] :]
        (_, skips), stack_state = self.stack.step(self.input(sources), stack_state, condition)
        return self._waveform(skips), stack_state

    def _tiled_engine(self) -> TiledEngine | None:
        """The tiled engine if it is the chosen one; None if gradients are enabled, because it computes none."""
        engine = None if torch.is_grad_enabled() else self._engines.engine(self)
        return engine if isinstance(engine, TiledEngine) else None

    def _condition_input(self, spoken: Spoken) -> Tensor:
        """Mel and pitch on a common scale, ``[batch, n_mels + 2, frames]``."""
        return torch.cat((self.normalised(spoken.mel), pitch_channels(spoken.pitch)), dim=1)

    def _network_input(self, features: Features) -> Tensor:
        """The sources on a scale that suits the layers, ``[batch, 2, samples]``."""
        return features.source_samples() * SOURCE_GAIN

    def _waveform(self, skips: Tensor) -> Tensor:
        """Sum of skips ``[batch, skip_channels, samples]`` to samples ``[batch, samples]``."""
        return self.output(torch.relu(self.hidden(torch.relu(skips * self.skip_scale))))[:, 0]

    def _initialise(self) -> None:
        parts = (self.frame_conv, self.upsample, self.input, self.stack, self.hidden)
        for layer in (layer for part in parts for layer in part.modules()):
            if isinstance(layer, nn.Conv1d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.output.weight)
        assert self.output.bias is not None
        nn.init.zeros_(self.output.bias)
