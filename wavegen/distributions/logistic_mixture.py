"""A mixture of logistics."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from wavegen.distributions.base import OutputDistribution, over_channels
from wavegen.errors import ConfigError
from wavegen.levels import LEVELS_16_BIT, Cells, pcm_cells

LARGEST_LOG_SCALE = 60.0  # of a component that is drawn from: wider ones would be infinitely wide
CLOSE_ENOUGH = 1e-9  # of the log-odds, and of the value itself
NEWTON_STEPS = 8
LONGEST_SEARCH = 60  # steps, enough to halve the interval down to rounding


class LogisticMixture(OutputDistribution):
    """A mixture of logistics, discretised to PCM levels (PixelCNN++, Salimans et al. 2017, eqs 1–2).

    The channels are ``[logit weights | means | log scales]``, each ``components`` wide, as in Parallel WaveNet (van den
    Oord et al. 2018, section 2.1) for 16-bit audio. The levels are those of PCM, k / (levels/2) for k in
    −levels/2..levels/2 − 1, and ``log_prob`` uses the level nearest to ``x``. The first and the last level also include
    the tails, so the probabilities of all levels sum to 1. (PixelCNN++ spreads its levels over −1..1 inclusive.)
    Samples are continuous: each is the quantile of the mixture for its random number.

    Temperature T raises the density to the power 1/T, exactly if the components do not overlap: scales shrink by T and
    weights become ``(w/s)^(1/T) · s``. T = 0 gives the mean of the component with the highest peak, w/s.

    Args:
        components: number of logistics.
        levels: number of quantisation levels, even; 65536 for 16-bit audio.
        log_scale_min: log scales below this are clamped, and then get no gradient.
        limit: drawn values are clipped to ``-limit…limit``.

    Raises:
        ConfigError: no components, or a number of levels that is odd or not positive.
    """

    name = "logistic-mixture"

    def __init__(
        self, components: int = 10, *, levels: int = LEVELS_16_BIT, log_scale_min: float = -7.0, limit: float = 1.0
    ) -> None:
        if components < 1:
            raise ConfigError(f"{components} is too few", where="components", remedy="use at least 1")
        if levels < 2 or levels % 2:
            raise ConfigError(f"{levels} is not an even number above 0", where="levels", remedy="use 65536")
        self.components = components
        self.levels = levels
        self.log_scale_min = log_scale_min
        self.channels = 3 * components
        self.limit = limit

    def standard(self) -> Tensor:
        """Logistics of standard deviation 1, slightly apart, so that they can part."""
        means = torch.linspace(-0.3, 0.3, self.components)
        return torch.cat(
            (torch.zeros(self.components), means, torch.full_like(means, math.log(math.sqrt(3) / math.pi)))
        )

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, means, log_scales = parameters.chunk(3, dim=1)
        return logits, means, log_scales.clamp(min=self.log_scale_min)

    def _log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        return self._log_mass(parameters, pcm_cells(x, self.levels))

    def _log_mass(self, parameters: Tensor, cells: Cells) -> Tensor:
        logits, means, log_scales = self._split(parameters)
        centre, half, lowest, highest = (part.unsqueeze(1) if part.dim() else part for part in cells)
        distance = centre - means
        upper = (distance + half) * torch.exp(-log_scales)
        lower = (distance - half) * torch.exp(-log_scales)

        # The difference in the mass σ(upper) − σ(lower) cancels in the tails and for wide scales. With
        # δ = upper − lower, the mass is the product
        #     σ(upper) · σ(−lower) · (1 − e^−δ),
        # whose logarithm is accurate everywhere, so tiny masses need no fallback density.
        # ln(1 − e^−δ) is computed as ln δ + ln((1 − e^−δ)/δ), so that δ may underflow; the ratio is then 1.
        log_delta = torch.log(2 * half) - log_scales
        delta = log_delta.exp().clamp(min=1e-30)
        log_ratio = torch.log(-torch.expm1(-delta) / delta)
        below_upper = F.logsigmoid(upper)
        above_lower = F.logsigmoid(-lower)
        inside = below_upper + above_lower + log_delta + log_ratio
        log_mass = torch.where(lowest, below_upper, torch.where(highest, above_lower, inside))
        return torch.logsumexp(logits.log_softmax(1) + log_mass, 1)

    def _sample(self, parameters: Tensor, noise: Tensor, temperature: Tensor) -> Tensor:
        logits, means, log_scales = (part.double() for part in self._split(parameters))
        sharpness = over_channels(1 / torch.where(temperature == 0, 1, temperature).double())
        weights = (logits * sharpness + log_scales * (1 - sharpness)).softmax(1)
        scales = log_scales.clamp(max=LARGEST_LOG_SCALE).exp() / sharpness
        drawn = self._quantile(weights, means, scales, noise.double())
        peak = means.gather(1, (logits - log_scales).argmax(1, keepdim=True)).squeeze(1)
        return torch.where(temperature == 0, peak, drawn).to(parameters.dtype)

    def _quantile(self, weights: Tensor, means: Tensor, scales: Tensor, u: Tensor) -> Tensor:
        """The value that a mixture exceeds with probability ``1 - u``, within the limit.

        Newton's method on the log-odds of the distribution function, which are a straight line for one logistic. The
        value lies between the lowest and the highest of the components' own, so a step that leaves this interval, and
        all after the first few, halve it instead.
        """
        wanted = torch.logit(u)
        values = (means + scales * wanted[:, None]).clamp(-self.limit, self.limit)
        low, high, x = values.amin(1), values.amax(1), (weights * values).sum(1)
        for step in range(LONGEST_SEARCH):
            z = (x[:, None] - means) / scales
            below, above = torch.sigmoid(z), torch.sigmoid(-z)
            mass_below, mass_above = (weights * below).sum(1), (weights * above).sum(1)
            excess = mass_below.log() - mass_above.log() - wanted
            found = (excess.abs() <= CLOSE_ENOUGH) | (high - low <= CLOSE_ENOUGH)
            if bool(found.all()):
                break
            low, high = torch.where(excess < 0, x, low), torch.where(excess > 0, x, high)
            density = (weights * below * above / scales).sum(1)
            newton = x - excess * mass_below * mass_above / density
            inside = (low < newton) & (newton < high) & (step < NEWTON_STEPS)
            # What is found stays as it is, whatever the others still need.
            x = torch.where(found, x, torch.where(inside, newton, (low + high) / 2))
        return x
