"""The interface of autoregressive engines. An engine folds a WaveNet's weights into code that runs its sample loop."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from wavegen.blocks import DilatedConv1d, DilatedStack
from wavegen.distributions import MuLaw, OutputDistribution
from wavegen.mel import MelProjection
from wavegen.source import PitchNetwork, ShapedSource

EngineState = tuple[Any, ...]  # a NamedTuple of tensors; each engine defines its own


class Network(Protocol):
    """The layers of a WaveNet that run once per sample.

    Attributes:
        prediction_order: coefficients of the linear predictor, whose error the network models; 0 for the samples
            themselves.
        reads_pitch: whether the network also reads the values around one pitch period back.
        longest_period: the longest such period in samples.
    """

    distribution: OutputDistribution
    input: DilatedConv1d
    stack: DilatedStack
    hidden: DilatedConv1d
    output: DilatedConv1d
    skip_scale: float
    prediction_order: int
    reads_pitch: bool
    longest_period: int


PITCH_TAPS = (-1, 0, 1)
"""Distances, from one pitch period back, of the values that a network reads."""
LARGEST_INPUT = 8.0
"""A network reads larger prediction errors, in standard deviations, as this one."""


def reads_classes(network: Network) -> bool:
    """Whether the network reads its past as one-hot classes, not as numbers."""
    return isinstance(network.distribution, MuLaw) and not network.prediction_order and not network.reads_pitch


class Prediction(NamedTuple):
    """What is known of samples before the network runs: a linear prediction, and their pitch.

    The network models ``u = (x - x̂) / scale``, the prediction error of the samples ``x``, where ``x̂[n]`` is the sum of
    ``coefficients[k] · x[n - 1 - k]``.

    Attributes:
        coefficients: ``[batch, order, sub-frames]``.
        scale: ``[batch, 1, sub-frames]``.
        period: int64 ``[batch, frames]``, the pitch period in samples; 0 where the frame is not voiced.
        temperature: ``[batch, frames]``, a factor of the temperature of sampling.
    """

    coefficients: Tensor
    scale: Tensor
    period: Tensor
    temperature: Tensor

    @classmethod
    def none(cls, batch: int, like: Tensor) -> "Prediction":
        """No prediction, with one frame for all samples: the network models the samples themselves."""
        return cls(
            coefficients=like.new_zeros(batch, 0, 1),
            scale=like.new_ones(batch, 1, 1),
            period=torch.zeros(batch, 1, dtype=torch.int64, device=like.device),
            temperature=like.new_ones(batch, 1),
        )


class SourcedNetwork(Protocol):
    """The parts of a vocoder with a source stage that run once per frame.

    Attributes:
        pitch: the pitch network.
        shaped: the source.
        projection: imposes the mel at the end.
        frame_stack: the stack of the vocoder's own network at frame rate; None if it has none.
        frame_output: the layer after this stack and its norm, which reads one frame at a time; None if it has none.
    """

    projection: MelProjection

    @property
    def pitch(self) -> PitchNetwork:
        """See above."""

    @property
    def shaped(self) -> ShapedSource:
        """See above."""

    @property
    def frame_stack(self) -> DilatedStack | None:
        """See above."""

    @property
    def frame_output(self) -> DilatedConv1d | None:
        """See above."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All weights."""


@dataclass(frozen=True)
class FrameCondition:
    """A condition at frame rate, with the weights of the linear upsampler that takes it to sample rate.

    Sample ``p`` of frame ``f`` reads ``sum over r of weights[r, p] · frames[..., f + r]``. An engine can apply its
    own weights to the frames instead of to ``hop`` times as many samples.

    Args:
        frames: ``[batch, condition_channels, frames + len(weights) - 1]``.
        weights: ``[frames read, hop]``.
    """

    frames: Tensor
    weights: Tensor

    @classmethod
    def wrap(cls, condition: "Tensor | FrameCondition") -> "FrameCondition":
        """Return a frame condition unchanged; treat a condition per sample as frames of one sample each."""
        return condition if isinstance(condition, FrameCondition) else cls(condition, condition.new_ones(1, 1))

    @property
    def samples(self) -> int:
        """The number of samples that the condition covers."""
        return (self.frames.shape[-1] - len(self.weights) + 1) * self.weights.shape[1]

    def per_sample(self) -> Tensor:
        """Upsample the condition to ``[batch, condition_channels, samples]``."""
        return (self.frames.unfold(-1, len(self.weights), 1) @ self.weights).flatten(-2)


class Engine(ABC):
    """Runs a WaveNet sample by sample. It reads the weights once, when it is built; the state is a value.

    Attributes:
        distribution: the output distribution, whose parameters the network predicts.
        description: the engine in a few words, with the reason if a faster one cannot run here.
        items_at_once: the batch size at which it is fastest, with the same samples as one by one, bit for bit.
    """

    distribution: OutputDistribution
    description: str
    items_at_once: int = 1

    @abstractmethod
    def initial_state(self, batch: int) -> EngineState:
        """Return the state before the first sample."""

    @abstractmethod
    def generate(
        self,
        previous: Tensor,
        condition: Tensor | FrameCondition,
        noise: Tensor,
        state: EngineState,
        *,
        prediction: Prediction | None = None,
        temperature: float = 1.0,
    ) -> tuple[Tensor, EngineState]:
        """Generate the next samples.

        Args:
            previous: ``[batch]``, the sample before the first generated one.
            condition: ``[batch, condition_channels, samples]``, or the same at frame rate.
            noise: uniform numbers ``[batch, samples]``; with equal noise, all engines make the same draws.
            state: the state that ``initial_state`` or the previous call returned; it is left unchanged.
            prediction: linear prediction and pitch of the samples; None for a network without them.
            temperature: 1 samples from the model, lower values sharpen its distribution, 0 takes the mode.

        Returns:
            ``[batch, samples]`` and the next state.
        """

    @abstractmethod
    def predict(
        self,
        previous: Tensor,
        condition: Tensor | FrameCondition,
        state: EngineState,
        *,
        prediction: Prediction | None = None,
    ) -> tuple[Tensor, EngineState]:
        """Predict the distributions of samples from given previous samples (teacher forcing).

        Args:
            previous: ``[batch, samples]``, the sample before each predicted one.
            condition: that of ``generate``.
            state: that of ``generate``.
            prediction: that of ``generate``.

        Returns:
            parameters of the distribution of the samples or, with a prediction, of its errors,
            ``[batch, channels, samples]``, and the next state.
        """
