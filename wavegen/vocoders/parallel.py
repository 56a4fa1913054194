"""A WaveNet that makes all samples at once: noise and upsampled mel in, waveform out."""

import math
from collections.abc import Sequence
from typing import Literal

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
    small_factors,
)
from wavegen.engines.parallel import run_tiled
from wavegen.errors import ConfigError
from wavegen.mel import MelSpec
from wavegen.noise import normal_noise
from wavegen.vocoders._base import State, Vocoder, VocoderConfig
from wavegen.vocoders._speakers import SpeakerCondition


class ParallelConfig(VocoderConfig):
    """Shape of a parallel WaveNet in a recipe."""

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


class ParallelWaveNet(Vocoder):
    """Non-autoregressive WaveNet at sample rate: the generator of Parallel WaveGAN (arXiv:1910.11480, section 3).

    ::

        mel ─ conv ─ + speaker ─ hold and smooth, in stages ─┐ condition
        noise ─ 1×1 ─ gated dilated blocks ──────────────────┴─ sum of skips ─ ReLU ─ 1×1 ─ ReLU ─ 1×1 ─ samples

    The defaults are the published first version's shape. What its public implementation calls what::

        first_conv · conv_layers · last_conv_layers    input · stack · hidden, output
        upsample_net.conv_in, aux_context_window       frame_conv (its bias 0), condition_window
        upsample_net.upsample, upsample_scales         upsample (kernels from right to left), upsample_factors
        layers, stacks, aux_channels                   cycles * depth, cycles, condition_channels

    There, whoever calls the network pads the mel by ``aux_context_window`` frames; here, frames beyond the ends count
    as zeros on the scale of ``normalised``.

    Args:
        mel: the mel contract.
        padding: ``"same"``, or ``"causal"``, which streams without latency and recomputes nothing.
        residual_channels: channels between blocks.
        gate_channels: channels before the gates halve them.
        skip_channels: channels of the skips and of the layer before the last.
        condition_channels: channels of the upsampled mel; the mel's bins by default.
        condition_window: mel frames before, and where same-padded after, that are mixed into each frame.
        upsample_factors: stages from frames to samples; their product is the hop length, whose ``small_factors`` they
            are by default.
        cycles: times that the dilations start over.
        depth: blocks per cycle; dilations 1, 2, … 2^(depth - 1).
        kernel_size: taps of the dilated convolutions.
        weight_norm: normalise weights in training; folded before synthesis.
        speakers: names of those who may speak; none for a vocoder that is not told who does.
        speaker_channels: channels of the vector that is learned for each.

    Raises:
        ConfigError: factors whose product is not the hop length.
    """

    Config = ParallelConfig
    objective = "reconstruction"
    trains_in_bfloat16 = False  # its samples would have 8 bits, and its sum of many skips hardly more

    def __init__(
        self,
        mel: MelSpec,
        *,
        padding: Padding = "same",
        residual_channels: int = 64,
        gate_channels: int = 128,
        skip_channels: int = 64,
        condition_channels: int | None = None,
        condition_window: int = 2,
        upsample_factors: Sequence[int] | None = None,
        cycles: int = 3,
        depth: int = 10,
        kernel_size: int = 3,
        weight_norm: bool = False,
        speakers: Sequence[str] = (),
        speaker_channels: int = 0,
    ) -> None:
        super().__init__(mel)
        condition_channels = condition_channels or mel.n_mels
        window = condition_window + 1 if padding == "causal" else 2 * condition_window + 1
        self.frame_conv = DilatedConv1d(mel.n_mels, condition_channels, window, padding=padding)
        factors = tuple(upsample_factors or small_factors(mel.hop_length))
        if math.prod(factors) != mel.hop_length:
            raise ConfigError(
                f"{' · '.join(map(str, factors))} make {math.prod(factors)} samples of a frame, the mel's hop is "
                f"{mel.hop_length}",
                where="vocoder.upsample_factors",
                remedy=f"leave it out to get {list(small_factors(mel.hop_length))}, or give some of that product",
            )
        self.upsample = StagedUpsampler(factors, padding=padding)
        self.input = DilatedConv1d(1, residual_channels, 1)
        self.stack = DilatedStack(
            GatedResidualBlock(
                residual_channels,
                kernel_size=kernel_size,
                dilation=dilation,
                padding=padding,
                gate_channels=gate_channels,
                skip_channels=skip_channels,
                condition_channels=condition_channels,
            )
            for dilation in exponential_dilations(cycles, depth)
        )
        self.skip_scale = math.sqrt(1 / (cycles * depth))  # keeps the variance of the sum
        self.hidden = DilatedConv1d(skip_channels, skip_channels, 1)
        self.output = DilatedConv1d(skip_channels, 1, 1)
        self._initialise()
        if weight_norm:
            apply_weight_norm(self)
        self.speaker_condition = SpeakerCondition(speakers, speaker_channels, condition_channels)

    @property
    def context(self) -> Context:
        """Mel frames that a frame's samples depend on, or whose noise does."""
        hop, mel, noise = self.mel.hop_length, self.stack.condition_context, self.stack.context
        first, last = self.upsample.frames_reached(-mel.left, hop - 1 + mel.right)
        first, last = min(first, -noise.left // hop), max(last, (hop - 1 + noise.right) // hop)
        return Context(-first, last) + self.frame_conv.context

    @property
    def steps_natively(self) -> bool:
        """True for a causal model."""
        return self.context.right == 0

    def forward(
        self,
        mel: Tensor,
        mask: Tensor | None = None,
        noise: Tensor | None = None,
        *,
        speakers: Tensor | None = None,
    ) -> Tensor:
        """Differentiable synthesis.

        Args:
            mel: ``[batch, n_mels, frames]``.
            mask: ``[batch, 1, frames]``, True where a frame is real.
            noise: ``[batch, frames * hop_length]``, standard normal. By default seeded by each item's own mel: what is
                trained on then depends neither on the other items, nor on how many processes share a batch, nor on the
                stops in between.
            speakers: int64 ``[batch]``, indices of ``self.speakers``; None where there are none.

        Returns:
            ``[batch, frames * hop_length]``, zeros outside the mask.
        """
        if noise is None:
            noise = self._noise(_content_seeds(masked(mel, mask)), 0, mel)
        condition = self.upsample(self._frames(mel, mask, speakers), mask)
        real = None if mask is None else mask.repeat_interleave(self.mel.hop_length, dim=-1)
        # What follows an item's end cannot reach it in a causal stack, which is quicker without a mask.
        _, skips = self.stack(self.input(noise[:, None]), condition, None if self.steps_natively else real)
        return masked(self._waveform(skips), None if real is None else real[:, 0])

    def generate(
        self, mel: Tensor, mask: Tensor | None, seeds: Tensor, first_frame: int, speakers: Tensor | None = None
    ) -> Tensor:
        """Synthesis with the noise of the seeds and the position; on a CPU by the tiled engine."""
        noise = self._noise(seeds, first_frame, mel)
        if not _suits_tiles(mel):
            return self(mel, mask, noise, speakers=speakers)
        frames, hop = self._frames(mel, mask, speakers), self.mel.hop_length
        lengths = [mel.shape[-1]] * len(mel) if mask is None else mask[:, 0].sum(-1).tolist()
        samples, nothing_before = torch.zeros_like(noise), self.stack.initial_state(1)
        for item, length in enumerate(lengths):
            noise_of_item, frames_of_item = noise[item, : length * hop], frames[item, :, :length]
            samples[item, : length * hop], _ = run_tiled(self, noise_of_item, frames_of_item, nothing_before)
        return samples

    def initial_state(
        self, batch: int, *, seed: int | Sequence[int] = 0, speaker: str | Sequence[str] | None = None
    ) -> State:
        """State before the first frame: of the layers in turn, frames done, seeds and any speakers."""
        if not self.steps_natively:
            return super().initial_state(batch, seed=seed, speaker=speaker)
        who = self.speaker_condition.indices(speaker, batch)
        frame_state = self.frame_conv.initial_state(batch)
        frames_before = frame_state.new_zeros(batch, self.frame_conv.out_channels, self.upsample.context.left)
        stack_state = self.stack.initial_state(batch)
        return frame_state, frames_before, stack_state, torch.tensor(0), self._seeds(seed, frame_state), *who

    @torch.no_grad()
    def step(self, mel: Tensor, state: State) -> tuple[Tensor, State]:
        """Take the next frames; give the samples that are ready."""
        if not self.steps_natively:
            return super().step(mel, state)
        self.check_shape(mel)
        frame_state, frames, stack_state, frames_done, seeds, *who = state
        if mel.shape[-1] == 0:
            return mel.new_zeros(len(mel), 0), state
        noise = self._noise(seeds, int(frames_done), mel)
        h, frame_state = self.frame_conv.step(self.normalised(mel), frame_state)
        h = self.speaker_condition(h, *who)
        # Frames are kept instead of the upsampler's own state: zeros before the first are the same to a causal one.
        frames = torch.cat((frames, h), dim=-1)
        samples, stack_state = self._continue(noise, frames, stack_state)
        kept = frames[..., frames.shape[-1] - self.upsample.context.left :]
        return samples, (frame_state, kept, stack_state, frames_done + mel.shape[-1], seeds, *who)

    @torch.no_grad()
    def flush(self, state: State) -> Tensor:
        """The samples that waited for look-ahead; none in a causal model."""
        return state[0].new_zeros(len(state[0]), 0) if self.steps_natively else super().flush(state)

    def _frames(self, mel: Tensor, mask: Tensor | None, speakers: Tensor | None) -> Tensor:
        """The condition before upsampling, ``[batch, condition_channels, frames]``."""
        return self.speaker_condition(self.frame_conv(self.normalised(mel), mask), speakers)

    def _continue(self, noise: Tensor, frames: Tensor, stack_state: State) -> tuple[Tensor, State]:
        """Samples for ``noise``, conditioned on the last of ``frames``, and the stack's next state."""
        if _suits_tiles(noise):
            items = [
                run_tiled(self, noise[i], frames[i], tuple(history[i : i + 1] for history in stack_state))
                for i in range(len(noise))
            ]
            after = tuple(torch.cat(histories) for histories in zip(*(state for _, state in items), strict=True))
            return torch.stack([samples for samples, _ in items]), after
        condition = self.upsample(frames)[..., -noise.shape[-1] :]
        (_, skips), stack_state = self.stack.step(self.input(noise[:, None]), stack_state, condition)
        return self._waveform(skips), stack_state

    def _waveform(self, skips: Tensor) -> Tensor:
        """Sum of skips ``[batch, skip_channels, samples]`` to samples ``[batch, samples]``."""
        return self.output(torch.relu(self.hidden(torch.relu(skips * self.skip_scale))))[:, 0]

    def _noise(self, seeds: Tensor, first_frame: int, mel: Tensor) -> Tensor:
        hop = self.mel.hop_length
        return normal_noise(seeds, first_frame * hop, mel.shape[-1] * hop, 1, mel.device)[:, 0].to(mel.dtype)

    def _initialise(self) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Conv1d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        # As loud as quiet speech: at full scale, silent segments would rule the first steps by their relative error.
        nn.init.normal_(self.output.weight, std=0.02 / math.sqrt(self.output.in_channels))


def _suits_tiles(like: Tensor) -> bool:
    return like.device.type == "cpu" and like.dtype in (torch.float32, torch.float64) and not torch.is_grad_enabled()


def _content_seeds(mel: Tensor) -> Tensor:
    """A seed ``[batch]`` made of each item's bits, whose sum is the same in any order and with zeros after it."""
    return mel.detach().double().contiguous().view(torch.int64).sum(dim=(1, 2))
