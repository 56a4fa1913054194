"""A WaveNet that computes all samples at once: noise and upsampled mel in, waveform out."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

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
    apply_weight_norm,
    exponential_dilations,
    masked,
    sample_mask,
    small_factors,
)
from wavegen.engines import PARALLEL_ENGINES, EngineCache, PlainTorch, TiledEngine, make_parallel_engine
from wavegen.errors import ConfigError
from wavegen.mel import MelSpec
from wavegen.noise import normal_noise
from wavegen.vocoders._base import State, VocoderConfig, WaveformVocoder, content_seeds, inference
from wavegen.vocoders._speakers import SpeakerCondition


class ParallelConfig(VocoderConfig):
    """Shape of a parallel WaveNet in a recipe. The defaults are the shape of Parallel WaveGAN's first version.

    Attributes:
        padding: ``"same"``, or ``"causal"``, which streams without latency and recomputes nothing.
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

    @classmethod
    def examples(cls) -> tuple["ParallelConfig", ...]:
        """Both paddings, with and without a window over frames, and a kernel of one tap."""
        tiny = cls(residual_channels=4, gate_channels=6, skip_channels=5, condition_channels=3, condition_window=1)
        shapes: tuple[dict[str, Any], ...] = (
            {"cycles": 2, "depth": 3},
            {"cycles": 1, "depth": 4, "kernel_size": 2, "condition_window": 0, "condition_channels": None},
        )
        paddings = ("causal", "same")
        both = [tiny.model_copy(update={"padding": padding, **shape}) for padding in paddings for shape in shapes]
        wide = tiny.model_copy(
            update={"gate_channels": 8, "skip_channels": 16, "condition_channels": 4, "cycles": 1, "depth": 3}
        )
        return (wide, *both, tiny.model_copy(update={"kernel_size": 1, "cycles": 1, "depth": 2}))


class ParallelState(NamedTuple):
    """State of a causal parallel WaveNet's stream.

    Attributes:
        frame_conv: state of the frame-rate convolution.
        frames: the last frames of the condition, which the upsampler still reads.
        stack: state of the dilated stack.
        frames_done: number of frames whose samples have been returned.
        seeds: int64 ``[batch]``.
        speakers: int64 ``[batch]``; None for a vocoder without speakers.
    """

    frame_conv: Tensor
    frames: Tensor
    stack: Any
    frames_done: Tensor
    seeds: Tensor
    speakers: Tensor | None


