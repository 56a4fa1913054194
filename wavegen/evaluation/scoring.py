"""Scores clips in parallel processes; the scores do not depend on the number of processes."""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from wavegen.audio import audio_info, read_audio
from wavegen.cores import usable_cores
from wavegen.errors import AudioError, WavegenError
from wavegen.evaluation.metrics import METRICS, Scores, score
from wavegen.mel import MelSpec
from wavegen.progress import bar_options, one_torch_thread

REFERENCE = "reference"
"""Name of the recordings among the systems, on the listening page and in file names; no system may have it."""

FEW_ITEMS = 8
"""Fewer items than this are faster without processes, which take seconds to start."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ScoringJob:
    """One clip to score.

    Attributes:
        name: name of the clip.
        reference: the recording.
        outputs: system -> sound file of the clip.
        spec: mel definition; everything is scored at its sample rate.
        metrics: keys of the metrics to compute.
    """

    name: str
    reference: Path
    outputs: Mapping[str, Path]
    spec: MelSpec
    metrics: Sequence[str]


@dataclass(frozen=True)
class ScoredClip:
    """The scores of one clip.

    Attributes:
        name: name of the clip.
        scores: system -> scores of its output. If predictors are among the metrics, the first entry is ``REFERENCE``,
            with what they say of the recording itself.
        unreadable: systems whose output cannot be read.
    """

    name: str
    scores: Mapping[str, Scores]
    unreadable: frozenset[str] = frozenset()

    def note(self, system: str) -> str:
        """Which of a system's scores are not defined, and why; metrics with the same reason are listed together."""
        by_reason: dict[str, list[str]] = {}
        for key, reason in self.scores[system].reasons.items():
            by_reason.setdefault(reason, []).append(METRICS[key].label)
        return "; ".join(f"no {', '.join(labels)}: {reason}" for reason, labels in by_reason.items())

    def notes(self) -> list[str]:
        """The notes of all systems that have one."""
        return [f"{system}: {note}" for system in self.scores if (note := self.note(system))]


def score_clip(job: ScoringJob) -> ScoredClip:
    """Read the sound files of one clip, resample them to the rate of the job's mel definition, and score them.

    Predictors also score the recording, once. An output that cannot be read has no scores, with the error as the
    reason; the other outputs are still scored.

    Raises:
        AudioError: the recording cannot be read.
    """
    rate = job.spec.sample_rate_hz
    reference = read_audio(job.reference, rate)

    scores = {}
    unreadable = set()
    predictors = [key for key in job.metrics if not METRICS[key].reads_reference]
    if predictors:
        scores[REFERENCE] = score(reference, reference, job.spec, predictors)
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
    """Processes with one torch thread each; started when first needed, and kept for all later work.

    Args:
        jobs: number of processes; by default one per core, or none for a few items.
        progress: show progress bars on stderr.
    """

    def __init__(self, jobs: int | None = None, *, progress: bool = True) -> None:
        self.jobs = jobs
        self.progress = progress
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C, start no more items

    def map(self, work: Callable[[Item], Result], items: Sequence[Item], *, title: str) -> list[Result]:
        """Apply ``work`` to each item and return the results in the order of the items.

        Args:
            work: function of a module, so that it can be sent to the processes.
            items: the work; sent to the processes too.
            title: title of the progress bar.

        Raises:
            WavegenError: raised by ``work``, or a process was killed.
        """
        jobs = min(self.jobs or (usable_cores() if len(items) >= FEW_ITEMS else 1), len(items))
        if jobs <= 1:
            with one_torch_thread():
                return self._collect(map(work, items), len(items), title)
        if self._pool is None:
            # Spawn processes: a fork of a process whose OpenMP threads have run can deadlock.
            self._pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_start_process)
        try:
            with _main_module_stays_here():
                results = self._pool.map(work, items)  # starts the processes
            return self._collect(results, len(items), title)
        except BrokenProcessPool as error:
            raise WavegenError(f"{title}: a process was killed", remedy="check the memory, or use --jobs 1") from error

    def _collect(self, results: Iterable[Result], count: int, title: str) -> list[Result]:
        return list(tqdm(results, total=count, desc=title, unit="clip", disable=not self.progress, **bar_options()))


@contextlib.contextmanager
def _main_module_stays_here() -> Iterator[None]:
    """Within the block, processes are started without the caller's script.

    A spawned process runs the main module again, to find functions that are defined there. Ours are not. A script that
    calls ``evaluate`` outside ``if __name__ == "__main__"`` would start itself over in every process.
    """
    main = sys.modules["__main__"]
    spec, path = main.__spec__, getattr(main, "__file__", None)
    main.__spec__ = None
    if path is not None:
        del main.__file__
    try:
        yield
    finally:
        main.__spec__ = spec
        if path is not None:
            main.__file__ = path


def _start_process() -> None:
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process, but only the main one handles it
