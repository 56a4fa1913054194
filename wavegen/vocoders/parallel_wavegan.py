"""Parallel WaveGAN: white noise and the upsampled mel in, waveform out. Its weights can be imported."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from typing_extensions import Self

from wavegen.blocks import (
    Context,
    DilatedConv1d,
    DilatedStack,
    GatedResidualBlock,
    Padding,
    StagedUpsampler,
    exponential_dilations,
    sample_mask,
    small_factors,
)
from wavegen.engines import PARALLEL_ENGINES, EngineCache, PlainTorch, TiledEngine, make_parallel_engine
from wavegen.errors import ConfigError
from wavegen.mel import MelSpec
from wavegen.noise import normal_noise
from wavegen.vocoders._base import VocoderConfig, WaveformVocoder, content_seeds
from wavegen.vocoders._speakers import SpeakerCondition


class ParallelWaveGANConfig(VocoderConfig):
    """Shape of a Parallel WaveGAN in a recipe. The defaults are the shape of its first version.

    Attributes:
        padding: ``"same"``, as published, or ``"causal"``.
        residual_channels: channels between blocks.
        gate_channels: channels before the gates halve them.
        skip_channels: channels of the skips and of the layer before the last.
        condition_window: mel frames before, and with ``"same"`` padding after, that are mixed into each frame.
        upsample_factors: stages from frames to samples; their product is the hop length. By default its
            ``small_factors``.
        cycles: number of times that the dilations start over.
        depth: blocks per cycle, with dilations 1, 2, … 2^(depth - 1).
        kernel_size: taps of the dilated convolutions.
    """

    name: Literal["parallel-wavegan"] = "parallel-wavegan"
    padding: Padding = "same"
    residual_channels: PositiveInt = 64
    gate_channels: PositiveInt = 128
    skip_channels: PositiveInt = 64
    condition_window: NonNegativeInt = 2
    upsample_factors: tuple[PositiveInt, ...] | None = None
    cycles: PositiveInt = 3
    depth: PositiveInt = 10
    kernel_size: PositiveInt = 3

    @classmethod
    def examples(cls) -> tuple["ParallelWaveGANConfig", ...]:
        """Both paddings, with and without a window over frames."""
        tiny = cls(residual_channels=4, gate_channels=6, skip_channels=16, condition_window=1, cycles=2, depth=2)
        narrow = {"condition_window": 0, "cycles": 1, "depth": 3}
        return (
            tiny,
            tiny.model_copy(update={"padding": "causal"}),
            *(tiny.model_copy(update={"padding": padding, **narrow}) for padding in ("same", "causal")),
        )


class ParallelWaveGAN(WaveformVocoder):
    """The generator of Parallel WaveGAN (arXiv:1910.11480, section 3) as published: it makes sound of white noise.

    ::

        mel ─ edges repeated ─ conv ─ + speaker ─ hold and smooth, in stages ─┐ condition
        white noise ─ 1×1 ─ gated dilated blocks ─────────────────────────────┴─ sum of skips ─ ReLU ─ 1×1 ─ ReLU ─ 1×1

    The ``parallel`` vocoder is its successor here, with the shaped source in place of noise and the mel imposed. This
    one exists for weights that others have trained. The names there and here::

        first_conv · conv_layers · last_conv_layers    input · stack · hidden, output
        upsample_net.conv_in, aux_context_window       frame_conv, condition_window
        upsample_net.upsample, upsample_scales         upsample (kernels from right to left), upsample_factors
        layers, stacks                                 cycles * depth, cycles

    Args:
        mel: the mel definition, with the statistics by which the mels are normalised.
        config: the shape; by default that of the config's defaults.
        speakers: names of the speakers; empty for a vocoder without speakers.

    Raises:
        ConfigError: the product of the upsampling factors is not the hop length.
    """

    Config = ParallelWaveGANConfig
    engines = PARALLEL_ENGINES
    trains_in_bfloat16 = False  # the samples would have 8 bits, and the sum of many skips hardly more
    speaks_untrained = False  # untrained, it is noise

    def __init__(
        self, mel: MelSpec, config: ParallelWaveGANConfig | None = None, *, speakers: Sequence[str] = ()
    ) -> None:
        super().__init__(mel)
        config = config or ParallelWaveGANConfig()
        padding = config.padding
        factors = config.upsample_factors or small_factors(mel.hop_length)
        if math.prod(factors) != mel.hop_length:
            raise ConfigError(
                f"{' · '.join(map(str, factors))} = {math.prod(factors)}, which must be the mel's hop length "
                f"{mel.hop_length}",
                where="vocoder.upsample_factors",
                remedy=f"leave it out to get {list(small_factors(mel.hop_length))}",
            )
        self.condition_window = config.condition_window
        taps = config.condition_window + 1 if padding == "causal" else 2 * config.condition_window + 1
        self.frame_conv = DilatedConv1d(mel.n_mels, mel.n_mels, taps, padding=padding, bias=False)
        self.upsample = StagedUpsampler(factors, padding=padding)
        self.input = DilatedConv1d(1, config.residual_channels, 1)
        self.stack = DilatedStack(
            GatedResidualBlock(
                config.residual_channels,
                kernel_size=config.kernel_size,
                dilation=dilation,
                padding=padding,
                gate_channels=config.gate_channels,
                skip_channels=config.skip_channels,
                condition_channels=mel.n_mels,
            )
            for dilation in exponential_dilations(config.cycles, config.depth)
        )
        self.skip_scale = math.sqrt(1 / (config.cycles * config.depth))
        self.hidden = DilatedConv1d(config.skip_channels, config.skip_channels, 1)
        self.output = DilatedConv1d(config.skip_channels, 1, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv1d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.speaker_condition = SpeakerCondition(speakers, config.speaker_channels, mel.n_mels)
        self._engines: EngineCache[TiledEngine | PlainTorch] = EngineCache(make_parallel_engine)

    @property
    def context(self) -> Context:
        """Mel frames read around the frame whose samples are computed.

        The noise reaches less far than the condition, which the upsampling widens by a frame and more.
        """
        reads = self.stack.condition_context
        first, last = self.upsample.frames_reached(-reads.left, self.mel.hop_length - 1 + reads.right)
        return Context(max(0, -first), max(0, last)) + self.frame_conv.context

    def prepared_for_synthesis(self) -> Self:
        """As in ``Vocoder``; from now on the engine is kept."""
        self._engines.keep()
        return super().prepared_for_synthesis()

    def use_engine(self, name: str = "auto", precision: str = "float32") -> str:
        """Choose the engine that computes samples from now on, see ``wavegen.engines.make_parallel_engine``."""
        self.check_engine(name, precision)
        self._engines.choose(name, precision)
        return self._engines.engine(self).description

    def forward(self, mel: Tensor, mask: Tensor | None = None, *, speakers: Tensor | None = None) -> Tensor:
        """Differentiable synthesis; the noise is seeded by the mels themselves."""
        noise, frames = self._noise(mel, content_seeds(mel), 0), self._condition(mel, mask, speakers)
        return self._network(noise, frames, mask)

    def generate(
        self, mel: Tensor, mask: Tensor | None, seeds: Tensor, first_frame: int, speakers: Tensor | None = None
    ) -> Tensor:
        """Synthesis with noise that is addressed by its position."""
        noise, frames = self._noise(mel, seeds, first_frame), self._condition(mel, mask, speakers)
        engine = None if torch.is_grad_enabled() else self._engines.engine(self)
        if not isinstance(engine, TiledEngine):
            return self._network(noise, frames, mask)
        hop, nothing_before = self.mel.hop_length, self.stack.initial_state(1)
        lengths = [mel.shape[-1]] * len(mel) if mask is None else mask[:, 0].sum(-1).tolist()
        samples = torch.zeros_like(noise[:, 0])
        for item, length in enumerate(lengths):
            of_item = noise[item, :, : length * hop], frames[item, :, :length]
            samples[item, : length * hop], _ = engine.run(*of_item, nothing_before)
        return samples

    def _network(self, noise: Tensor, frames: Tensor, mask: Tensor | None) -> Tensor:
        """Noise ``[batch, 1, samples]`` and condition ``[batch, n_mels, frames]`` to samples ``[batch, samples]``."""
        real = sample_mask(mask, self.mel.hop_length)
        _, skips = self.stack(self.input(noise), self.upsample(frames, mask), real)
        return self.output(torch.relu(self.hidden(torch.relu(skips * self.skip_scale))))[:, 0]

    def _noise(self, mel: Tensor, seeds: Tensor, first_frame: int) -> Tensor:
        hop = self.mel.hop_length
        return normal_noise(seeds, first_frame * hop, mel.shape[-1] * hop, 1, mel.device).to(mel.dtype)

    def _condition(self, mel: Tensor, mask: Tensor | None, speakers: Tensor | None) -> Tensor:
        """The condition at frame rate. Beyond the ends of an item its first and last frame are repeated."""
        frames, window = mel.shape[-1], self.condition_window
        last = torch.full((len(mel), 1), frames - 1, device=mel.device)
        if mask is not None:
            last = mask[:, 0].sum(-1, keepdim=True) - 1
        read = torch.arange(-window, frames + window, device=mel.device).expand(len(mel), -1)
        read = torch.minimum(read, last).clamp(min=0)
        repeated = mel.gather(-1, read[:, None].expand(-1, mel.shape[1], -1))
        h = self.frame_conv(repeated)[..., window : window + frames]
        return self.speaker_condition(h, speakers)
