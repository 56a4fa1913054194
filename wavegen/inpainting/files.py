"""Recordings that are read and written so that every sample that is not repaired stays as it is, bit for bit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from wavegen.audio.containers import open_sound
from wavegen.errors import AudioError, OutputError
from wavegen.files import atomic_write

BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
FLOATS = ("FLOAT", "DOUBLE")
Repair = Callable[[np.ndarray, int], np.ndarray]


def repair_file(damaged: Path, repaired: Path, repair: Repair) -> None:
    """Repair each channel of a recording and write it with the same sample rate and precision.

    Args:
        damaged: a WAV or FLAC file.
        repaired: the file to write, .wav or .flac.
        repair: takes float64 ``[samples]`` of a channel and the sample rate, and returns the same number of samples.

    Raises:
        AudioError: the recording cannot be read, or not be written without changing samples.
        OutputError: the file cannot be written.
    """
    kind = repaired.suffix.lower().lstrip(".").upper()
    if kind not in ("WAV", "FLAC"):
        raise AudioError(
            f"cannot write {repaired.suffix or 'a file without a suffix'}", where=repaired, remedy="use .wav or .flac"
        )
    with open_sound(damaged) as sound:
        file = sound.file
        precision, rate = file.subtype, file.samplerate
        if precision not in (*BITS, *FLOATS):
            remedy = "convert it to WAV first"
            raise AudioError(f"holds {precision}, which cannot be written unchanged", where=damaged, remedy=remedy)
        stored = file.read(dtype="float64" if precision in FLOATS else "int32", always_2d=True)
    if not soundfile.check_format(kind, precision):
        raise AudioError(f"{kind} cannot hold {precision}", where=repaired, remedy="use .wav")

    # libsndfile gives the integers of a file in the upper bits of 32; scaling them to floats and back would round.
    result = stored.copy()
    for channel in range(stored.shape[1]):
        before = stored[:, channel].astype(np.float64)
        if precision in BITS:
            before /= 2.0**31
        after = repair(before, rate)
        changed = after != before
        if precision in BITS:
            after = _in_upper_bits(after, BITS[precision])
        result[changed, channel] = after[changed]
    try:
        with atomic_write(repaired) as beside:
            soundfile.write(str(beside), result, rate, subtype=precision, format=kind)
    except soundfile.LibsndfileError as error:
        raise OutputError(f"cannot write: {error}", where=repaired) from error


def _in_upper_bits(samples: np.ndarray, bits: int) -> np.ndarray:
    """Float samples as integers of ``bits`` in the upper bits of int32, rounded and clipped."""
    full_scale = 2 ** (bits - 1)
    whole = np.clip(np.rint(samples * full_scale), -full_scale, full_scale - 1).astype(np.int64)
    return (whole << (32 - bits)).astype(np.int32)
