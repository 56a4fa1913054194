"""Metrics: how far a generated waveform is from the recording that it should sound like.

Each metric is a function of a ``Pair`` with an entry in ``METRICS``. ``score`` computes all of them and gives the
reason for each one that is not defined: clips that are too short, silence, NaN.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from wavegen.errors import AudioError
from wavegen.evaluation.metrics.base import COMMON_RATE_HZ, Metric, Pair, Undefined, import_quietly
from wavegen.evaluation.metrics.opinion import distillmos, dnsmos
from wavegen.evaluation.metrics.perceptual import extended_stoi, pesq_wideband, stoi, visqol
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
"""wavegen's extra that installs the optional packages of some metrics."""

METRICS: Mapping[str, Metric] = {
    "pesq": Metric(
        "PESQ", "MOS-LQO", "higher", "ITU-T P.862.2, wideband", "about 1 to 4.64", pesq_wideband, ("pesq",)
    ),
    "visqol": Metric(
        "ViSQOL", "MOS-LQO", "higher", "Chinen et al., 2020; v3 for speech, polynomial", "1 to 5", visqol, ("visqol",),
        is_costly=True,
    ),
    "distillmos": Metric(
        "DistillMOS", "MOS, predicted", "higher", "Stahl and Gamper, 2025; reads the output alone", "1 to 5",
        distillmos, ("distillmos",), reads_reference=False, is_costly=True,
    ),
    "dnsmos": Metric(
        "DNSMOS", "MOS, predicted", "higher", "Reddy et al., 2021, P.808; reads the output alone", "1 to 5", dnsmos,
        ("speechmos", "onnxruntime"), reads_reference=False, is_costly=True,
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
        "F0 RMSE", "cents", "lower", "pitch of WORLD (Morise et al., 2016)", "from 0", f0_rmse, ("pyworld",)
    ),
    "voicing_f1": Metric(
        "voicing F1", "share", "higher", "voicing of WORLD (Morise et al., 2016)", "0 to 1", voicing_f1,
        ("pyworld",),
    ),
    "periodicity_rmse": Metric(
        "periodicity", "RMSE, share of power", "lower", "as Morrison et al., 2022 (CARGAN), by D4C (Morise, 2016)",
        "0 to 1", periodicity_rmse, ("pyworld",),
    ),
    "loudness": Metric("loudness", "LU", "zero", "ITU-R BS.1770-4", "any", loudness_difference),
    "silence_level": Metric("level in pauses", "dB", "zero", "wavegen", "any", level_in_silence),
    "tonal_line": Metric("tonal line", "dB", "lower", "wavegen", "from 0", tonal_line),
    "dc_offset": Metric("DC offset", "% of full scale", "zero", "mean of the samples", "-200 to 200", dc_offset),
    "clipping": Metric("clipping", "% of samples", "lower", "samples at full scale", "0 to 100", clipping),
    "length": Metric("length", "ms", "zero", "before the longer one is cut", "any", length_difference),
    "si_sdr": Metric("SI-SDR", "dB", "higher", "Le Roux et al., 2019; where phase should match", "-100 to 100", si_sdr),
}  # fmt: skip
"""Metric key, as used in files -> metric; in the order of the tables."""

SHORT_LIST = ("stoi", "pesq", "distillmos", "log_mel", "m_stft")
"""Metrics of the short table that a training prints."""


@dataclass(frozen=True)
class Scores:
    """The scores of one output.

    Attributes:
        values: metric key -> score, None where it is not defined. A metric whose package is missing has no entry.
        reasons: metric key -> why its score is None.
    """

    values: Mapping[str, float | None]
    reasons: Mapping[str, str] = field(default_factory=dict)


def available() -> list[str]:
    """Keys of the metrics whose packages can be imported, in the order of ``METRICS``."""
    return [key for key, metric in METRICS.items() if not any(map(_fault, metric.packages))]


def missing_note() -> str | None:
    """One line that names the unavailable metrics and the way to get them; None if all are available."""
    labels: dict[str, list[str]] = {}
    for metric in METRICS.values():
        if fault := next(filter(None, map(_fault, metric.packages)), ""):
            labels.setdefault(fault, []).append(metric.label)
    return "; ".join(f"no {', '.join(names)}: {fault}" for fault, names in labels.items()) or None


def score(
    reference: np.ndarray,
    generated: np.ndarray,
    spec: MelSpec,
    metrics: Sequence[str] | None = None,
    *,
    resampled: bool = False,
) -> Scores:
    """Score a waveform against a recording; both are float ``[samples]`` at the sample rate of ``spec``.

    Args:
        reference: the recording.
        generated: the output, of any length.
        spec: mel definition of the log-mel distance.
        metrics: keys of the metrics to compute; by default all that are available.
        resampled: whether either waveform was resampled to that rate.
    """
    pair = Pair(reference, generated, spec, resampled=resampled)
    values: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    is_finite = np.isfinite(pair.reference).all() and np.isfinite(pair.generated).all()
    for key in available() if metrics is None else metrics:
        values[key] = None
        try:
            if not is_finite:
                raise Undefined("NaN or infinite samples")
            values[key] = METRICS[key].compute(pair)
        # AudioError: a metric resamples and no resampler is installed. ValueError: a package has limits of its own.
        except (Undefined, AudioError, ValueError) as reason:
            reasons[key] = str(reason)
    return Scores(values, reasons)


def _fault(package: str) -> str:
    """Why a package cannot be imported, with the remedy; empty if it can be."""
    try:
        import_quietly(package)
    except ImportError:
        return f"pip install 'wavegen[{EXTRA}]'"
    except ValueError as error:
        return f"{package} cannot be imported ({error}), reinstall it and numpy"  # it was compiled for another numpy
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        return f"{package} cannot be imported ({reason}), install torch and torchaudio from one place"
    return ""
