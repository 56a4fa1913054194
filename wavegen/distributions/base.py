"""The interface of output distributions."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from wavegen.errors import ConfigError
from wavegen.levels import Cells, at_least_float32, pcm_cells


class OutputDistribution(ABC):
    """The distribution of one waveform sample, parametrised by the output channels of a network.

    Attributes:
        name: its name in recipes.
        channels: output channels of the network: the distribution's parameters.
        input_channels: channels of the waveform as the network reads it; see ``embed``.
        limit: drawn values lie in ``-limit…limit``.
    """

    name: ClassVar[str]
    channels: int
    input_channels: int = 1
    limit: float = 1.0

    def embed(self, x: Tensor) -> Tensor:
        """Convert a waveform ``[batch, time]`` in -1..1 to the network's input ``[batch, input_channels, time]``."""
        return x.unsqueeze(1)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Log-probability of each sample, in nats.

        Half-precision parameters are converted to float32, so this is safe under autocast.

        Args:
            parameters: ``[batch, channels, time]``, any real numbers.
            x: waveform ``[batch, time]`` in -1..1.

        Returns:
            ``[batch, time]``, differentiable with respect to ``parameters``.

        Raises:
            ValueError: a shape is wrong.
        """
        self._check_shape("parameters", parameters, (x.shape[0], self.channels, x.shape[-1]))
        parameters = at_least_float32(parameters)
        return self._log_prob(parameters, x.to(parameters.dtype))

    def log_mass(self, parameters: Tensor, cells: Cells) -> Tensor:
        """Log-probability that a sample lies in a cell, in nats; it compares distributions of any kind.

        Args:
            parameters: those of ``log_prob``.
            cells: cells ``[batch, time]``.

        Returns:
            ``[batch, time]``, differentiable with respect to ``parameters``.
        """
        shape = cells.centre.shape
        self._check_shape("parameters", parameters, (shape[0], self.channels, shape[-1]))
        parameters = at_least_float32(parameters)
        dtype = parameters.dtype
        cells = cells._replace(centre=cells.centre.to(dtype), half_width=cells.half_width.to(dtype))
        return self._log_mass(parameters, cells)

    def log_likelihood(self, parameters: Tensor, x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """Log-probability of samples whose normalised error ``(x - mean) / scale`` the parameters describe.

        Args:
            parameters: those of ``log_prob``.
            x: waveform ``[batch, time]`` in -1..1.
            mean, scale: prediction of ``x`` and scale of its error, ``[batch, time]``.

        Returns:
            ``[batch, time]``, that of the 16-bit level of each sample; with mean 0 and scale 1, ``log_prob`` of ``x``.
        """
        return self.log_mass(parameters, pcm_cells(x).relative_to(mean, scale))

    @abstractmethod
    def standard(self) -> Tensor:
        """Parameters ``[channels]`` of a distribution with mean 0 and standard deviation 1, or close to it."""

    def sample(self, parameters: Tensor, noise: Tensor, *, temperature: float | Tensor = 1.0) -> Tensor:
        """Draw waveform samples, as a deterministic function of the arguments.

        Args:
            parameters: ``[batch, channels, time]``.
            noise: uniform numbers in (0, 1), ``[batch, time]``; see ``uniform_noise``. A sample rises with its number.
            temperature: 1 samples the distribution, less sharpens it, and 0 gives its mode for any noise; a number, or
                one for each sample, in a shape that broadcasts to ``[batch, time]``.

        Returns:
            ``[batch, time]`` in ``-limit…limit``, float64 if ``parameters`` is float64, else float32.

        Raises:
            ConfigError: ``temperature`` is negative.
            ValueError: a shape is wrong.
        """
        temperature = torch.as_tensor(temperature, dtype=parameters.dtype, device=parameters.device)
        if (temperature < 0).any():
            raise ConfigError(f"{float(temperature.min())} is negative", where="temperature", remedy="use 0 to 1")
        batch, _, time = parameters.shape
        self._check_shape("parameters", parameters, (batch, self.channels, time))
        self._check_shape("noise", noise, (batch, time))
        return self._sample(at_least_float32(parameters), noise, temperature).clamp(-self.limit, self.limit)

    def _check_shape(self, name: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
        # Without this check, broadcasting would turn a mistake into plausible numbers.
        if tensor.shape != expected:
            raise ValueError(f"{self.name}: {name} have shape {tuple(tensor.shape)}, expected {expected}")

    @abstractmethod
    def _log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Implement ``log_prob``; both arguments have the same precision, float32 or float64."""

    @abstractmethod
    def _log_mass(self, parameters: Tensor, cells: Cells) -> Tensor:
        """Implement ``log_mass``; all arguments have the same precision, float32 or float64."""

    @abstractmethod
    def _sample(self, parameters: Tensor, noise: Tensor, temperature: Tensor) -> Tensor:
        """Implement ``sample`` without clipping; the arguments are checked."""


def over_channels(x: Tensor) -> Tensor:
    """``x``, which broadcasts to ``[batch, time]``, in a shape that broadcasts to ``[batch, channels, time]``."""
    return x.unsqueeze(-2) if x.dim() > 1 else x
