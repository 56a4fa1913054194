"""What a metric is, what it is given, and how it says that it has no answer."""

import importlib
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Literal

import numpy as np

from wavegen.audio import resample
from wavegen.mel import MelSpec

COMMON_RATE_HZ = 16000
"""What metrics of speech are computed at, so that they compare between recordings of different rates."""


def import_quietly(package: str) -> ModuleType:
    """Import a package; what it warns of then (pyworld: that pkg_resources will go) is nothing that a user can mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(package)


class Undefined(Exception):  # noqa: N818  (no error: the answer "none", with its reason)
    """A metric has no value for a pair; the message is the reason, as a clause."""


class Pair:
    """A recording and the sound that should be like it, and what several metrics derive from them.

    Metrics compare the common start: both begin at the same moment, and the longer one is cut.

    Args:
        reference: float ``[samples]`` within ±1.
        generated: float ``[samples]`` within ±1.
        spec: the log-mel to compare by; both waveforms are at its rate.
        resampled: whether either was brought to that rate, which moves samples off and onto full scale.
    """

    def __init__(self, reference: np.ndarray, generated: np.ndarray, spec: MelSpec, *, resampled: bool = False) -> None:
        self.resampled = resampled
        length = min(len(reference), len(generated))
        self.spec, self.sample_rate_hz = spec, spec.sample_rate_hz
        self.reference, self.generated = (
            np.ascontiguousarray(samples[:length], dtype=np.float32) for samples in (reference, generated)
        )
        self.samples_longer = len(generated) - len(reference)

    def __len__(self) -> int:
        """Samples of the common start."""
        return len(self.reference)

    @cached_property
    def at_common_rate(self) -> tuple[np.ndarray, np.ndarray]:
        """Reference and generated at :data:`COMMON_RATE_HZ`. Raises AudioError where nothing can resample."""
        reference, generated = (
            resample(samples, self.sample_rate_hz, COMMON_RATE_HZ) for samples in (self.reference, self.generated)
        )
        return reference, generated

    def require_samples(self, shortest: int) -> None:
        """Raise Undefined for fewer samples than a metric needs."""
        if len(self) < shortest:
            raise Undefined(f"{len(self)} samples, of which it needs {shortest}")

    def require_seconds(self, shortest_s: float) -> None:
        """Raise Undefined for less sound than a metric needs."""
        self.require_samples(math.ceil(shortest_s * self.sample_rate_hz))

    def require_sound(self, *, generated: bool = False) -> None:
        """Raise Undefined where the reference (or, if asked, the generated sound) is digital silence."""
        if not self.reference.any():
            raise Undefined("the reference is silence")
        if generated and not self.generated.any():
            raise Undefined("the output is silence")


@dataclass(frozen=True)
class Metric:
    """What a score means.

    Attributes:
        label: heading in tables.
        unit: of the score.
        better: which way is better; ``"zero"`` for a signed deviation.
        source: who defined it.
        range: of the scores, as text.
        compute: a :class:`Pair` to its score; raises :class:`Undefined` where it has none. None where a metric is only
            described, as on a page made of old scores.
        package: what it needs beyond the packages that wavegen depends on.
    """

    label: str
    unit: str
    better: Literal["higher", "lower", "zero"]
    source: str
    range: str = ""
    compute: Callable[[Pair], float] | None = None
    package: str | None = None

    @property
    def heading(self) -> str:
        """The label with the direction that is better."""
        return f"{self.label} {dict(higher='↑', lower='↓', zero='→0')[self.better]}"

    def badness(self, score: float) -> float:
        """A number that is lower for a better score."""
        return {"higher": -score, "lower": score, "zero": abs(score)}[self.better]
