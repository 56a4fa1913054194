"""The interface of autoregressive engines: a trained WaveNet folded into whatever runs its sample loop."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from wavegen.blocks import DilatedConv1d, DilatedStack
from wavegen.distributions import OutputDistribution

State = tuple[Tensor, ...]


class Network(Protocol):
    """The parts of a WaveNet that run once per sample."""

    distribution: OutputDistribution
    input: DilatedConv1d
    stack: DilatedStack
    hidden: DilatedConv1d
    output: DilatedConv1d
    skip_scale: float


@dataclass(frozen=True)
class HeldCondition:
    """A condition that a linear upsampler makes of frames, before it is made.

    Sample ``p`` of frame ``f`` reads ``sum over r of weights[r, p] · frames[..., f + r]``. An engine can apply its
    own weights to the frames instead of to ``hop`` times as many samples.

    Args:
        frames: ``[batch, condition_channels, frames + len(weights) - 1]``.
        weights: ``[frames read, hop]``.
    """

    frames: Tensor
    weights: Tensor

    @classmethod
    def of(cls, condition: "Tensor | HeldCondition") -> "HeldCondition":
        """A condition as it is, or one given for each sample as frames of one sample."""
        return condition if isinstance(condition, HeldCondition) else cls(condition, condition.new_ones(1, 1))

    @property
    def samples(self) -> int:
        """Samples that it is for."""
        return (self.frames.shape[-1] - len(self.weights) + 1) * self.weights.shape[1]

    def per_sample(self) -> Tensor:
        """``[batch, condition_channels, samples]``."""
        return (self.frames.unfold(-1, len(self.weights), 1) @ self.weights).flatten(-2)


class Engine(ABC):
    """Runs a WaveNet sample by sample. Weights are read once, when it is built; state goes in and comes back.

    Attributes:
        distribution: what the network's output means.
        description: the engine in a few words for people, with the reason where another one was wanted.
        items_at_once: items of a batch that go faster together than one by one, with the same samples, bit for bit.
    """

    distribution: OutputDistribution
    description: str
    items_at_once: int = 1

    @abstractmethod
    def initial_state(self, batch: int) -> State:
        """State before the first sample."""

    @abstractmethod
    def generate(
        self,
        previous: Tensor,
        condition: Tensor | HeldCondition,
        noise: Tensor,
        state: State,
        *,
        temperature: float = 1.0,
    ) -> tuple[Tensor, State]:
        """Generate the next samples.

        Args:
            previous: ``[batch]``, the sample before the first of these.
            condition: ``[batch, condition_channels, samples]``, or the frames that it is made of.
            noise: uniform numbers ``[batch, draws, samples]``; engines given the same make the same choices.
            state: it is not changed.
            temperature: 1 to sample from the model, less to sharpen it, 0 for the mode.

        Returns:
            ``[batch, samples]`` and the next state.
        """

    @abstractmethod
    def predict(self, previous: Tensor, condition: Tensor | HeldCondition, state: State) -> tuple[Tensor, State]:
        """Predict samples from given ones (teacher forcing).

        Args:
            previous: ``[batch, samples]``, the sample before each.
            condition: as in ``generate``.
            state: it is not changed.

        Returns:
            parameters of the output distribution, ``[batch, channels, samples]``, and the next state.
        """
