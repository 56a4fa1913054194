"""Vocos: a stack at frame rate that predicts magnitude and phase. Its weights can be imported."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from wavegen.blocks import Context, DilatedConv1d, DilatedStack, InverseSTFT, Padding, SeparableResidualBlock
from wavegen.mel import MelSpec
from wavegen.vocoders._base import VocoderConfig, WaveformVocoder
from wavegen.vocoders._speakers import SpeakerCondition

LARGEST_MAGNITUDE = 100.0
NORM_EPS = 1e-6
INITIAL_STD = 0.02


class VocosConfig(VocoderConfig):
    """Shape of a Vocos in a recipe. The defaults are the shape that its authors published for mels.

    Attributes:
        padding: ``"same"``, as published, or ``"causal"`` for a network without look-ahead.
        channels: channels of the stack.
        layers: number of blocks.
        kernel_size: taps of the blocks' depthwise convolutions and of the input layer.
        expansion: hidden channels of each block as a multiple of ``channels``.
    """

    name: Literal["vocos"] = "vocos"
    padding: Padding = "same"
    channels: PositiveInt = 512
    layers: PositiveInt = 8
    kernel_size: PositiveInt = 7
    expansion: PositiveInt = 3

    @classmethod
    def examples(cls) -> tuple["VocosConfig", ...]:
        """Both paddings, and an even kernel."""
        tiny = cls(channels=6, layers=2, kernel_size=3, expansion=2)
        return (tiny, tiny.model_copy(update={"padding": "causal", "kernel_size": 4}))


class Vocos(WaveformVocoder):
    """Vocos (arXiv:2306.00814): a stack at frame rate, whose last layer gives the spectrum of each frame.

    ::

        mel ─ conv ─ norm ─ + speaker ─ separable blocks ─ norm ─ 1×1 ─┬─ exp, at most 100 ─ magnitude ─┐
                                                                       └─ phase in radians ─────────────┴─ inverse STFT

    It learns what the other vocoders here compute: it has neither a source, nor is the mel imposed on its sound.
    It reads mels as they are, without a common scale, so that published weights fit. The names there and here::

        backbone.embed, norm, final_layer_norm     input, input_norm, output_norm
        backbone.convnext.N.dwconv, norm           stack.blocks.N.conv, norm
        backbone.convnext.N.pwconv1, pwconv2       stack.blocks.N.expand, project
        backbone.convnext.N.gamma                  stack.blocks.N.scale
        head.out                                   output

    There, a centred mel gives the samples between the centres of its first and last frame; here, all samples of the
    last frame too.

    Args:
        mel: the mel definition.
        config: the shape; by default that of the config's defaults.
        speakers: names of the speakers; empty for a vocoder without speakers.

    Raises:
        ConfigError: the hop length of a centred mel is more than half of ``n_fft``.
    """

    Config = VocosConfig
    normalised_over_channels = True
    speaks_untrained = False  # untrained, it clicks once per frame

    def __init__(self, mel: MelSpec, config: VocosConfig | None = None, *, speakers: Sequence[str] = ()) -> None:
        super().__init__(mel)
        config = config or VocosConfig()
        channels, kernel_size, padding = config.channels, config.kernel_size, config.padding
        self.input = DilatedConv1d(mel.n_mels, channels, kernel_size, padding=padding)
        self.input_norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.stack = DilatedStack(
            SeparableResidualBlock(
                channels,
                kernel_size=kernel_size,
                padding=padding,
                expansion=config.expansion,
                initial_scale=1 / config.layers,
                norm_eps=NORM_EPS,
            )
            for _ in range(config.layers)
        )
        self.output_norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.output = DilatedConv1d(channels, mel.n_fft + 2, 1)
        self.istft = InverseSTFT(mel.n_fft, mel.hop_length, mel.window(), left_padding=mel.left_padding)
        for layer in self.modules():
            if isinstance(layer, nn.Conv1d | nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=INITIAL_STD)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        self.speaker_condition = SpeakerCondition(speakers, config.speaker_channels, channels)

    @property
    def context(self) -> Context:
        """Mel frames read around the frame whose samples are computed."""
        return self.input.context + self.stack.context + self.istft.context

    def forward(self, mel: Tensor, mask: Tensor | None = None, *, speakers: Tensor | None = None) -> Tensor:
        """Differentiable synthesis."""
        magnitude, phase = self.predicted(mel, mask, speakers)
        with torch.autocast(mel.device.type, enabled=False):  # FFTs need float32
            return self.istft(torch.complex(magnitude * phase.cos(), magnitude * phase.sin()), mask)

    def predicted(self, mel: Tensor, mask: Tensor | None, speakers: Tensor | None) -> tuple[Tensor, Tensor]:
        """Magnitude and phase in radians, ``[batch, n_fft // 2 + 1, frames]`` each; arguments as in ``forward``."""
        h = _over_channels(self.input_norm, self.input(mel, mask))
        h, _ = self.stack(self.speaker_condition(h, speakers), mask=mask)
        h = _over_channels(self.output_norm, h)
        with torch.autocast(mel.device.type, enabled=False):  # many turns of phase need float32
            logarithm, phase = self.output(h.to(mel.dtype)).chunk(2, dim=1)
            return logarithm.exp().clamp(max=LARGEST_MAGNITUDE), phase

    def generate(
        self, mel: Tensor, mask: Tensor | None, seeds: Tensor, first_frame: int, speakers: Tensor | None = None
    ) -> Tensor:
        """Synthesis is the same: it draws no noise."""
        return self(mel, mask, speakers=speakers)


def _over_channels(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    return norm(x.transpose(1, 2)).transpose(1, 2)
