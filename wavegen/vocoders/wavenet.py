"""WaveNet: one sample after another, each drawn from a predicted distribution."""

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

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
)
from wavegen.blocks.tiled import runs_in_tiles, sum_of_skips
from wavegen.config import KeepsWeights
from wavegen.distributions import output_distribution
from wavegen.engines import (
    PITCH_TAPS,
    EngineCache,
    FrameCondition,
    Prediction,
    reads_classes,
)
from wavegen.errors import ConfigError
from wavegen.levels import mu_law_cells
from wavegen.mel import MelSpec
from wavegen.source import PitchNetwork
from wavegen.vocoders._base import Likelihood, VocoderConfig, inference
from wavegen.vocoders._prediction import MelPrediction, errors_of, past_errors
from wavegen.vocoders._sampled import SampledVocoder, voiced_noise
from wavegen.vocoders._speakers import SpeakerCondition
from wavegen.vocoders._spoken import PITCH_CHANNELS, NoPitch, Spoken, SpokenStage, pitch_channels

if TYPE_CHECKING:
    pass

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
        voiced_noise_from_hz: frequency at which the noise begins that samples of voiced frames are drawn with, so that
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


class WaveNet(SampledVocoder):
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
        prediction_order: coefficients of the linear prediction.
        longest_period: the longest pitch period that the network reads back, in samples.
    """

    Config = WaveNetConfig
    takes_f0 = False  # unless it reads pitch

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
        self.voiced_noise = voiced_noise(config.voiced_noise_from_hz, mel.sample_rate_hz)
        self.impose_mel, self.synthesis_iterations = config.impose_mel, config.synthesis_iterations
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
        self._exact.keep()
        return super().prepared_for_synthesis()

    @inference
    def engine_inputs(
        self, spoken: Spoken, first: int, stop: int, mask: Tensor | None = None, speakers: Tensor | None = None
    ) -> tuple[FrameCondition, Prediction]:
        """As in ``SampledVocoder``."""
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

    @property
    def frames_kept(self) -> int:
        """As in ``SampledVocoder``."""
        return max(FRAME_TAPS - 1 + self.upsample.context.left, self.prediction.context.left)

    def _begin_with_prediction(self) -> None:
        """Begin training with the linear prediction alone: an error of standard deviation 1, whatever came before."""
        assert self.output.bias is not None
        with torch.no_grad():
            self.output.weight.zero_()
            self.output.bias.copy_(self.distribution.standard())


def _in_float64(model: WaveNet, name: str, precision: str) -> tuple[SpokenStage, DilatedConv1d]:
    """Copies of the layers at frame rate: in float64, rounding hides how many frames are computed at once."""
    return copy.deepcopy(model.stage).double(), copy.deepcopy(model.frame_conv).double()


def _pointwise(layer: DilatedConv1d, x: Tensor) -> Tensor:
    """A convolution with one tap, as a product with rows of samples: several times faster on a CPU."""
    return F.linear(x.mT, layer.weight[..., 0], layer.bias).mT
