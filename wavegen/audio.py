"""Read recordings as float samples within ±1, resample and write them. A damaged file is refused, never shortened."""

import contextlib
import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile

from wavegen.errors import AudioError, MissingAudioError, OutputError
from wavegen.files import atomic_write

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff"})
"""Suffixes of the recordings that ``read_audio`` can read, for choosing files in a folder."""

# Resampling needs a filter for each output phase, with taps in proportion to the input rate. So the filters grow with
# the product of the two rates, each divided by their common divisor: 441 · 160 from 44.1 to 16 kHz.
_MAX_RATE_PRODUCT = 50_000_000
_UNKNOWN_LENGTH = 0xFFFFFFFF  # the length in the header of a WAV that was written into a pipe
_REMEDY_DAMAGED = "copy or download it again, or leave it out"


@dataclass(frozen=True)
class AudioInfo:
    """Contents of a recording's header: samples per channel, samples per second and channels."""

    samples: int
    sample_rate_hz: int
    channels: int


@contextlib.contextmanager
def _opened(path: Path | str) -> Iterator[soundfile.SoundFile]:
    """Open a recording; refuse one that has no samples or is shorter than its header says."""
    if not os.path.isfile(path):
        raise MissingAudioError(where=path)
    if os.path.getsize(path) == 0:
        raise AudioError("is empty", where=path, remedy=_REMEDY_DAMAGED)
    try:
        with soundfile.SoundFile(_native_path(path)) as file:
            promised = _promised_bytes(path) if file.format in ("WAV", "WAVEX") else 0
            if promised > os.path.getsize(path):
                raise AudioError("is shorter than its header says", where=path, remedy=_REMEDY_DAMAGED)
            if file.frames == 0:
                raise AudioError("has no samples", where=path, remedy=_REMEDY_DAMAGED)
            if file.frames > 2**62:  # what libsndfile returns for a FLAC that was encoded into a pipe
                raise AudioError("does not state its length", where=path, remedy="encode it again to a file")
            yield file
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: a .raw file, which has no header
        reason = getattr(error, "error_string", error)
        raise AudioError(f"cannot be decoded ({reason})", where=path, remedy=_REMEDY_DAMAGED) from error


def _native_path(path: Path | str) -> Path | str | bytes:
    """A path for soundfile, which cannot encode a name that is not UTF-8; Linux allows such names."""
    return os.fsencode(path) if os.name == "posix" else path


def _promised_bytes(path: Path | str) -> int:
    """The file size that a WAV's data chunk promises; 0 if unknown. libsndfile reads a shorter file without an error.

    RIFF: "RIFF" size "WAVE", then chunks of id (4 bytes), size (4, little-endian) and a body of even length.
    """
    with open(path, "rb") as file:
        if file.read(4) != b"RIFF":  # RF64 or RIFX
            return 0
        file.seek(12)
        while len(head := file.read(8)) == 8:
            identifier, size = struct.unpack("<4sI", head)
            if identifier == b"data":
                return 0 if size == _UNKNOWN_LENGTH else file.tell() + size
            file.seek(size + size % 2, os.SEEK_CUR)
    return 0


def audio_info(path: Path | str) -> AudioInfo:
    """Length, rate and channels of a recording, without decoding it.

    Raises:
        AudioError: the file is missing, empty, cut short or not a recording.
    """
    with _opened(path) as file:
        return AudioInfo(file.frames, file.samplerate, file.channels)


def read_audio(path: Path | str, sample_rate_hz: int | None = None) -> np.ndarray:
    """Read a recording (WAV, FLAC, OGG, MP3, ...) as mono float32 ``[samples]``, full scale ±1.

    Args:
        path: the file; its channels are averaged.
        sample_rate_hz: the rate to resample to; None keeps the file's own.

    Raises:
        AudioError: the file is missing, empty, cut short or not a recording, or has NaN or infinite samples.
    """
    with _opened(path) as file:
        samples = _read(file, path, file.frames)
        from_hz = file.samplerate
    return samples if sample_rate_hz in (None, from_hz) else resample(samples, from_hz, sample_rate_hz)


