"""WaveNet: one sample after another, each drawn from a predicted distribution."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor
from typing_extensions import Self

from wavegen.blocks import (
    Context,
    DilatedConv1d,
    DilatedStack,
    GatedResidualBlock,
    HoldUpsampler,
    apply_weight_norm,
    exponential_dilations,
)
from wavegen.distributions import output_distribution
from wavegen.engines import AUTOREGRESSIVE_ENGINES, Engine, EngineCache, FrameCondition, make_engine
from wavegen.mel import MelSpec
from wavegen.noise import uniform_noise
from wavegen.vocoders._base import AutoregressiveVocoder, VocoderConfig, inference
from wavegen.vocoders._speakers import SpeakerCondition


class WaveNetConfig(VocoderConfig):
    """Shape of a WaveNet in a recipe.

    Attributes:
        output: the distribution of a sample: ``"mu-law"`` (256 classes), ``"logistic-mixture"`` (10 components) or
            ``"gaussian"``.
        residual_channels: channels between blocks; the gates have twice as many.
        skip_channels: channels of the skips.
        hidden_channels: channels of the layer before the last.
        condition_channels: channels of the upsampled mel.
        cycles: number of times that the dilations start over.
        depth: blocks per cycle, with dilations 1, 2, … 2^(depth - 1).
        kernel_size: taps of the dilated convolutions and of the input layer.
        weight_norm: normalise the weights in training; folded before synthesis.
    """

    name: Literal["wavenet"] = "wavenet"
    output: Literal["mu-law", "logistic-mixture", "gaussian"] = "mu-law"
    residual_channels: PositiveInt = 64
    skip_channels: PositiveInt = 128
    hidden_channels: PositiveInt = 256
    condition_channels: PositiveInt = 64
    cycles: PositiveInt = 2
    depth: PositiveInt = 10
    kernel_size: PositiveInt = 2
    weight_norm: bool = False

    @classmethod
    def examples(cls) -> tuple["WaveNetConfig", ...]:
        """Every distribution, and kernels of two and three taps."""
        tiny = cls(residual_channels=4, skip_channels=8, hidden_channels=8, condition_channels=4, cycles=1, depth=3)
        wide = tiny.model_copy(
            update={"skip_channels": 16, "hidden_channels": 32, "condition_channels": 16, "cycles": 2}
        )
        return (
            tiny,
            wide,
            wide.model_copy(update={"output": "logistic-mixture", "kernel_size": 3}),
            wide.model_copy(update={"output": "gaussian"}),
        )


class WaveNetState(NamedTuple):
    """State of a WaveNet's stream.

    Attributes:
        frame_conv: state of the frame-rate convolution.
        upsample: state of the upsampler.
        engine: state of the engine, such as the histories of the dilated layers.
        last_sample: ``[batch]``.
        frames_done: number of frames whose samples have been generated.
        seeds: int64 ``[batch]``.
        speakers: int64 ``[batch]``; None for a vocoder without speakers.
    """

    frame_conv: Tensor
    upsample: Any
    engine: Any
    last_sample: Tensor
    frames_done: Tensor
    seeds: Tensor
    speakers: Tensor | None


class WaveNet(AutoregressiveVocoder):
    """Autoregressive WaveNet (arXiv:1609.03499) conditioned on mel frames; causal throughout.

    ::

        mel ─ conv ─ ReLU ─ + speaker ─ hold and smooth ─┐ condition, one step per sample
        sample n-1 ─ embed ─ conv ─ gated dilated blocks ┴─ sum of skips ─ ReLU ─ 1×1 ─ ReLU ─ 1×1 ─ distribution of n

    Args:
        mel: the mel definition.
        config: the shape; by default that of the config's defaults.
        speakers: names of the speakers; empty for a vocoder without speakers.

    Attributes:
        temperature: scales the randomness of sampling: 1 samples the learned distribution, 0 takes its mode.
    """

    Config = WaveNetConfig
    engines = AUTOREGRESSIVE_ENGINES
    synthesis_options: ClassVar[Mapping[str, str]] = {"temperature": "temperature"}

    def __init__(self, mel: MelSpec, config: WaveNetConfig | None = None, *, speakers: Sequence[str] = ()) -> None:
        super().__init__(mel)
        config = config or WaveNetConfig()
        self.distribution = output_distribution(config.output)
        self.frame_conv = DilatedConv1d(mel.n_mels, config.condition_channels, 3)
        self.upsample = HoldUpsampler(mel.hop_length)
        self.input = DilatedConv1d(self.distribution.input_channels, config.residual_channels, config.kernel_size)
        self.stack = DilatedStack(
            GatedResidualBlock(
                config.residual_channels,
                kernel_size=config.kernel_size,
                dilation=dilation,
                skip_channels=config.skip_channels,
                condition_channels=config.condition_channels,
            )
            for dilation in exponential_dilations(config.cycles, config.depth)
        )
        self.skip_scale = math.sqrt(1 / (config.cycles * config.depth))  # keeps the variance of the sum
        self.hidden = DilatedConv1d(config.skip_channels, config.hidden_channels, 1)
        self.output = DilatedConv1d(config.hidden_channels, self.distribution.channels, 1)
        if config.weight_norm:
            apply_weight_norm(self)
        self.speaker_condition = SpeakerCondition(speakers, config.speaker_channels, config.condition_channels)
        self.temperature = 1.0
        self._engines = EngineCache(make_engine)

    @property
    def receptive_field_samples(self) -> int:
        """Past samples that the distribution of the next sample depends on."""
        return (self.input.context + self.stack.context).receptive_field

    @property
    def context(self) -> Context:
        """Mel frames that the distributions of a frame's samples depend on, given all samples."""
        # The smoothing reads hop_length - 1 held samples further back than the stack.
        samples_back = self.stack.condition_context.left + self.mel.hop_length - 1
        return self.frame_conv.context + Context(math.ceil(samples_back / self.mel.hop_length))

    @property
    def steps_natively(self) -> bool:
        """True: the model is causal."""
        return True

    @property
    def items_at_once(self) -> int:
        """The engine's best batch size."""
        return self.engine().items_at_once

    def forward(
        self, samples: Tensor, mel: Tensor, mask: Tensor | None = None, *, speakers: Tensor | None = None
    ) -> Tensor:
        """Predict every sample from those before it, all at once (teacher forcing).

        Args:
            samples: waveform ``[batch, frames * hop_length]`` in -1…1.
            mel: ``[batch, n_mels, frames]``.
            mask: ``[batch, 1, frames]``, True where a frame is real; None if all are.
            speakers: int64 ``[batch]``, indices of ``self.speakers``; None for a vocoder without speakers.

        Returns:
            parameters of each sample's distribution, ``[batch, distribution.channels, frames * hop_length]``.
        """
        before = F.pad(samples, (1, 0))[:, :-1]  # the sample before the first is silence
        frames = torch.relu(self.frame_conv(self.normalised(mel), mask))
        condition = self.upsample(self.speaker_condition(frames, speakers), mask)
        x = self.input(self.distribution.embed(before).to(condition.dtype))
        _, skips = self.stack(x, condition)
        return self.output(torch.relu(self.hidden(torch.relu(skips * self.skip_scale))))

    def log_prob(
        self, samples: Tensor, mel: Tensor, mask: Tensor | None = None, *, speakers: Tensor | None = None
    ) -> Tensor:
        """Log-likelihood of each sample in nats, shaped like ``samples``; arguments as in ``forward``."""
        return self.distribution.log_prob(self(samples, mel, mask, speakers=speakers), samples)

    def prepared_for_synthesis(self) -> Self:
        """As in ``Vocoder``; from now on the engine is kept."""
        self._engines.keep()
        return super().prepared_for_synthesis()

    def use_engine(self, name: str = "auto", precision: str = "float32") -> str:
        """Choose the engine that generates samples from now on, see ``wavegen.engines.make_engine``."""
        self.check_engine(name, precision)
        self._engines.choose(name, precision)
        return self.engine().description

    def engine(self) -> Engine:
        """The engine that generates, with this model's current weights folded into it."""
        return self._engines.engine(self)

    def generate(
        self, mel: Tensor, mask: Tensor | None, seeds: Tensor, first_frame: int, speakers: Tensor | None = None
    ) -> Tensor:
        """Generate from silence. Frames after an item's end cannot reach it, so the mask changes nothing."""
        return self.step(mel, self._initial_state(seeds, speakers))[0]

    def initial_state(
        self, batch: int, *, seed: int | Sequence[int] = 0, speaker: str | Sequence[str] | None = None
    ) -> WaveNetState:
        """State before the first frame; arguments and errors as in ``synthesize``."""
        seeds = self._seeds(seed, self.upsample.kernel.new_zeros(batch))
        return self._initial_state(seeds, self.speaker_condition.indices(speaker, batch))

    def _initial_state(self, seeds: Tensor, speakers: Tensor | None) -> WaveNetState:
        batch = len(seeds)
        return WaveNetState(
            frame_conv=self.frame_conv.initial_state(batch),
            upsample=self.upsample.initial_state(batch, self.frame_conv.out_channels),
            engine=self.engine().initial_state(batch),
            last_sample=self.upsample.kernel.new_zeros(batch),
            frames_done=torch.tensor(0),
            seeds=seeds,
            speakers=speakers,
        )

    @inference
    def step(
        self, mel: Tensor, state: WaveNetState, *, temperature: float | None = None
    ) -> tuple[Tensor, WaveNetState]:
        """Generate the samples of the next frames, ``[batch, frames * hop_length]``, without any delay.

        ``temperature`` is as in ``Engine.generate``; it defaults to the attribute of that name.
        """
        self.check_shape(mel)
        if mel.shape[-1] == 0:
            return mel.new_zeros(len(mel), 0), state

        # The condition, at frame rate; the engine holds and smooths it.
        h, frame_state = self._step_frames(mel, state.frame_conv)
        h = self.speaker_condition(torch.relu(h), state.speakers)
        frames, upsample_state = self.upsample.frames_read(h, state.upsample)
        condition = FrameCondition(frames, self.upsample.weights())

        # Sample by sample, with noise that is addressed by its position in the utterance.
        start = int(state.frames_done) * self.mel.hop_length
        noise = uniform_noise(state.seeds, start, condition.samples, self.distribution.draws, mel.device)
        temperature = self.temperature if temperature is None else temperature
        samples, engine_state = self.engine().generate(
            state.last_sample, condition, noise, state.engine, temperature=temperature
        )
        return samples, state._replace(
            frame_conv=frame_state,
            upsample=upsample_state,
            engine=engine_state,
            last_sample=samples[:, -1],
            frames_done=state.frames_done + mel.shape[-1],
        )

    def _step_frames(self, mel: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run the frame-rate convolution for each item and frame on its own.

        A convolution rounds differently for other numbers of frames or items, and one sample that is drawn differently
        changes all samples after it. This way an utterance is the same, bit for bit, in any chunks and any batch.
        """
        items = []
        states = []
        for item, item_state in zip(self.normalised(mel).split(1), state.split(1), strict=True):
            frames = []
            for frame in item.split(1, dim=-1):
                h, item_state = self.frame_conv.step(frame, item_state)
                frames.append(h)
            items.append(torch.cat(frames, dim=-1))
            states.append(item_state)
        return torch.cat(items), torch.cat(states)

    @inference
    def flush(self, state: WaveNetState) -> Tensor:
        """No samples ``[batch, 0]``: none wait for look-ahead."""
        return state.last_sample.new_zeros(len(state.last_sample), 0)
