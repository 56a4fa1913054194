"""WaveNet: one sample after another, each drawn from a predicted distribution."""

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
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
    masked,
    sample_mask,
)
from wavegen.blocks.tiled import runs_in_tiles, sum_of_skips
from wavegen.config import KeepsWeights
from wavegen.distributions import output_distribution
from wavegen.engines import (
    AUTOREGRESSIVE_ENGINES,
    PITCH_TAPS,
    Engine,
    EngineCache,
    FrameCondition,
    Prediction,
    make_engine,
    reads_classes,
)
from wavegen.errors import ConfigError
from wavegen.levels import mu_law_cells
from wavegen.mel import MelSpec
from wavegen.noise import coloured_noise, high_pass, uniform_noise
from wavegen.source import PitchNetwork
from wavegen.vocoders._base import AutoregressiveVocoder, Likelihood, VocoderConfig, inference
from wavegen.vocoders._frames import count, cut, joined
from wavegen.vocoders._prediction import MelPrediction, errors_of, past_errors
from wavegen.vocoders._sourced import SourcedVocoder
from wavegen.vocoders._speakers import SpeakerCondition
from wavegen.vocoders._spoken import PITCH_CHANNELS, Features, NoPitch, Spoken, SpokenStage, pitch_channels

if TYPE_CHECKING:
    from wavegen.engines.spectral.chain import CompiledChain

FRAME_TAPS = 3  # of the convolution over frames, without look-ahead
LARGEST_ERROR = 32.0  # of a prediction, in standard deviations


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
        prediction_order: coefficients of the linear prediction that follows from the mel; the network then models its
            normalised error, and its condition is the mel without the level of each frame. 0 models the samples.
        reads_pitch: whether the network reads F0, voicing, and its past around one pitch period back.
        look_ahead: frames that the condition reads beyond the one it describes.
        voiced_temperature: factor of the temperature of sampling in voiced frames.
        voiced_noise_from_hz: in voiced frames, the noise that samples are drawn with begins at this frequency, so that
            what lies below follows from the prediction alone. Each sample keeps its distribution. 0 is white noise.
        impose_mel: whether to impose the mel on the samples, see ``MelProjection``.
        synthesis_iterations: Griffin-Lim iterations after the mel is imposed: more of them sound better and take
            longer.
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
    prediction_order: NonNegativeInt = 0
    reads_pitch: bool = False
    look_ahead: NonNegativeInt = 0
    voiced_temperature: Annotated[NonNegativeFloat, KeepsWeights()] = 1.0
    voiced_noise_from_hz: Annotated[NonNegativeFloat, KeepsWeights()] = 0.0
    impose_mel: Annotated[bool, KeepsWeights()] = False
    synthesis_iterations: Annotated[NonNegativeInt, KeepsWeights()] = 0

    @classmethod
    def examples(cls) -> tuple["WaveNetConfig", ...]:
        """Every distribution with and without prediction, and kernels of two and three taps."""
        tiny = cls(residual_channels=4, skip_channels=8, hidden_channels=8, condition_channels=4, cycles=1, depth=3)
        wide = tiny.model_copy(
            update={"skip_channels": 16, "hidden_channels": 32, "condition_channels": 16, "cycles": 2}
        )
        predicted = {"prediction_order": 8, "look_ahead": 1, "impose_mel": True, "condition_channels": 16}
        return (
            tiny,
            wide,
            wide.model_copy(update={"output": "logistic-mixture", "kernel_size": 3}),
            wide.model_copy(update={"output": "gaussian"}),
            tiny.model_copy(update=predicted | {"output": "logistic-mixture", "reads_pitch": True}),
            wide.model_copy(update=predicted | {"output": "gaussian", "look_ahead": 2, "impose_mel": False}),
            tiny.model_copy(
                update=predicted | {"reads_pitch": True, "synthesis_iterations": 1, "voiced_noise_from_hz": 1000.0}
            ),
        )


class LoopState(NamedTuple):
    """State of the sample loop's stream.

    Attributes:
        waiting: frames that later samples still read.
        first_frame: index in the utterance of the first of them.
        frames_done: number of frames whose samples have been generated.
        engine: state of the engine, such as the histories of the dilated layers.
        last_sample: ``[batch]``.
        seeds: int64 ``[batch]``.
    """

    waiting: Spoken
    first_frame: Tensor
    frames_done: Tensor
    engine: Any
    last_sample: Tensor
    seeds: Tensor


