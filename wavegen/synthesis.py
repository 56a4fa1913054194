"""Mel files to sound files: one, a folder of them, or very long ones in constant memory."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from wavegen.audio import AudioWriter
from wavegen.errors import ConfigError, MelError, MissingMelError
from wavegen.mel import MelFile, MelSpec, open_mel
from wavegen.mel.recorded import RecordedMel
from wavegen.source.compiled import without_compiling
from wavegen.vocoders import Vocoder, build_vocoder
from wavegen.vocoders.source_filter import SourceFilterConfig

AnyMelFile = MelFile | RecordedMel

MEL_SUFFIXES = (".npy", ".npz")
# A vocoder that recomputes the context of every chunk needs long ones; one that does not needs chunks that are short
# enough for progress to be seen, and a live listener the first sound soon.
CHUNK_FRAMES = 2000
NATIVE_CHUNK_FRAMES = 50
LIVE_CHUNK_FRAMES = 2  # only the first chunks of a live stream: short ones cost up to 15 times the work
LIVE_GROWTH = 1.25  # a model that is 1 / 1.25 of real time or faster is never late with the next, longer chunk
MAX_BATCH_FRAMES = 20_000  # padded frames of a batch that is synthesised whole
# Seconds of sound from which on compiling, which is done once on a machine, takes less time than it saves.
SOURCE_PAYS_FROM_S = 30
ENGINE_PAYS_FROM_S = 600


class Mel(Protocol):
    """A mel ``[n_mels, frames]`` that can be read in parts: an array, a memory map or a ``MelFile``."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n_mels, frames)``."""

    def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
        """Some of its frames."""


class Sink(Protocol):
    """A destination for sound while it is synthesised: a file, a pipe, a loudspeaker."""

    def write(self, samples: np.ndarray) -> None:
        """Take the next ``[samples]``."""


@dataclass(frozen=True)
class Timing:
    """How much sound was synthesised and how long it took.

    Attributes:
        audio_s: duration of the sound.
        wall_s: duration of the synthesis.
        clipped_share: share of the samples that exceed full scale.
        first_s: time until the first sample.
    """

    audio_s: float = 0.0
    wall_s: float = 0.0
    clipped_share: float = 0.0
    first_s: float = 0.0

    @property
    def times_real_time(self) -> float:
        """Seconds of sound per second of work."""
        return self.audio_s / self.wall_s


# --- mels and vocoders, before synthesis -------------------------


def open_mels(path: Path) -> list[MelFile]:
    """Open a mel file, or all mel files below a folder, sorted by path. Their values are not read yet.

    Raises:
        MelError: ``path`` does not exist, contains no mel files, or contains two whose names differ in the suffix only
            (they would become one sound file); or a file is not a mel file.
    """
    if not path.exists():
        raise MissingMelError("no such file or folder", where=path)
    if not path.is_dir():
        if path.suffix not in MEL_SUFFIXES:
            raise MelError(f"a mel file ends in {' or '.join(MEL_SUFFIXES)}", where=path, remedy="rename or convert it")
        return [open_mel(path)]
    # Hidden files are what a killed extraction leaves behind; hidden folders have shards that are not merged.
    paths = sorted(p for p in path.rglob("*") if p.suffix in MEL_SUFFIXES and not _is_hidden(p.relative_to(path)))
    if not paths:
        raise MelError(
            "contains no .npy or .npz files", where=path, remedy="give the folder that wavegen-extract wrote"
        )
    named: dict[Path, Path] = {}
    for mel_path in paths:
        other = named.setdefault(mel_path.with_suffix(""), mel_path)
        if other != mel_path:
            raise MelError(
                f"{other.name} and {mel_path.name} would become one sound file",
                where=mel_path.parent,
                remedy="rename one",
            )
    return [open_mel(mel_path) for mel_path in paths]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


class Prepared(NamedTuple):
    """A vocoder that is ready to speak some mels.

    Attributes:
        vocoder: the vocoder, as a reader of the mels' definition.
        engine: the description of its engine.
        notes: lines for the user, such as which vocoder speaks instead.
    """

    vocoder: Vocoder
    engine: str
    notes: list[str]


