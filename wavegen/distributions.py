"""Output distributions: a WaveNet's output channels are the parameters of a distribution of the next sample.

Tensors are ``[batch, channels, time]``; waveforms are ``[batch, time]`` with values in -1..1.

Sampling is a deterministic function of the network's output and of uniform numbers from ``wavegen.noise``, so every
engine, chunking and batch makes the same samples from the same seeds.
"""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from wavegen.errors import ConfigError
from wavegen.levels import (
    LEVELS_16_BIT,
    Cells,
    at_least_float32,
    mu_law_decode,
    mu_law_encode,
    mu_law_position,
    pcm_cells,
)
from wavegen.noise import normal_quantile

NARROW = -0.1  # log-ratio of a Gaussian's CDF at both ends of a cell, above which their difference would cancel


class OutputDistribution(ABC):
    """The distribution of one waveform sample, parametrised by the output channels of a network.

    Attributes:
        name: its name in recipes.
        channels: output channels of the network: the distribution's parameters.
        input_channels: channels of the waveform as the network reads it; see ``embed``.
        draws: uniform numbers that one sample needs.
        limit: drawn values lie in ``-limit…limit``.
    """

    name: ClassVar[str]
    channels: int
    input_channels: int = 1
    draws: int
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
            noise: uniform numbers in (0, 1), ``[batch, draws, time]``; see ``uniform_noise``.
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
        self._check_shape("noise", noise, (batch, self.draws, time))
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
    draws = 1

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
        drawn = _inverse_cdf(parameters / _over_channels(temperature), noise[:, 0])
        index = torch.where(cold, parameters.argmax(1), drawn)
        return mu_law_decode(index, self.classes, dtype=parameters.dtype) * self.limit


class LogisticMixture(OutputDistribution):
    """A mixture of logistics, discretised to PCM levels (PixelCNN++, Salimans et al. 2017, eqs 1–2).

    The channels are ``[logit weights | means | log scales]``, each ``components`` wide, as in Parallel WaveNet (van den
    Oord et al. 2018, section 2.1) for 16-bit audio. The levels are those of PCM, k / (levels/2) for k in
    −levels/2..levels/2 − 1, and ``log_prob`` uses the level nearest to ``x``. The first and the last level also include
    the tails, so the probabilities of all levels sum to 1. (PixelCNN++ spreads its levels over −1..1 inclusive.)
    Samples are continuous.

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
    draws = 2

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
        logits, means, log_scales = self._split(parameters)
        sharpness = _over_channels(1 / torch.where(temperature == 0, 1, temperature))
        drawn = _inverse_cdf(logits * sharpness + log_scales * (1 - sharpness), noise[:, 0])
        index = torch.where(temperature == 0, (logits - log_scales).argmax(1), drawn).unsqueeze(1)
        mean = means.gather(1, index).squeeze(1)
        log_scale = log_scales.gather(1, index).squeeze(1)
        quantile = torch.logit(noise[:, 1].to(parameters.dtype))
        return torch.where(temperature == 0, mean, mean + temperature * log_scale.exp() * quantile)


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
    draws = 1

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
        drawn = mean + temperature * log_scale.exp() * normal_quantile(noise[:, 0], parameters.dtype)
        return torch.where(temperature == 0, mean, drawn)


def output_distribution(name: str, **options: Any) -> OutputDistribution:
    """Build an output distribution by the name that recipes use.

    Args:
        name: ``"mu-law"``, ``"logistic-mixture"`` or ``"gaussian"``.
        options: arguments of ``MuLaw``, ``LogisticMixture`` or ``Gaussian``.

    Raises:
        ConfigError: an unknown name or option, or an impossible value.
    """
    classes: tuple[type[OutputDistribution], ...] = (MuLaw, LogisticMixture, Gaussian)
    by_name = {distribution.name: distribution for distribution in classes}
    if name not in by_name:
        what = f"unknown output distribution {name!r}"
        raise ConfigError(what, where="distribution", remedy=f"use {_alternatives(by_name)}")
    known = inspect.signature(by_name[name]).parameters
    for option in options:
        if option not in known:
            raise ConfigError(f"unknown option {option!r}", where=name, remedy=f"use {_alternatives(known)}")
    return by_name[name](**options)


def _alternatives(names: Iterable[str]) -> str:
    return " or ".join(f"{name!r}" for name in names)


def _over_channels(x: Tensor) -> Tensor:
    """``x``, which broadcasts to ``[batch, time]``, in a shape that broadcasts to ``[batch, channels, time]``."""
    return x.unsqueeze(-2) if x.dim() > 1 else x


def _log_normal_cdf(x: Tensor) -> Tensor:
    """ln Φ(x), with an accurate gradient.

    The gradient of ``torch.special.log_ndtr`` cancels far out: in float32 it is 4 % off at -1000 and 0 at -1e6, and in
    float64 it is infinite at -1e10.
    """
    negative = x.clamp(max=0) / math.sqrt(2)
    positive = x.clamp(min=0) / math.sqrt(2)
    below = torch.special.erfcx(-negative).log() - math.log(2) - negative.square()
    return torch.where(x < 0, below, torch.log1p(-torch.erfc(positive) / 2))


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