class WaveNet(SourcedVocoder, AutoregressiveVocoder):
    """Autoregressive WaveNet (arXiv:1609.03499) conditioned on mel frames, on the error of a linear prediction.

    ::

        mel ─┬─ level off, pitch ─ conv ─ ReLU ─ + speaker ─ hold and smooth ─┐ condition, one step per sample
             │  u[n-1], u around one period back ─ conv ─ gated dilated blocks ┴─ sum of skips ─ ReLU ─ 1×1 ─ ReLU ─┐
             │                                        distribution of u[n] ───────────────────────────────── 1×1 ───┘
             ├─ linear prediction ─ x[n] = x̂[n] + scale · u[n]
             └─ imposed on the samples x

    Linear prediction that follows from the mel alone (``LinearPrediction``; as in LPCNet, arXiv:1810.11846, which has
    it from cepstra) does most of the work: its error u is white, and of standard deviation 1 whatever the level. With
    ``prediction_order`` 0, u is the sample itself, and the condition keeps the level.

    The network is causal but for the look-ahead of its condition. The samples of an utterance do not depend on how it
    was cut, bit for bit, because all that follows from the frames is computed in float64 and then rounded.

    Args:
        mel: the mel definition.
        config: the shape; by default that of the config's defaults.
        speakers: names of the speakers; empty for a vocoder without speakers.

    Raises:
        ConfigError: ``look_ahead`` is shorter than that of the linear prediction.

    Attributes:
        temperature: scales the randomness of sampling: 1 samples the learned distribution, 0 takes its mode.
        impose_mel: whether the mel is imposed on the samples.
        prediction_order: coefficients of the linear prediction.
        longest_period: the longest pitch period that the network reads back, in samples.
    """

    Config = WaveNetConfig
    engines = AUTOREGRESSIVE_ENGINES
    names_engine = True
    takes_f0 = False  # unless it reads pitch
    streams_natively = True

    def __init__(self, mel: MelSpec, config: WaveNetConfig | None = None, *, speakers: Sequence[str] = ()) -> None:
        config = config or WaveNetConfig()
        network = PitchNetwork.shipped() if config.reads_pitch else NoPitch()
        reads_magnitude = config.reads_pitch or config.prediction_order > 0
        super().__init__(mel, SpokenStage(mel, network, reads_magnitude=reads_magnitude))
        self.reads_pitch, self.look_ahead = config.reads_pitch, config.look_ahead
        self.prediction = MelPrediction(mel, config.prediction_order, reads_pitch=config.reads_pitch)
        self.prediction_order, self.longest_period = self.prediction.order, self.prediction.longest_period
        if self.prediction.context.right > config.look_ahead:
            raise ConfigError(
                f"prediction_order {config.prediction_order} with look_ahead {config.look_ahead}, which must be at "
                f"least {self.prediction.context.right}",
                where="vocoder.look_ahead",
                remedy="use look_ahead=2, or prediction_order=0",
            )
        limit = LARGEST_ERROR if self.prediction_order else 1.0
        self.distribution = output_distribution(config.output, limit=limit)
        frame_channels = mel.n_mels + (PITCH_CHANNELS if config.reads_pitch else 0)
        self.frame_conv = DilatedConv1d(frame_channels, config.condition_channels, FRAME_TAPS + config.look_ahead)
        self.upsample = HoldUpsampler(mel.hop_length)
        read = self.distribution.input_channels if reads_classes(self) else 1 + config.reads_pitch * len(PITCH_TAPS)
        self.input = DilatedConv1d(read, config.residual_channels, config.kernel_size)
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
        if self.prediction_order:
            self._begin_with_prediction()
        if config.weight_norm:
            for part in (self.frame_conv, self.input, self.stack, self.hidden):  # zeros have no norm to divide by
                apply_weight_norm(part)
        self.speaker_condition = SpeakerCondition(speakers, config.speaker_channels, config.condition_channels)
        self.takes_f0 = config.reads_pitch
        self.synthesis_options = {
            "temperature": "temperature",
            "impose": "impose_mel",
            **({"iterations": "synthesis_iterations"} if config.impose_mel else {}),
            **({"pitch": "pitch_shift"} if config.reads_pitch else {}),
        }
        self.temperature, self.voiced_temperature = 1.0, config.voiced_temperature
        self._voiced_noise = _voiced_noise(config.voiced_noise_from_hz, mel.sample_rate_hz)
        self.impose_mel, self.synthesis_iterations = config.impose_mel, config.synthesis_iterations
        self._engines = EngineCache(make_engine)
        self._exact = EngineCache(_in_float64)

    @property
    def running_stage(self) -> SpokenStage:
        """The stage in float64."""
        return self._exact.engine(self)[0]

    @property
    def receptive_field_samples(self) -> int:
        """Past samples that the distribution of the next sample depends on, beside those one pitch period back."""
        return (self.input.context + self.stack.context).receptive_field

    @property
    def context(self) -> Context:
        """Mel frames that the distributions of a frame's samples depend on, given all samples."""
        return self._condition_context + self.stage.network.context

    @property
    def warm_up_samples(self) -> int:
        """As in ``AutoregressiveVocoder``; what the pitch network reads further back changes little."""
        frames = self._condition_context.left * self.mel.hop_length
        return max(self.receptive_field_samples, frames) + self.prediction_order

    @property
    def _condition_context(self) -> Context:
        """Frames of mel and pitch read for the condition of a frame's samples and of those that the stack reads."""
        # The smoothing reads hop_length - 1 held samples further back than the stack.
        samples_back = self.stack.condition_context.left + self.mel.hop_length - 1
        left = FRAME_TAPS - 1 + math.ceil(samples_back / self.mel.hop_length)
        return Context(left, self.look_ahead)

    @property
    def render_context(self) -> Context:
        """Frames that the projection reads."""
        return self.projection.context(self.iterations) if self.impose_mel else Context()

    @property
    def latency_samples(self) -> int:
        """How far streamed output lags behind its input."""
        return super().latency_samples + self.look_ahead * self.mel.hop_length

    @property
    def steps_natively(self) -> bool:
        """Whether a stream recomputes nothing: all but the imposing of the mel carries its state."""
        return not self.impose_mel

    @property
    def items_at_once(self) -> int:
        """The engine's best batch size."""
        return self.engine().items_at_once

    # ---- training ----------------------------------------------------------------------------------------------

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
            parameters of the distribution of each sample or, with linear prediction, of its error:
            ``[batch, distribution.channels, frames * hop_length]``.
        """
        return self._predicted(samples, mel, mask, speakers)[0]

    def log_likelihood(
        self, samples: Tensor, mel: Tensor, mask: Tensor | None = None, *, speakers: Tensor | None = None
    ) -> Likelihood:
        """As in ``AutoregressiveVocoder``."""
        return self.log_likelihood_of(*self._predicted(samples, mel, mask, speakers))

    def log_likelihood_of(self, parameters: Tensor, samples: Tensor, prediction: Prediction) -> Likelihood:
        """Log-likelihood of samples ``[batch, samples]`` under predicted parameters, those that ``forward`` returns."""
        exact, errors = samples.double(), errors_of(samples, prediction)
        scale = prediction.scale[:, 0].double().repeat_interleave(samples.shape[1] // prediction.scale.shape[-1], dim=1)
        mean = exact - errors * scale
        trained = self.distribution.log_likelihood(parameters, exact, mean, scale)
        with torch.no_grad():
            cells = mu_law_cells(exact).relative_to(mean, scale)
            of_class = self.distribution.log_mass(parameters.detach(), cells)
        return Likelihood(trained, of_class)

    def _predicted(
        self, samples: Tensor, mel: Tensor, mask: Tensor | None, speakers: Tensor | None
    ) -> tuple[Tensor, Tensor, Prediction]:
        """The network's parameters, the samples, and their linear prediction."""
        with torch.autocast(mel.device.type, enabled=False):
            spoken = self.stage.spoken(masked(mel, mask), mask)
            prediction = self.prediction(spoken)
            errors = errors_of(samples, prediction)
            read = past_errors(errors, prediction, self.mel.hop_length, reads_pitch=self.reads_pitch)
            if reads_classes(self):
                read = self.distribution.embed(F.pad(samples, (1, 0))[:, :-1])  # the sample before the first is silence
            frames = self._frame_inputs(spoken)
        frames = self.speaker_condition(self._frames(self.frame_conv, frames, mask), speakers)
        return self._run(read.to(frames.dtype), frames, mask), samples, prediction

    def _run(self, x: Tensor, frames: Tensor, mask: Tensor | None) -> Tensor:
        """The stack and the output layers, ``[batch, distribution.channels, samples]``."""
        x = self.input(x)
        if torch.is_grad_enabled() and runs_in_tiles(self.stack, x):
            read = F.pad(masked(frames, mask), (self.upsample.context.left, 0))
            skips = sum_of_skips(self.stack, x, read, self.upsample.weights())
        else:
            _, skips = self.stack(x, self.upsample(frames, mask))
        h = torch.relu(_pointwise(self.hidden, torch.relu(skips * self.skip_scale)))
        return _pointwise(self.output, h)

    def _frame_inputs(self, spoken: Spoken) -> Tensor:
        """What the convolution over frames reads: the mel, with linear prediction without its level, and pitch."""
        mel = self.normalised(spoken.mel)
        if self.prediction_order:
            mel = mel - mel.mean(dim=1, keepdim=True)
        if not self.reads_pitch:
            return mel
        return torch.cat((mel, pitch_channels(spoken.pitch).to(mel.dtype)), dim=1)

    def _frames(self, conv: DilatedConv1d, frames: Tensor, mask: Tensor | None) -> Tensor:
        # A causal layer's output at t + look_ahead belongs to frame t, so drop the first look_ahead frames.
        return torch.relu(conv(F.pad(masked(frames, mask), (0, self.look_ahead)))[..., self.look_ahead :])

    # ---- synthesis ---------------------------------------------------------------------------------------------

    def prepared_for_synthesis(self) -> Self:
        """As in ``Vocoder``; from now on the engine is kept."""
        self._engines.keep()
        self._exact.keep()
        return super().prepared_for_synthesis()

    def use_engine(self, name: str = "auto", precision: str = "float32") -> str:
        """Choose the engine that generates samples from now on, see ``wavegen.engines.make_engine``."""
        self.check_engine(name, precision)
        self._engines.choose(name, precision)
        return self.engine().description

    def compiled(self) -> None:
        """None: the engine of a WaveNet computes its samples, not its frames."""
        return

    def engine(self) -> Engine:
        """The engine that generates, with this model's current weights folded into it."""
        return self._engines.engine(self)

    def generate(
        self,
        mel: Tensor,
        mask: Tensor | None,
        seeds: Tensor,
        first_frame: int,
        speakers: Tensor | None = None,
        f0: Tensor | None = None,
    ) -> Tensor:
        """Generate from silence, then impose the mel."""
        stage = self.running_stage
        _, state = self.initial_network_state(stage.no_features(len(mel)), seeds)
        features, _ = self._continue(stage(mel, mask, seeds, f0), state, mask, speakers, ended=True)
        return self.render(features, mask, speakers, self.iterations)

    def initial_network_state(self, features: Features, seeds: Tensor) -> tuple[Features, LoopState]:
        """As in ``SourcedVocoder``."""
        kernel, batch = self.upsample.kernel, len(seeds)
        state = LoopState(
            waiting=features.spoken,
            first_frame=torch.tensor(0),
            frames_done=torch.tensor(0),
            engine=self.engine().initial_state(batch),
            last_sample=kernel.new_zeros(batch),
            seeds=seeds,
        )
        return features._replace(corrections=kernel.new_zeros(batch, self.mel.hop_length, 0)), state

    def step_network(
        self,
        features: Features,
        state: Any,
        speakers: Tensor | None,
        compiled: "CompiledChain | None" = None,
        *,
        ended: bool,
    ) -> tuple[Features, Any]:
        """As in ``SourcedVocoder``; frames wait for the look-ahead of the condition."""
        return self._continue(features, state, None, speakers, ended=ended)

    def _continue(
        self, features: Features, state: LoopState, mask: Tensor | None, speakers: Tensor | None, *, ended: bool
    ) -> tuple[Features, LoopState]:
        """Generate the samples that are ready after the next frames."""
        waiting = joined(state.waiting, features.spoken)
        first, done, hop = int(state.first_frame), int(state.frames_done), self.mel.hop_length
        ready = first + count(waiting) - (0 if ended else self.look_ahead)
        if ready <= done:
            nothing = state.last_sample.new_zeros(len(state.seeds), hop, 0)
            return Features(cut(waiting, 0, 0), corrections=nothing), state._replace(waiting=waiting)

        condition, prediction = self.engine_inputs(waiting, done - first, ready - first, mask, speakers)

        # Sample by sample, with noise that is addressed by its position in the utterance.
        last = state.last_sample
        noise = self._noise(state.seeds, done * hop, prediction.period)
        samples, engine_state = self.engine().generate(
            last, condition, noise, state.engine, prediction=prediction, temperature=self.temperature
        )
        unneeded = max(0, ready - self._frames_kept - first)
        generated = Features(
            cut(waiting, done - first, ready - first), corrections=samples.unflatten(1, (-1, hop)).transpose(1, 2)
        )
        return generated, LoopState(
            waiting=cut(waiting, unneeded, None),
            first_frame=state.first_frame + unneeded,
            frames_done=torch.tensor(ready),
            engine=engine_state,
            last_sample=samples[:, -1],
            seeds=state.seeds,
        )

    @inference
    def engine_inputs(
        self, spoken: Spoken, first: int, stop: int, mask: Tensor | None = None, speakers: Tensor | None = None
    ) -> tuple[FrameCondition, Prediction]:
        """What an engine needs to know for the samples of the frames from ``first`` to ``stop``.

        Args:
            spoken: the frames, with those that are read around them or the utterance's ends.
            first, stop: the frames to generate; 0 for ``first`` is the start of the utterance.
            mask: ``[batch, 1, frames]``, True where a frame is real; None if all are.
            speakers: int64 ``[batch]``; None for a vocoder without speakers.

        Returns:
            the condition at frame rate, which the engine holds and smooths, and the prediction.
        """
        like = self.upsample.kernel
        # In float64, then rounded; what precedes the first frame is zeros.
        h = self._frames(self._exact.engine(self)[1], self._frame_inputs(spoken), mask).to(like)
        before = self.upsample.context.left
        h = F.pad(self.speaker_condition(h, speakers), (before, 0))
        condition = FrameCondition(h[..., first : stop + before], self.upsample.weights())

        rounded = spoken._replace(magnitude=spoken.magnitude.to(like))
        prediction = self.prediction(rounded, first, stop)
        temperature = torch.where(prediction.period > 0, self.voiced_temperature, 1.0)
        coefficients, scale = prediction.coefficients.to(like), prediction.scale.to(like)
        return condition, Prediction(coefficients, scale, prediction.period, temperature)

    def _noise(self, seeds: Tensor, start: int, period: Tensor) -> Tensor:
        """The uniform numbers ``[batch, samples]`` to draw with, from sample ``start`` on, for periods of frames."""
        hop = self.mel.hop_length
        count, voiced = period.shape[1] * hop, period.repeat_interleave(hop, dim=1) > 0
        white = uniform_noise(seeds, start, count, 1, period.device)[:, 0]
        if self._voiced_noise is None or not voiced.any():
            return white
        return torch.where(voiced, coloured_noise(seeds, start, count, self._voiced_noise, period.device), white)

    @property
    def _frames_kept(self) -> int:
        """Frames before the next one that its samples read."""
        return max(FRAME_TAPS - 1 + self.upsample.context.left, self.prediction.context.left)

    def render(
        self,
        features: Features,
        mask: Tensor | None,
        speakers: Tensor | None,
        iterations: int,
        compiled: "CompiledChain | None" = None,
    ) -> Tensor:
        """Impose the mel on the samples; zeros outside the mask."""
        assert features.corrections is not None
        samples = features.corrections.transpose(1, 2).flatten(1)
        real = sample_mask(mask, self.mel.hop_length)
        samples = masked(samples, None if real is None else real[:, 0])
        if not self.impose_mel:
            return samples
        return self.projection(samples, features.spoken.mel.to(samples), mask, iterations=iterations)

    def _begin_with_prediction(self) -> None:
        """Begin training with the linear prediction alone: an error of standard deviation 1, whatever came before."""
        assert self.output.bias is not None
        with torch.no_grad():
            self.output.weight.zero_()
            self.output.bias.copy_(self.distribution.standard())


def _voiced_noise(from_hz: float, sample_rate_hz: int) -> Tensor | None:
    """The filter of the noise in voiced frames; None for white noise."""
    if from_hz >= sample_rate_hz / 2:
        raise ConfigError(
            f"{from_hz:g} Hz is not below half the sample rate ({sample_rate_hz / 2:g} Hz)",
            where="vocoder.voiced_noise_from_hz",
            remedy=f"use {sample_rate_hz / 6:g}, or 0 for white noise",
        )
    return high_pass(from_hz, sample_rate_hz) if from_hz else None


def _in_float64(model: WaveNet, name: str, precision: str) -> tuple[SpokenStage, DilatedConv1d]:
    """Copies of the layers at frame rate: in float64, rounding hides how many frames are computed at once."""
    return copy.deepcopy(model.stage).double(), copy.deepcopy(model.frame_conv).double()


def _pointwise(layer: DilatedConv1d, x: Tensor) -> Tensor:
    """A convolution with one tap, as a product with rows of samples: several times faster on a CPU."""
    return F.linear(x.mT, layer.weight[..., 0], layer.bias).mT