def prepare(
    vocoder: Vocoder,
    mels: Sequence[AnyMelFile],
    *,
    definition: MelSpec | None = None,
    speaker: str | None = None,
    device: torch.device | None = None,
    engine: str = "auto",
    precision: str = "float32",
    options: Mapping[str, float | None] | None = None,
    substitutes: bool = False,
    checked: Sequence[AnyMelFile] | None = None,
) -> Prepared:
    """Make a vocoder ready for some mels, and check these against it, before any sound is synthesised.

    Args:
        vocoder: a loaded vocoder.
        mels: the mels that it will read.
        definition: the definition of mels that state none; by default the vocoder's own.
        speaker: the speaker that will be asked for.
        device: the device to synthesise on; by default the vocoder's preferred one.
        engine, precision: as in ``Vocoder.use_engine``.
        options: as in ``Vocoder.set_synthesis_options``.
        substitutes: whether the source-filter vocoder, which needs no training, speaks mels of a definition that the
            vocoder does not read; a note says so.
        checked: those of the mels whose values are read and checked; by default all.

    Raises:
        MelError: the mels have several definitions, one that the vocoder does not read, or impossible values.
        ConfigError: an option, the speaker or the engine is refused.
    """
    notes = []
    vocoder.speaker_condition.indices(speaker, 1)
    if definition is not None:
        vocoder, note = _reader(vocoder, definition, "--profile", substitutes)
        notes += note
    elif vocoder.reads_other_mels:
        vocoder, note = _reader(vocoder, *_stated_definition(mels, vocoder.mel), substitutes)
        notes += note
    if device is None:
        device = vocoder.preferred_device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    vocoder = vocoder.to(device)
    vocoder.set_synthesis_options(**(options or {}))
    description = _use_engine(vocoder, engine, precision, mels)
    for mel in mels if checked is None else checked:
        try:
            mel.check(vocoder.mel)
        except MelError as error:
            if vocoder.reads_other_mels and definition is None and mel.definition is None:
                error.remedy = f"name its definition with --profile, or {error.remedy}"
            raise
    if not vocoder.takes_f0 and any(mel.f0 is not None for mel in mels):
        notes.append("the mels' F0 is not used, because this vocoder has no source")
    return Prepared(vocoder, description, notes)


def _use_engine(vocoder: Vocoder, name: str, precision: str, mels: Sequence[AnyMelFile]) -> str:
    """As ``Vocoder.use_engine``; for a long job ``"auto"`` also compiles an engine that it would not wait for."""
    if name == "auto" and "numba" in vocoder.engines and _duration_s(vocoder, mels) >= ENGINE_PAYS_FROM_S:
        with contextlib.suppress(ConfigError):  # it cannot run here
            return vocoder.use_engine("numba", precision)
    return vocoder.use_engine(name, precision)


def compiling_if_it_pays(vocoder: Vocoder, mels: Sequence[AnyMelFile]) -> contextlib.AbstractContextManager[None]:
    """Within the block, synthesis of a few mels does not wait until the compiled code of a source is ready."""
    return contextlib.nullcontext() if _duration_s(vocoder, mels) >= SOURCE_PAYS_FROM_S else without_compiling()


def _duration_s(vocoder: Vocoder, mels: Sequence[AnyMelFile]) -> float:
    return sum(mel.frames for mel in mels) * vocoder.mel.hop_length / vocoder.mel.sample_rate_hz


def _reader(vocoder: Vocoder, definition: MelSpec, where: object, substitutes: bool) -> tuple[Vocoder, list[str]]:
    """The vocoder as a reader of a definition, or its substitute, with a note."""
    try:
        return vocoder.for_mel(definition, where), []
    except MelError as error:
        if not substitutes:
            raise
        substitute = build_vocoder(SourceFilterConfig(), definition).prepared_for_synthesis()
        return substitute, [f"the source-filter vocoder speaks instead: {error.what}"]