def read_segment(path: Path | str, start: int, length: int) -> np.ndarray:
    """Read samples ``start`` to ``start + length`` as mono float32 ``[length]``; only these are decoded.

    Raises:
        AudioError: as in ``read_audio``, or the recording does not have these samples.
    """
    with _opened(path) as file:
        if start < 0 or start + length > file.frames:
            raise AudioError(
                f"has {file.frames} samples, but {start} to {start + length} are needed",
                where=path,
                remedy="if the file has changed, prepare the corpus again",
            )
        file.seek(start)
        return _read(file, path, length)


def _read(file: soundfile.SoundFile, path: Path | str, count: int) -> np.ndarray:
    samples = file.read(count, dtype="float32")
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    if len(samples) < count:
        raise AudioError(f"is cut short: {len(samples)} of {count} samples", where=path, remedy=_REMEDY_DAMAGED)
    _refuse_non_finite(samples, path)
    return samples


def _refuse_non_finite(samples: np.ndarray, where: object) -> None:
    if not np.isfinite(samples).all():
        raise AudioError("NaN or infinite samples", where=where, remedy="check the program that made them")


def resample(samples: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """Resample ``samples`` ``[samples]`` to another rate: float32, ``ceil(len · to_hz / from_hz)`` samples.

    Band-limited interpolation (J. O. Smith, Digital Audio Resampling) with torchaudio's equivalent of resampy's
    "kaiser_best", 64 zero crossings. Measured from 48 to 24 kHz, it is flat up to 0.9 of the new Nyquist frequency and
    80 dB down above the Nyquist frequency. torchaudio's default of 6 crossings leaves aliases only 7 dB down there,
    which a vocoder would learn.

    Raises:
        AudioError: torchaudio cannot be imported, or the rates have too small a common divisor.
    """
    if from_hz == to_hz:
        return samples
    common = math.gcd(from_hz, to_hz)
    if (from_hz // common) * (to_hz // common) > _MAX_RATE_PRODUCT:
        raise AudioError(
            f"resampling {from_hz} Hz to {to_hz} Hz needs a filter of gigabytes: their common divisor is {common}",
            remedy="convert the file first, for example with ffmpeg",
        )
    try:
        import torch
        from torchaudio.functional import resample as torchaudio_resample
    except (ImportError, OSError, RuntimeError) as error:  # a torchaudio built for another torch raises any of these
        raise AudioError(
            f"resampling {from_hz} Hz to {to_hz} Hz needs torchaudio, which cannot be imported ({error})",
            remedy="install two versions that fit together: pip install torch==2.11.0 torchaudio==2.11.0",
        ) from error
    resampled = torchaudio_resample(
        torch.from_numpy(np.array(samples, dtype=np.float32)),
        from_hz,
        to_hz,
        lowpass_filter_width=64,
        rolloff=0.9475937167399596,
        resampling_method="sinc_interp_kaiser",
        beta=14.769656459379492,
    )
    return resampled.numpy()


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Convert float ``samples`` to 16-bit integers: 2^15 steps per unit, rounded to nearest and clipped, never wrapped.

    +1.0 becomes 32767 and -1.0 becomes -32768. This is the exact inverse of reading, which divides by 32768, so a
    16-bit recording that is read and written again is unchanged.

    Raises:
        AudioError: the samples are not floats, or some are NaN or infinite.
    """
    if samples.dtype.kind != "f":
        raise AudioError(f"samples are {samples.dtype}, not floats", remedy="divide them by their full scale")
    _refuse_non_finite(samples, where=None)
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)


class AudioWriter:
    """Writes mono audio block by block, in constant memory. The file appears only if the with-block succeeds.

    A .wav holds 16-bit integers, or 32-bit floats without clipping with ``float32=True``; a .flac holds 16-bit
    integers::

        with AudioWriter("out.wav", 24000) as writer:
            writer.write(samples)

    Raises:
        AudioError: an unknown suffix, samples that are not float ``[samples]``, or NaN or infinite samples.
        OutputError: the file cannot be written.
    """

    def __init__(self, path: Path | str, sample_rate_hz: int, *, float32: bool = False) -> None:
        self._path = Path(path)
        self._sample_rate_hz = sample_rate_hz
        self._float32 = float32
        self._samples = 0
        suffixes = (".wav",) if float32 else (".wav", ".flac")
        if self._path.suffix.lower() not in suffixes:
            target = self._path.suffix or "a file without a suffix"
            what = f"cannot write 32-bit floats to {target}" if float32 else f"cannot write {target}"
            raise AudioError(what, where=path, remedy=f"use {' or '.join(suffixes)}")

    def __enter__(self) -> "AudioWriter":
        with contextlib.ExitStack() as stack:
            self._temporary = stack.enter_context(atomic_write(self._path))
            with _as_os_error():
                self._file = soundfile.SoundFile(
                    _native_path(self._temporary),
                    "w",
                    self._sample_rate_hz,
                    channels=1,
                    format=self._path.suffix[1:].upper(),
                    subtype="FLOAT" if self._float32 else "PCM_16",
                )
            stack.push(self._close)
            self._stack = stack.pop_all()  # __exit__ leaves it
        return self

    def write(self, samples: np.ndarray) -> None:
        """Append ``samples`` ``[samples]``."""
        block = _block(samples, self._float32, self._path)
        with _as_os_error():
            self._file.write(block)
        self._samples += len(block)

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def _close(self, kind: type[BaseException] | None, *_: object) -> None:
        with _as_os_error():
            self._file.close()
            if kind is None and self._samples:  # libsndfile does not report a disk that is full when it closes
                read_segment(self._temporary, self._samples - 1, 1)


class WavStream:
    """Writes mono audio as a WAV into a pipe, block by block; ``write`` returns when the block is sent.

    The length cannot be filled in later in a pipe, so the header says "unknown", as other programs do. Raw samples are
    little-endian.

    Args:
        file: a file open for writing bytes; it is not closed.
        sample_rate_hz: samples per second.
        float32: write 32-bit floats, not clipped, instead of 16-bit integers.
        raw: leave the header out, for programs that are told the format.

    Raises:
        AudioError: samples that are not float ``[samples]``, or NaN or infinite samples.
        OutputError: the reader has closed the pipe.
    """

    def __init__(self, file: BinaryIO, sample_rate_hz: int, *, float32: bool = False, raw: bool = False) -> None:
        self._file = file
        self._float32 = float32
        if raw:
            return
        # Format: code, channels, sample rate, bytes per second, bytes per frame, bits per sample.
        code, size = (3, 4) if float32 else (1, 2)  # WAVE_FORMAT_IEEE_FLOAT or WAVE_FORMAT_PCM; bytes per sample
        layout = struct.pack("<HHIIHH", code, 1, sample_rate_hz, sample_rate_hz * size, size, 8 * size)
        chunks = b"WAVEfmt " + struct.pack("<I", len(layout)) + layout + b"data" + struct.pack("<I", _UNKNOWN_LENGTH)
        self._send(b"RIFF" + struct.pack("<I", _UNKNOWN_LENGTH) + chunks)

    def write(self, samples: np.ndarray) -> None:
        """Send ``samples`` ``[samples]``."""
        self._send(_block(samples, self._float32, "the stream").astype("<f4" if self._float32 else "<i2").tobytes())

    def _send(self, data: bytes) -> None:
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise OutputError(
                f"cannot write: {error.strerror}", where="standard output", remedy="see why its reader stopped"
            ) from error


def _block(samples: np.ndarray, float32: bool, where: object) -> np.ndarray:
    """Check ``samples`` and convert them to float32 or int16."""
    if samples.ndim != 1:
        raise AudioError(f"shape {samples.shape} is not mono", where=where, remedy="give [samples]")
    _refuse_non_finite(samples, where)
    return samples.astype(np.float32) if float32 else to_int16(samples)


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """Turn libsndfile's errors about a failed write into an OSError, which ``atomic_write`` reports."""
    try:
        yield
    except (soundfile.SoundFileError, AssertionError, AudioError) as error:
        raise OSError(f"the file could not be opened or written completely ({error})") from error


def write_audio(path: Path | str, samples: np.ndarray, sample_rate_hz: int, *, float32: bool = False) -> None:
    """Write mono ``samples`` ``[samples]`` as ``AudioWriter`` does, in one call."""
    with AudioWriter(path, sample_rate_hz, float32=float32) as writer:
        writer.write(samples)
