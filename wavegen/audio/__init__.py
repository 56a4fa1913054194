"""Read recordings as float samples within ±1, resample and write them. A damaged file is refused, never shortened.

What a file holds, whatever its header says, is decided in ``wavegen.audio.containers``.
"""

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile

from wavegen.audio.containers import REMEDY_DAMAGED, open_sound, refuse_joined_flac
from wavegen.audio.resampling import resample
from wavegen.errors import AudioError, OutputError
from wavegen.files import atomic_write, native_path

AUDIO_SUFFIXES = frozenset(
    {".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64"}
    | {".rf64"}
)
"""Suffixes of the recordings that ``read_audio`` can read, for choosing files in a folder."""

_UNKNOWN_LENGTH = 0xFFFFFFFF  # the length in the header of a WAV that was written into a pipe
_BLOCK = 1 << 16  # samples that are decoded at once of a file of unknown length
_MAX_PEAK = 64.0  # 36 dB above full scale: no recording reaches that, and integers do
_CANCELLED = 1e-3  # the share of the channels' level, -60 dB, below which their mean is taken for silence


@dataclass(frozen=True)
class AudioInfo:
    """What is known of a recording before it is read.

    Attributes:
        samples: the number of samples per channel.
        sample_rate_hz: samples per second.
        channels: the number of channels.
        in_place: whether ``read_segment`` decodes a segment without what lies before it.
    """

    samples: int
    sample_rate_hz: int
    channels: int
    in_place: bool = False


def audio_info(path: Path | str) -> AudioInfo:
    """Length, rate and channels of a recording. It is decoded only if its length is not known otherwise.

    Raises:
        AudioError: the file is missing, empty, cut short, several files in one, or not a recording.
    """
    with open_sound(path) as sound:
        samples = sound.frames if sound.frames is not None else sum(map(len, _blocks(sound.file)))
        return AudioInfo(samples, sound.file.samplerate, sound.file.channels, sound.in_place)


def read_audio(path: Path | str, sample_rate_hz: int | None = None) -> np.ndarray:
    """Read a recording (WAV, FLAC, OGG, MP3, ...) as mono float32 ``[samples]``, full scale ±1.

    Args:
        path: the file; its channels are averaged.
        sample_rate_hz: the rate to resample to; None keeps the file's own.

    Raises:
        AudioError: the file is missing, empty, cut short, several files in one, or not a recording; it has NaN or
            infinite samples, or samples far beyond ±1; or its channels cancel each other.
    """
    with open_sound(path) as sound:
        if sound.file.format == "FLAC":
            refuse_joined_flac(path)
        if sound.frames is None:
            channels = np.concatenate([*_blocks(sound.file)])
            if len(channels) == 0:
                raise AudioError("has no samples", where=path, remedy=REMEDY_DAMAGED)
        else:
            channels = _read(sound.file, path, sound.frames)
        from_hz = sound.file.samplerate
    samples = _mono(channels, path)
    _refuse_other_scales(channels, samples, path)
    return samples if sample_rate_hz in (None, from_hz) else resample(samples, from_hz, sample_rate_hz)


def read_segment(path: Path | str, start: int, length: int) -> np.ndarray:
    """Read samples ``start`` to ``start + length`` as mono float32 ``[length]``; only these are decoded.

    Raises:
        AudioError: see ``read_audio``; or the recording does not have these samples.
    """
    with open_sound(path) as sound:
        if sound.frames is None:
            remedy = "convert it to FLAC first"
            raise AudioError("does not state its length, so it has no segments", where=path, remedy=remedy)
        if start < 0 or start + length > sound.frames:
            raise AudioError(
                f"has {sound.frames} samples, but {start} to {start + length} are needed",
                where=path,
                remedy="if the file has changed, prepare the corpus again",
            )
        if start:
            sound.file.seek(start)
        return _mono(_read(sound.file, path, length), path)


def _read(file: soundfile.SoundFile, path: Path | str, count: int) -> np.ndarray:
    """Samples of all channels ``[samples, channels]``."""
    samples = file.read(count, dtype="float32", always_2d=True)
    if len(samples) < count:
        raise AudioError(f"is cut short: {len(samples)} of {count} samples", where=path, remedy=REMEDY_DAMAGED)
    return samples


def _blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """All samples of a file of unknown length, a block after the other."""
    while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
        yield block


def _mono(channels: np.ndarray, path: Path | str) -> np.ndarray:
    samples = channels[:, 0] if channels.shape[1] == 1 else channels.mean(axis=1)
    _refuse_non_finite(samples, path)
    return samples


def _refuse_other_scales(channels: np.ndarray, samples: np.ndarray, path: Path | str) -> None:
    """Refuse integers that were stored as floats, and channels that cancel each other when they are averaged."""
    loudest = max(float(channels.max()), -float(channels.min()))
    if loudest > _MAX_PEAK:
        what = f"has samples up to {loudest:.6g}, but full scale is 1"
        raise AudioError(what, where=path, remedy="divide them by their full scale, such as 32768 for 16-bit integers")
    if channels.shape[1] > 1 and float(np.abs(samples).max()) < _CANCELLED * loudest:
        what = f"its {channels.shape[1]} channels cancel each other to silence"
        raise AudioError(what, where=path, remedy="invert one of them, or keep one alone")


def _refuse_non_finite(samples: np.ndarray, where: object) -> None:
    if not np.isfinite(samples).all():
        raise AudioError("NaN or infinite samples", where=where, remedy="check the program that made them")


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


def rounded_to_int16(samples: np.ndarray) -> np.ndarray:
    """The float32 samples that reading a 16-bit file of ``samples`` gives."""
    return to_int16(samples).astype(np.float32) / np.float32(32768)


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
                    native_path(self._temporary),
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