def _stated_definition(mels: Sequence[AnyMelFile], default: MelSpec) -> tuple[MelSpec, Path]:
    """The one definition that all mels state, ``default`` for those that state none, and a file that has it."""
    stated = {mel.definition or default: mel.path for mel in mels}
    (definition, path), *others = stated.items()
    if others:
        other, other_path = others[0]
        differing = ", ".join(other.differences(definition))
        raise MelError(
            f"differs from {path.name} in {differing}", where=other_path, remedy="give mels of one definition at a time"
        )
    return definition, path


# --- one mel -----------------------------------------------------


def stream(
    vocoder: Vocoder,
    mel: Mel,
    *,
    seed: int = 0,
    chunk_frames: int | None = None,
    speaker: str | None = None,
    live: bool = False,
) -> Iterator[np.ndarray]:
    """Synthesise chunk by chunk; the chunks together equal offline synthesis.

    Args:
        vocoder: prepared for synthesis, on its device.
        mel: ``[n_mels, frames]``; a file or memory map is read chunk by chunk.
        seed: seeds the noise.
        chunk_frames: frames per chunk; by default what suits the vocoder.
        speaker: a name in ``vocoder.speakers``; required if there are several.
        live: whether a vocoder that steps natively begins with short chunks, which grow to ``chunk_frames``, so that
            the sound begins soon.

    Yields:
        ``[samples]`` in the vocoder's own precision, in all ``frames * hop_length``.
    """
    return (chunks[0] for chunks in _stream_batch(vocoder, [mel], seed, speaker, chunk_frames, live=live))


def synthesize(vocoder: Vocoder, mel: Mel, *, seed: int = 0, speaker: str | None = None) -> np.ndarray:
    """Synthesise a mel ``[n_mels, frames]`` to ``[frames * hop_length]`` in the vocoder's own precision."""
    return np.concatenate(list(stream(vocoder, mel, seed=seed, speaker=speaker)))


def synthesize_into(
    sinks: Sequence[Sink],
    vocoder: Vocoder,
    mel: Mel,
    *,
    seed: int = 0,
    chunk_frames: int | None = None,
    speaker: str | None = None,
    live: bool = False,
    on_progress: Callable[[int], object] = lambda samples: None,
) -> Timing:
    """Hand the sound of a mel to each of ``sinks`` while it is synthesised; other arguments as in ``stream``.

    ``on_progress`` is called after each chunk with its number of samples.
    """
    meter = _Meter(vocoder, on_progress)
    for chunk in stream(vocoder, mel, seed=seed, chunk_frames=chunk_frames, speaker=speaker, live=live):
        for sink in sinks:
            sink.write(chunk)
        meter.add(chunk)
    return meter.timing()


# --- many mel files ----------------------------------------------


def synthesize_files(
    vocoder: Vocoder,
    files: Sequence[tuple[AnyMelFile, Path]],
    *,
    batch: int = 1,
    jobs: int = 1,
    seed: int = 0,
    speaker: str | None = None,
    float32: bool = False,
    groups: Sequence[Sequence[int]] | None = None,
    on_progress: Callable[[int], object] = lambda samples: None,
) -> Timing:
    """Synthesise mel files to sound files.

    Args:
        vocoder: prepared for synthesis.
        files: pairs of a mel, checked against ``vocoder.mel``, and its sound file (``.wav`` or ``.flac``), which
            appears when it is complete.
        batch: number of files synthesised together, in lock step if the vocoder is autoregressive.
        jobs: number of threads, each of which works on files of its own.
        seed: seeds the noise of every file.
        speaker: the speaker of all files; required if there are several.
        float32: write 32-bit float samples instead of 16-bit ones, in a ``.wav``.
        groups: indices of the files that are synthesised together; by default as ``plan_batches`` finds them.
        on_progress: called after each chunk of each file with its number of samples.

    Raises:
        ConfigError: the speaker is refused.
        MelError: a mel file has changed since it was opened.
        OutputError, AudioError: a sound file cannot be written. Files that were finished earlier stay.
    """
    vocoder.speaker_condition.indices(speaker, 1)  # refused before any file is begun
    meter = _Meter(vocoder, on_progress)
    stop = threading.Event()
    if groups is None:
        groups = plan_batches([mel.frames for mel, _ in files], vocoder, batch=batch, jobs=jobs)
    with ThreadPoolExecutor(jobs) as pool:
        futures = [
            pool.submit(_synthesize_group, vocoder, [files[i] for i in group], seed, speaker, float32, meter, stop)
            for group in groups
        ]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:  # after a failure, or Ctrl-C while waiting
            stop.set()
            for future in futures:
                future.cancel()

    # Report the failure itself, not the cancellations that followed from it.
    failures = [error for future in futures if not future.cancelled() and (error := future.exception())]
    for error in sorted(failures, key=lambda error: isinstance(error, CancelledError)):
        raise error
    return meter.timing()


