"""WaveNet: one sample after another, each a draw from a distribution over the next."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor

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
from wavegen.engines import Engine, EngineHolder, HeldCondition
from wavegen.mel import MelSpec
from wavegen.noise import uniform_noise
from wavegen.vocoders._base import State, Vocoder, VocoderConfig
from wavegen.vocoders._speakers import SpeakerCondition


class WaveNetConfig(VocoderConfig):
    """Shape of a WaveNet in a recipe."""

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


class WaveNet(Vocoder):
    """Autoregressive WaveNet (arXiv:1609.03499) conditioned on mel frames; causal throughout.

    ::

        mel ─ conv ─ ReLU ─ + speaker ─ hold and smooth ─┐ condition, one step a sample
        sample n-1 ─ embed ─ conv ─ gated dilated blocks ┴─ sum of skips ─ ReLU ─ 1×1 ─ ReLU ─ 1×1 ─ distribution of n

    Args:
        mel: the mel contract.
        output: the distribution of a sample: ``"mu-law"`` (256 classes), ``"logistic-mixture"`` (10 components) or
            ``"gaussian"``.
        residual_channels: channels between blocks; the gates have twice as many.
        skip_channels: channels of the skips.
        hidden_channels: channels of the layer before the last.
        condition_channels: channels of the upsampled mel.
        cycles: times that the dilations start over.
        depth: blocks per cycle; dilations 1, 2, … 2^(depth - 1).
        kernel_size: taps of the dilated convolutions and of the input's.
        weight_norm: normalise weights in training; folded before synthesis.
        speakers: names of those who may speak; none for a vocoder that is not told who does.
        speaker_channels: channels of the vector that is learned for each.

    Attributes:
        temperature: of sampling: 1 for the distribution that was learnt, less for one more certain, 0 for its mode.
    """

    Config = WaveNetConfig
    objective = "likelihood"

    def __init__(
        self,
        mel: MelSpec,
        *,
        output: str = "mu-law",
        residual_channels: int = 64,
        skip_channels: int = 128,
        hidden_channels: int = 256,
        condition_channels: int = 64,
        cycles: int = 2,
        depth: int = 10,
        kernel_size: int = 2,
        weight_norm: bool = False,
        speakers: Sequence[str] = (),
        speaker_channels: int = 0,
    ) -> None:
        super().__init__(mel)
        self.distribution = output_distribution(output)
        self.frame_conv = DilatedConv1d(mel.n_mels, condition_channels, 3)
        self.upsample = HoldUpsampler(mel.hop_length)
        self.input = DilatedConv1d(self.distribution.input_channels, residual_channels, kernel_size)
        self.stack = DilatedStack(
            GatedResidualBlock(
                residual_channels,
                kernel_size=kernel_size,
                dilation=dilation,
                skip_channels=skip_channels,
                condition_channels=condition_channels,
            )
            for dilation in exponential_dilations(cycles, depth)
        )
        self.skip_scale = math.sqrt(1 / (cycles * depth))  # keeps the variance of the sum
        self.hidden = DilatedConv1d(skip_channels, hidden_channels, 1)
        self.output = DilatedConv1d(hidden_channels, self.distribution.channels, 1)
        if weight_norm:
            apply_weight_norm(self)
        self.speaker_condition = SpeakerCondition(speakers, speaker_channels, condition_channels)
        self.temperature = 1.0
        self._engines = EngineHolder()

    @property
    def receptive_field_samples(self) -> int:
        """Past samples that the distribution of the next one is read from."""
        return (self.input.context + self.stack.context).receptive_field

    @property
    def context(self) -> Context:
        """Mel frames that the distributions of a frame's samples depend on, all samples being given."""
        # The smoothing reads hop_length - 1 held samples further back than the stack.
        samples_back = self.stack.condition_context.left + self.mel.hop_length - 1
        return self.frame_conv.context + Context(math.ceil(samples_back / self.mel.hop_length))

    @property
    def steps_natively(self) -> bool:
        """Always: the model is causal."""
        return True

    @property
    def items_at_once(self) -> int:
        """As the engine says."""
        return self.engine().items_at_once

    def forward(
        self, samples: Tensor, mel: Tensor, mask: Tensor | None = None, *, speakers: Tensor | None = None
    ) -> Tensor:
        """Predict every sample from those before it, all at once (teacher forcing).

        Args:
            samples: waveform ``[batch, frames * hop_length]`` in -1…1.
            mel: ``[batch, n_mels, frames]``.
            mask: ``[batch, 1, frames]``, True where a frame is real.
            speakers: int64 ``[batch]``, indices of ``self.speakers``; None where there are none.

        Returns:
            parameters of each sample's distribution, ``[batch, distribution.channels, frames * hop_length]``.
        """
        before = F.pad(samples, (1, 0))[:, :-1]  # before the first sample was silence
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

    def use_engine(self, name: str = "auto", precision: str = "float32") -> str:
        """Choose what generates from now on; see ``wavegen.engines.make_engine``. Returns its description."""
        self._engines = EngineHolder(name, precision)
        return self.engine().description

    def engine(self) -> Engine:
        """This model's weights as they are now, folded into the engine that generates."""
        return self._engines.engine(self)

    def generate(
        self, mel: Tensor, mask: Tensor | None, seeds: Tensor, first_frame: int, speakers: Tensor | None = None
    ) -> Tensor:
        """Generate from silence. What follows an item's end cannot reach it, so the mask changes nothing."""
        who = () if speakers is None else (speakers,)
        return self.step(mel, self._initial_state(seeds, *who))[0]

    def initial_state(
        self, batch: int, *, seed: int | Sequence[int] = 0, speaker: str | Sequence[str] | None = None
    ) -> State:
        """State of the condition's layers and of the engine, the last sample, frames done, seeds and any speakers."""
        who = self.speaker_condition.indices(speaker, batch)
        return self._initial_state(self._seeds(seed, self.upsample.kernel.new_zeros(batch)), *who)

    def _initial_state(self, seeds: Tensor, *who: Tensor) -> State:
        batch = len(seeds)
        return (
            self.frame_conv.initial_state(batch),
            self.upsample.initial_state(batch, self.frame_conv.out_channels),
            self.engine().initial_state(batch),
            self.upsample.kernel.new_zeros(batch),
            torch.tensor(0),
            seeds,
            *who,
        )

    @torch.no_grad()
    def step(self, mel: Tensor, state: State, *, temperature: float | None = None) -> tuple[Tensor, State]:
        """Generate the samples of the next frames, ``[batch, frames * hop_length]``; none is held back.

        ``temperature`` is as in ``Engine.generate``, by default the attribute of that name.
        """
        self.check_shape(mel)
        if mel.shape[-1] == 0:
            return mel.new_zeros(len(mel), 0), state
        frame_state, upsample_state, engine_state, last, frames_done, seeds, *who = state
        h, frame_state = self._step_frames(mel, frame_state)
        h = self.speaker_condition(torch.relu(h), *who)
        frames, upsample_state = self.upsample.frames_read(h, upsample_state)
        condition = HeldCondition(frames, self.upsample.weights())
        start = int(frames_done) * self.mel.hop_length
        noise = uniform_noise(seeds, start, condition.samples, self.distribution.draws, mel.device)
        temperature = self.temperature if temperature is None else temperature
        samples, engine_state = self.engine().generate(last, condition, noise, engine_state, temperature=temperature)
        done = frames_done + mel.shape[-1]
        return samples, (frame_state, upsample_state, engine_state, samples[:, -1], done, seeds, *who)

    def _step_frames(self, mel: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The frame-rate convolution of each item and frame on its own.

        A convolution of more frames or items rounds otherwise, and a draw that falls otherwise changes all samples
        after it. So an utterance is the same, bit for bit, however it is cut and whatever else is in the batch.
        """
        items, states = [], []
        for item, item_state in zip(self.normalised(mel).split(1), state.split(1), strict=True):
            made = []
            for frame in item.split(1, dim=-1):
                h, item_state = self.frame_conv.step(frame, item_state)
                made.append(h)
            items.append(torch.cat(made, dim=-1))
            states.append(item_state)
        return torch.cat(items), torch.cat(states)

    @torch.no_grad()
    def flush(self, state: State) -> Tensor:
        """Nothing: no sample waits for look-ahead."""
        return state[3].new_zeros(len(state[3]), 0)
