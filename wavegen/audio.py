"""Recordings to float samples within ±1 and back; what is damaged is refused, never shortened in silence."""

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

from wavegen.errors import AudioError, OutputError
from wavegen.files import write_beside

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff"})
"""Suffixes of the recordings that :func:`read_audio` can read, for choosing files in a folder."""

# The filter has a tap for each pair of a phase before and one after: 441 · 160 from 44.1 to 16 kHz.
_MOST_PHASES = 50_000_000
_UNKNOWN_LENGTH = 0xFFFFFFFF  # what programs that write WAV into a pipe put for the length


@dataclass(frozen=True)
class AudioInfo:
    """What a recording's header says: samples per channel, samples per second, channels."""

    samples: int
    sample_rate_hz: int
    channels: int


@contextlib.contextmanager
def _opened(path: Path | str) -> Iterator[soundfile.SoundFile]:
    """The recording, refused if it has no samples or is shorter than its header says."""
    if not os.path.isfile(path):
        raise AudioError("no such file", where=path, remedy="check the path")
    if os.path.getsize(path) == 0:
        raise AudioError("the file is empty", where=path, remedy="copy it again or leave it out")
    remedy = "copy or download it again, or leave it out"
    try:
        with soundfile.SoundFile(path) as file:
            promised = _promised_bytes(path) if file.format in ("WAV", "WAVEX") else 0
            if promised > os.path.getsize(path):
                raise AudioError("cut short: its header promises more samples", where=path, remedy=remedy)
            if file.frames == 0:
                raise AudioError("has no samples", where=path, remedy=remedy)
            if file.frames > 2**62:  # libsndfile's answer for a FLAC that was encoded from a pipe
                raise AudioError("does not state its length", where=path, remedy="encode it again to a file")
            yield file
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: a headerless .raw
        reason = getattr(error, "error_string", error)
        raise AudioError(f"cannot be decoded ({reason})", where=path, remedy=remedy) from error


def _promised_bytes(path: Path | str) -> int:
    """The file size that a WAV's data chunk promises; libsndfile reads what is there and says nothing.

    RIFF: "RIFF" size "WAVE", then chunks of id (4 bytes), size (4, little-endian) and a body of even length.
    """
    with open(path, "rb") as file:
        if file.read(4) != b"RIFF":  # RF64 and RIFX
            return 0
        file.seek(12)
        while len(head := file.read(8)) == 8:
            kind, size = struct.unpack("<4sI", head)
            if kind == b"data":
                return 0 if size == _UNKNOWN_LENGTH else file.tell() + size
            file.seek(size + size % 2, os.SEEK_CUR)
    return 0


def audio_info(path: Path | str) -> AudioInfo:
    """Length, rate and channels of a recording, without decoding it.

    Raises:
        AudioError: missing, empty, cut short or not a recording.
    """
    with _opened(path) as file:
        return AudioInfo(file.frames, file.samplerate, file.channels)


def read_audio(path: Path | str, sample_rate_hz: int | None = None) -> np.ndarray:
    """A recording (WAV, FLAC, OGG, MP3, ...) as mono float32 ``[samples]``, full scale ±1.

    Args:
        path: the file; its channels are averaged.
        sample_rate_hz: resample to this rate; None keeps the file's own.

    Raises:
        AudioError: missing, empty, cut short, not a recording, or with NaN or infinite samples.
    """
    with _opened(path) as file:
        samples = _read(file, path, file.frames)
        from_hz = file.samplerate
    return samples if sample_rate_hz in (None, from_hz) else resample(samples, from_hz, sample_rate_hz)


def read_segment(path: Path | str, start: int, length: int) -> np.ndarray:
    """``length`` samples from sample ``start`` on, mono float32 ``[length]``; only these are decoded.

    Raises:
        AudioError: as :func:`read_audio`, or the recording does not have these samples.
    """
    with _opened(path) as file:
        if start < 0 or start + length > file.frames:
            raise AudioError(
                f"samples {start} to {start + length} asked of {file.frames}",
                where=path,
                remedy="prepare the corpus again if the file changed",
            )
        file.seek(start)
        return _read(file, path, length)


def _read(file: soundfile.SoundFile, path: Path | str, count: int) -> np.ndarray:
    samples = file.read(count, dtype="float32")
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    if len(samples) < count:
        raise AudioError(
            f"cut short: {len(samples)} of {count} samples", where=path, remedy="copy or download it again"
        )
    _refuse_non_finite(samples, path)
    return samples


def _refuse_non_finite(samples: np.ndarray, where: object) -> None:
    if not np.isfinite(samples).all():
        raise AudioError("NaN or infinite samples", where=where, remedy="look for the fault in what made them")


