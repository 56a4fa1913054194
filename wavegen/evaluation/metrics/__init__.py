"""How far a generated waveform is from the recording it should sound like.

Each metric is a function of a :class:`Pair` and has its entry in :data:`METRICS`. :func:`score` computes them all, and
says why where one is not defined: clips too short, silence, NaN.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from wavegen.errors import AudioError
from wavegen.evaluation.metrics.base import COMMON_RATE_HZ, Metric, Pair, Undefined, import_quietly
from wavegen.evaluation.metrics.perceptual import extended_stoi, pesq_wideband, stoi
from wavegen.evaluation.metrics.pitch import f0_rmse, periodicity_rmse, voicing_f1
from wavegen.evaluation.metrics.signal import (
    clipping,
    dc_offset,
    length_difference,
    level_in_silence,
    loudness_difference,
    si_sdr,
    tonal_line,
)
from wavegen.evaluation.metrics.spectral import (
    log_mel_distance,
    mel_cepstral_distortion,
    multi_resolution_stft_distance,
)
from wavegen.mel import MelSpec

__all__ = ["COMMON_RATE_HZ", "EXTRA", "METRICS", "SHORT_LIST", "Metric", "Pair", "Scores", "Undefined", "score"]

EXTRA = "evaluation"
"""The optional extra of wavegen that installs what some metrics need."""

METRICS: Mapping[str, Metric] = {
    "pesq": Metric(
        "PESQ", "MOS-LQO", "higher", "ITU-T P.862.2, wideband", "about 1 to 4.64", pesq_wideband, package="pesq"
    ),
    "stoi": Metric("STOI", "correlation", "higher", "Taal et al., 2011", "about 0 to 1", stoi),
    "estoi": Metric("ESTOI", "correlation", "higher", "Jensen and Taal, 2016", "about 0 to 1", extended_stoi),
    "log_mel": Metric("log-mel", "mean |Δ ln|", "lower", "Kong et al., 2020 (HiFi-GAN)", "from 0", log_mel_distance),
    "m_stft": Metric(
        "M-STFT", "convergence + mean |Δ ln|", "lower", "Yamamoto et al., 2020 (Parallel WaveGAN)", "from 0",
        multi_resolution_stft_distance,
    ),
    "mcd": Metric("MCD", "dB", "lower", "Kubichek, 1993; order 13, to 8 kHz", "from 0", mel_cepstral_distortion),
    "f0_rmse": Metric(
        "F0 RMSE", "cents", "lower", "pitch of WORLD (Morise et al., 2016)", "from 0", f0_rmse, package="pyworld"
    ),
    "voicing_f1": Metric(
        "voicing F1", "share", "higher", "voicing of WORLD (Morise et al., 2016)", "0 to 1", voicing_f1,
        package="pyworld",
    ),
    "periodicity_rmse": Metric(
        "periodicity", "RMSE, share of power", "lower", "as Morrison et al., 2022 (CARGAN), by D4C (Morise, 2016)",
        "0 to 1", periodicity_rmse, package="pyworld",
    ),
    "loudness": Metric("loudness", "LU", "zero", "ITU-R BS.1770-4", "any", loudness_difference),
    "silence_level": Metric("level in pauses", "dB", "zero", "wavegen", "any", level_in_silence),
    "tonal_line": Metric("tonal line", "dB", "lower", "wavegen", "from 0", tonal_line),
    "dc_offset": Metric("DC offset", "% of full scale", "zero", "mean of the samples", "-200 to 200", dc_offset),
    "clipping": Metric("clipping", "% of samples", "lower", "samples at full scale", "0 to 100", clipping),
    "length": Metric("length", "ms", "zero", "before the longer one is cut", "any", length_difference),
    "si_sdr": Metric("SI-SDR", "dB", "higher", "Le Roux et al., 2019; where phase should match", "-100 to 100", si_sdr),
}  # fmt: skip
"""The metrics by the key that they have in files, in the order of the tables."""

SHORT_LIST = ("stoi", "pesq", "log_mel", "m_stft")
"""The ones that fit in a line: the table and the curves of a training."""


@dataclass(frozen=True)
class Scores:
    """The scores of one pair.

    Attributes:
        values: metric key -> score; None where it is not defined. A metric whose package is missing has no key.
        reasons: metric key -> why its score is None.
    """

    values: Mapping[str, float | None]
    reasons: Mapping[str, str] = field(default_factory=dict)


def available() -> list[str]:
    """The keys of the metrics whose packages are installed, in the order of :data:`METRICS`."""
    return [key for key, metric in METRICS.items() if metric.package is None or _is_installed(metric.package)]


def missing_note() -> str | None:
    """A line that names the metrics left out and what would install their packages; None where all are there."""
    left_out = [metric.label for key, metric in METRICS.items() if key not in available()]
    return f"no {', '.join(left_out)}: pip install 'wavegen[{EXTRA}]'" if left_out else None


def score(
    reference: np.ndarray,
    generated: np.ndarray,
    spec: MelSpec,
    metrics: Sequence[str] | None = None,
    *,
    resampled: bool = False,
) -> Scores:
    """Compare two float waveforms ``[samples]`` at the rate of ``spec``.

    Args:
        reference: the recording.
        generated: what should be like it; of any length.
        spec: definition of the log-mel.
        metrics: keys of those to compute; all that are :func:`available` by default.
        resampled: whether either was brought to that rate.
    """
    pair = Pair(reference, generated, spec, resampled=resampled)
    values: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    broken = None
    if not (np.isfinite(pair.reference).all() and np.isfinite(pair.generated).all()):
        broken = "NaN or infinite samples"
    for key in available() if metrics is None else metrics:
        compute = METRICS[key].compute
        assert compute is not None
        values[key] = None
        try:
            if broken:
                raise Undefined(broken)
            values[key] = compute(pair)
        # AudioError: no working torchaudio, which costs what resamples. ValueError: a package has bounds of its own.
        except (Undefined, AudioError, ValueError) as reason:
            reasons[key] = str(reason)
    return Scores(values, reasons)


def _is_installed(package: str) -> bool:
    """Whether a package imports; ValueError: it was compiled for another numpy."""
    try:
        import_quietly(package)
    except (ImportError, ValueError):
        return False
    return True
