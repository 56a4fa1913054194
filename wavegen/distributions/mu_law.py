"""Mu-law classes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from wavegen.distributions.base import OutputDistribution, over_channels
from wavegen.errors import ConfigError
from wavegen.levels import Cells, mu_law_decode, mu_law_encode, mu_law_position


class MuLaw(OutputDistribution):
    """A softmax over mu-law classes (van den Oord et al. 2016, section 2.2); the channels are the logits.

    The network reads samples as one-hot classes. ``log_prob`` is the log-probability of the class. A class covers many
    16-bit levels, so bits per sample are **not comparable** with those of the distributions over 16-bit levels.

    Args:
        classes: number of mu-law classes, at least 2.
        limit: the classes cover ``-limit…limit``.

    Raises:
        ConfigError: fewer than 2 classes.
    """

    name = "mu-law"

    def __init__(self, classes: int = 256, *, limit: float = 1.0) -> None:
        if classes < 2:
            raise ConfigError(f"{classes} is too few", where="classes", remedy="use at least 2")
        self.classes = self.channels = self.input_channels = classes
        self.limit = limit

    def standard(self) -> Tensor:
        """The share of a normal distribution in each class."""
        values = mu_law_decode(torch.arange(self.classes), self.classes, dtype=torch.float64) * self.limit
        middles = (values[1:] + values[:-1]) / 2
        edges = torch.cat((values.new_full((1,), -math.inf), middles, values.new_full((1,), math.inf)))
        return torch.special.ndtr(edges).diff().clamp(min=1e-8).log().float()

    def log_likelihood(self, parameters: Tensor, x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """As in ``OutputDistribution``, of the class of each error."""
        return self.log_prob(parameters, (x - mean) / scale)

    def embed(self, x: Tensor) -> Tensor:
        """Convert a waveform ``[batch, time]`` in -1..1 to one-hot ``[batch, classes, time]`` of the same dtype."""
        index = mu_law_encode(x / self.limit, self.classes).unsqueeze(1)
        # Not F.one_hot: its result is int64 with channels last, which would take several times the memory.
        return x.new_zeros(x.shape[0], self.classes, x.shape[1]).scatter_(1, index, 1.0)

    def _log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        return -F.cross_entropy(parameters, mu_law_encode(x / self.limit, self.classes), reduction="none")

    def _log_mass(self, parameters: Tensor, cells: Cells) -> Tensor:
        # On the companded axis class k covers k…k + 1, and its probability is spread evenly.
        def place(x: Tensor) -> Tensor:
            return mu_law_position(x.double() / self.limit, self.classes)

        low = torch.where(cells.lowest, 0, place(cells.centre - cells.half_width))
        high = torch.where(cells.highest, self.classes, place(cells.centre + cells.half_width))
        log_p = parameters.double().log_softmax(1)
        cumulative = F.pad(log_p.exp().cumsum(1), (0, 0, 1, 0))
        first, last = (edge.floor().long().clamp(max=self.classes - 1)[:, None] for edge in (low, high))

        # Within one class the logarithm stays accurate however small the cell is.
        inside = log_p.gather(1, first)[:, 0] + (high - low).clamp(min=1e-12).log()
        below = [
            cumulative.gather(1, index)[:, 0] + log_p.gather(1, index)[:, 0].exp() * (edge - index[:, 0])
            for index, edge in ((first, low), (last, high))
        ]
        across = (below[1] - below[0]).clamp(min=1e-30).log()
        return torch.where(first[:, 0] == last[:, 0], inside, across).to(parameters.dtype)

    def _sample(self, parameters: Tensor, noise: Tensor, temperature: Tensor) -> Tensor:
        cold, temperature = temperature == 0, torch.where(temperature == 0, 1, temperature)
        drawn = _inverse_cdf(parameters / over_channels(temperature), noise)
        index = torch.where(cold, parameters.argmax(1), drawn)
        return mu_law_decode(index, self.classes, dtype=parameters.dtype) * self.limit


def _inverse_cdf(logits: Tensor, u: Tensor) -> Tensor:
    """Categorical samples: the first class whose cumulative probability exceeds ``u``.

    Rounding can neither lead past the last class nor choose a class with probability 0: ``u`` is at most 1 − 2^-24, the
    error of the float64 sums is far smaller, and classes with probability 0 are skipped.

    Args:
        logits: ``[batch, classes, time]``.
        u: ``[batch, time]``, in (0, 1).

    Returns:
        int64 ``[batch, time]``.
    """
    probability = logits.double().softmax(1)
    cumulative = probability.cumsum(1)
    threshold = u.double().clamp(max=1 - 2.0**-24).unsqueeze(1) * cumulative[:, -1:]
    chosen = (cumulative > threshold) & (probability > 0)
    return chosen.to(torch.uint8).argmax(1)  # argmax takes the first of equal values
