"""Mel files to sound files: one, a folder of them, or very long ones, in constant memory."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from wavegen.audio import AudioWriter
from wavegen.errors import MelError
from wavegen.mel import check_compatible, check_mel, load_mel, mel_definition, open_mel
from wavegen.vocoders import Vocoder

MEL_SUFFIXES = (".npy", ".npz")
# Frames synthesised at once: where each piece repeats its context, long enough that this costs little; else short
# enough for progress to be seen.
PIECE_FRAMES, NATIVE_PIECE_FRAMES = 2000, 50
LIVE_PIECE_FRAMES = 2  # where someone waits for the first sound
MOST_FRAMES = 20_000  # of a batch that is synthesised whole


class Sink(Protocol):
    """Where sound goes as it is made: a file, a pipe, a loudspeaker."""

    def write(self, samples: np.ndarray) -> None:
        """Take the next ``[samples]``."""


@dataclass(frozen=True)
class Timing:
    """How much sound was made and how long it took."""

    audio_s: float = 0.0
    wall_s: float = 0.0
    clipped: int = 0  # samples beyond full scale
    first_s: float = 0.0  # until the first sample

    @property
    def times_real_time(self) -> float:
        """Seconds of sound made per second."""
        return self.audio_s / self.wall_s


def stream(
    vocoder: Vocoder,
    mel: np.ndarray,
    *,
    seed: int = 0,
    piece_frames: int | None = None,
    speaker: str | None = None,
) -> Iterator[np.ndarray]:
    """Synthesise piece by piece; the pieces together are what the whole would be.

    Args:
        vocoder: prepared for synthesis, on its device.
        mel: ``[n_mels, frames]``; a memory map is read piece by piece.
        seed: of the noise.
        piece_frames: frames at a time; by default what suits the vocoder.
        speaker: one of ``vocoder.speakers``; needed where there are several.

    Yields:
        ``[samples]`` in the vocoder's own precision, in all ``frames * hop_length``.
    """
    return (pieces[0] for pieces in _stream_together(vocoder, [mel], seed, speaker, piece_frames))


def synthesize(vocoder: Vocoder, mel: np.ndarray, *, seed: int = 0, speaker: str | None = None) -> np.ndarray:
    """The whole sound of a mel ``[n_mels, frames]``, ``[frames * hop_length]`` in the vocoder's own precision."""
    return np.concatenate(list(stream(vocoder, mel, seed=seed, speaker=speaker)))


