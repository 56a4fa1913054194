"""What the listening page needs from a clip's sound files: FLAC, loudness gains, waveform outlines and pictures."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from wavegen.audio import audio_info, read_audio, to_int16
from wavegen.audio.resampling import resample
from wavegen.listening import thumbnails
from wavegen.listening.loudness import matching_gains_db

LOWEST_PEAK_DB = -60.0


@dataclass(frozen=True)
class ClipMedia:
    """One clip in every system, ready for the page.

    Attributes:
        duration_s: duration of the longest sound.
        ticks: frequencies in Hz and their heights in the pictures, 0 to 1.
        sounds: system -> ``durationS``, ``rateHz``, ``gainDb`` (matches loudness), ``outline``, ``picture`` and, except
            for the reference, ``difference``; the last three in base64.
        flacs: the sounds as FLAC in base64, in the order of ``sounds``.
    """

    duration_s: float
    ticks: list[tuple[int, float]]
    sounds: Mapping[str, dict[str, Any]]
    flacs: list[str]


def clip_media(audio: Mapping[str, Path], reference: str) -> ClipMedia:
    """Read and draw the sound files of one clip.

    Args:
        audio: system -> sound file, of any sample rate.
        reference: the system whose sample rate the pictures have, and from which differences are taken. If it has no
            file, the first system's rate is used, and differences are left out.

    Raises:
        AudioError: a file cannot be read, or must be resampled and no resampler is installed.
    """
    rates = {system: audio_info(path).sample_rate_hz for system, path in audio.items()}
    waveforms = {system: read_audio(path) for system, path in audio.items()}
    durations = {system: len(samples) / rates[system] for system, samples in waveforms.items()}

    # Pictures and gains compare systems, so bring all waveforms to one rate and one length.
    rate = rates.get(reference, next(iter(rates.values()), 24000))
    alike = {system: resample(samples, rates[system], rate) for system, samples in waveforms.items()}
    length = max((len(samples) for samples in alike.values()), default=0)
    alike = {system: np.pad(samples, (0, length - len(samples))) for system, samples in alike.items()}

    spec = thumbnails.picture_spec(rate)
    levels = {system: thumbnails.levels_db(samples, spec) for system, samples in alike.items()}
    # The colour scale never reaches below the mel's floor: silence would look loud.
    peak_db = max([LOWEST_PEAK_DB, *(float(level.max()) for level in levels.values())])
    gains = matching_gains_db(alike, rate, reference)
    sounds = {}
    for system, samples in alike.items():
        sounds[system] = {
            "durationS": round(durations[system], 6),
            "rateHz": rates[system],
            "gainDb": round(gains[system], 3),
            "outline": _base64(thumbnails.outline(samples, thumbnails.OUTLINE_COLUMNS).tobytes()),
            "picture": _base64(thumbnails.level_picture(levels[system], peak_db)),
        }
        if system != reference and reference in levels:
            difference = thumbnails.difference_picture(levels[system], levels[reference])
            sounds[system]["difference"] = _base64(difference)
    flacs = [_base64(_flac(samples, rates[system])) for system, samples in waveforms.items()]
    return ClipMedia(max(durations.values(), default=0.0), thumbnails.ticks(spec), sounds, flacs)


def _flac(samples: np.ndarray, sample_rate_hz: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, to_int16(samples), sample_rate_hz, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
