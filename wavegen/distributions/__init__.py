"""Output distributions: a WaveNet's output channels are the parameters of a distribution of the next sample.

Tensors are ``[batch, channels, time]``; waveforms are ``[batch, time]`` with values in -1..1.

Sampling is a deterministic function of the network's output and of uniform numbers from ``wavegen.noise``, one for each
sample, so every engine, chunking and batch makes the same samples from the same seeds.
"""

import inspect
from collections.abc import Iterable
from typing import Any

from wavegen.distributions.base import OutputDistribution
from wavegen.distributions.gaussian import Gaussian
from wavegen.distributions.logistic_mixture import LogisticMixture
from wavegen.distributions.mu_law import MuLaw
from wavegen.errors import ConfigError

__all__ = ["Gaussian", "LogisticMixture", "MuLaw", "OutputDistribution", "output_distribution"]


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