def synthesize_into(
    sinks: Sequence[Sink],
    vocoder: Vocoder,
    mel: np.ndarray,
    *,
    seed: int = 0,
    piece_frames: int | None = None,
    speaker: str | None = None,
    on_piece: Callable[[int], None] = lambda frames: None,
) -> Timing:
    """Hand the sound of a mel, as it is made, to each of ``sinks``; arguments as in :func:`stream`.

    ``on_piece`` is called with the frames of each piece when it is written.
    """
    started, samples, clipped, first_s = time.perf_counter(), 0, 0, 0.0
    for piece in stream(vocoder, mel, seed=seed, piece_frames=piece_frames, speaker=speaker):
        if samples == 0 and len(piece):
            first_s = time.perf_counter() - started
        for sink in sinks:
            sink.write(piece)
        clipped += _beyond_full_scale(piece)
        # Pieces need not be whole frames, but their sum is.
        on_piece((samples + len(piece)) // vocoder.mel.hop_length - samples // vocoder.mel.hop_length)
        samples += len(piece)
    return Timing(samples / vocoder.mel.sample_rate_hz, time.perf_counter() - started, clipped, first_s)


def synthesize_files(
    vocoder: Vocoder,
    files: Sequence[tuple[Path, Path]],
    *,
    batch: int = 1,
    jobs: int = 1,
    seed: int = 0,
    speaker: str | None = None,
    float32: bool = False,
    on_piece: Callable[[int], None] = lambda frames: None,
) -> Timing:
    """Read mel files, check them against the vocoder's contract, write their sound.

    Args:
        vocoder: prepared for synthesis.
        files: of each, the mel (``.npy``, or ``.npz`` of wavegen-extract) and where its sound goes (``.wav`` or
            ``.flac``), which appears when it is complete.
        batch: files synthesised together, in lock step where the vocoder goes sample by sample.
        jobs: threads that work at the same time, each on files of its own.
        seed: of the noise, for every file.
        speaker: of all files, one of ``vocoder.speakers``; needed where there are several.
        float32: 32-bit float instead of 16-bit samples, in a ``.wav``.
        on_piece: called with the frames of each piece when it is written.

    Raises:
        MelError: a file is no mel that this vocoder understands.
        ConfigError: the speaker is unknown, missing, or one too many.
        OutputError, AudioError: a sound file cannot be written. Those that were finished before are there.
    """
    started, stop, lock = time.perf_counter(), threading.Event(), threading.Lock()

    def progress(frames: int) -> None:
        with lock:
            on_piece(frames)

    vocoder.speaker_condition.indices(speaker, 1)  # refused before any file is begun
    frames = [open_for(vocoder, mel).shape[1] for mel, _ in files]
    together = [[files[index] for index in group] for group in _groups(frames, vocoder, batch, jobs)]
    with ThreadPoolExecutor(jobs) as pool:
        futures = [
            pool.submit(_synthesize_group, vocoder, group, seed, speaker, float32, progress, stop) for group in together
        ]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:  # after a failure, or Ctrl-C while waiting
            stop.set()
            for future in futures:
                future.cancel()
    failures = [error for future in futures if not future.cancelled() and (error := future.exception())]
    for error in sorted(failures, key=lambda error: isinstance(error, CancelledError)):
        raise error
    clipped = sum(future.result() for future in futures)
    audio_s = sum(frames) * vocoder.mel.hop_length / vocoder.mel.sample_rate_hz
    return Timing(audio_s, time.perf_counter() - started, clipped)


def _groups(frames: Sequence[int], vocoder: Vocoder, batch: int, jobs: int) -> list[list[int]]:
    """Indices of the mels that are synthesised together: of similar length, the longest first, some for every job."""
    batch = min(batch, max(1, math.ceil(len(frames) / jobs)))
    groups: list[list[int]] = []
    for index in sorted(range(len(frames)), key=lambda index: -frames[index]):
        if groups and len(groups[-1]) < batch:
            longest = frames[groups[-1][0]]
            if _streams_together(vocoder) or longest * (len(groups[-1]) + 1) <= MOST_FRAMES:
                groups[-1].append(index)
                continue
        groups.append([index])
    return groups


def _synthesize_group(
    vocoder: Vocoder,
    files: Sequence[tuple[Path, Path]],
    seed: int,
    speaker: str | None,
    float32: bool,
    on_piece: Callable[[int], None],
    stop: threading.Event,
) -> int:
    """Write the sound of a few files; returns how many samples were beyond full scale."""
    mels = [open_for(vocoder, mel) for mel, _ in files]
    clipped, samples, hop = 0, [0] * len(files), vocoder.mel.hop_length
    with contextlib.ExitStack() as stack:
        rate = vocoder.mel.sample_rate_hz
        writers = [stack.enter_context(AudioWriter(out, rate, float32=float32)) for _, out in files]
        for pieces in _stream_together(vocoder, mels, seed, speaker):
            if stop.is_set():
                raise CancelledError  # another thread has failed; half-written files go
            for index, (writer, piece) in enumerate(zip(writers, pieces, strict=True)):
                writer.write(piece)
                clipped += _beyond_full_scale(piece)
                on_piece((samples[index] + len(piece)) // hop - samples[index] // hop)
                samples[index] += len(piece)
    return clipped


def _stream_together(
    vocoder: Vocoder, mels: Sequence[np.ndarray], seed: int, speaker: str | None, piece_frames: int | None = None
) -> Iterator[list[np.ndarray]]:
    """Pieces of the sound of each mel, which are empty after its end."""
    like, longest = next(vocoder.parameters()), max(mel.shape[1] for mel in mels)

    def frames(start: int, stop: int) -> torch.Tensor:
        """These of every mel, zeros after its end, ``[mels, n_mels, stop - start]``."""
        pieces = torch.zeros(len(mels), mels[0].shape[0], stop - start, dtype=like.dtype, device=like.device)
        for piece, mel in zip(pieces, mels, strict=True):
            # Copied, because a mapped file is read-only and its bins may lie side by side.
            real = torch.tensor(mel[:, start:stop], dtype=like.dtype, device=like.device)
            piece[:, : real.shape[1]] = real
        return pieces

    left = [mel.shape[1] * vocoder.mel.hop_length for mel in mels]

    def cut(samples: torch.Tensor) -> list[np.ndarray]:
        pieces = [item[: left[index]].cpu().numpy() for index, item in enumerate(samples)]
        left[:] = [before - len(piece) for before, piece in zip(left, pieces, strict=True)]
        return pieces

    if len(mels) > 1 and not _streams_together(vocoder):
        lengths = torch.tensor([mel.shape[1] for mel in mels], device=like.device)
        yield cut(vocoder.synthesize(frames(0, longest), lengths=lengths, seed=seed, speaker=speaker))
        return
    piece_frames = piece_frames or (NATIVE_PIECE_FRAMES if vocoder.steps_natively else PIECE_FRAMES)
    state = vocoder.initial_state(len(mels), seed=seed, speaker=speaker)
    for start in range(0, longest, piece_frames):
        samples, state = vocoder.step(frames(start, min(start + piece_frames, longest)), state)
        yield cut(samples)
    yield cut(vocoder.flush(state))


def _streams_together(vocoder: Vocoder) -> bool:
    """Whether what follows the end of a mel cannot reach its sound, so that others may go on beside it."""
    return vocoder.steps_natively and vocoder.context.right == 0 and vocoder.latency_samples == 0


def _beyond_full_scale(samples: np.ndarray) -> int:
    return int((np.abs(samples) > 1).sum())


def open_for(vocoder: Vocoder, path: Path) -> np.ndarray:
    """The mel in a file, checked: its definition field by field, or, where it states none, all that can be seen.

    Raises:
        MelError: what is wrong, where, and what to do.
    """
    if path.suffix not in MEL_SUFFIXES:
        raise MelError(f"a mel file ends in {' or '.join(MEL_SUFFIXES)}", where=path, remedy="give one of those")
    if path.suffix == ".npz":
        mel = open_mel(path, vocoder.mel)
    else:
        mel, found = load_mel(path)
        if found is not None:
            check_compatible(found, vocoder.mel, path)
    check_mel(mel, vocoder.mel, path)
    return mel


def reader_of(vocoder: Vocoder, paths: Sequence[Path]) -> Vocoder:
    """The vocoder as a reader of the definition that these mel files state; what states none is of its own.

    Raises:
        MelError: they state several, or one that the vocoder does not read.
    """
    stated = {mel_definition(path) or vocoder.mel: path for path in paths}
    if len(stated) > 1:
        (one, path), (other, where) = list(stated.items())[:2]
        differing = ", ".join(other.differences(one))
        raise MelError(
            f"differs from {path.name} in {differing}", where=where, remedy="give mels of one definition at a time"
        )
    for spec, path in stated.items():
        vocoder = vocoder.for_mel(spec, path)
    return vocoder


def find_mels(folder: Path) -> list[Path]:
    """The mel files below a folder, sorted; hidden ones are what a killed extraction left behind.

    Raises:
        MelError: there are none, or two have the same name but for the suffix, and would be one sound file.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix in MEL_SUFFIXES and not p.name.startswith("."))
    if not paths:
        raise MelError("no .npy or .npz files", where=folder, remedy="give the folder wavegen-extract wrote")
    named: dict[Path, Path] = {}
    for path in paths:
        other = named.setdefault(path.with_suffix(""), path)
        if other != path:
            raise MelError(f"{other.name} and {path.name} share a name", where=path.parent, remedy="rename one")
    return paths