def plan_batches(frames: Sequence[int], vocoder: Vocoder, *, batch: int, jobs: int) -> list[list[int]]:
    """Divide mels into batches: of similar length, the longest first, and enough of them for every job.

    Args:
        frames: length of each mel.
        vocoder: the vocoder; if it cannot go in lock step, a batch is padded and so limited in size.
        batch: largest number of mels in a batch.
        jobs: number of threads.

    Returns:
        Batches of indices into ``frames``.
    """
    batch = min(batch, max(1, math.ceil(len(frames) / jobs)))
    groups: list[list[int]] = []
    for index in sorted(range(len(frames)), key=lambda index: -frames[index]):
        if groups and len(groups[-1]) < batch:
            longest = frames[groups[-1][0]]
            if _streams_in_lock_step(vocoder) or longest * (len(groups[-1]) + 1) <= MAX_BATCH_FRAMES:
                groups[-1].append(index)
                continue
        groups.append([index])
    return groups


def _synthesize_group(
    vocoder: Vocoder,
    files: Sequence[tuple[AnyMelFile, Path]],
    seed: int,
    speaker: str | None,
    float32: bool,
    meter: "_Meter",
    stop: threading.Event,
) -> None:
    """Synthesise a few files together."""
    rate = vocoder.mel.sample_rate_hz
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(AudioWriter(out, rate, float32=float32)) for _, out in files]
        for chunks in _stream_batch(vocoder, [mel for mel, _ in files], seed, speaker):
            if stop.is_set():
                raise CancelledError  # another thread has failed; the unfinished files are removed
            for writer, chunk in zip(writers, chunks, strict=True):
                writer.write(chunk)
                meter.add(chunk)


# --- the work ----------------------------------------------------


def _stream_batch(
    vocoder: Vocoder,
    mels: Sequence[Mel],
    seed: int,
    speaker: str | None,
    chunk_frames: int | None = None,
    *,
    live: bool = False,
) -> Iterator[list[np.ndarray]]:
    """Yield the sound of a batch of mels chunk by chunk, for each mel ``[samples]``: empty after its end."""
    batch = _Batch(vocoder, mels)

    # Mels of several lengths: without lock step, zeros after a mel's end would reach its sound, so use a mask.
    if len(mels) > 1 and not _streams_in_lock_step(vocoder):
        lengths = torch.tensor(batch.frames, device=batch.like.device)
        whole = batch.read(0, batch.longest)
        f0 = batch.read_f0(0, batch.longest)
        yield batch.trim(vocoder.synthesize(whole, lengths=lengths, seed=seed, speaker=speaker, f0=f0))
        return

    # Otherwise chunk by chunk, in constant memory.
    longest = chunk_frames or (NATIVE_CHUNK_FRAMES if vocoder.steps_natively else CHUNK_FRAMES)
    first = LIVE_CHUNK_FRAMES if live and vocoder.steps_natively else longest
    state = vocoder.initial_state(len(mels), seed=seed, speaker=speaker)
    for start, stop in _chunks(batch.longest, min(first, longest), longest):
        f0 = batch.read_f0(start, stop)
        given = {} if f0 is None else {"f0": f0}
        samples, state = vocoder.step(batch.read(start, stop), state, **given)
        yield batch.trim(samples)
    yield batch.trim(vocoder.flush(state))


