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
from wavegen.noise import normal_quantile

LEVELS_16_BIT = 65536


# ---- mu-law -----------------------------------------------------------------------------------------------


def mu_law_encode(x: Tensor, classes: int = 256) -> Tensor:
    """Quantise a waveform to mu-law classes, the nearest on the companded axis (ITU-T G.711, mu = classes − 1).

    ::

        y = sign(x) · ln(1 + mu·|x|) / ln(1 + mu)        class = round((y + 1) / 2 · mu)

    With an even number of classes, silence lies midway between the two middle classes; both 0.0 and -0.0 go to the
    upper one, ``classes // 2`` (128 of 256).

    Args:
        x: waveform of any shape; clipped to -1..1.
        classes: number of classes, at least 2.

    Returns:
        int64 classes in 0..classes − 1, the shape of ``x``.
    """
    mu = classes - 1
    x = _full_precision(x).clamp(-1, 1)
    companded = x.sign() * torch.log1p(mu * x.abs()) / math.log1p(mu)
    return ((companded + 1) / 2 * mu + 0.5).long()  # never negative, so truncation is floor


def mu_law_decode(index: Tensor, classes: int = 256, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Waveform values that represent mu-law classes; ``mu_law_encode`` maps each back to its class.

    Args:
        index: classes in 0..classes − 1, any shape.
        classes: number of classes, at least 2.
        dtype: dtype of the result, float32 or float64; in half precision, neighbouring classes could merge.

    Returns:
        values in -1..1, the shape of ``index``.
    """
    mu = classes - 1
    # Computed in float64, so that devices agree on the float32 result.
    companded = (2 * index.double() - mu) / mu
    x = companded.sign() * torch.expm1(companded.abs() * math.log1p(mu)) / mu
    return x.clamp(-1, 1).to(dtype)


# ---- distributions ----------------------------------------------------------------------------------------


class OutputDistribution(ABC):
    """The distribution of one waveform sample, parametrised by the output channels of a network.

    Attributes:
        name: its name in recipes.
        channels: output channels of the network: the distribution's parameters.
        input_channels: channels of the waveform as the network reads it; see ``embed``.
        draws: uniform numbers that one sample needs.
    """

    name: ClassVar[str]
    channels: int
    input_channels: int = 1
    draws: int

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
        parameters = _full_precision(parameters)
        return self._log_prob(parameters, x.to(parameters.dtype))

    def sample(self, parameters: Tensor, noise: Tensor, *, temperature: float = 1.0) -> Tensor:
        """Draw waveform samples, as a deterministic function of the arguments.

        Args:
            parameters: ``[batch, channels, time]``.
            noise: uniform numbers in (0, 1), ``[batch, draws, time]``; see ``uniform_noise``.
            temperature: 1 samples the distribution, less sharpens it, and 0 gives its mode for any noise.

        Returns:
            ``[batch, time]`` in -1..1, float64 if ``parameters`` is float64, else float32.

        Raises:
            ConfigError: ``temperature`` is negative.
            ValueError: a shape is wrong.
        """
        if temperature < 0:
            raise ConfigError(f"{temperature} is negative", where="temperature", remedy="use 0 to 1")
        batch, _, time = parameters.shape
        self._check_shape("parameters", parameters, (batch, self.channels, time))
        self._check_shape("noise", noise, (batch, self.draws, time))
        return self._sample(_full_precision(parameters), noise, temperature).clamp(-1, 1)

    def _check_shape(self, name: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
        # Without this check, broadcasting would turn a mistake into plausible numbers.
        if tensor.shape != expected:
            raise ValueError(f"{self.name}: {name} have shape {tuple(tensor.shape)}, expected {expected}")

    @abstractmethod
    def _log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Implement ``log_prob``; both arguments have the same precision, float32 or float64."""

    @abstractmethod
    def _sample(self, parameters: Tensor, noise: Tensor, temperature: float) -> Tensor:
        """Implement ``sample`` without clipping; the arguments are checked."""


class MuLaw(OutputDistribution):
    """A softmax over mu-law classes (van den Oord et al. 2016, section 2.2); the channels are the logits.

    The network reads samples as one-hot classes. ``log_prob`` is the log-probability of the class. A class covers many
    16-bit levels, so bits per sample are **not comparable** with those of the distributions over 16-bit levels.

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
        """Convert a waveform ``[batch, time]`` in -1..1 to one-hot ``[batch, classes, time]`` of the same dtype."""
        index = mu_law_encode(x, self.classes).unsqueeze(1)
        # Not F.one_hot: its result is int64 with channels last, which would take several times the memory.
        return x.new_zeros(x.shape[0], self.classes, x.shape[1]).scatter_(1, index, 1.0)

    def _log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        return -F.cross_entropy(parameters, mu_law_encode(x, self.classes), reduction="none")

    def _sample(self, parameters: Tensor, noise: Tensor, temperature: float) -> Tensor:
        index = parameters.argmax(1) if temperature == 0 else _inverse_cdf(parameters / temperature, noise[:, 0])
        return mu_law_decode(index, self.classes, dtype=parameters.dtype)


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

    Raises:
        ConfigError: no components, or a number of levels that is odd or not positive.
    """

    name = "logistic-mixture"
    draws = 2

    def __init__(self, components: int = 10, *, levels: int = LEVELS_16_BIT, log_scale_min: float = -7.0) -> None:
        if components < 1:
            raise ConfigError(f"{components} is too few", where="components", remedy="use at least 1")
        if levels < 2 or levels % 2:
            raise ConfigError(f"{levels} is not an even number above 0", where="levels", remedy="use 65536")
        self.components = components
        self.levels = levels
        self.log_scale_min = log_scale_min
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

        # The difference in the mass σ(upper) − σ(lower) cancels in the tails and for wide scales. With
        # δ = upper − lower, the mass is the product
        #     σ(upper) · σ(−lower) · (1 − e^−δ),
        # whose logarithm is accurate everywhere, so tiny masses need no fallback density.
        # ln(1 − e^−δ) is computed as ln δ + ln((1 − e^−δ)/δ), so that δ may underflow; the ratio is then 1.
        log_delta = math.log(2 * half) - log_scales
        delta = log_delta.exp().clamp(min=1e-30)
        log_ratio = torch.log(-torch.expm1(-delta) / delta)
        below_upper = F.logsigmoid(upper)
        above_lower = F.logsigmoid(-lower)
        inside = below_upper + above_lower + log_delta + log_ratio
        log_mass = _with_tails(level, self.levels, below_upper, inside, above_lower)
        return torch.logsumexp(logits.log_softmax(1) + log_mass, 1)

    def _sample(self, parameters: Tensor, noise: Tensor, temperature: float) -> Tensor:
        logits, means, log_scales = self._split(parameters)
        if temperature == 0:
            return means.gather(1, (logits - log_scales).argmax(1, keepdim=True)).squeeze(1)
        weights = logits / temperature + log_scales * (1 - 1 / temperature)
        index = _inverse_cdf(weights, noise[:, 0]).unsqueeze(1)
        mean = means.gather(1, index).squeeze(1)
        log_scale = log_scales.gather(1, index).squeeze(1)
        quantile = torch.logit(noise[:, 1].to(parameters.dtype))
        return mean + temperature * log_scale.exp() * quantile


class Gaussian(OutputDistribution):
    """One Gaussian per sample (ClariNet, Ping et al. 2019); the channels are ``[mean | log std]``.

    ``log_prob`` is the log-probability of the 16-bit level nearest to ``x``, as in ``LogisticMixture``, so the bits per
    sample of the two are comparable. Samples are continuous; the temperature multiplies the standard deviation.

    Args:
        log_scale_min: log standard deviations below this are clamped, and then get no gradient.

    Raises:
        ConfigError: ``log_scale_min`` is below ln(3 / 65536), which is finer than 16-bit audio: one and a half levels.
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

        # A difference of two normal CDFs cancels for wide scales, so the density is integrated over the level with
        # three Gauss-Legendre nodes, which has only positive terms. A level is at most 2/3 of a standard deviation
        # wide (1/4 at the default minimum); the sum over all levels is then 1 within 1e-6 (1e-8).
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


def _full_precision(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _nearest_level(x: Tensor, levels: int) -> Tensor:
    """PCM level of each sample, −levels/2..levels/2 − 1, in the dtype of ``x``; +1.0 is clipped to the last level."""
    return (x * (levels / 2)).round().clamp(-levels / 2, levels / 2 - 1)


def _with_tails(level: Tensor, levels: int, first: Tensor, inside: Tensor, last: Tensor) -> Tensor:
    """``first`` where ``level`` is the lowest of ``levels``, ``last`` where it is the highest, else ``inside``."""
    inside = torch.where(level == levels / 2 - 1, last, inside)
    return torch.where(level == -levels / 2, first, inside)


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
