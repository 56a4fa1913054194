"""What the output channels of a WaveNet mean: mu-law, and distributions with `log_prob` and `sample`.

Layout is `[batch, channels, time]` throughout; waveforms are `[batch, time]` with values in -1..1.

Sampling is a deterministic function of the network's output and of uniform numbers made by `wavegen.noise`,
so that every engine, chunking and batch that is given the same seeds speaks the same samples.
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
from wavegen.noise import normal_quantile

LEVELS_16_BIT = 65536


# ---- mu-law -----------------------------------------------------------------------------------------------


def mu_law_encode(x: Tensor, classes: int = 256) -> Tensor:
    """Quantise a waveform to mu-law classes, the nearest on the companded axis (ITU-T G.711, mu = classes−1).

        y = sign(x) · ln(1 + mu·|x|) / ln(1 + mu)        class = round((y + 1) / 2 · mu)

    Silence lies midway between the two middle classes when `classes` is even and goes to the upper one,
    `classes // 2` (128 of 256), for 0.0 and -0.0 alike.

    Args:
        x: waveform of any shape; clipped to -1..1.
        classes: number of classes, at least 2.

    Returns:
        int64 classes in 0..classes − 1, shape of `x`.
    """
    mu = classes - 1
    x = _full_precision(x).clamp(-1, 1)
    companded = x.sign() * torch.log1p(mu * x.abs()) / math.log1p(mu)
    return ((companded + 1) / 2 * mu + 0.5).long()  # not negative, so truncating is floor


def mu_law_decode(index: Tensor, classes: int = 256, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """The waveform value that stands for each mu-law class; `mu_law_encode` maps it back to that class.

    Args:
        index: classes in 0..classes − 1, any shape.
        classes: number of classes, at least 2.
        dtype: of the result; float32 or float64 (in half precision nearby classes could merge).

    Returns:
        Values in -1..1, shape of `index`.
    """
    mu = classes - 1
    # In float64, so that devices agree on the float32 result.
    companded = (2 * index.double() - mu) / mu
    x = companded.sign() * torch.expm1(companded.abs() * math.log1p(mu)) / mu
    return x.clamp(-1, 1).to(dtype)


# ---- distributions ----------------------------------------------------------------------------------------


class OutputDistribution(ABC):
    """The distribution of one waveform sample, parametrised by the output channels of a network.

    Attributes:
        name: how recipes call it.
        channels: output channels of the network, the distribution's parameters.
        input_channels: channels of the waveform as the network reads it (see `embed`).
        draws: uniform numbers needed to sample once.
    """

    name: ClassVar[str]
    channels: int
    input_channels: int = 1
    draws: int

    def embed(self, x: Tensor) -> Tensor:
        """Waveform `[batch, time]` in -1..1 -> the network's input `[batch, input_channels, time]`."""
        return x.unsqueeze(1)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Log-probability of each sample, in nats.

        Half-precision parameters are taken to float32, so this is safe under autocast.

        Args:
            parameters: `[batch, channels, time]`, any real numbers.
            x: waveform `[batch, time]` in -1..1.

        Returns:
            `[batch, time]`, differentiable with respect to `parameters`.

        Raises:
            ValueError: shapes do not fit.
        """
        self._check_shape("parameters", parameters, (x.shape[0], self.channels, x.shape[-1]))
        parameters = _full_precision(parameters)
        return self._log_prob(parameters, x.to(parameters.dtype))

    def sample(self, parameters: Tensor, noise: Tensor, *, temperature: float = 1.0) -> Tensor:
        """Samples of the waveform: a deterministic function of the arguments.

        Args:
            parameters: `[batch, channels, time]`.
            noise: uniform numbers in (0, 1), `[batch, draws, time]`; see `uniform_noise`.
            temperature: 1 samples the distribution, less sharpens it, 0 gives its mode whatever the noise.

        Returns:
            `[batch, time]` in -1..1, float32 or (where `parameters` is) float64.

        Raises:
            ConfigError: `temperature` is negative.
            ValueError: shapes do not fit.
        """
        if temperature < 0:
            raise ConfigError(f"{temperature} is negative", where="temperature", remedy="use 0 to 1")
        batch, _, time = parameters.shape
        self._check_shape("parameters", parameters, (batch, self.channels, time))
        self._check_shape("noise", noise, (batch, self.draws, time))
        return self._sample(_full_precision(parameters), noise, temperature).clamp(-1, 1)

    def _check_shape(self, what: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
        # Broadcasting would otherwise turn a mistake into plausible numbers.
        if tensor.shape != expected:
            raise ValueError(f"{self.name}: {what} have shape {tuple(tensor.shape)}, expected {expected}")

    @abstractmethod
    def _log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """`log_prob` with both arguments in the same precision, float32 or float64."""

    @abstractmethod
    def _sample(self, parameters: Tensor, noise: Tensor, temperature: float) -> Tensor:
        """`sample` before clipping, with checked arguments."""


class MuLaw(OutputDistribution):
    """A softmax over mu-law classes (van den Oord et al. 2016, section 2.2); channels are the logits.

    The network reads samples one-hot. `log_prob` is that of the class. A class covers many 16-bit levels, so
    its bits per sample are **not comparable** with those of the distributions over 16-bit levels.

    Args:
        classes: number of mu-law classes, at least 2.

    Raises:
        ConfigError: fewer than 2 classes.
    """

    name = "mu-law"
    draws = 1

    def __init__(self, classes: int = 256) -> None:
        if classes < 2:
            raise ConfigError(f"{classes} is too few", where="classes", remedy="use at least 2")
        self.classes = self.channels = self.input_channels = classes

    def embed(self, x: Tensor) -> Tensor:
        """Waveform `[batch, time]` in -1..1 -> one-hot classes `[batch, classes, time]` of the same dtype."""
        index = mu_law_encode(x, self.classes).unsqueeze(1)
        # Not F.one_hot: it makes int64, channels last, and would hold several times the memory.
        return x.new_zeros(x.shape[0], self.classes, x.shape[1]).scatter_(1, index, 1.0)

    def _log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        return -F.cross_entropy(parameters, mu_law_encode(x, self.classes), reduction="none")

    def _sample(self, parameters: Tensor, noise: Tensor, temperature: float) -> Tensor:
        index = parameters.argmax(1) if temperature == 0 else _inverse_cdf(parameters / temperature, noise[:, 0])
        return mu_law_decode(index, self.classes, dtype=parameters.dtype)


class LogisticMixture(OutputDistribution):
    """A mixture of logistics, discretised to PCM levels (PixelCNN++, Salimans et al. 2017, eqs 1–2).

    Channels: `[logit weights | means | log scales]`, each `components` wide, as Parallel WaveNet (van den
    Oord et al. 2018, section 2.1) uses it for 16-bit audio. The levels are those of PCM, k / (levels/2) for k
    in −levels/2..levels/2 − 1, and `x` counts as its nearest; the first and last level also own the tails, so
    the probabilities of all levels sum to 1. (PixelCNN++ spreads its levels over −1..1 inclusive.) Samples
    are continuous.

    Temperature T stands for the density to the power 1/T, which is exact for components that lie apart:
    scales shrink by T, weights become `(w/s)^(1/T) · s`, and T = 0 is the mean of the component with the
    highest peak, w/s.

    Args:
        components: number of logistics.
        levels: number of quantisation levels, even; 65536 for 16-bit audio.
        log_scale_min: smaller log scales are clamped (and then get no gradient).

    Raises:
        ConfigError: no components, or an odd or non-positive number of levels.
    """

    name = "logistic-mixture"
    draws = 2

    def __init__(self, components: int = 10, *, levels: int = LEVELS_16_BIT, log_scale_min: float = -7.0) -> None:
        if components < 1:
            raise ConfigError(f"{components} is too few", where="components", remedy="use at least 1")
        if levels < 2 or levels % 2:
            raise ConfigError(f"{levels} is not an even number above 0", where="levels", remedy="use 65536")
        self.components, self.levels, self.log_scale_min = components, levels, log_scale_min
        self.channels = 3 * components

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, means, log_scales = parameters.chunk(3, dim=1)
        return logits, means, log_scales.clamp(min=self.log_scale_min)

    def _log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        logits, means, log_scales = self._split(parameters)
        level = _nearest_level(x, self.levels).unsqueeze(1)
        half = 1 / self.levels  # half the width of a level
        distance = level * (2 * half) - means
        upper = (distance + half) * torch.exp(-log_scales)
        lower = (distance - half) * torch.exp(-log_scales)

        # The mass σ(upper) − σ(lower) cancels in the tails and for wide scales. With δ = upper − lower it is
        #     σ(upper) · σ(−lower) · (1 − e^−δ),
        # a product, whose logarithm is exact everywhere: no fallback density for tiny masses is needed.
        # ln(1 − e^−δ) is ln δ + ln((1 − e^−δ)/δ), so that δ may underflow; the ratio is then 1.
        log_delta = math.log(2 * half) - log_scales
        delta = log_delta.exp().clamp(min=1e-30)
        log_ratio = torch.log(-torch.expm1(-delta) / delta)
        below_upper, above_lower = F.logsigmoid(upper), F.logsigmoid(-lower)
        inside = below_upper + above_lower + log_delta + log_ratio
        log_mass = _with_tails(level, self.levels, below_upper, inside, above_lower)
        return torch.logsumexp(logits.log_softmax(1) + log_mass, 1)

    def _sample(self, parameters: Tensor, noise: Tensor, temperature: float) -> Tensor:
        logits, means, log_scales = self._split(parameters)
        if temperature == 0:
            return means.gather(1, (logits - log_scales).argmax(1, keepdim=True)).squeeze(1)
        weights = logits / temperature + log_scales * (1 - 1 / temperature)
        index = _inverse_cdf(weights, noise[:, 0]).unsqueeze(1)
        mean, log_scale = means.gather(1, index).squeeze(1), log_scales.gather(1, index).squeeze(1)
        quantile = torch.logit(noise[:, 1].to(parameters.dtype))
        return mean + temperature * log_scale.exp() * quantile


class Gaussian(OutputDistribution):
    """One Gaussian per sample (ClariNet, Ping et al. 2019); channels `[mean | log std]`.

    `log_prob` is that of the 16-bit level nearest to `x`, as in `LogisticMixture`, so that the bits per
    sample of the two compare. Samples are continuous; temperature multiplies the standard deviation.

    Args:
        log_scale_min: smaller log standard deviations are clamped (and then get no gradient).

    Raises:
        ConfigError: `log_scale_min` below ln(3 / 65536), one and a half levels: finer than the data.
    """

    name = "gaussian"
    channels = 2
    draws = 1

    def __init__(self, *, log_scale_min: float = -9.0) -> None:
        if log_scale_min < math.log(3 / LEVELS_16_BIT):
            raise ConfigError(
                f"{log_scale_min} is finer than 16-bit audio",
                where="log_scale_min",
                remedy="use -9.9 or more",
            )
        self.log_scale_min = log_scale_min

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = parameters.unbind(1)
        return mean, log_scale.clamp(min=self.log_scale_min)

    def _log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        mean, log_scale = self._split(parameters)
        level = _nearest_level(x, LEVELS_16_BIT)
        half = 1 / LEVELS_16_BIT
        distance = level * (2 * half) - mean

        # The difference of two normal CDFs cancels for wide scales. The density integrated over the level by
        # three Gauss-Legendre nodes has only positive terms. A level is at most 2/3 of a standard deviation
        # wide (1/4 at the default minimum), and the total over all levels is then 1 to 1e-6 (1e-8).
        def log_density(offset: float) -> Tensor:
            return -0.5 * ((distance + offset * half) * torch.exp(-log_scale)).square()

        node = math.sqrt(3 / 5)
        terms = torch.stack((log_density(-node), log_density(0), log_density(node)))
        weights = terms.new_tensor((5 / 18, 8 / 18, 5 / 18)).log().view(3, 1, 1)
        inside = torch.logsumexp(terms + weights, 0) + math.log(2 * half / math.sqrt(2 * math.pi)) - log_scale
        below_upper = _log_normal_cdf((distance + half) * torch.exp(-log_scale))
        above_lower = _log_normal_cdf((half - distance) * torch.exp(-log_scale))
        return _with_tails(level, LEVELS_16_BIT, below_upper, inside, above_lower)

    def _sample(self, parameters: Tensor, noise: Tensor, temperature: float) -> Tensor:
        mean, log_scale = self._split(parameters)
        if temperature == 0:
            return mean
        return mean + temperature * log_scale.exp() * normal_quantile(noise[:, 0], parameters.dtype)


def output_distribution(name: str, **options: Any) -> OutputDistribution:
    """The distribution that a recipe names, built with its options.

    Args:
        name: "mu-law", "logistic-mixture" or "gaussian".
        options: arguments of `MuLaw`, `LogisticMixture` or `Gaussian`.

    Raises:
        ConfigError: unknown name or option, or an impossible value.
    """
    kinds: dict[str, type[OutputDistribution]] = {k.name: k for k in (MuLaw, LogisticMixture, Gaussian)}
    if name not in kinds:
        raise ConfigError(f"unknown output distribution {name!r}", where="distribution", remedy=f"use {_one_of(kinds)}")
    known = inspect.signature(kinds[name]).parameters
    for option in options:
        if option not in known:
            raise ConfigError(f"unknown option {option!r}", where=name, remedy=f"use {_one_of(known)}")
    return kinds[name](**options)


def _one_of(names: Iterable[str]) -> str:
    return " or ".join(f"{name!r}" for name in names)


def _full_precision(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _nearest_level(x: Tensor, levels: int) -> Tensor:
    """PCM level of each sample, −levels/2..levels/2 − 1, in the dtype of `x`; +1.0 is clipped to the last."""
    return (x * (levels / 2)).round().clamp(-levels / 2, levels / 2 - 1)


def _with_tails(level: Tensor, levels: int, first: Tensor, inside: Tensor, last: Tensor) -> Tensor:
    """`inside`, but `first` where `level` is the lowest of `levels` and `last` where it is the highest."""
    inside = torch.where(level == levels / 2 - 1, last, inside)
    return torch.where(level == -levels / 2, first, inside)


def _log_normal_cdf(x: Tensor) -> Tensor:
    """ln Φ(x). Not `torch.special.log_ndtr`: the gradient of that cancels far out (float32: 4 % off at -1000,
    0 at -1e6; float64: infinite at -1e10)."""
    negative, positive = x.clamp(max=0) / math.sqrt(2), x.clamp(min=0) / math.sqrt(2)
    below = torch.special.erfcx(-negative).log() - math.log(2) - negative.square()
    return torch.where(x < 0, below, torch.log1p(-torch.erfc(positive) / 2))


def _inverse_cdf(logits: Tensor, u: Tensor) -> Tensor:
    """Categorical samples: the first class whose cumulative probability exceeds `u`.

    Rounding can neither run past the last class nor choose a class of probability 0: the sums are float64,
    whose error is far below the 2^-24 that `u` keeps from 1, and empty classes are passed over.

    Args:
        logits: `[batch, classes, time]`.
        u: `[batch, time]`, in (0, 1).

    Returns:
        int64 `[batch, time]`.
    """
    probability = logits.double().softmax(1)
    cumulative = probability.cumsum(1)
    threshold = u.double().clamp(max=1 - 2.0**-24).unsqueeze(1) * cumulative[:, -1:]
    chosen = (cumulative > threshold) & (probability > 0)
    return chosen.to(torch.uint8).argmax(1)  # the first of equals
