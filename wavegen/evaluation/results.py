"""Scores prepared clips and writes the results to a folder: ``scores.csv`` and the listening page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from wavegen.evaluation.metrics import METRICS
from wavegen.evaluation.scoring import REFERENCE, ScoredClip, ScoringJob, Workers, score_clip
from wavegen.evaluation.summary import Summary, as_numbers, summarize, write_scores
from wavegen.listening.report import Report, ReportClip, write_page

SCORES = "scores.csv"
Picture = tuple[Path, str]  # a PNG, and what it shows


def write_results(
    folder: Path,
    jobs: Sequence[ScoringJob],
    workers: Workers,
    *,
    systems: Sequence[str],
    metrics: Sequence[str],
    title: str,
    notes: Sequence[str],
    pictures: Mapping[str, Picture] | None = None,
) -> tuple[list[ScoredClip], Summary]:
    """Score all clips, and write ``scores.csv`` and ``index.html``.

    Args:
        folder: folder for the results.
        jobs: the clips to score.
        workers: the processes that score them.
        systems: names of all systems, in the order of the page.
        metrics: keys of the metrics that the jobs compute.
        title: title of the page.
        notes: notes that the page shows.
        pictures: clip's name -> a PNG that the page shows below its sounds, and what it shows.

    Returns:
        the scored clips, and their means with intervals.

    Raises:
        AudioError: a recording cannot be read.
        OutputError: a result cannot be written.
    """
    clips = score_all(jobs, workers)
    return clips, write_scored(
        folder, jobs, clips, systems=systems, metrics=metrics, title=title, notes=notes, pictures=pictures
    )


def score_all(jobs: Sequence[ScoringJob], workers: Workers) -> list[ScoredClip]:
    """Score all clips; raises AudioError if a recording cannot be read."""
    return workers.map(score_clip, jobs, title="scoring")


def write_scored(
    folder: Path,
    jobs: Sequence[ScoringJob],
    clips: Sequence[ScoredClip],
    *,
    systems: Sequence[str],
    metrics: Sequence[str],
    title: str,
    notes: Sequence[str],
    pictures: Mapping[str, Picture] | None = None,
) -> Summary:
    """Write ``scores.csv`` and ``index.html`` of clips that are scored already, and return their means with intervals.

    The arguments are those of ``write_results``, and the scored clips of the jobs.

    Raises:
        AudioError: a sound file cannot be read.
        OutputError: a result cannot be written.
    """
    summary = summarize(clips)
    write_scores(folder / SCORES, clips, metrics)
    report = Report(
        title=title,
        reference=REFERENCE,
        systems=systems,
        metrics={key: METRICS[key].description for key in metrics},
        clips=[_report_clip(clip, job, (pictures or {}).get(clip.name)) for clip, job in zip(clips, jobs, strict=True)],
        summary=as_numbers(summary),
        notes=notes,
    )
    write_page(report, folder)
    return summary


def _report_clip(clip: ScoredClip, job: ScoringJob, picture: Picture | None) -> ReportClip:
    readable = {system: path for system, path in job.outputs.items() if system not in clip.unreadable}
    scores = {system: system_scores.values for system, system_scores in clip.scores.items()}
    path, text = picture or (None, "")
    return ReportClip(clip.name, {REFERENCE: job.reference, **readable}, scores, clip.notes(), path, text)
