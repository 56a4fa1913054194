"""What a metric is, its input, and how it reports that it is not defined."""

import importlib
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Literal

import numpy as np

from wavegen.audio.resampling import resample
from wavegen.listening.report import MetricDescription
from wavegen.mel import MelSpec

SILENCE_DBFS = -70.0
"""Root-mean-square level below which a recording counts as silence, in dB relative to full scale: as quiet as the gate
of loudness, ITU-R BS.1770. A ratio to less than that measures nothing that can be heard."""

COMMON_RATE_HZ = 16000
"""Sample rate at which metrics of speech are computed, so that recordings of different rates can be compared."""


def import_quietly(package: str) -> ModuleType:
    """Import a package without its warnings, which users cannot fix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(package)


class Undefined(Exception):  # noqa: N818  (an expected result, not an error)
    """A metric is not defined for a pair of sounds; the message is the reason, as a clause."""


class Pair:
    """A recording and the output that is compared with it, and values that several metrics derive from them.

    Both begin at the same moment, and the longer one is cut to the length of the other.

    Args:
        reference: the recording, float ``[samples]`` within ±1.
        generated: the output, float ``[samples]`` within ±1.
        spec: mel definition of the log-mel distance; both waveforms have its sample rate.
        resampled: whether either was resampled to that rate, which moves samples onto and away from full scale.
    """

    def __init__(self, reference: np.ndarray, generated: np.ndarray, spec: MelSpec, *, resampled: bool = False) -> None:
        self.spec = spec
        self.sample_rate_hz = spec.sample_rate_hz
        self.resampled = resampled
        length = min(len(reference), len(generated))
        self.reference, self.generated = (
            np.ascontiguousarray(samples[:length], dtype=np.float32) for samples in (reference, generated)
        )
        self.samples_longer = len(generated) - len(reference)

    def __len__(self) -> int:
        """Samples of each waveform after the longer one was cut."""
        return len(self.reference)

    @property
    def at_common_rate(self) -> tuple[np.ndarray, np.ndarray]:
        """Reference and generated at ``COMMON_RATE_HZ``; raises AudioError if no resampler is installed."""
        return self._reference_at_common_rate, self.generated_at_common_rate

    @cached_property
    def generated_at_common_rate(self) -> np.ndarray:
        """Generated at ``COMMON_RATE_HZ``; raises AudioError if no resampler is installed."""
        return resample(self.generated, self.sample_rate_hz, COMMON_RATE_HZ)

    @cached_property
    def _reference_at_common_rate(self) -> np.ndarray:
        return resample(self.reference, self.sample_rate_hz, COMMON_RATE_HZ)

    def require_samples(self, shortest: int) -> None:
        """Raise Undefined if there are fewer samples than a metric needs."""
        if len(self) < shortest:
            raise Undefined(f"{len(self)} samples, but it needs {shortest}")

    def require_seconds(self, shortest_s: float) -> None:
        """Raise Undefined if the sounds are shorter than a metric needs."""
        self.require_samples(math.ceil(shortest_s * self.sample_rate_hz))

    def require_sound(self, *, reference: bool = True, generated: bool = False) -> None:
        """Raise Undefined if the reference (with ``generated=True``, also the output) is below ``SILENCE_DBFS``."""
        if reference and is_silence(self.reference):
            raise Undefined("the reference is silence")
        if generated and is_silence(self.generated):
            raise Undefined("the output is silence")


def is_silence(samples: np.ndarray) -> bool:
    """Whether the level of ``[samples]`` is below ``SILENCE_DBFS``."""
    power = np.square(samples, dtype=np.float64).mean() if len(samples) else 0.0
    return bool(power < 10 ** (SILENCE_DBFS / 10))


@dataclass(frozen=True)
class Metric:
    """A metric: how it is computed, and what its scores mean.

    Attributes:
        label: heading in tables.
        unit: unit of the scores.
        better: which scores are better; ``"zero"`` for a signed deviation.
        source: the metric's author.
        range: range of the scores, as text.
        compute: function of a ``Pair``; raises ``Undefined`` if the pair has no score.
        packages: optional packages that the metric needs; none if wavegen's own dependencies suffice.
        reads_reference: False for a predictor, which rates the output alone. Its scores have no fixed scale, so the
            recording's own score is reported beside them.
        is_costly: whether training computes the metric only if ``training.best_by`` names it.
    """

    label: str
    unit: str
    better: Literal["higher", "lower", "zero"]
    source: str
    range: str
    compute: Callable[[Pair], float]
    packages: tuple[str, ...] = ()
    reads_reference: bool = True
    is_costly: bool = False

    @property
    def heading(self) -> str:
        """The label, with an arrow to the better scores."""
        return f"{self.label} {dict(higher='↑', lower='↓', zero='→0')[self.better]}"

    @property
    def description(self) -> MetricDescription:
        """What the listening page says about the metric."""
        return MetricDescription(self.label, self.unit, self.better, self.range, self.source)

    def badness(self, score: float) -> float:
        """A number that is lower the better the score is."""
        return {"higher": -score, "lower": score, "zero": abs(score)}[self.better]