class ParallelWaveNet(WaveformVocoder):
    """Non-autoregressive WaveNet at sample rate: the generator of Parallel WaveGAN (arXiv:1910.11480, section 3).

    ::

        mel ─ conv ─ + speaker ─ hold and smooth, in stages ─┐ condition
        noise ─ 1×1 ─ gated dilated blocks ──────────────────┴─ sum of skips ─ ReLU ─ 1×1 ─ ReLU ─ 1×1 ─ samples

    The names in its public implementation and here::

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
    trains_in_bfloat16 = False  # the samples would have 8 bits, and the sum of many skips hardly more

    def __init__(self, mel: MelSpec, config: ParallelConfig | None = None, *, speakers: Sequence[str] = ()) -> None:
        super().__init__(mel)
        config = config or ParallelConfig()
        padding = config.padding
        condition_channels = config.condition_channels or mel.n_mels
        window = config.condition_window + 1 if padding == "causal" else 2 * config.condition_window + 1
        self.frame_conv = DilatedConv1d(mel.n_mels, condition_channels, window, padding=padding)
        factors = config.upsample_factors or small_factors(mel.hop_length)
        if math.prod(factors) != mel.hop_length:
            raise ConfigError(
                f"{' · '.join(map(str, factors))} = {math.prod(factors)}, which must be the mel's hop length "
                f"{mel.hop_length}",
                where="vocoder.upsample_factors",
                remedy=f"leave it out to get {list(small_factors(mel.hop_length))}",
            )
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
                condition_channels=condition_channels,
            )
            for dilation in exponential_dilations(config.cycles, config.depth)
        )
        self.skip_scale = math.sqrt(1 / (config.cycles * config.depth))  # keeps the variance of the sum
        self.hidden = DilatedConv1d(config.skip_channels, config.skip_channels, 1)
        self.output = DilatedConv1d(config.skip_channels, 1, 1)
        self._initialise()
        if config.weight_norm:
            apply_weight_norm(self)
        self.speaker_condition = SpeakerCondition(speakers, config.speaker_channels, condition_channels)
        self._engines: EngineCache[TiledEngine | PlainTorch] = EngineCache(make_parallel_engine)

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
            noise: ``[batch, frames * hop_length]``, standard normal. By default it is seeded by each item's own mel, so
                that training depends neither on the other items, nor on the number of processes that share a batch,
                nor on interruptions.
            speakers: int64 ``[batch]``, indices of ``self.speakers``; None for a vocoder without speakers.

        Returns:
            ``[batch, frames * hop_length]``, zeros outside the mask.
        """
        if noise is None:
            noise = self._noise(content_seeds(masked(mel, mask)), 0, mel)
        condition = self.upsample(self._frames(mel, mask, speakers), mask)
        real = sample_mask(mask, self.mel.hop_length)
        # A causal stack needs no mask, because nothing after an item's end can reach it; without one it is faster.
        _, skips = self.stack(self.input(noise[:, None]), condition, None if self.steps_natively else real)
        return masked(self._waveform(skips), None if real is None else real[:, 0])

    def prepared_for_synthesis(self) -> Self:
        """As in ``Vocoder``; from now on the engine is kept."""
        self._engines.keep()
        return super().prepared_for_synthesis()

    def use_engine(self, name: str = "auto", precision: str = "float32") -> str:
        """Choose the engine that computes samples from now on, see ``wavegen.engines.make_parallel_engine``."""
        self.check_engine(name, precision)
        self._engines.choose(name, precision)
        return self._engines.engine(self).description

    def _tiled_engine(self) -> TiledEngine | None:
        """The tiled engine if it is the chosen one; None if gradients are enabled, because it computes none."""
        engine = None if torch.is_grad_enabled() else self._engines.engine(self)
        return engine if isinstance(engine, TiledEngine) else None

    def generate(
        self, mel: Tensor, mask: Tensor | None, seeds: Tensor, first_frame: int, speakers: Tensor | None = None
    ) -> Tensor:
        """Synthesis with the noise of the seeds and the position; differentiable if gradients are enabled."""
        noise = self._noise(seeds, first_frame, mel)
        engine = self._tiled_engine()
        if engine is None:
            return self(mel, mask, noise, speakers=speakers)
        frames, hop = self._frames(mel, mask, speakers), self.mel.hop_length
        lengths = [mel.shape[-1]] * len(mel) if mask is None else mask[:, 0].sum(-1).tolist()
        samples, nothing_before = torch.zeros_like(noise), self.stack.initial_state(1)
        for item, length in enumerate(lengths):
            noise_of_item, frames_of_item = noise[item, : length * hop], frames[item, :, :length]
            samples[item, : length * hop], _ = engine.run(noise_of_item, frames_of_item, nothing_before)
        return samples

    def initial_state(
        self, batch: int, *, seed: int | Sequence[int] = 0, speaker: str | Sequence[str] | None = None
    ) -> State:
        """State before the first frame; arguments and errors as in ``synthesize``."""
        if not self.steps_natively:
            return super().initial_state(batch, seed=seed, speaker=speaker)
        frame_state = self.frame_conv.initial_state(batch)
        return ParallelState(
            frame_conv=frame_state,
            frames=frame_state.new_zeros(batch, self.frame_conv.out_channels, self.upsample.context.left),
            stack=self.stack.initial_state(batch),
            frames_done=torch.tensor(0),
            seeds=self._seeds(seed, frame_state),
            speakers=self.speaker_condition.indices(speaker, batch),
        )

    @inference
    def step(self, mel: Tensor, state: Any) -> tuple[Tensor, State]:
        """Take the next frames and return the samples that are ready."""
        if not self.steps_natively:
            return super().step(mel, state)
        self.check_shape(mel)
        if mel.shape[-1] == 0:
            return mel.new_zeros(len(mel), 0), state
        noise = self._noise(state.seeds, int(state.frames_done), mel)
        h, frame_state = self.frame_conv.step(self.normalised(mel), state.frame_conv)
        h = self.speaker_condition(h, state.speakers)
        # Frames are kept instead of the upsampler's own state: a causal one takes zeros for what precedes the first.
        frames = torch.cat((state.frames, h), dim=-1)
        samples, stack_state = self._continue(noise, frames, state.stack)
        return samples, state._replace(
            frame_conv=frame_state,
            frames=frames[..., frames.shape[-1] - self.upsample.context.left :],
            stack=stack_state,
            frames_done=state.frames_done + mel.shape[-1],
        )

    @inference
    def flush(self, state: Any) -> Tensor:
        """The samples that waited for look-ahead; none in a causal model."""
        if not self.steps_natively:
            return super().flush(state)
        return state.frames.new_zeros(len(state.frames), 0)

    def _frames(self, mel: Tensor, mask: Tensor | None, speakers: Tensor | None) -> Tensor:
        """The condition before upsampling, ``[batch, condition_channels, frames]``."""
        return self.speaker_condition(self.frame_conv(self.normalised(mel), mask), speakers)

    def _continue(self, noise: Tensor, frames: Tensor, stack_state: State) -> tuple[Tensor, State]:
        """Samples for ``noise``, conditioned on the last of ``frames``, and the stack's next state."""
        engine = self._tiled_engine()
        if engine is not None:
            items = [
                engine.run(noise[i], frames[i], tuple(history[i : i + 1] for history in stack_state))
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
        # Start as loud as quiet speech: at full scale, silent segments would dominate the first steps.
        nn.init.normal_(self.output.weight, std=0.02 / math.sqrt(self.output.in_channels))
