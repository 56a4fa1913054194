"""The interface of autoregressive engines: a trained WaveNet folded into whatever runs its sample loop."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from wavegen.distributions import OutputDistribution

State = tuple[Tensor, ...]


class Engine(ABC):
    """Runs a WaveNet sample by sample. Weights are read once, when it is built; state goes in and comes back."""

    distribution: OutputDistribution

    @abstractmethod
    def initial_state(self, batch: int) -> State:
        """State before the first sample."""

    @abstractmethod
    def advance(self, previous: Tensor, condition: Tensor, state: State) -> Tensor:
        """Predict one sample, changing ``state`` in place.

        Args:
            previous: ``[batch]``, the sample before.
            condition: ``[batch, condition_channels]`` for this sample.
            state: a state that nobody else holds.

        Returns:
            parameters of the output distribution, ``[batch, channels]``.
        """

    @torch.no_grad()
    def generate(
        self, previous: Tensor, condition: Tensor, noise: Tensor, state: State, *, temperature: float = 1.0
    ) -> tuple[Tensor, State]:
        """Generate the next samples.

        Args:
            previous: ``[batch]``, the sample before the first of these.
            condition: ``[batch, condition_channels, samples]``.
            noise: uniform numbers ``[batch, draws, samples]``; engines given the same make the same choices.
            state: it is not changed.
            temperature: 1 to sample from the model, less to sharpen it, 0 for the mode.

        Returns:
            ``[batch, samples]`` and the next state.
        """
        state = tuple(part.clone() for part in state)
        samples = []
        # One contiguous row a sample: the loop reads them hundreds of thousands of times.
        for now, draw in zip(condition.permute(2, 0, 1).contiguous(), noise.permute(2, 0, 1), strict=True):
            parameters = self.advance(previous, now, state)
            previous = self.distribution.sample(parameters[..., None], draw[..., None], temperature=temperature)[:, 0]
            samples.append(previous)
        return torch.stack(samples, dim=1) if samples else condition.new_zeros(len(condition), 0), state