def resample(samples: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """``samples`` ``[samples]`` at another rate: float32, ``ceil(len · to_hz / from_hz)`` samples.

    Band-limited interpolation (J. O. Smith, Digital Audio Resampling) with torchaudio's equivalent of
    resampy's "kaiser_best", 64 zero crossings. Measured from 48 to 24 kHz it is flat up to 0.9 of the new
    Nyquist frequency and 80 dB down above it; torchaudio's default of 6 crossings leaves aliases 7 dB down
    there, which a vocoder would learn.

    Raises:
        AudioError: torchaudio cannot be imported, or the rates have hardly a divisor in common.
    """
    if from_hz == to_hz:
        return samples
    common = math.gcd(from_hz, to_hz)
    if (from_hz // common) * (to_hz // common) > _MOST_PHASES:
        raise AudioError(
            f"resampling {from_hz} Hz to {to_hz} Hz takes a filter of gigabytes, as they have no divisor in common",
            remedy="convert it first, with a program such as ffmpeg",
        )
    try:
        import torch
        from torchaudio.functional import resample as torchaudio_resample
    except (ImportError, OSError, RuntimeError) as error:  # a build for another torch fails in all three ways
        raise AudioError(
            f"resampling {from_hz} Hz to {to_hz} Hz needs torchaudio, which does not import ({error})",
            remedy="install the pair that fits together: pip install torch==2.11.0 torchaudio==2.11.0",
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
    """Float ``samples`` as 16-bit integers: 2^15 steps per unit, rounded to nearest, clipped, never wrapped.

    +1.0 becomes 32767 and -1.0 becomes -32768. It is the exact inverse of reading (which divides by 32768),
    so that a 16-bit recording that is read and written comes out unchanged.

    Raises:
        AudioError: the samples are no floats, or some are NaN or infinite.
    """
    if samples.dtype.kind != "f":
        raise AudioError(f"{samples.dtype} samples, not floats", remedy="divide them by their full scale")
    _refuse_non_finite(samples, "samples")
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)


class AudioWriter:
    """Mono audio, block by block in constant memory; the file appears when the block ends well, or never.

    .wav holds 16-bit integers (32-bit floats, unclipped, with ``float32=True``), .flac 16-bit integers::

        with AudioWriter("out.wav", 24000) as writer:
            writer.write(samples)

    Raises:
        AudioError: an unknown suffix, samples that are not float ``[samples]``, or NaN or infinite ones.
        OutputError: the file cannot be written.
    """

    def __init__(self, path: Path | str, sample_rate_hz: int, *, float32: bool = False) -> None:
        self._path, self._sample_rate_hz, self._float32 = Path(path), sample_rate_hz, float32
        suffixes = (".wav",) if float32 else (".wav", ".flac")
        if self._path.suffix.lower() not in suffixes:
            kind = "32-bit float audio" if float32 else "audio"
            raise AudioError(f"{kind} is not written here", where=path, remedy=f"name it {' or '.join(suffixes)}")
        self._samples = 0

    def __enter__(self) -> "AudioWriter":
        with contextlib.ExitStack() as stack:
            self._beside = stack.enter_context(write_beside(self._path))
            with _as_os_error():
                self._file = soundfile.SoundFile(
                    self._beside,
                    "w",
                    self._sample_rate_hz,
                    channels=1,
                    format=self._path.suffix[1:].upper(),
                    subtype="FLOAT" if self._float32 else "PCM_16",
                )
            stack.push(self._close)
            self._stack = stack.pop_all()
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
            if kind is None and self._samples:  # a disk that is full when libsndfile closes goes unreported
                read_segment(self._beside, self._samples - 1, 1)


class WavStream:
    """Mono audio as a WAV into a pipe, block by block; each is on its way when ``write`` returns.

    A pipe does not let one go back to state the length, so the header says "unknown", as other programs' do.

    Args:
        file: open for writing bytes; it is left open.
        sample_rate_hz: samples per second.
        float32: 32-bit floats, unclipped, instead of 16-bit integers.

    Raises:
        AudioError: samples that are not float ``[samples]``, or NaN or infinite ones.
        OutputError: the other end is gone.
    """

    def __init__(self, file: BinaryIO, sample_rate_hz: int, *, float32: bool = False) -> None:
        self._file, self._float32 = file, float32
        code, size = (3, 4) if float32 else (1, 2)  # WAVE_FORMAT_IEEE_FLOAT or WAVE_FORMAT_PCM, bytes of a sample
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
    """Samples as they are written, float32 or int16."""
    if samples.ndim != 1:
        raise AudioError(f"shape {samples.shape} is not mono", where=where, remedy="give [samples]")
    _refuse_non_finite(samples, where)
    return samples.astype(np.float32) if float32 else to_int16(samples)


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """What libsndfile says of a failed write, in the words that :func:`write_beside` understands."""
    try:
        yield
    except (soundfile.SoundFileError, AssertionError, AudioError) as error:
        raise OSError(f"the file could not be opened or written whole ({error})") from error


def write_audio(path: Path | str, samples: np.ndarray, sample_rate_hz: int, *, float32: bool = False) -> None:
    """Write mono ``samples`` ``[samples]`` as :class:`AudioWriter` does, in one call."""
    with AudioWriter(path, sample_rate_hz, float32=float32) as writer:
        writer.write(samples)
