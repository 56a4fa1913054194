"""What the listening page needs of a clip's sound files: FLAC, gains that match loudness, outlines and pictures."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from wavegen.audio import audio_info, read_audio, resample, to_int16
from wavegen.listening import thumbnails

MOST_GAIN_DB = 20.0  # a system that is all but silent is not blown up to noise


@dataclass(frozen=True)
class ClipMedia:
    """One clip in every system, ready for the page.

    Attributes:
        duration_s: of the longest.
        ticks: frequencies and their places in the pictures.
        sounds: system -> ``durationS``, ``rateHz``, ``gainDb`` that matches loudness, ``outline``, ``picture`` and
            (not for the reference) ``difference``, as base64.
        flacs: base64, in the order of ``sounds``.
    """

    duration_s: float
    ticks: list[tuple[int, float]]
    sounds: Mapping[str, dict[str, Any]]
    flacs: list[str]


def clip_media(audio: Mapping[str, Path], reference: str) -> ClipMedia:
    """Read and draw ``audio`` (system -> sound file, of any rates); pictures are at the rate of ``reference``.

    Without the reference, the first system gives the rate, and there are no differences.

    Raises:
        AudioError: a file cannot be read, or resampling is needed and torchaudio is missing.
    """
    rates = {system: audio_info(path).sample_rate_hz for system, path in audio.items()}
    waveforms = {system: read_audio(path) for system, path in audio.items()}
    durations = {system: len(samples) / rates[system] for system, samples in waveforms.items()}
    longest = max(durations.values(), default=0.0)
    rate = rates.get(reference, next(iter(rates.values()), 24000))
    spec = thumbnails.picture_spec(rate)
    alike = {system: resample(samples, rates[system], rate) for system, samples in waveforms.items()}
    length = max((len(samples) for samples in alike.values()), default=0)
    alike = {system: np.pad(samples, (0, length - len(samples))) for system, samples in alike.items()}
    levels = {system: thumbnails.levels_db(samples, spec) for system, samples in alike.items()}
    # Never a scale that reaches below the floor, lest silence look loud.
    loudest = max([-60.0, *(float(level.max()) for level in levels.values())])
    gains = matching_gains_db(alike, rate, reference)
    sounds = {}
    for system, samples in alike.items():
        sounds[system] = {
            "durationS": round(durations[system], 6),
            "rateHz": rates[system],
            "gainDb": round(gains[system], 3),
            "outline": _base64(thumbnails.outline(samples, thumbnails.OUTLINE_COLUMNS).tobytes()),
            "picture": _base64(thumbnails.level_picture(levels[system], loudest)),
        }
        if system != reference and reference in levels:
            difference = thumbnails.difference_picture(levels[system], levels[reference])
            sounds[system]["difference"] = _base64(difference)
    flacs = [_base64(_flac(samples, rates[system])) for system, samples in waveforms.items()]
    return ClipMedia(longest, thumbnails.ticks(spec), sounds, flacs)


def matching_gains_db(waveforms: Mapping[str, np.ndarray], sample_rate_hz: int, reference: str) -> dict[str, float]:
    """Gains in dB that bring every waveform ``[samples]`` to the loudness of ``reference``, and clip none.

    Loudness is integrated and gated (ITU-R BS.1770-4); where one of the clip's waveforms is shorter than its blocks of
    0.4 s or silent throughout, the root mean square stands in for all of them. Where a gain would clip, all are lowered
    together.
    """
    if not waveforms:
        return {}
    loudness = {system: _lufs(samples, sample_rate_hz) for system, samples in waveforms.items()}
    if not all(np.isfinite(value) for value in loudness.values()):
        loudness = {system: _rms_db(samples) for system, samples in waveforms.items()}
    wanted = loudness.get(reference, next(iter(loudness.values())))
    gains = {system: float(np.clip(wanted - own, -MOST_GAIN_DB, MOST_GAIN_DB)) for system, own in loudness.items()}
    headroom = max(20 * np.log10(max(np.abs(waveforms[s]).max(), 1e-9)) + gain for s, gain in gains.items())
    return {system: gain - max(0.0, float(headroom)) for system, gain in gains.items()}


def _lufs(samples: np.ndarray, sample_rate_hz: int) -> float:
    """Integrated loudness, or NaN where there is none."""
    if len(samples) < 0.4 * sample_rate_hz:
        return float("nan")
    try:
        import torch
        from torchaudio.functional import loudness
    except (ImportError, OSError, RuntimeError):  # a build for another torch fails in all three ways
        return float("nan")
    return float(loudness(torch.from_numpy(np.ascontiguousarray(samples))[None], sample_rate_hz))


def _rms_db(samples: np.ndarray) -> float:
    return float(10 * np.log10(max(np.mean(np.square(samples, dtype=np.float64)), 1e-12)))


def _flac(samples: np.ndarray, sample_rate_hz: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, to_int16(samples), sample_rate_hz, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
