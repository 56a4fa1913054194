"""Scoring many clips in parallel processes; the scores do not depend on how many."""

import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from wavegen.audio import audio_info, read_audio
from wavegen.errors import AudioError, WavegenError
from wavegen.evaluation.metrics import METRICS, Scores, score
from wavegen.mel import MelSpec
from wavegen.progress import pace
from wavegen.threads import one_torch_thread

FEW = 8  # clips

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ScoringJob:
    """One clip: its recording, and each system's sound file of it."""

    name: str
    reference: Path
    outputs: Mapping[str, Path]
    spec: MelSpec
    metrics: Sequence[str]


@dataclass(frozen=True)
class ScoredClip:
    """The scores of one clip by system; ``unreadable`` are the systems whose output cannot be read."""

    name: str
    scores: Mapping[str, Scores]
    unreadable: frozenset[str] = frozenset()

    def note(self, system: str) -> str:
        """Which metrics a system has no score of, and why; one reason is said once."""
        by_reason: dict[str, list[str]] = {}
        for key, reason in self.scores[system].reasons.items():
            by_reason.setdefault(reason, []).append(METRICS[key].label)
        return "; ".join(f"no {', '.join(labels)}: {reason}" for reason, labels in by_reason.items())

    def notes(self) -> list[str]:
        """The notes of all systems that have any."""
        return [f"{system}: {note}" for system in self.scores if (note := self.note(system))]


def score_clip(job: ScoringJob) -> ScoredClip:
    """Read the sound files of one clip, resampled to the rate of the job's definition, and score them.

    An output that cannot be read whole has no scores, and the reason; it does not stop the others.

    Raises:
        AudioError: the recording cannot be read.
    """
    rate = job.spec.sample_rate_hz
    reference = read_audio(job.reference, rate)

    scores, unreadable = {}, set()
    for system, path in job.outputs.items():
        try:
            generated = read_audio(path, rate)
        except AudioError as error:
            scores[system] = Scores(dict.fromkeys(job.metrics), dict.fromkeys(job.metrics, error.what))
            unreadable.add(system)
            continue
        resampled = any(audio_info(file).sample_rate_hz != rate for file in (job.reference, path))
        scores[system] = score(reference, generated, job.spec, job.metrics, resampled=resampled)
    return ScoredClip(job.name, scores, frozenset(unreadable))


class Workers:
    """Processes with one torch thread each, started when they are first needed; the same ones for all work.

    Args:
        jobs: how many; by default one a core, or none for a few items, because starting them takes seconds.
        progress: show bars on stderr.
    """

    def __init__(self, jobs: int | None = None, *, progress: bool = True) -> None:
        self.jobs, self.progress = jobs, progress
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)  # after a mistake or Ctrl-C, what waits is not begun

    def map(self, work: Callable[[Item], Result], items: Sequence[Item], *, doing: str) -> list[Result]:
        """``work`` of each item, in their order; the results do not depend on how many processes there are.

        Args:
            work: a function of a module; it and the items travel to the processes.
            items: what to work on.
            doing: title of the bar.

        Raises:
            WavegenError: what ``work`` raises, or a process died.
        """
        jobs = min(self.jobs or ((os.cpu_count() or 1) if len(items) >= FEW else 1), len(items))
        if jobs <= 1:
            with one_torch_thread():
                return self._collect(map(work, items), len(items), doing)
        if self._pool is None:
            # Spawned: a process forked from one whose OpenMP threads have run may wait for them for ever.
            self._pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_start_process)
        try:
            return self._collect(self._pool.map(work, items), len(items), doing)
        except BrokenProcessPool as error:
            raise WavegenError(f"{doing}: a process was killed", remedy="check the memory, or use --jobs 1") from error

    def _collect(self, results: Iterable[Result], count: int, doing: str) -> list[Result]:
        return list(tqdm(results, total=count, desc=doing, unit="clip", disable=not self.progress, **pace()))


def _start_process() -> None:
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the first one answers it