def _chunks(frames: int, first: int, longest: int) -> Iterator[tuple[int, int]]:
    """Start and stop of chunks that grow from ``first`` to ``longest`` frames."""
    start, length = 0, first
    while start < frames:
        stop = min(start + length, frames)
        yield start, stop
        start, length = stop, min(math.ceil(LIVE_GROWTH * length), longest)


def _streams_in_lock_step(vocoder: Vocoder) -> bool:
    """Whether frames after a mel's end cannot reach its sound, so that longer mels may go on beside it."""
    return vocoder.steps_natively and vocoder.context.right == 0 and vocoder.latency_samples == 0


class _Batch:
    """Mels of several lengths, read as padded tensors, and their sound, trimmed to these lengths."""

    def __init__(self, vocoder: Vocoder, mels: Sequence[Mel]) -> None:
        self.mels = mels
        self.like = next(vocoder.parameters())
        self.frames = [mel.shape[1] for mel in mels]
        self.f0: list[np.ndarray | None] = [getattr(mel, "f0", None) for mel in mels]
        self.follows_f0 = vocoder.takes_f0 and any(f0 is not None for f0 in self.f0)
        self.longest = max(self.frames)
        self.remaining = [frames * vocoder.mel.hop_length for frames in self.frames]

    def read(self, start: int, stop: int) -> Tensor:
        """Frames ``start`` to ``stop`` of every mel, zeros after its end, ``[mels, n_mels, stop - start]``."""
        shape = (len(self.mels), self.mels[0].shape[0], stop - start)
        chunk = torch.zeros(shape, dtype=self.like.dtype, device=self.like.device)
        for item, mel in zip(chunk, self.mels, strict=True):
            # Copy, because a memory map is read-only and may have any strides.
            frames = torch.tensor(mel[:, start:stop], dtype=self.like.dtype, device=self.like.device)
            item[:, : frames.shape[1]] = frames
        return chunk

    def read_f0(self, start: int, stop: int) -> Tensor | None:
        """F0 of these frames, ``[mels, stop - start]``, NaN for a mel that states none; None if no F0 is followed."""
        if not self.follows_f0:
            return None
        chunk = self.like.new_full((len(self.mels), stop - start), math.nan)
        for item, f0 in zip(chunk, self.f0, strict=True):
            if f0 is not None:
                given = torch.tensor(f0[start:stop])
                item[: len(given)] = given
        return chunk

    def trim(self, samples: Tensor) -> list[np.ndarray]:
        """The next samples ``[mels, samples]`` of each mel, without those after its end."""
        chunks = [item[:left].cpu().numpy() for item, left in zip(samples, self.remaining, strict=True)]
        self.remaining = [left - len(chunk) for left, chunk in zip(self.remaining, chunks, strict=True)]
        return chunks


class _Meter:
    """Counts samples while they are written, over all threads."""

    def __init__(self, vocoder: Vocoder, on_progress: Callable[[int], object]) -> None:
        self.sample_rate_hz = vocoder.mel.sample_rate_hz
        self.on_progress = on_progress
        self.lock = threading.Lock()
        self.started = time.perf_counter()
        self.first_s = 0.0
        self.samples = 0
        self.clipped = 0

    def add(self, chunk: np.ndarray) -> None:
        """Count the next ``[samples]`` of any file."""
        clipped = int((np.abs(chunk) > 1).sum())
        with self.lock:
            if self.samples == 0 and len(chunk):
                self.first_s = time.perf_counter() - self.started
            self.samples += len(chunk)
            self.clipped += clipped
            self.on_progress(len(chunk))

    def timing(self) -> Timing:
        """The figures so far."""
        wall_s = time.perf_counter() - self.started
        return Timing(self.samples / self.sample_rate_hz, wall_s, self.clipped / max(1, self.samples), self.first_s)
