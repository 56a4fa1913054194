"""Parameters and probabilities of output distributions."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavegen.distributions import Gaussian, LogisticMixture, MuLaw, OutputDistribution
from wavegen.levels import LEVELS_16_BIT, mu_law_decode
from wavegen.noise import uniform_noise


def random_parameters(
    distribution: OutputDistribution, batch: int = 2, time: int = 5, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Plausible network outputs: means in range, scales from a few levels to a tenth of full scale."""
    generator = torch.Generator().manual_seed(0)
    parameters = torch.randn(batch, distribution.channels, time, generator=generator, dtype=dtype)
    if isinstance(distribution, LogisticMixture):
        logits, means, log_scales = parameters.chunk(3, dim=1)
        parameters = torch.cat((logits, means * 0.3, log_scales - 4), dim=1)
    if isinstance(distribution, Gaussian):
        parameters = torch.stack((parameters[:, 0] * 0.3, parameters[:, 1] - 4), dim=1)
    return parameters


def uniform(seeds: Tensor, count: int) -> Tensor:
    return uniform_noise(seeds, 0, count, 1)[:, 0]


def pcm(levels: int = LEVELS_16_BIT) -> Tensor:
    return torch.arange(-levels // 2, levels // 2, dtype=torch.float64) / (levels // 2)


def symbols(distribution: OutputDistribution) -> Tensor:
    """The waveform value of every symbol that ``log_prob`` distinguishes."""
    if isinstance(distribution, MuLaw):
        return mu_law_decode(torch.arange(distribution.classes), distribution.classes, dtype=torch.float64)
    return pcm(getattr(distribution, "levels", LEVELS_16_BIT))


def probabilities(distribution: OutputDistribution, column: Tensor) -> Tensor:
    """Probability of every symbol under one column ``[channels]`` of parameters."""
    x = symbols(distribution)
    return distribution.log_prob(column[None, :, None].expand(1, -1, len(x)), x[None])[0].exp()


def mode_of(distribution: OutputDistribution, column: Tensor) -> float:
    return symbols(distribution)[probabilities(distribution, column).argmax()].item()


def mass_by_scipy(kind: Any, x: np.ndarray, mean: float, scale: float) -> np.ndarray:
    """Probability of the levels of ``x``, from the tail in which the difference does not cancel."""
    upper = np.where(x == 32767 / 32768, np.inf, x + 1 / 65536)
    lower = np.where(x == -1, -np.inf, x - 1 / 65536)
    from_below = kind.cdf(upper, mean, scale) - kind.cdf(lower, mean, scale)
    from_above = kind.sf(lower, mean, scale) - kind.sf(upper, mean, scale)
    return np.where(x > mean, from_above, from_below)


def levels_near_the_means() -> np.ndarray:
    rng = np.random.default_rng(5)
    return np.concatenate(([-32768, 32767, 0], rng.integers(-32768, 32768, 997))) / 32768
