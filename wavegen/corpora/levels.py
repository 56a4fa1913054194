"""Levels of recordings that a user should know of: beyond full scale, and silent."""

import math
from collections.abc import Mapping, Sequence

_SILENT = 2.0**-15  # half a step of 16 bits rounds to it
_MAX_NAMES_SHOWN = 3


def level_notes(peaks: Mapping[str, float]) -> list[str]:
    """What to say of the levels of clips, as clauses.

    Args:
        peaks: name -> the largest magnitude of the recording's samples.
    """
    beyond = sorted((name for name, peak in peaks.items() if peak > 1), key=lambda name: -peaks[name])
    silent = [name for name, peak in peaks.items() if peak < _SILENT]
    notes = []
    if beyond:
        decibels = 20 * math.log10(peaks[beyond[0]])
        notes.append(
            f"{_clips(beyond)} beyond full scale, by up to {decibels:.1f} dB ({_shown(beyond)}): "
            "copies that were converted are clipped"
        )
    if silent:
        notes.append(f"{_clips(silent)} silent ({_shown(silent)})")
    return notes


def _clips(names: Sequence[str]) -> str:
    return "1 clip is" if len(names) == 1 else f"{len(names)} clips are"


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_NAMES_SHOWN]) + (", …" if len(names) > _MAX_NAMES_SHOWN else "")
