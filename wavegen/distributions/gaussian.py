"""A Gaussian."""

import math

import torch
from torch import Tensor

from wavegen.distributions.base import OutputDistribution
from wavegen.errors import ConfigError
from wavegen.levels import LEVELS_16_BIT, Cells, pcm_cells
from wavegen.noise import normal_quantile

NARROW = -0.1  # log-ratio of a Gaussian's CDF at both ends of a cell, above which their difference would cancel


class Gaussian(OutputDistribution):
    """One Gaussian per sample (ClariNet, Ping et al. 2019); the channels are ``[mean | log std]``.

    ``log_prob`` is the log-probability of the 16-bit level nearest to ``x``, as in ``LogisticMixture``, so the bits per
    sample of the two are comparable. Samples are continuous; the temperature multiplies the standard deviation.

    Args:
        log_scale_min: log standard deviations below this are clamped, and then get no gradient.
        limit: drawn values are clipped to ``-limit…limit``.

    Raises:
        ConfigError: ``log_scale_min`` is below ln(3 / 65536), which is finer than 16-bit audio: one and a half levels.
    """

    name = "gaussian"
    channels = 2

    def __init__(self, *, log_scale_min: float = -9.0, limit: float = 1.0) -> None:
        if log_scale_min < math.log(3 / LEVELS_16_BIT):
            raise ConfigError(
                f"{log_scale_min} is finer than 16-bit audio",
                where="log_scale_min",
                remedy="use -9.9 or more",
            )
        self.log_scale_min = log_scale_min
        self.limit = limit

    def standard(self) -> Tensor:
        """Mean 0 and standard deviation 1."""
        return torch.zeros(2)

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = parameters.unbind(1)
        return mean, log_scale.clamp(min=self.log_scale_min)

    def _log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        return self._log_mass(parameters, pcm_cells(x))

    def _log_mass(self, parameters: Tensor, cells: Cells) -> Tensor:
        mean, log_scale = self._split(parameters)
        half, sharpness = cells.half_width, torch.exp(-log_scale)
        distance = cells.centre - mean
        lower, upper = (distance - half) * sharpness, (distance + half) * sharpness
        below_upper = _log_normal_cdf(upper)
        above_lower = _log_normal_cdf(-lower)

        # A wide cell is the difference of two CDFs, taken in the tail on whose side the cell lies.
        flipped = distance > 0
        log_near = torch.where(flipped, above_lower, below_upper)
        log_ratio = _log_normal_cdf(torch.where(flipped, -upper, lower)) - log_near
        wide = log_near + torch.log1p(-log_ratio.clamp(max=NARROW).exp())

        # For a narrow one that difference cancels. The density is integrated with three Gauss-Legendre nodes, which has
        # only positive terms.
        def log_density(offset: float) -> Tensor:
            return -0.5 * ((distance + offset * half) * sharpness).square()

        node = math.sqrt(3 / 5)
        terms = torch.stack((log_density(-node), log_density(0), log_density(node)))
        weights = terms.new_tensor((5 / 18, 8 / 18, 5 / 18)).log().view(3, 1, 1)
        narrow = torch.logsumexp(terms + weights, 0) + torch.log(2 * half / math.sqrt(2 * math.pi)) - log_scale
        inside = torch.where(log_ratio > NARROW, narrow, wide)
        return torch.where(cells.lowest, below_upper, torch.where(cells.highest, above_lower, inside))

    def _sample(self, parameters: Tensor, noise: Tensor, temperature: Tensor) -> Tensor:
        mean, log_scale = self._split(parameters)
        drawn = mean + temperature * log_scale.exp() * normal_quantile(noise, parameters.dtype)
        return torch.where(temperature == 0, mean, drawn)


def _log_normal_cdf(x: Tensor) -> Tensor:
    """ln Φ(x), with an accurate gradient.

    The gradient of ``torch.special.log_ndtr`` cancels far out: in float32 it is 4 % off at -1000 and 0 at -1e6, and in
    float64 it is infinite at -1e10.
    """
    # Not clamp: versions of torch disagree about its gradient at 0.
    negative = torch.where(x < 0, x, 0.0) / math.sqrt(2)
    positive = torch.where(x < 0, 0.0, x) / math.sqrt(2)
    below = torch.special.erfcx(-negative).log() - math.log(2) - negative.square()
    return torch.where(x < 0, below, torch.log1p(-torch.erfc(positive) / 2))
