"""The sound of mels chunk by chunk, in constant memory, and how long it took."""

import functools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from wavegen.progress import one_torch_thread
from wavegen.vocoders import Vocoder

# A vocoder that recomputes the context of every chunk needs long ones; one that does not needs chunks that are short
# enough for progress to be seen, and a live listener the first sound soon.
CHUNK_FRAMES = 2000
NATIVE_CHUNK_FRAMES = 50
LIVE_CHUNK_FRAMES = 2  # only the first chunks of a live stream: short ones cost up to 15 times the work
LIVE_GROWTH = 1.25  # a model that is 1 / 1.25 of real time or faster is never late with the next, longer chunk


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
    return (chunks[0] for chunks in stream_batch(vocoder, [mel], seed, speaker, chunk_frames, live=live))


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
    meter = Meter(vocoder, on_progress)
    for chunk in stream(vocoder, mel, seed=seed, chunk_frames=chunk_frames, speaker=speaker, live=live):
        for sink in sinks:
            sink.write(chunk)
        meter.add(chunk)
    return meter.timing()


def stream_batch(
    vocoder: Vocoder,
    mels: Sequence[Mel],
    seed: int,
    speaker: str | None,
    chunk_frames: int | None = None,
    *,
    live: bool = False,
    jobs: int = 1,
) -> Iterator[list[np.ndarray]]:
    """Yield the sound of a batch of mels chunk by chunk, for each mel ``[samples]``: empty after its end.

    Torch computes a chunk in one thread: it is too small to be divided. ``jobs`` threads compute chunks at the same
    time, as far as the vocoder's state does not need their samples; these are the same for any number.
    """
    batch = _Batch(vocoder, mels)

    # Mels of several lengths: without lock step, zeros after a mel's end would reach its sound, so use a mask.
    if len(mels) > 1 and not streams_in_lock_step(vocoder):
        lengths = torch.tensor(batch.frames, device=batch.like.device)
        whole = batch.read(0, batch.longest)
        f0 = batch.read_f0(0, batch.longest)
        with one_torch_thread():
            samples = vocoder.synthesize(whole, lengths=lengths, seed=seed, speaker=speaker, f0=f0)
        yield batch.trim(samples)
        return

    # Otherwise chunk by chunk, in constant memory.
    longest = chunk_frames or (NATIVE_CHUNK_FRAMES if vocoder.steps_natively else CHUNK_FRAMES)
    first = LIVE_CHUNK_FRAMES if live and vocoder.steps_natively else longest
    state = vocoder.initial_state(len(mels), seed=seed, speaker=speaker)

    def chunks() -> Iterator[Callable[[], Tensor]]:
        nonlocal state
        for start, stop in _chunks(batch.longest, min(first, longest), longest):
            f0 = batch.read_f0(start, stop)
            given = {} if f0 is None else {"f0": f0}
            with one_torch_thread():
                samples, state = vocoder.step_later(batch.read(start, stop), state, **given)
            yield samples
        yield functools.partial(vocoder.flush, state)

    for samples in _computed(chunks(), jobs):
        yield batch.trim(samples)


def _computed(work: Iterator[Callable[[], Tensor]], jobs: int) -> Iterator[Tensor]:
    """The results of functions in their order, with up to ``jobs`` of them running at the same time."""

    def compute(function: Callable[[], Tensor]) -> Tensor:
        with one_torch_thread():
            return function()

    if jobs == 1:
        yield from map(compute, work)
        return
    running: deque[Future[Tensor]] = deque()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for function in work:
                running.append(pool.submit(compute, function))
                if len(running) > jobs:  # one more waits, so that no thread does
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:  # nobody waits for the rest after a failure, or when the listener leaves
            for future in running:
                future.cancel()


def _chunks(frames: int, first: int, longest: int) -> Iterator[tuple[int, int]]:
    """Start and stop of chunks that grow from ``first`` to ``longest`` frames."""
    start, length = 0, first
    while start < frames:
        stop = min(start + length, frames)
        yield start, stop
        start, length = stop, min(math.ceil(LIVE_GROWTH * length), longest)


def streams_in_lock_step(vocoder: Vocoder) -> bool:
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


class Meter:
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
