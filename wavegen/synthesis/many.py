"""Many mel files to sound files: in batches, by several threads."""

import contextlib
import functools
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from pathlib import Path

from wavegen.audio import AudioWriter
from wavegen.synthesis.preparing import AnyMelFile
from wavegen.synthesis.streaming import Meter, Timing, stream_batch, streams_in_lock_step
from wavegen.vocoders import Vocoder

MAX_BATCH_FRAMES = 20_000  # padded frames of a batch that is synthesised whole


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
        jobs: number of threads, each with one torch thread. Each works on files of its own; if there are at most half
            as many files, several compute chunks of each.
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
    meter = Meter(vocoder, on_progress)
    stop = threading.Event()
    if groups is None:
        groups = plan_batches([mel.frames for mel, _ in files], vocoder, batch=batch, jobs=jobs)
    for_each = max(1, jobs // max(1, len(groups)))
    work = functools.partial(_synthesize_group, vocoder, seed, speaker, float32, meter, stop, for_each)
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(work, [files[i] for i in group]) for group in groups]
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
            if streams_in_lock_step(vocoder) or longest * (len(groups[-1]) + 1) <= MAX_BATCH_FRAMES:
                groups[-1].append(index)
                continue
        groups.append([index])
    return groups


def _synthesize_group(
    vocoder: Vocoder,
    seed: int,
    speaker: str | None,
    float32: bool,
    meter: Meter,
    stop: threading.Event,
    jobs: int,
    files: Sequence[tuple[AnyMelFile, Path]],
) -> None:
    """Synthesise a few files together, in ``jobs`` threads."""
    rate = vocoder.mel.sample_rate_hz
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(AudioWriter(out, rate, float32=float32)) for _, out in files]
        for chunks in stream_batch(vocoder, [mel for mel, _ in files], seed, speaker, jobs=jobs):
            if stop.is_set():
                raise CancelledError  # another thread has failed; the unfinished files are removed
            for writer, chunk in zip(writers, chunks, strict=True):
                writer.write(chunk)
                meter.add(chunk)
